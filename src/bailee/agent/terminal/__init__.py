"""The agent in a terminal: what is drawn, what is asked, and the commands that begin with a slash."""

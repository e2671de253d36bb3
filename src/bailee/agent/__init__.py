"""The reference coding agent: settings, the loop, tools, the terminal, the sessions kept on this machine."""

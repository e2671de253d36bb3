"""The `survey` flow: a rating of a session, and nothing else."""

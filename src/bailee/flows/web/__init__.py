"""The `web` flow: whatever else leaves an agent's machine, through the security proxy."""

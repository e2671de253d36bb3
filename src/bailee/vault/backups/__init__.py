"""Backups: what is in them, how they are made, and how a home comes back without what was erased since."""

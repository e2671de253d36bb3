"""Envelopes, key wrapping and the type that content travels in: shared by the vault and the agent's cache."""

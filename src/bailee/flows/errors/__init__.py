"""Errors of agents: Sentry's envelopes in, by an allow-list."""

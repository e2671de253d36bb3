"""Composition: one listener, one ASGI application, the flows plugged into it."""

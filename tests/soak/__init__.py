"""The soak: a real service under load, killed at random, and what must hold after each kill.

`python -m soak` runs it at length (`make soak`); `tests/vault/test_kills.py` runs a short one with the tests.
"""

"""What an attack attacks, in its own words."""

import importlib


def tell(probe: str) -> str:
    """Return the promise that a probe attacks."""
    group, _, name = probe.partition(".")
    text: str = getattr(importlib.import_module(f"attacks.probes.{group}"), name).__doc__
    return " ".join(text.split())

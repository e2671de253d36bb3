"""A service, the upstream behind it and a key to it, ready for a test to lead."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from counterparts.agents import Agent
from counterparts.holdings import make_key
from counterparts.services import Service, serving
from counterparts.upstreams import Upstream

UPSTREAM_KEY = "the-operators-own-key"


@dataclass
class Gate:
    """What stands between an agent's socket and an upstream's."""

    service: Service
    upstream: Upstream
    home: Path
    key: str

    def connect(self, key: str | None = None) -> Agent:
        """Return a new connection of an agent, with this gate's key or another."""
        return Agent(self.service, self.key if key is None else key)


@contextlib.contextmanager
def open_gate(
    folder: Path, *options: str, changes: str = "", environment: Mapping[str, str] = {}
) -> Iterator[Gate]:
    """Start a service in front of an upstream that the test leads."""
    home = folder / "state"
    key = make_key(home)
    with Upstream() as upstream:
        options = ("--upstream", f"compatible={upstream.url}", *options)
        environment = {"BAILEE_UPSTREAM_KEY": UPSTREAM_KEY, **environment}
        with serving(home, folder, *options, environment=environment, changes=changes) as service:
            yield Gate(service, upstream, home, key)

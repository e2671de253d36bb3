"""A world for cloud sessions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from counterparts.clouds import World, open_world
from counterparts.services import serving


@pytest.fixture
def served(world: World) -> Iterator[World]:
    """Give a world in which a service is running; without one each session starts its own, in 1.5 s."""
    options = ("--upstream", "rehearsal")
    with serving(world.home, world.folder / "service", *options, environment=world.environment):
        yield world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a world; nothing of it is started yet."""
    with open_world(tmp_path) as made:
        made.bailee("secrets", "set", "GIT_CREDENTIAL", "--repo", made.url, value=made.host.accepted)
        yield made

"""A home that machines would show is refused before there is a machine."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bailee.policy.problems import Problem
from bailee.sandbox.machines import Kind
from bailee.sandbox.namespaces import check_home
from counterparts.clouds import World
from counterparts.machines import making


@dataclass
class Moved(World):
    """A world whose home lies elsewhere."""

    place: Path = field(default_factory=Path)

    @property
    def home(self) -> Path:
        """The home of the service."""
        return self.place


@pytest.fixture
def shown() -> Iterator[Path]:
    """Give a folder below one that every machine shows."""
    folder = Path(tempfile.mkdtemp(prefix="home-", dir=sys.prefix))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", [Kind.NAMESPACE, Kind.VM])
def test_a_home_that_a_machine_would_show(world: World, shown: Path, kind: Kind) -> None:
    """No session begins in it, whatever its machine, and what is said names the folders and the fix."""
    moved = Moved(world.folder, world.host, world.url, world.environment, kind, shown)
    moved.bailee("secrets", "set", "GIT_CREDENTIAL", "--repo", world.url, value=world.host.accepted)
    known, said = moved.start("x", "--agent", f"echo begun; cat {shown}/keystore/kek", status=1)
    assert known["state"] == "failed"
    assert f"the home lies below {sys.prefix}" in known["reason"]
    assert str(shown) in known["reason"]
    assert "move the home elsewhere" in known["reason"]
    assert "\nbegun" not in said


def test_what_lies_there_is_shown(shown: Path, tmp_path: Path) -> None:
    """Control: a machine that is made all the same shows it."""
    (shown / "kek").write_text("canary-of-a-home")
    with making(Kind.NAMESPACE, tmp_path) as made:
        assert made.run(f"cat {shown}/kek") == 0
        assert made.text == "canary-of-a-home"


def test_where_a_home_may_lie(tmp_path: Path, shown: Path) -> None:
    """Elsewhere, and around what is shown; not behind a link to it, nor beside the agent's program."""
    check_home(tmp_path, "")
    check_home(Path("/"), "")
    (tmp_path / "link").symlink_to(shown)
    program = tmp_path / "bin" / "agent"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for home, command in (
        (tmp_path / "link", ""),
        (program.parent / "home", str(program)),
        (Path("/opt/x"), ""),
    ):
        with pytest.raises(Problem, match="the home lies below"):
            check_home(home, command)

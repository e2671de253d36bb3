"""What the scanner of secrets in a session of our agent begins with."""

import sys
from pathlib import Path

import pytest

from bailee.agent.state import state_folder
from bailee.sandbox.machines import WORK, Kind
from bailee.service.cloud_scanner import PLACE, give_rules
from counterparts.machines import making

# Loads the rules as the masker does, and tells whether they had been compiled.
LOAD = """
import os
from kingfisher_sdk import Rules
from bailee.sealing import masking
os.umask(0o077)
print("rules:", Rules([masking._RULES], cache_dir={place!r}).cache_status)
"""


@pytest.mark.parametrize("kind", [Kind.NAMESPACE, Kind.CONTAINER])
def test_rules_are_compiled_once_on_a_home(kind: Kind, tmp_path: Path) -> None:
    """A machine's scanner finds them where it looks; the control compiles its own."""
    home = tmp_path / "home"
    home.mkdir()
    assert f"{WORK}/home/{state_folder({}).relative_to(Path.home())}/cache" == PLACE
    with making(kind, tmp_path) as made:
        give_rules(home, made.machine, kind)
        (compiled,) = (home / "cache").iterdir()
        made.machine.put("/session/load.py", LOAD.format(place=PLACE).encode())
        made.machine.put("/session/control.py", LOAD.format(place="/session/control").encode())
        assert made.run(f"{sys.executable} -P /session/load.py") == 0, made.text
        assert "rules: loaded" in made.text
        assert made.run(f"mkdir -m 700 /session/control; {sys.executable} -P /session/control.py") == 0
        assert "rules: loaded" not in made.text
        was = compiled.stat().st_mtime_ns
        give_rules(home, made.machine, kind)
        assert compiled.stat().st_mtime_ns == was

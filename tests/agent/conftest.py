"""What tests of the agent share."""

import shutil
from pathlib import Path

import pytest

from bailee.sealing.masking import open_masker


@pytest.fixture(scope="session")
def scanner_rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled rules of the masker, 6 s to make: to be copied, for the scanner follows no link."""
    folder = tmp_path_factory.mktemp("rules")
    open_masker(folder)
    return folder


@pytest.fixture
def state(tmp_path: Path, scanner_rules: Path) -> Path:
    """Give the folder of the agent's state, with what takes it seconds to make."""
    (state := tmp_path / "state").mkdir(mode=0o700)
    shutil.copytree(scanner_rules, state / "cache")
    return state

"""What tests of the agent share."""

from pathlib import Path

import pytest

from bailee.sealing.masking import open_masker


@pytest.fixture(scope="session")
def scanner_rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled rules of the masker, 6 s to make: to be copied, for the scanner follows no link."""
    folder = tmp_path_factory.mktemp("rules")
    open_masker(folder)
    return folder

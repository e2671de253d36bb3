"""One gate for all tests of a module; a test that harms its service opens one of its own."""

from collections.abc import Iterator

import pytest

from counterparts.gates import Gate, open_gate


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """Give a service in front of an upstream that the test leads."""
    with open_gate(tmp_path_factory.mktemp("gate")) as opened:
        yield opened

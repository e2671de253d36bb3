"""Each test that asks for a `database` runs twice: with SQLite files, and with PostgreSQL."""

import os
from collections.abc import Iterator

import hypothesis
import pytest

from bailee.database.locations import VARIABLE
from counterparts.databases import Server, draw_name, sharing_server

# What a test takes is not its subject, and a busy machine takes its time.
hypothesis.settings.register_profile("bailee", deadline=None)
hypothesis.settings.load_profile("bailee")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let tests that look into SQLite's files, marked `sqlite`, run with SQLite only."""
    if "database" in metafunc.fixturenames:
        only_files = metafunc.definition.get_closest_marker("sqlite")
        kinds = ["sqlite"] if only_files else ["sqlite", "postgresql"]
        metafunc.parametrize("database", kinds, indirect=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """Give a PostgreSQL server, the same to all tests of the run."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "") or str(os.getpid())
    with sharing_server(run) as server:
        yield server


@pytest.fixture(scope="session")
def home_name(postgresql: Server) -> Iterator[str]:
    """Give the name of databases that one test after another may have, each of them empty."""
    name = draw_name()
    yield name
    postgresql.drop(name)


@pytest.fixture(autouse=True)
def _own_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is set around the tests out of them."""
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Say, in the environment, where the databases of the test's home are: "sqlite" or "postgresql"."""
    kind: str = request.param
    if kind == "sqlite":
        yield kind
        return
    server: Server = request.getfixturevalue("postgresql")
    name: str = request.getfixturevalue("home_name")
    monkeypatch.setenv(VARIABLE, server.url(name))
    yield kind
    server.empty(name)

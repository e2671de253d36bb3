"""A world for cloud sessions."""

import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme

from bailee.boundary.declarations import NPM_DEFAULT
from bailee.flows.update.indexes import DEFAULT_INDEX
from counterparts.clouds import CACHE, World, has_ended
from counterparts.git_hosts import run_git_host
from counterparts.projects import CALCULATOR, TEST
from counterparts.services import clean_environment, serving
from counterparts.waiting import wait_for

# Told, so that no session asks the package managers for them, which takes each 0.3 s of a core.
INDEXES = {"PIP_INDEX_URL": DEFAULT_INDEX, "NPM_CONFIG_REGISTRY": NPM_DEFAULT}


@pytest.fixture
def served(world: World) -> Iterator[World]:
    """Give a world in which a service is running; without one each session starts its own, in 1.5 s."""
    options = ("--upstream", "rehearsal")
    with serving(world.home, world.folder / "service", *options, environment=world.environment):
        yield world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a world; nothing of it is started yet."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    for host in run_git_host(tmp_path / "host", tls):
        url = host.add("app", {"calculator.py": CALCULATOR, "test_calculator.py": TEST})
        host.add("other", {"SECRET": "of another repository\n"})
        environment = clean_environment(
            tmp_path,
            SSL_CERT_FILE=str(tmp_path / "authority.pem"),
            XDG_CACHE_HOME=str(CACHE),
            OPERATORS_SECRET="canary-of-the-operator-0001",
            **INDEXES,
        )
        made = World(tmp_path, host, url, environment)
        made.bailee("secrets", "set", "GIT_CREDENTIAL", "--repo", url, value=host.accepted)
        yield made
        wait_for("the end of all drivers", partial(has_ended, made))

"""What a service puts in for a repository: what was kept for that one and its scheme, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bailee.accounts import secrets
from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.holders import Operator
from bailee.flows.git.access import Access, Attached
from bailee.flows.git.upstreams import Credential
from bailee.policy.problems import Problem
from bailee.sealing.wrapping import KeyWrapper
from bailee.service.repositories import find_credential
from bailee.service.secrets import keep
from bailee.vault.store import open_keys

RUNNER = Operator("runner", -1)
PLACE = "git.example/acme/app.git"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[tuple[Directory, KeyWrapper]]:
    """Give where secrets are kept, and what seals them."""
    directory, keys = open_directory(tmp_path / "home"), open_keys(tmp_path / "home")
    yield directory, keys.wrapper
    directory.close()
    keys.close()


def put(home: tuple[Directory, KeyWrapper], url: str | None, name: str = secrets.GIT_CREDENTIAL) -> None:
    """Keep a credential for the default account."""
    owner = home[0].ensure_default().id
    keep(*home, "a-token", owner=owner, name=name, repository=url, hosts=(), is_exposed=False, by=RUNNER)


def find(home: tuple[Directory, KeyWrapper], url: str) -> object:
    """Return what opens a repository for a session of the default account."""
    return find_credential(*home, Access("one", home[0].ensure_default().id), Attached(url))


@pytest.mark.parametrize(("kept", "other"), [("https", "http"), ("http", "https")])
def test_a_credential_is_for_a_scheme(home: tuple[Directory, KeyWrapper], kept: str, other: str) -> None:
    """What is kept for https goes out over https alone, and so for http; not to another repository."""
    put(home, f"{kept}://{PLACE}")
    assert find(home, f"{kept}://{PLACE}") == Credential("a-token")  # Control
    assert find(home, f"{other}://{PLACE}") is None
    assert find(home, f"{kept}://git.example:8443/acme/app.git") is None
    assert find(home, f"{kept}://git.example/acme/app/x.git") is None


@pytest.mark.parametrize("name", sorted(secrets.KEPT_OUTSIDE))
def test_a_credential_for_all_is_refused(home: tuple[Directory, KeyWrapper], name: str) -> None:
    """It would go to any host that an order names; the problem says what to type."""
    with pytest.raises(Problem) as refused:
        put(home, None, name)
    assert f"bailee secrets set {name} --repo URL" in refused.value.fix
    assert secrets.list_secrets(home[0]) == []


def test_one_that_is_kept_for_all_is_not_sent(
    home: tuple[Directory, KeyWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier version kept for all repositories opens none; with that rule off it does (control)."""
    with monkeypatch.context() as earlier:
        earlier.setattr(secrets, "KEPT_OUTSIDE", frozenset())
        owner = home[0].ensure_default().id
        secrets.keep_secret(*home, "a-token", owner=owner, name=secrets.GIT_CREDENTIAL, by=RUNNER)
        assert find(home, f"https://{PLACE}") == Credential("a-token")
    assert find(home, f"https://{PLACE}") is None

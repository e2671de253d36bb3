"""Tokens of a GitHub App: how they are made, what they may, how long they are held."""

import time
from functools import partial
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import bailee.flows.git.github.installations as installations
from bailee.flows.git.github.apps import App, read_app, write_app, write_proof
from bailee.policy.problems import Problem
from counterparts.git_hosts import git
from counterparts.waiting import wait_for

from .conftest import Hub

PEM = serialization.PrivateFormat.TraditionalOpenSSL


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """Give an App's key."""
    return rsa.generate_private_key(65537, 2048)


def write_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """Return a key as GitHub gives it out."""
    return key.private_bytes(serialization.Encoding.PEM, PEM, serialization.NoEncryption()).decode()


@pytest.fixture
def app_hub(hub: Hub, key: rsa.RSAPrivateKey) -> Hub:
    """Give a session whose repository is opened by an App."""
    hub.api.apps["12345"] = key.public_key()
    hub.world.secret = None
    hub.world.app = read_app(write_app(f"12345:67890\n{write_pem(key)}", where="x"), where="x")
    return hub


def test_a_token_for_one_repository(app_hub: Hub, tmp_path: Path) -> None:
    """One token, for the repository and what a session does there, serves Git and the API."""
    assert app_hub.rest("GET", "/repos/acme/app").status_code == 200
    app_hub.world.clone(tmp_path / "work", "acme/app")
    assert (tmp_path / "work" / "README.md").exists()
    assert len(app_hub.api.minted) == 1
    (token,) = app_hub.api.minted
    assert app_hub.api.minted[token].repositories == ["app"]
    assert app_hub.api.minted[token].permissions == {
        "contents": "write",
        "metadata": "read",
        "pull_requests": "write",
    }
    assert app_hub.api.asked[-1] == ("GET", "/api/v3/repos/acme/app", f"Bearer {token}")
    kept = "".join(
        path.read_text(errors="replace") for path in (tmp_path / "work/.git").rglob("*") if path.is_file()
    )
    assert app_hub.world.token in kept  # Control: what the session has would be found.
    assert token not in kept


def test_the_host_is_strict(app_hub: Hub, key: rsa.RSAPrivateKey) -> None:
    """Control: another key's proof gets no token, and the session is told what to look at."""
    app_hub.api.apps["12345"] = rsa.generate_private_key(65537, 2048).public_key()
    answer = app_hub.rest("GET", "/repos/acme/app")
    assert answer.status_code == 503
    assert "gets no token" in answer.json()["message"]
    assert app_hub.api.minted == {}
    assert "12345" in git("ls-remote", app_hub.world.remote("acme/app"), check=False)


def test_a_token_that_ends_soon_is_made_anew(app_hub: Hub) -> None:
    """A token is used until ten minutes before it ends."""
    app_hub.api.seconds = 300
    for _ in range(2):
        assert app_hub.rest("GET", "/repos/acme/app").status_code == 200
    assert len(app_hub.api.minted) == 2


def test_it_is_revoked_with_its_session(app_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a session has nothing granted any more its token is revoked at the host."""
    assert app_hub.rest("GET", "/repos/acme/app").status_code == 200
    (token,) = app_hub.api.minted
    assert not app_hub.api.minted[token].is_revoked  # Control
    app_hub.world.is_open = False
    wait_for("the revocation", lambda: app_hub.api.minted[token].is_revoked or None)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "bailee.flows.git.credentials.Installations", partial(installations.Installations, look_seconds=0.05)
    )


def test_a_proof(key: rsa.RSAPrivateKey) -> None:
    """It is signed with RS256, good for ten minutes at most and not from the future, and says which App."""
    now = time.time()
    app = read_app(write_app(f"Iv1.abc:67890\n{write_pem(key)}", where="x"), where="x")
    claims = jwt.decode(write_proof(app, now), key.public_key(), algorithms=["RS256"])
    assert claims["iss"] == "Iv1.abc"
    assert claims["iat"] <= now - 30
    assert claims["exp"] - claims["iat"] <= 600


def test_one_line_is_kept(key: rsa.RSAPrivateKey) -> None:
    """What is kept is one line, which is taken again as it is, and shows no key where it is shown."""
    line = write_app(f" 12345:67890 \n{write_pem(key)}\n", where="x")
    assert "\n" not in line
    assert write_app(line, where="x") == line
    assert repr(read_app(line, where="x")) == "App('12345', '67890')"


@pytest.mark.parametrize(
    "text", ["", "12345", "12345:67890", "12345:67890:!!", "12345:67890\nno key", "a b:1:eA=="]
)
def test_what_is_no_app(text: str) -> None:
    """What cannot be used is told at once."""
    with pytest.raises(Problem, match="no GitHub App"):
        write_app(text, where="GITHUB_APP")


def test_a_key_of_another_kind() -> None:
    """GitHub's keys are RSA."""
    pem = write_pem(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(Problem, match="no GitHub App"):
        write_app(f"1:2\n{pem}", where="GITHUB_APP")
    assert isinstance(App("1", "2", b"x"), App)

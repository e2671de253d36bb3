"""GitHub's API from inside a machine: the real curl and GitHub's own command, through the security proxy."""

import ssl
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from counterparts.clouds import World, has_ended
from counterparts.git_hosts import run_git_host
from counterparts.github_api import GitHubApi
from counterparts.proxies import serving_proxy
from counterparts.services import clean_environment
from counterparts.waiting import wait_for

URL = "https://github.com/acme/app.git"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[World, GitHubApi]]:
    """Give a world in which github.com and api.github.com are on the loopback interface, behind a proxy."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("github.com", "api.github.com").configure_cert(tls)
    for host in run_git_host(tmp_path / "host", tls):
        host.add("acme/app", {"README.md": "hello\n"})
        host.add("acme/other", {"SECRET": "not yours\n"})
        port = int(host.url.rpartition(":")[2])
        with serving_proxy({"github.com:443": port, "api.github.com:443": port}) as (proxy, _):
            environment = clean_environment(
                tmp_path,
                SSL_CERT_FILE=str(tmp_path / "authority.pem"),
                HTTPS_PROXY=proxy,
                OPERATORS_SECRET="canary-of-the-operator-0001",
            )
            made = World(tmp_path, host, URL, environment)
            made.bailee("secrets", "set", "GIT_CREDENTIAL", "--repo", URL, value=host.accepted)
            yield made, GitHubApi(host)
            wait_for("the end of all drivers", partial(has_ended, made))


WORK = """
git commit -q --allow-empty -m x && git push -q origin HEAD
gh pr create -R "$GH_REPO" --head "$BAILEE_BRANCH" --base main --title t --body b; echo "made: $?"
gh pr list; echo "listed: $?"
gh pr view 1; echo "viewed: $?"
gh pr comment 1 --body x; echo "commented: $?"
gh pr edit 1 --title other; echo "edited: $?"
gh api repos/acme/app --jq .full_name
gh auth status; echo "known: $?"
"""
WRONG = """
gh api -X PUT repos/acme/app/pulls/1/merge; echo "merged: $?"
gh release create v1 --notes x; echo "released: $?"
gh repo view acme/other; echo "viewed: $?"
gh search repos x; echo "searched: $?"
curl -sS "$GITHUB_API_URL/repos/acme/other"; echo
curl -sS -X DELETE -H "Authorization: Bearer $GH_TOKEN" "$GITHUB_API_URL/repos/acme/app"; echo
curl -sS --path-as-is "$GITHUB_API_URL/repos/acme/app/%2e%2e/other"; echo
curl -sS http://api.github.com/repos/acme/app; echo
env; git config --list
"""


def test_the_real_command(hub: tuple[World, GitHubApi]) -> None:
    """GitHub's own command opens a pull request, lists, shows, comments and edits it; the receipt has it all.

    A secret that is bound to the same host takes no way around the rule: it is not put in.
    """
    world, api = hub
    world.bailee(
        "secrets", "set", "GH_TOKEN", "--host", "api.github.com", value="ghp_somebodys-own-token-0002"
    )
    known, said = world.start("x", "--agent", WORK)
    for word in ("made", "listed", "viewed", "commented", "edited", "known"):
        assert f"{word}: 0" in said, said
    assert [one for one, _ in api.done] == ["createPullRequest", "addComment", "updatePullRequest"]
    assert api.pulls["acme/app"][0]["head"]["ref"] == known["branch"]
    assert {told for _, _, told in api.asked} == {f"Bearer {world.host.accepted}"}
    receipt = known["receipt"]
    assert receipt["boundary"]["counts"]["verdict"] == "agreed"
    used = {one["host"]: one for one in receipt["boundary"]["used"]}
    assert used["api.github.com"]["flow"] == "git"
    flows = {flow["flow"]: flow for flow in receipt["flows"]}
    assert flows["git"]["exchanges"] >= len(api.asked)


def test_what_is_refused(hub: tuple[World, GitHubApi]) -> None:
    """It is refused in words that GitHub's command shows, nothing is done, and no credential is found."""
    world, api = hub
    api.add_pull("acme/app", "bailee/x")
    _, said = world.start("x", "--agent", WRONG, "--branch", "bailee/x")
    for word in ("merged", "released", "viewed", "searched"):
        assert f"{word}: 1" in said, said
    assert "HTTP 403: Bailee: " in said
    assert "github.com/acme/other is not attached to this session" in said
    assert "GH_TOKEN=proxy-injected" in said
    assert api.done == []
    assert api.asked == []
    assert world.host.accepted not in said
    assert world.environment["OPERATORS_SECRET"] not in said


def test_without_the_lead_there_is_no_api(hub: tuple[World, GitHubApi]) -> None:
    """Control: a host that is not the repository's is refused by the security proxy, whatever it answers."""
    world, api = hub
    _, said = world.start(
        "x", "--agent", "curl -sS https://api.ghe.com/x; curl -sS https://github.com/x; true"
    )
    assert said.count("curl: (56)") == 2, said
    assert api.asked == []


def test_a_github_app(hub: tuple[World, GitHubApi]) -> None:
    """With an App Git and the API go by one token for one repository, which is revoked at the end."""
    world, api = hub
    key = rsa.generate_private_key(65537, 2048)
    api.apps["12345"] = key.public_key()
    form = (serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    pem = key.private_bytes(serialization.Encoding.PEM, *form).decode()
    world.bailee("secrets", "remove", "GIT_CREDENTIAL", "--repo", URL)
    world.bailee("secrets", "set", "GITHUB_APP", "--repo", URL, value=f"12345:67890\n{pem}")
    known, said = world.start("x", "--agent", f"{WORK}\nenv")
    assert "made: 0" in said, said
    assert known["state"] == "done"
    ((token, minted),) = api.minted.items()
    assert minted.repositories == ["app"]
    assert minted.is_revoked
    assert token not in said
    assert "GITHUB_APP" not in said
    assert {told for _, path, told in api.asked if "installation" not in path} == {f"Bearer {token}"}


def test_an_app_is_kept_outside(hub: tuple[World, GitHubApi]) -> None:
    """No one has an App shown to a machine, and what is none is refused when it is set."""
    world, _ = hub
    for words in (("--expose",), ("--host", "api.github.com")):
        world.bailee(
            "secrets", "set", "GITHUB_APP", "--repo", URL, *words, value="12345:67890:eA==", status=2
        )
    assert "no GitHub App" in world.bailee(
        "secrets", "set", "GITHUB_APP", "--repo", URL, value="12345", status=2
    )

"""Secrets as people give them, checked for what each is: a repository's credential, an app, or a token."""

from collections.abc import Sequence

from bailee.accounts.directory import Directory
from bailee.accounts.holders import Operator
from bailee.accounts.secrets import GITHUB_APP, KEPT_OUTSIDE, keep_secret
from bailee.policy.problems import Problem
from bailee.sealing.wrapping import KeyWrapper


def keep(
    directory: Directory,
    wrapper: KeyWrapper,
    value: str,
    *,
    owner: str,
    name: str,
    repository: str | None,
    hosts: Sequence[str],
    is_exposed: bool,
    by: Operator,
) -> None:
    """Keep a secret, in the place of the one of that name before.

    Args:
        owner: an account's id, or what `accounts.secrets.owner_of_organization` says.
        repository: its URL; None or empty for all, which no Git credential is for.

    Raises:
        Problem: nobody may have it, or name, value, repository or host cannot be meant.
    """
    check_reach(name, hosts, repository=repository, is_exposed=is_exposed)
    if name == GITHUB_APP:
        from bailee.flows.git.github.apps import write_app

        value = write_app(value, where=name)
    keep_secret(
        directory,
        wrapper,
        value,
        owner=owner,
        name=name,
        repository=read_repository(repository),
        hosts=hosts,
        is_exposed=is_exposed,
        by=by,
    )


def check_reach(name: str, hosts: Sequence[str], *, repository: str | None, is_exposed: bool) -> None:
    """Check who may have a secret, before anybody is asked for its value.

    Raises:
        Problem: nobody may, both ways are named, a Git credential is for no repository, or a host cannot be
            meant.
    """
    if name in KEPT_OUTSIDE and not repository:
        raise Problem(
            "a Git credential is for one repository",
            where=name,
            fix=f"say which: bailee secrets set {name} --repo URL",
        )
    if name not in KEPT_OUTSIDE and not hosts and not is_exposed:
        raise Problem("nobody may have this secret", where=name, fix="give --host HOST, or --expose")
    if hosts and is_exposed:
        raise Problem("a secret is bound to hosts, or exposed", where=name, fix="give --host or --expose")
    for host in hosts:
        _check_host(host)


def read_repository(url: str | None) -> str:
    """Return what is kept for a repository's URL is kept under; empty for all.

    Raises:
        Problem: it is no such URL.
    """
    from bailee.flows.git.access import check_url, scope_of

    return scope_of(check_url(url, where="--repo")) if url else ""


def _check_host(host: str) -> None:
    from bailee.flows.web.rules import read_rule

    if "/" in host or "*" in host:
        raise Problem(f"{host!r} is no host", where="--host", fix="write a name: registry.npmjs.org")
    read_rule(host, "--host")

"""`bailee secrets`: what sessions work with and never see."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.accesses import this_operator
from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.accounts.directory import Directory

with_owner = click.option("--account", help="Whose it is; the only account, or `me`, if left out.")
with_organization = click.option("--organization", help="Of an organization, for all its members.")
with_repository = click.option(
    "--repo", metavar="URL", help="For this repository, by this scheme; for all if left out."
)


@click.group()
def secrets() -> None:
    """Keep credentials for sessions: sealed here, never in a session's machine.

    GIT_CREDENTIAL opens a repository at its host: a token, or user:password. It goes to the repository of
    --repo alone, which it needs, by that scheme; the service puts it in. GITHUB_APP is a GitHub App in its
    place: a line APP_ID:INSTALLATION_ID, and below it the private key that GitHub gave out. Sessions work
    with tokens of it, for one repository and an hour.

    Any other secret goes to the hosts it is bound to: a session sees a placeholder, which the security proxy
    replaces on the way to them. With --expose a session gets the value itself.
    """


@secrets.command(name="set", epilog="Exit codes: 0 kept, 2 refused.")
@with_owner
@with_organization
@with_repository
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="May have it, over TLS.")
@click.option("--expose", is_flag=True, help="Give sessions the value, as a variable of this name.")
@with_home
@click.argument("name")
def set_(
    account: str | None,
    organization: str | None,
    repo: str | None,
    hosts: tuple[str, ...],
    expose: bool,
    home: Path,
    name: str,
) -> None:
    """Keep a secret. Its value is read from standard input, or asked for; never from the command line.

    \b
    Examples:
      bailee secrets set GIT_CREDENTIAL --repo https://github.com/acme/app < token
      (echo 12345:67890; cat app.private-key.pem) | bailee secrets set GITHUB_APP --repo URL
      bailee secrets set NPM_TOKEN --host registry.npmjs.org
    """
    from bailee.accounts.directory import open_directory
    from bailee.service.secrets import check_reach, keep
    from bailee.vault.store import open_keys

    check_reach(name, hosts, repository=repo, is_exposed=expose)
    value = click.prompt(name, hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read().strip()
    directory, keys = open_directory(home), open_keys(home)
    try:
        keep(
            directory,
            keys.wrapper,
            value,
            owner=_find_owner(directory, account, organization),
            name=name,
            repository=repo,
            hosts=hosts,
            is_exposed=expose,
            by=this_operator(),
        )
    finally:
        directory.close()
        keys.close()
    click.echo(f"{name} is kept.", err=True)


@secrets.command(name="list")
@with_home
@with_json
def list_(home: Path, as_json: bool) -> None:
    """List what is kept, without any value."""
    from bailee.accounts.directory import open_directory
    from bailee.accounts.secrets import list_secrets
    from bailee.moments import tell_minute

    directory = open_directory(home)
    try:
        found = list_secrets(directory)
        names = {one.id: one.name for one in directory.all()}
    finally:
        directory.close()
    if as_json:
        echo_json(found)
        return
    rows = []
    for one in found:
        goes = "sessions, as it is" if one.is_exposed else " ".join(one.hosts) or "the repository's host"
        owner = names.get(one.owner, one.owner)
        rows.append(
            (one.name, owner, one.repository or "all", goes, tell_minute(one.changed_ms), one.changed_by)
        )
    echo_table(
        ("name", "owner", "repository", "goes to", "changed", "by"),
        rows,
        empty="No secret is kept. Keep one: bailee secrets set NAME",
    )


@secrets.command()
@with_owner
@with_organization
@with_repository
@with_home
@click.argument("name")
def remove(account: str | None, organization: str | None, repo: str | None, home: Path, name: str) -> None:
    """Remove a secret."""
    from bailee.accounts.directory import open_directory
    from bailee.accounts.secrets import remove_secret
    from bailee.service.secrets import read_repository

    directory = open_directory(home)
    try:
        owner = _find_owner(directory, account, organization)
        repository = read_repository(repo)
        remove_secret(directory, owner=owner, name=name, repository=repository, by=this_operator())
    finally:
        directory.close()
    click.echo(f"{name} is removed.", err=True)


def _find_owner(directory: "Directory", account: str | None, organization: str | None) -> str:
    from bailee.accounts.secrets import owner_of_organization

    if organization is not None:
        if account is not None:
            raise Problem(
                "two owners are named", where="--organization", fix="give --account or --organization"
            )
        if not any(one.organization == organization for one in directory.all()):
            raise Problem(
                f"there is no organization {organization!r}",
                where="--organization",
                fix="see: bailee accounts list",
            )
        return owner_of_organization(organization)
    return (directory.get(account) if account else directory.ensure_default()).id

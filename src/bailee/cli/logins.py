"""`bailee logins`: agents that ask to be let in to an account, and the account holder's word on it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.characters import make_visible
from bailee.cli.accesses import this_operator
from bailee.cli.erasures import require_confirmation
from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.moments import tell_minute

if TYPE_CHECKING:
    from bailee.accounts.logins import Login


@click.group()
def logins() -> None:
    """Approve, deny and list the logins of agents."""


@logins.command(name="list")
@with_home
@with_json
def list_(home: Path, as_json: bool) -> None:
    """List the logins that wait, or were decided in the last ten minutes.

    Their codes are not shown: they are on the screen where the login was begun, and whoever approves one has
    it from there. The machine's name is what it calls itself.
    """
    from bailee.accounts.directory import open_directory
    from bailee.accounts.logins import list_logins

    directory = open_directory(home)
    found = list_logins(directory)
    directory.close()
    if as_json:
        echo_json([describe_login(login) for login in found])
        return
    rows = [
        (
            login.id,
            login.client,
            login.label or "-",
            login.address,
            tell_minute(login.created_ms),
            tell_minute(login.expires_ms),
            login.state.value,
        )
        for login in found
    ]
    heads = ("ID", "CLIENT", "MACHINE", "FROM", "ASKED (UTC)", "UNTIL (UTC)", "STATE")
    echo_table(heads, rows, empty="No login waits. An agent begins one: bailee login --service URL")


@logins.command()
@click.argument("code")
@click.option("--account", required=True, help="The account that the agent is let in to.")
@click.option("--yes", is_flag=True, help="Do not ask: what asks is known to be yours.")
@with_home
@with_json
def approve(code: str, account: str, yes: bool, home: Path, as_json: bool) -> None:
    """Let the agent that shows CODE log in to an account.

    Only the account holder approves it, as the user whose account it is or with a key in BAILEE_KEY that
    proves it (`bailee keys create`). What the agent gets is a key for model traffic: it proves nobody, opens
    no content and allows no training. `bailee logout`, or `bailee keys revoke`, ends it.

    Approve a login only if you began it, and see its code on the screen of your own machine: what that agent
    sends and receives is held as yours, and somebody else's agent would work in your name.
    """
    from bailee.accounts.choices import require_holder
    from bailee.accounts.logins import approve_login, find_waiting
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    directory, approver = custody.directory, this_operator()
    try:
        holder = require_holder(directory, account, approver)
        login = find_waiting(directory, code, by=holder.id)
        click.echo(tell_login(login), err=True)
        require_confirmation(f"Let it log in to {holder.name}, plan {holder.plan}", yes=yes)
        approve_login(directory, login, holder, by=approver.name)
    finally:
        custody.settle()
        custody.close()
    if as_json:
        echo_json({**describe_login(login), "state": "approved", "account": holder.name})
    else:
        click.echo(f"Approved: the agent logs in to {holder.name} within seconds. Its key: bailee keys list")


@logins.command()
@click.argument("code")
@with_home
@with_json
def deny(code: str, home: Path, as_json: bool) -> None:
    """Refuse the login that shows CODE: nothing is asked, and the agent is told."""
    from bailee.accounts.directory import open_directory
    from bailee.accounts.logins import deny_login, find_waiting

    directory = open_directory(home)
    login = find_waiting(directory, code)
    deny_login(directory, login, by=this_operator().name)
    directory.close()
    if as_json:
        echo_json({**describe_login(login), "state": "denied"})
    else:
        click.echo(f"Denied: {tell_login(login)}")


def tell_login(login: "Login") -> str:
    """Say what asks: client, machine, when, from where."""
    machine = f", on a machine that calls itself {login.label!r}" if login.label else ""
    moment = tell_minute(login.created_ms)
    return make_visible(f"{login.client}{machine}, from {login.address or '?'}, asked at {moment} UTC")


def describe_login(login: "Login") -> dict[str, object]:
    """Return a login by its facts; accounts are known by name elsewhere."""
    import msgspec

    facts: dict[str, object] = msgspec.to_builtins(login)
    facts.pop("account")
    return facts

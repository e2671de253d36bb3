"""`bailee privacy`: an account holder's own choice."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.characters import make_visible
from bailee.cli.accesses import this_operator
from bailee.cli.erasures import require_confirmation
from bailee.cli.keys import describe_key, tell_maker
from bailee.cli.options import echo_json, with_home, with_json
from bailee.moments import tell_minute
from bailee.policy.consents import REFUSABLE
from bailee.sizes import tell_count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bailee.accounts.people import Account, Change
    from bailee.policy.flows import FlowId
    from bailee.policy.periods import Period
    from bailee.vault.custody import Custody

_TAKEN = {True: "taken", False: "refused"}


@click.group()
def privacy() -> None:
    """An account holder's own choices: training, what is taken at all, and how long records are held."""


@privacy.command()
@click.argument("choice", type=click.Choice(["on", "off"]))
@click.option("--account", required=True, help="The account holder.")
@with_home
@with_json
def training(choice: str, account: str, home: Path, as_json: bool) -> None:
    """Allow or end the use of conversations to train models.

    Only the account holder allows it, as the user whose account it is or with a key in BAILEE_KEY that proves
    it (`bailee keys create`); whoever runs this may end it, and the ledger says who did.

    Consumer plans only. Switched on it holds for what is said from now on; switched off it holds at once for
    what is held already as well: its time is shortened, and it is in no dataset that is built later. What is
    in one already: `bailee dataset withdraw`.
    """
    from bailee.accounts.choices import choose_training
    from bailee.vault.custody import open_custody
    from bailee.vault.tightening import bring_into_force

    custody = open_custody(home)
    try:
        change = choose_training(custody.directory, account, this_operator(), given=choice == "on")
    finally:
        custody.settle()
    changed = bring_into_force(custody, [custody.directory.get(account)])
    if as_json:
        echo_json({**_facts(change), "segments_tightened": changed})
    else:
        was = "on" if change.was else "off"
        click.echo(f"Training is {choice} for {account} (it was {was}).{tell_tightened(changed)}")


with_flows = click.argument("flow", type=click.Choice([*(one.value for one in REFUSABLE), "all"]))


@privacy.command()
@with_flows
@click.option("--account", required=True, help="The account holder.")
@with_home
@with_json
def refuse(flow: str, account: str, home: Path, as_json: bool) -> None:
    """Have nothing more of FLOW taken of an account, whatever an agent sends.

    The service refuses it from the next request on, and our own agent does not send it. What is held already
    goes on its day, or with `bailee sessions erase`. Whoever runs this may refuse for an account holder, and
    the ledger says who did.
    """
    _choose_flows(flow, account, home, as_json, refused=True)


@privacy.command()
@with_flows
@click.option("--account", required=True, help="The account holder.")
@with_home
@with_json
def accept(flow: str, account: str, home: Path, as_json: bool) -> None:
    """Let FLOW be taken again, as far as nothing else stops it.

    Only the account holder, as the user whose account it is or with a key in BAILEE_KEY that proves it.
    """
    _choose_flows(flow, account, home, as_json, refused=False)


def _choose_flows(flow: str, account: str, home: Path, as_json: bool, *, refused: bool) -> None:
    import msgspec

    from bailee.accounts.choices import choose_flow
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    try:
        changes = [
            choose_flow(custody.directory, account, this_operator(), one, refused=refused)
            for one in select_flows(flow)
        ]
    finally:
        custody.settle()
    if as_json:
        echo_json(msgspec.to_builtins(changes))
    else:
        echo_flows(changes, account)


def select_flows(flow: str) -> "tuple[FlowId, ...]":
    """Return the flows that a word names: one, or `all`."""
    return tuple(one for one in REFUSABLE if flow in (one, "all"))


def echo_flows(changes: "Iterable[Change]", whose: str) -> None:
    """Say which flows are refused or accepted now."""
    for change in changes:
        now, was = (_TAKEN[not refused] for refused in (change.given, change.was))
        click.echo(f"{change.kind.removeprefix('no_')} of {whose}: {now} (it was {was}).")


@privacy.command()
@click.argument("period")
@click.option("--account", required=True, help="The account holder.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_home
@with_json
def retention(period: str, account: str, yes: bool, home: Path, as_json: bool) -> None:
    """Have records held no longer than PERIOD, such as 7d or none; `unlimited` takes the wish back.

    A shorter time holds at once for what is held already; a longer one, never beyond the plan's own, for what
    is said from now on. Only the account holder lengthens it, as for training. What is older than a shorter
    time goes before this returns, after a question.
    """
    from bailee.accounts.choices import choose_retention
    from bailee.policy.periods import Period
    from bailee.vault.custody import open_custody
    from bailee.vault.tightening import bring_into_force

    custody = open_custody(home)
    limit = Period.parse(period, where="PERIOD")
    confirm_shortening(custody, [custody.directory.get(account)], limit, yes=yes)
    try:
        choose_retention(custody.directory, account, this_operator(), limit)
    finally:
        custody.settle()
    changed = bring_into_force(custody, [custody.directory.get(account)])
    if as_json:
        echo_json({"account": account, "retention": str(limit), "segments_tightened": changed})
    else:
        click.echo(f"Records of {account} are held at most {limit}.{tell_tightened(changed)}")


@privacy.command()
@click.option("--account", required=True, help="The account holder.")
@with_home
@with_json
def show(account: str, home: Path, as_json: bool) -> None:
    """Show what is in force, what keys there are, and who but the account holder read content."""
    from bailee.accounts.directory import open_directory
    from bailee.accounts.keys import list_keys

    directory = open_directory(home)
    found = directory.get(account)
    accesses = directory.list_accesses(found.id)
    made = [key for key in list_keys(directory) if key.account == found.name]
    if as_json:
        facts: dict[str, object] = {"account": found.name, "plan": found.plan}
        facts |= {"training": found.training, "zdr": found.zdr}
        limit = str(found.retention) if found.retention else None
        keys = [describe_key(key) for key in made]
        facts |= {"refuses": found.refuses, "organization_refuses": found.organization_refuses}
        echo_json({**facts, "retention": limit, "keys": keys, "accesses": accesses})
        return
    click.echo(f"{found.name}, plan {found.plan}: training {'on' if found.training else 'off'}.")
    if found.retention:
        click.echo(f"Records are held at most {found.retention}.")
    if found.refuses:
        click.echo(f"Nothing is taken of: {', '.join(found.refuses)}.")
    if found.organization_refuses:
        click.echo(f"Its organization lets nothing be taken of: {', '.join(found.organization_refuses)}.")
    if found.organization:
        click.echo(f"Its organization decides the rest: bailee org show {found.organization}")
    ended = [key for key in made if key.origin == "run" and key.revoked_ms]
    for key in made:
        if key in ended:
            continue
        state = ", revoked" if key.revoked_ms else ""
        label = f" ({key.label})" if key.label else ""
        moment = tell_minute(key.created_ms)
        click.echo(make_visible(f"{moment} UTC: key {key.id}{label}{state}: {tell_maker(key)}"))
    if ended:
        click.echo(f"{tell_count(len(ended), 'key')} of runs that have ended: bailee keys list --all")
    for access in accesses:
        what = f"session {access.session}" if access.session else "all sessions"
        moment = tell_minute(access.at_ms)
        click.echo(
            make_visible(f"{moment} UTC: {access.reader} read {what} ({access.purpose}): {access.reason}")
        )


def confirm_shortening(custody: "Custody", accounts: "list[Account]", limit: "Period", *, yes: bool) -> None:
    """Ask before a shorter time lets go of what is held already.

    Raises:
        Problem: nobody is there to be asked.
    """
    from bailee.vault.ceilings import count_outlived

    with custody.vault.connect() as connection:
        ids = [account.id for account in accounts]
        count = count_outlived(connection, ids, limit, custody.today())
    if count:
        what = tell_count(count, "segment")
        require_confirmation(f"{what} that are older than {limit} will be erased. Go on", yes=yes)


def tell_tightened(changed: int) -> str:
    """Say what a change meant for what was held already."""
    return f" {tell_count(changed, 'segment')} held already came under stricter terms." if changed else ""


def _facts(change: object) -> dict[str, object]:
    import msgspec

    facts: dict[str, object] = msgspec.to_builtins(change)
    return facts

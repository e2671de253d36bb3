"""`bailee org`: what an organization's admin decides."""

from pathlib import Path

import click

from bailee.cli.accesses import this_operator
from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.cli.privacy import (
    confirm_shortening,
    echo_flows,
    select_flows,
    tell_tightened,
    with_flows,
)
from bailee.policy.problems import Problem
from bailee.sizes import tell_count


@click.group()
def org() -> None:
    """An organization's members, zero data retention, partner program, what is taken at all.

    Whoever decides proves to be that admin, as the user whose account it is or with a key in BAILEE_KEY that
    proves it (`bailee keys create`).
    """


@org.command()
@click.argument("choice", type=click.Choice(["on", "off"]))
@click.option("--org", "organization", required=True, help="The organization.")
@click.option("--as", "admin", required=True, metavar="ADMIN", help="The admin who decides.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_home
@with_json
def zdr(choice: str, organization: str, admin: str, yes: bool, home: Path, as_json: bool) -> None:
    """Switch zero data retention: nothing of a conversation is kept.

    It is in force only where the upstream retains nothing either; elsewhere requests are refused. Switched on
    it holds at once for what is held already as well: all of it is erased, after a question (--yes answers).
    """
    if choice == "on" and not yes:
        _confirm_emptying(organization, admin, home)
    _decide("zdr", choice, organization, admin, home, as_json)


@org.command()
@click.argument("choice", type=click.Choice(["on", "off"]))
@click.option("--org", "organization", required=True, help="The organization.")
@click.option("--as", "admin", required=True, metavar="ADMIN", help="The admin who decides.")
@with_home
@with_json
def dpp(choice: str, organization: str, admin: str, home: Path, as_json: bool) -> None:
    """Join or leave the development partner program: conversations may train models.

    Plans team, enterprise and api, on the first-party API: to join, a service whose upstream is the Claude
    API has to be running, and what goes through another upstream never trains by it. Joining holds for what
    is said from now on; leaving holds at once for what is held already as well.
    """
    _decide("dpp", choice, organization, admin, home, as_json)


@org.command()
@click.argument("period")
@click.option("--org", "organization", required=True, help="The organization.")
@click.option("--as", "admin", required=True, metavar="ADMIN", help="The admin who decides.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_home
@with_json
def retention(period: str, organization: str, admin: str, yes: bool, home: Path, as_json: bool) -> None:
    """Have the members' records held no longer than PERIOD, such as 7d; `unlimited` takes the wish back.

    What is older goes before this returns, after a question.
    """
    from bailee.accounts.choices import RETENTION, require_admin
    from bailee.accounts.tables import Role
    from bailee.policy.periods import Period
    from bailee.vault.custody import open_custody
    from bailee.vault.tightening import bring_into_force

    custody = open_custody(home)
    limit = Period.parse(period, where="PERIOD")
    try:
        require_admin(custody.directory, admin, this_operator(), RETENTION, given=True)
        person = custody.directory.get(admin)
        if (person.organization, person.role) == (organization, Role.ADMIN):  # any other is refused below
            confirm_shortening(custody, custody.directory.members(organization), limit, yes=yes)
        custody.directory.limit_organization(organization, limit, by=admin)
    finally:
        custody.settle()
    changed = bring_into_force(custody, custody.directory.members(organization))
    if as_json:
        echo_json({"organization": organization, "retention": str(limit), "segments_tightened": changed})
    else:
        click.echo(f"Records of {organization} are held at most {limit}.{tell_tightened(changed)}")


@org.command()
@with_flows
@click.option("--org", "organization", required=True, help="The organization.")
@click.option("--as", "admin", required=True, metavar="ADMIN", help="The admin who decides.")
@with_home
@with_json
def refuse(flow: str, organization: str, admin: str, home: Path, as_json: bool) -> None:
    """Have nothing more of FLOW taken of any member, whatever their agents send.

    What is held already goes on its day.
    """
    _choose_flows(flow, organization, admin, home, as_json, refused=True)


@org.command()
@with_flows
@click.option("--org", "organization", required=True, help="The organization.")
@click.option("--as", "admin", required=True, metavar="ADMIN", help="The admin who decides.")
@with_home
@with_json
def accept(flow: str, organization: str, admin: str, home: Path, as_json: bool) -> None:
    """Let FLOW be taken of the members again, as far as they and nothing else stop it."""
    _choose_flows(flow, organization, admin, home, as_json, refused=False)


def _choose_flows(
    flow: str, organization: str, admin: str, home: Path, as_json: bool, *, refused: bool
) -> None:
    import msgspec

    from bailee.accounts.choices import require_admin
    from bailee.accounts.people import Kind
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    changes = []
    try:
        for one in select_flows(flow):
            kind = Kind.refusing(one)
            require_admin(custody.directory, admin, this_operator(), kind, given=refused)
            changes.append(
                custody.directory.decide_for_organization(organization, kind, given=refused, by=admin)
            )
    finally:
        custody.settle()
    if as_json:
        echo_json(msgspec.to_builtins(changes))
    else:
        echo_flows(changes, organization)


@org.command()
@click.argument("organization")
@with_home
@with_json
def show(organization: str, home: Path, as_json: bool) -> None:
    """Show an organization's members and what is in force."""
    from bailee.accounts.directory import open_directory

    members = open_directory(home).members(organization)
    first = members[0]
    if as_json:
        people = [{"name": member.name, "plan": member.plan, "role": member.role} for member in members]
        limit = str(first.organization_retention) if first.organization_retention else None
        facts: dict[str, object] = {
            "organization": organization,
            "zdr": first.zdr,
            "dpp": first.dpp,
            "retention": limit,
        }
        facts["refuses"] = list(first.organization_refuses)
        echo_json({**facts, "members": people})
        return
    rows = [(member.name, member.plan.value, str(member.role)) for member in members]
    echo_table(("MEMBER", "PLAN", "ROLE"), rows, empty="")
    switched = {True: "on", False: "off"}
    click.echo(f"zero data retention {switched[first.zdr]}, partner program {switched[first.dpp]}")
    if first.organization_refuses:
        click.echo(f"Nothing is taken of: {', '.join(first.organization_refuses)}.")
    if first.organization_retention:
        click.echo(f"Records are held at most {first.organization_retention}.")


def _confirm_emptying(organization: str, admin: str, home: Path) -> None:
    """Ask before zero data retention erases what an organization holds.

    Nothing held, nothing asked; nor is one asked who may not decide, and is refused anyway.

    Raises:
        Problem: nobody is there to be asked.
    """
    import sys

    from bailee.accounts.holders import is_holder
    from bailee.accounts.tables import Role
    from bailee.vault.custody import open_custody
    from bailee.vault.erasure import count_account

    custody = open_custody(home)
    person = custody.directory.get(admin)
    is_admin = (person.organization, person.role) == (organization, Role.ADMIN)
    if not (is_admin and is_holder(custody.directory.engine, person.id, this_operator())):
        return
    members = custody.directory.members(organization)
    held = sum(count_account(custody.vault, member.id).segments for member in members)
    if not held:
        return
    if not sys.stdin.isatty():
        raise Problem(
            f"{tell_count(held, 'segment')} of {organization} would be erased, and nobody can be asked",
            where="--yes",
            fix="confirm with --yes",
        )
    click.confirm(
        f"{tell_count(held, 'segment')} that {organization} holds will be erased. Go on", abort=True, err=True
    )


def _decide(kind: str, choice: str, organization: str, admin: str, home: Path, as_json: bool) -> None:
    import msgspec

    from bailee.accounts.choices import require_admin
    from bailee.accounts.people import Kind
    from bailee.policy.plans import Provider
    from bailee.service.running import find_running
    from bailee.vault.custody import open_custody
    from bailee.vault.tightening import bring_into_force

    running = find_running(home)
    # Any other upstream, and none, is a place of which nobody has said whose terms hold there.
    provider = Provider(running.upstream) if running and running.upstream in set(Provider) else None
    custody = open_custody(home)
    try:
        require_admin(custody.directory, admin, this_operator(), kind, given=choice == "on")
        change = custody.directory.decide_for_organization(
            organization, Kind(kind), given=choice == "on", by=admin, provider=provider
        )
    finally:
        custody.settle()
    changed = bring_into_force(custody, custody.directory.members(organization))
    if as_json:
        echo_json({**msgspec.to_builtins(change), "segments_tightened": changed})
    else:
        name = {"zdr": "Zero data retention", "dpp": "The development partner program"}[kind]
        was = "on" if change.was else "off"
        click.echo(f"{name} is {choice} for {organization} (it was {was}).{tell_tightened(changed)}")

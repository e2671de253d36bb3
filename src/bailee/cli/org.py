"""`bailee org`: what an organization's admin decides."""

from pathlib import Path

import click

from bailee.cli.options import echo_json, echo_table, with_home, with_json


@click.group()
def org() -> None:
    """An organization's members, zero data retention, partner program."""


@org.command()
@click.argument("choice", type=click.Choice(["on", "off"]))
@click.option("--org", "organization", required=True, help="The organization.")
@click.option("--as", "admin", required=True, metavar="ADMIN", help="The admin who decides.")
@with_home
@with_json
def zdr(choice: str, organization: str, admin: str, home: Path, as_json: bool) -> None:
    """Switch zero data retention: nothing of a conversation is kept from now on.

    It is in force only where the upstream retains nothing either; elsewhere requests are refused. What
    is already held keeps the terms it was written under.
    """
    _decide("zdr", choice, organization, admin, home, as_json)


@org.command()
@click.argument("choice", type=click.Choice(["on", "off"]))
@click.option("--org", "organization", required=True, help="The organization.")
@click.option("--as", "admin", required=True, metavar="ADMIN", help="The admin who decides.")
@with_home
@with_json
def dpp(choice: str, organization: str, admin: str, home: Path, as_json: bool) -> None:
    """Join or leave the development partner program: conversations may train models.

    Plans team, enterprise and api, on the first-party API. It holds for what is said from now on.
    """
    _decide("dpp", choice, organization, admin, home, as_json)


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
        echo_json({"organization": organization, "zdr": first.zdr, "dpp": first.dpp, "members": people})
        return
    rows = [(member.name, member.plan.value, str(member.role)) for member in members]
    echo_table(("MEMBER", "PLAN", "ROLE"), rows, empty="")
    switched = {True: "on", False: "off"}
    click.echo(f"zero data retention {switched[first.zdr]}, partner program {switched[first.dpp]}")


def _decide(kind: str, choice: str, organization: str, admin: str, home: Path, as_json: bool) -> None:
    from bailee.accounts.directory import Kind, open_directory
    from bailee.policy.plans import Provider
    from bailee.service.running import find_running

    running = find_running(home)
    known = running is not None and running.upstream in set(Provider)
    provider = Provider(running.upstream) if running and known else Provider.ANTHROPIC
    change = open_directory(home).decide_for_organization(
        organization, Kind(kind), given=choice == "on", by=admin, provider=provider
    )
    if as_json:
        echo_json(change)
    else:
        name = {"zdr": "Zero data retention", "dpp": "The development partner program"}[kind]
        click.echo(
            f"{name} is {choice} for {organization} from now on (it was {'on' if change.was else 'off'})."
        )

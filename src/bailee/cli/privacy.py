"""`bailee privacy`: an account holder's own choice."""

from pathlib import Path

import click

from bailee.cli.options import echo_json, with_home, with_json


@click.group()
def privacy() -> None:
    """An account holder's own consent to training."""


@privacy.command()
@click.argument("choice", type=click.Choice(["on", "off"]))
@click.option("--account", required=True, help="The account holder.")
@with_home
@with_json
def training(choice: str, account: str, home: Path, as_json: bool) -> None:
    """Allow or end the use of conversations to train models.

    Consumer plans only. It holds for what is said from now on; what is already held keeps the terms
    it was written under.
    """
    from bailee.accounts.directory import open_directory

    change = open_directory(home).consent(account, given=choice == "on")
    if as_json:
        echo_json(change)
    else:
        was = "on" if change.was else "off"
        click.echo(f"Training is {choice} for {account} from now on (it was {was}).")


@privacy.command()
@click.option("--account", required=True, help="The account holder.")
@with_home
@with_json
def show(account: str, home: Path, as_json: bool) -> None:
    """Show what is in force."""
    from bailee.accounts.directory import open_directory

    found = open_directory(home).get(account)
    if as_json:
        echo_json({"account": found.name, "plan": found.plan, "training": found.training, "zdr": found.zdr})
    else:
        click.echo(f"{found.name}, plan {found.plan}: training {'on' if found.training else 'off'}.")
        if found.organization:
            click.echo(f"Its organization decides the rest: bailee org show {found.organization}")

"""`bailee console`: who signs in to the web console of a service, and how."""

import sys
from pathlib import Path

import click

from bailee.characters import make_visible
from bailee.cli.accesses import this_operator
from bailee.cli.options import echo_json, with_home, with_json
from bailee.policy.problems import Problem


@click.group()
def console() -> None:
    """Links that sign in once, passwords and passkeys of account holders, and who else is an operator.

    Whoever runs the service is its operator. An account holder signs in with a password of their own: it
    proves them as a key does (`bailee keys create`), and it is ledgered who set it.
    """


@console.command()
@with_home
@with_json
def link(home: Path, as_json: bool) -> None:
    """Print a link that signs one browser in, once and within ten minutes: you, and as operator.

    A service has to run on this home. The link is to whoever opens it first: pass it on to nobody.
    """
    import os

    from bailee.accounts.directory import open_directory
    from bailee.accounts.operators import find_account_of_user
    from bailee.accounts.sign_ins import make_link
    from bailee.service.console import make_link_url
    from bailee.service.running import find_running

    running = find_running(home)
    if running is None:
        raise Problem("no service runs on this home", where=str(home), fix="start it: bailee up")
    directory = open_directory(home)
    account = find_account_of_user(directory, os.getuid())
    url = make_link_url(running.url, make_link(directory, account=account, user=this_operator().name))
    directory.close()
    if as_json:
        echo_json({"url": url})
    else:
        click.echo(url)


@console.command()
@click.argument("account")
@click.option(
    "--for-holder",
    is_flag=True,
    help="It is handed over to the account holder, who has no proof yet. They see who set it.",
)
@click.option("--remove", is_flag=True, help="Take the password away; whoever is signed in is signed out.")
@with_home
def password(account: str, for_holder: bool, remove: bool, home: Path) -> None:
    """Set the password of ACCOUNT: read from standard input, or asked for; never from the command line.

    Only the account holder sets it, as the user whose account it is or with a key in BAILEE_KEY that proves
    it; the first one of a holder who has no proof may be handed over to them. Whoever runs this may take it
    away. Both are ledgered.
    """
    from bailee.accounts.passwords import set_password, take_password
    from bailee.vault.custody import open_custody

    if remove and for_holder:
        raise click.UsageError("--remove sets no password, so that none is handed over")
    custody = open_custody(home)
    try:
        if remove:
            take_password(custody.directory, account, this_operator())
        else:
            given = _read_password()
            set_password(custody.directory, account, this_operator(), given, for_holder=for_holder)
    finally:
        custody.settle()
        custody.close()
    click.echo(f"The password of {account} is {'gone' if remove else 'set'}.", err=True)


@console.command()
@click.argument("account")
@click.option("--remove", is_flag=True, help="Take all of them away; whoever is signed in is signed out.")
@with_home
@with_json
def passkeys(account: str, remove: bool, home: Path, as_json: bool) -> None:
    """List the passkeys of ACCOUNT, or take them away, as where a device is lost. It is ledgered.

    Only the account holder adds one, in the console.
    """
    from bailee.accounts.passkeys import list_passkeys, take_passkeys
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    try:
        if remove:
            take_passkeys(custody.directory, account, this_operator())
        found = list_passkeys(custody.directory, custody.directory.get(account).id)
    finally:
        custody.settle()
        custody.close()
    if as_json:
        echo_json([{"name": one.name, "host": one.host, "used_ms": one.used_ms} for one in found])
    for one in [] if as_json else found:
        click.echo(f"{make_visible(one.name)}  {one.host}")
    if remove:
        click.echo(f"The passkeys of {account} are gone.", err=True)


@console.command()
@click.argument("account")
@click.argument("choice", type=click.Choice(["on", "off"]))
@with_home
def operator(account: str, choice: str, home: Path) -> None:
    """Make the holder of ACCOUNT an operator of the service, or end it. It is ledgered.

    An operator sees how the service does, what agents were refused, and reports, with a reason that the
    account holder is shown. Of conversations they see no content.
    """
    from bailee.accounts.operators import appoint_operator
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    try:
        changed = appoint_operator(custody.directory, account, given=choice == "on", by=this_operator().name)
    finally:
        custody.settle()
        custody.close()
    state = "an operator" if choice == "on" else "no operator"
    click.echo(f"{account} is {state}{'' if changed else ' already'}.", err=True)


def _read_password() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\n")

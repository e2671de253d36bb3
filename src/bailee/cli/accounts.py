"""`bailee accounts`: whose data is held."""

from contextlib import closing
from pathlib import Path

import click

from bailee.cli.accesses import admit, operator, this_operator, with_access
from bailee.cli.erasures import (
    confirm_erasure,
    let_go_locally,
    tell_count_of,
    tell_erasure,
    with_erasure,
    with_local,
)
from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.cli.progress import draw_progress
from bailee.cli.proofs import claiming
from bailee.policy.plans import Plan
from bailee.sizes import tell_count, tell_size


@click.group()
def accounts() -> None:
    """Add and list the accounts whose data is held."""


@accounts.command()
@click.argument("name")
@click.option("--plan", required=True, type=click.Choice([plan.value for plan in Plan]), help="Its plan.")
@click.option("--org", "organization", help="Its organization; a commercial plan's own name if left out.")
@click.option("--role", type=click.Choice(["admin", "member"]), help="Its role in the organization.")
@click.option(
    "--retention", metavar="PERIOD", help="Hold its records no longer than this, such as 7d or none."
)
@with_home
@with_json
def add(
    name: str,
    plan: str,
    organization: str | None,
    role: str | None,
    retention: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Add an account.

    The first account of an organization is its admin. It takes the proof of one, as `bailee org` does, to
    add another admin. An account named `me` is that of the user who adds it.
    """
    import os

    from bailee.accounts.choices import require_appointment
    from bailee.accounts.directory import DEFAULT_NAME, open_directory
    from bailee.accounts.tables import Role
    from bailee.policy.periods import Period

    if role == Role.ADMIN and organization is not None:
        from bailee.vault.custody import open_custody

        with closing(open_custody(home)) as custody:
            try:
                require_appointment(custody.directory, organization, this_operator())
            finally:
                custody.settle()
    account = open_directory(home).add(
        name,
        Plan(plan),
        organization=organization,
        role=Role(role) if role else None,
        user_id=os.getuid() if name == DEFAULT_NAME else None,
        retention=Period.parse(retention, where="--retention") if retention is not None else None,
    )
    if as_json:
        echo_json(_describe(account))
    else:
        place = f" in {account.organization} ({account.role})" if account.organization else ""
        limit = f", records held at most {account.retention}" if account.retention else ""
        click.echo(f"Added {account.name}, plan {account.plan}{place}{limit}.")
        if account.name != DEFAULT_NAME:
            click.echo(
                "It is its holder's, who alone approves logins of it. To prove it they are handed\n"
                "a password for the console or a key:\n"
                f"  bailee console password {account.name} --for-holder\n"
                f"  bailee keys create --account {account.name} --for-holder",
                err=True,
            )


@accounts.command(name="list")
@with_home
@with_json
def list_(home: Path, as_json: bool) -> None:
    """List the accounts and what is in force for them."""
    from bailee.accounts.directory import open_directory

    found = open_directory(home).all()
    if as_json:
        echo_json([_describe(account) for account in found])
        return
    rows = [
        (
            account.name,
            account.plan.value,
            account.organization or "-",
            (account.role.value if account.role else "-") + (", suspended" if account.is_suspended else ""),
            "on" if account.training else "off",
            "on" if account.dpp else "off",
            "on" if account.zdr else "off",
            str(account.retention or "-"),
        )
        for account in found
    ]
    heads = ("NAME", "PLAN", "ORGANIZATION", "ROLE", "TRAINING", "DPP", "ZDR", "LIMIT")
    echo_table(heads, rows, empty="No accounts yet. Add one: bailee accounts add NAME --plan PLAN")


@accounts.command()
@click.argument("name")
@with_local
@with_erasure
@with_home
@with_json
def erase(
    name: str,
    dry_run: bool,
    yes: bool,
    and_local: bool,
    receipt: Path | None,
    home: Path,
    as_json: bool,
) -> None:
    """Erase an account: all that is held of it, its keys, its consents, and the account itself.

    With --json the receipt itself is printed: it proves the erasure offline (`bailee ledger verify RECEIPT`).
    """
    from bailee.service.cloud_disks import receipt_of, remove_of_account
    from bailee.vault.custody import open_custody
    from bailee.vault.erasure import count_account, refuse_held
    from bailee.vault.reader import list_sessions

    custody = open_custody(home)
    account = custody.directory.get(name)
    refuse_held(custody.vault, account.id, None)
    counted = count_account(custody.vault, account.id)
    what = f"account {name}"
    held = [session.id for session in list_sessions(custody.vault, account=account.id, flow=None)]
    if dry_run:
        tell_count_of(what, counted, as_json=as_json)
        let_go_locally(held, is_asked=and_local, dry_run=True)
        return
    with claiming(receipt):
        confirm_erasure(what, counted, yes=yes)
        erased, proof = custody.erase_account(account, by=operator())
    tell_erasure(what, erased, proof, receipt, as_json=as_json)
    for id, _ in remove_of_account(home, name, by="the erasure of its account"):
        click.echo(f"Cloud session {id} is gone with its disk. Receipt: {receipt_of(home, id)}", err=True)
    let_go_locally(held, is_asked=and_local)
    custody.close()


@accounts.command()
@click.argument("name")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="A new or empty folder."
)
@with_access
@with_home
@with_json
def export(name: str, out: Path, reason: str | None, home: Path, as_json: bool) -> None:
    """Write everything held about an account into a folder, readable, with its terms.

    One JSON Lines file per kind, and a README.txt that says what they hold. Interrupted, it goes on when it
    is run again. Whoever is not the account holder gives a reason, which is ledgered and shown to the account
    holder; what is erased or expires later is taken out of such an export. One that the account holder makes
    is theirs, and stays as it is.
    """
    from bailee.flows.messages.conversations import read_text
    from bailee.vault.copies.registry import Maker
    from bailee.vault.custody import open_custody
    from bailee.vault.exports import export_account

    custody = open_custody(home)
    account = custody.directory.get(name)
    is_holder = admit(custody, account.id, None, purpose="export", reason=reason)
    maker = Maker(operator(), is_holder)
    with draw_progress("Exporting") as progress:
        done = export_account(custody, account, out, read_text=read_text, maker=maker, report=progress)
    custody.close()
    click.echo(
        "This export is yours: it stays as it is when what is held is erased. See: bailee copies list"
        if is_holder
        else "What is erased or expires is taken out of this export while it lies here: bailee copies list",
        err=True,
    )
    if as_json:
        echo_json({"account": name, "out": str(out), "lines": done.lines, "bytes": done.bytes})
        return
    sessions, exchanges = done.lines["sessions"], done.lines["exchanges"]
    click.echo(
        f"Exported {name}: {tell_count(sessions, 'session')}, {tell_count(exchanges, 'exchange')}, "
        f"{tell_size(done.bytes)}. See {out / 'README.txt'}"
    )


def _describe(account: object) -> dict[str, object]:
    from bailee.accounts.people import Account

    assert isinstance(account, Account)
    return {
        "name": account.name,
        "plan": account.plan,
        "organization": account.organization,
        "role": account.role,
        "suspended": account.is_suspended,
        "training": account.training,
        "dpp": account.dpp,
        "zdr": account.zdr,
        "retention": str(account.retention) if account.retention else None,
    }

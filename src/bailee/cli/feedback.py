"""`bailee feedback`: the reports that people sent with `/bug`, and what was made of them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.accesses import admit, operator, with_access
from bailee.cli.erasures import confirm_erasure, tell_count_of, tell_erasure, with_erasure
from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.cli.proofs import claiming, write_proof
from bailee.moments import tell_minute
from bailee.policy.problems import Problem
from bailee.sizes import tell_count, tell_size

if TYPE_CHECKING:
    from bailee.flows.feedback.storage import HeldReport
    from bailee.vault.custody import Custody


@click.group()
def feedback() -> None:
    """Reports sent with /bug: list, read, triage, withdraw. `undo` is for whoever sent one."""


@feedback.command(name="list")
@click.option("--account", help="Only this account's.")
@click.option("--all", "is_all", is_flag=True, help="Closed ones as well.")
@with_home
@with_json
def list_(account: str | None, is_all: bool, home: Path, as_json: bool) -> None:
    """List the reports that are open, the latest first, by their facts."""
    from bailee.flows.feedback.storage import Triage, list_reports
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    names = _names(custody, account)
    found = list_reports(custody.vault, names, today=custody.today())
    shown = [report for report in found if is_all or report.state is Triage.OPEN]
    if as_json:
        echo_json([_describe(report, names) for report in shown])
        return
    rows = [
        (
            report.id,
            names[report.account],
            tell_minute(report.sent_ms),
            tell_size(report.bytes),
            report.state.value,
            report.expires_on.isoformat() if report.expires_on else "-",
            report.note or "-",
        )
        for report in shown
    ]
    heads = ("REPORT", "ACCOUNT", "SENT (UTC)", "SIZE", "STATE", "UNTIL", "NOTE")
    empty = "No reports are held." if is_all or not found else "No report is open. All of them: --all"
    echo_table(heads, rows, empty=empty)


@feedback.command()
@click.argument("report")
@click.option("--account", help="Whose report.")
@click.option("--facts", is_flag=True, help="Leave the content sealed; show the facts only.")
@with_access
@with_home
@with_json
def show(
    report: str, account: str | None, facts: bool, reason: str | None, home: Path, as_json: bool
) -> None:
    """Show a report: what it says, as it was shown to whoever sent it.

    The beginning of an id will do. Whoever is not the account holder gives a reason, which is ledgered and
    shown to the account holder.
    """
    from bailee.flows.feedback.reports import tell_report
    from bailee.flows.feedback.storage import read_report
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    names = _names(custody, account)
    found = _find(custody, names, report)
    content = None
    if not facts:
        admit(custody, found.account, found.id, purpose="show", reason=reason)
        content = read_report(custody, found.account, found.id)
    if as_json:
        import msgspec

        told = None if content is None else msgspec.to_builtins(content)
        echo_json({**_describe(found, names), "content": told})
        return
    for line in _tell(found, names):
        click.echo(line)
    if content is not None:
        click.echo()
        for line in tell_report(content):
            click.echo(line)


@feedback.command()
@click.argument("report")
@click.option("--note", default="", help="A line on what was made of it.")
@with_home
@with_json
def close(report: str, note: str, home: Path, as_json: bool) -> None:
    """Say that nothing more is to be done about a report. It stays until its time is over."""
    _triage(home, report, "closed", note, as_json=as_json)


@feedback.command()
@click.argument("report")
@click.option("--note", default="", help="A line on why.")
@with_home
@with_json
def reopen(report: str, note: str, home: Path, as_json: bool) -> None:
    """Say that something is to be done about a report after all."""
    _triage(home, report, "open", note, as_json=as_json)


@feedback.command()
@click.argument("report")
@click.option("--account", help="Whose report.")
@with_erasure
@with_home
@with_json
def withdraw(
    report: str,
    account: str | None,
    dry_run: bool,
    yes: bool,
    receipt: Path | None,
    home: Path,
    as_json: bool,
) -> None:
    """Erase a report: destroy its keys, so that no copy of the vault opens, then remove it.

    Its id is given in full. The conversation that it was sent from is another thing: bailee sessions erase.
    With --json the receipt itself is printed: it proves the erasure offline (`bailee ledger verify RECEIPT`).
    """
    from bailee.vault.custody import open_custody
    from bailee.vault.erasure import count_session, refuse_held

    custody = open_custody(home)
    found = _find(custody, _names(custody, account), report, is_exact=True)
    refuse_held(custody.vault, found.account, found.id)
    counted = count_session(custody.vault, found.account, found.id)
    what = f"report {found.id}"
    if dry_run:
        tell_count_of(what, counted, as_json=as_json)
        return
    with claiming(receipt):
        confirm_erasure(what, counted, yes=yes)
        erased, proof = custody.erase_session(found.account, found.id, by=operator())
    tell_erasure(what, erased, proof, receipt, as_json=as_json)
    if found.issue is not None and found.issue.url:
        click.echo(f"Its issue is public, and stays where it is: {found.issue.url}", err=True)
    custody.close()


@feedback.command()
@click.argument("report")
@click.option("--service", metavar="URL", help="Where it was sent. [default: BAILEE_SERVICE]")
@click.option(
    "--receipt", type=click.Path(dir_okay=False, path_type=Path), help="Write the receipt to this new file."
)
@with_json
def undo(report: str, service: str | None, receipt: Path | None, as_json: bool) -> None:
    """Have a report that you sent within the last 10 minutes erased, from any machine.

    Takes a key of the account that sent it: BAILEE_KEY, else ANTHROPIC_AUTH_TOKEN.
    """
    from bailee.agent.service import VARIABLE, find_service
    from bailee.flows.feedback.sender import withdraw_report

    environment = dict(os.environ)
    if service:
        environment[VARIABLE] = service
    if key := environment.get("BAILEE_KEY"):
        environment["ANTHROPIC_AUTH_TOKEN"] = key
    found = find_service(environment)
    if found is None:
        raise Problem(
            "no service is named", where=VARIABLE, fix="name the one that it was sent to with --service"
        )
    with claiming(receipt):
        done = withdraw_report(
            report, lambda method, path, body: found.ask(method, path, environment, body=body or None)
        )
    proof = done.receipt.encode()
    write_proof(receipt, proof)
    if as_json:
        click.echo(proof, nl=False)
        return
    click.echo(f"Erased report {done.id}.")
    if receipt is not None:
        click.echo(f"Receipt: {receipt} (verify: bailee ledger verify {receipt})", err=True)


def _triage(home: Path, id: str, state: str, note: str, *, as_json: bool) -> None:
    from bailee.flows.feedback.storage import Triage, triage_report
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    names = _names(custody, None)
    found = _find(custody, names, id)
    triage_report(custody.vault, found, Triage(state), note, by=operator(), at_ms=custody.now_ms())
    found = _find(custody, names, found.id)
    if as_json:
        echo_json(_describe(found, names))
    else:
        click.echo(f"Report {found.id} is {found.state}.")


def _names(custody: "Custody", account: str | None) -> dict[str, str]:
    """Return the accounts whose reports are looked at, by id."""
    known = [custody.directory.get(account)] if account else custody.directory.all()
    return {one.id: one.name for one in known}


def _find(custody: "Custody", names: dict[str, str], id: str, *, is_exact: bool = False) -> "HeldReport":
    from bailee.flows.feedback.storage import find_report

    found = find_report(custody.vault, names, id, today=custody.today())
    if is_exact and found.id != id:
        raise Problem(f"there is no report {id!r}", where=f"begins so: {found.id}", fix="give the whole id")
    return found


def _tell(report: "HeldReport", names: dict[str, str]) -> list[str]:
    from bailee.characters import make_visible

    until = f", until {report.expires_on}" if report.expires_on else ""
    lines = [
        f"Report {report.id} of {names[report.account]}, sent {tell_minute(report.sent_ms)} UTC",
        f"Sent from session {report.session}." if report.session else "",
        f"Kept {report.retention}{until}; does not train models; {tell_size(report.bytes)}, encrypted.",
        f"{report.state.value.capitalize()}"
        + (f" since {tell_minute(report.changed_ms)}, by {report.changed_by}" if report.changed_ms else "")
        + (f": {report.note}" if report.note else "."),
    ]
    if (issue := report.issue) is not None:
        waits = f"waits until {tell_minute(issue.next_ms)} UTC" if issue.state == "waiting" else issue.state
        fault = f" ({issue.fault}, {tell_count(issue.attempts, 'attempt')})" if issue.fault else ""
        lines.append(f"Issue in {issue.repository}: {issue.url or waits}{fault}")
    return [make_visible(line) for line in lines if line]


def _describe(report: "HeldReport", names: dict[str, str]) -> dict[str, object]:
    import msgspec

    shown: dict[str, object] = msgspec.to_builtins(report)
    return shown | {"account": names[report.account]}

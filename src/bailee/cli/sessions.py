"""`bailee sessions`: what is held of each conversation."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.accesses import admit, operator, with_access
from bailee.cli.erasures import (
    confirm_erasure,
    let_go_locally,
    tell_count_of,
    tell_erasure,
    with_erasure,
    with_local,
)
from bailee.cli.local_sessions import local
from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.cli.proofs import claiming
from bailee.moments import tell_minute
from bailee.policy.problems import Problem
from bailee.sizes import tell_size

if TYPE_CHECKING:
    from bailee.vault.custody import Custody
    from bailee.vault.reader import Session, Transcript


class SessionsGroup(click.Group):
    """Sessions held by the service, or with `--local` those that the agent keeps on this machine."""

    variant = "--local"

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return local.get_command(ctx, cmd_name) if _is_local(ctx) else super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return local.list_commands(ctx) if _is_local(ctx) else super().list_commands(ctx)


def _is_local(ctx: click.Context) -> bool:
    return bool(ctx.params.get("is_local"))


@click.group(cls=SessionsGroup)
@click.option(
    "--local",
    "is_local",
    is_flag=True,
    is_eager=True,
    help="Those that the agent keeps on this machine: list, show, pin, unpin, delete, export, sweep.",
)
def sessions(is_local: bool) -> None:
    """List, read and erase the sessions held."""


@sessions.command(name="list")
@click.option("--account", help="Only this account's.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="How many at most."
)
@with_home
@with_json
def list_(account: str | None, limit: int, home: Path, as_json: bool) -> None:
    """List sessions, the one used last first: how much, kept how long, trainable or not."""
    from bailee.accounts.directory import open_directory
    from bailee.vault.reader import list_sessions
    from bailee.vault.store import open_vault

    directory = open_directory(home)
    names = {known.id: known.name for known in directory.all()}
    wanted = directory.get(account).id if account else None
    found = list_sessions(open_vault(home), account=wanted, limit=limit)
    if as_json:
        echo_json([_describe(session, names) for session in found])
        return
    rows = [
        (
            session.id,
            names.get(session.account, "?"),
            tell_minute(session.last_ms),
            str(session.exchanges),
            tell_size(session.request_bytes),
            tell_size(session.response_bytes),
            tell_size(session.stored_bytes),
            session.retention,
            session.expires_on.isoformat() if session.expires_on else "-",
            "yes" if session.trainable else "no",
        )
        for session in found
    ]
    heads = (
        "SESSION",
        "ACCOUNT",
        "LAST USED (UTC)",
        "TURNS",
        "SENT",
        "RECEIVED",
        "STORED",
        "KEPT",
        "UNTIL",
        "TRAINS",
    )
    echo_table(heads, rows, empty="No sessions yet. Run an agent: bailee run -- claude")


@sessions.command()
@click.argument("session_id")
@click.option("--account", help="Whose session, where two accounts use the same id.")
@click.option("--facts", is_flag=True, help="Leave the content sealed; show the facts only.")
@with_access
@with_home
@with_json
def show(
    session_id: str,
    account: str | None,
    facts: bool,
    reason: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Show a session: its exchanges, the decision each rests on, and what was said.

    The beginning of an id will do, where only one session has it. Whoever is not the account holder gives a
    reason, which is ledgered and shown to the account holder.
    """
    from bailee.vault.custody import open_custody
    from bailee.vault.reader import list_exchanges, read_session

    custody = open_custody(home)
    engine = custody.vault
    names = {known.id: known.name for known in custody.directory.all()}
    owner = custody.directory.get(account).id if account else None
    session = _find(engine, session_id, owner, names)
    exchanges = list_exchanges(engine, account=session.account, session=session.id)
    transcripts: dict[int, Transcript] = {}
    if not facts:
        admit(custody, session.account, session.id, purpose="show", reason=reason)
        found = read_session(engine, custody.keystore, session.account, session.id, today=custody.today())
        for transcript in found:
            transcripts[transcript.exchange] = transcript
    if as_json:
        import msgspec

        listed = []
        for exchange in exchanges:
            shown = msgspec.to_builtins(exchange)
            shown["id"] = f"{exchange.id:x}"
            shown["decision"] = msgspec.json.decode(exchange.decision)
            shown["content"] = _reveal(transcripts[exchange.id]) if exchange.id in transcripts else None
            listed.append(shown)
        echo_json({**_describe(session, names), "exchanges": listed})
        return
    click.echo(f"Session {session.id} of {names.get(session.account, '?')}")
    click.echo(_tell_keeping(session))
    from bailee.flows.messages.conversations import read_conversation
    from bailee.policy.flows import FlowId

    for number, exchange in enumerate(exchanges, 1):
        tokens = f"{exchange.input_tokens or 0} in, {exchange.output_tokens or 0} out"
        status = exchange.status or "-"
        click.echo(
            f"\n#{number} {tell_minute(exchange.started_ms)}  {exchange.path}  {exchange.model or '-'}  "
            f"{status} {exchange.state}  {tokens}  {exchange.duration_ms or 0} ms"
        )
        if exchange.reason:
            click.echo(f"   {exchange.reason}")
        if exchange.flow == FlowId.FEEDBACK:
            click.echo(f"   a report, which is kept apart: bailee feedback show {session.id}")
        elif exchange.id in transcripts:
            for line in read_conversation(transcripts[exchange.id]):
                click.echo(f"   {line}")
        elif not facts:
            click.echo("   no content is held of this exchange")


@sessions.command()
@click.argument("session_id")
@click.option("--account", help="Whose session, where two accounts use the same id.")
@with_local
@with_erasure
@with_home
@with_json
def erase(
    session_id: str,
    account: str | None,
    dry_run: bool,
    yes: bool,
    and_local: bool,
    receipt: Path | None,
    home: Path,
    as_json: bool,
) -> None:
    """Erase a session: destroy its keys, so that no copy of the vault opens, then remove it.

    Its id is given in full: the beginning of one may by now be another session's.

    With --json the receipt itself is printed: it proves the erasure offline (`bailee ledger verify RECEIPT`).
    """
    from bailee.vault.custody import open_custody
    from bailee.vault.erasure import count_session, refuse_held

    custody = open_custody(home)
    names = {known.id: known.name for known in custody.directory.all()}
    owner = custody.directory.get(account).id if account else None
    session = _find(custody.vault, session_id, owner, names, is_exact=True)
    refuse_held(custody.vault, session.account, session.id)
    counted = count_session(custody.vault, session.account, session.id)
    what = f"session {session.id}"
    if dry_run:
        tell_count_of(what, counted, as_json=as_json)
        let_go_locally([session.id], is_asked=and_local, dry_run=True)
        _tell_reports(custody, session)
        return
    with claiming(receipt):
        confirm_erasure(what, counted, yes=yes)
        erased, proof = custody.erase_session(session.account, session.id, by=operator())
    tell_erasure(what, erased, proof, receipt, as_json=as_json)
    _tell_reports(custody, session)
    let_go_locally([session.id], is_asked=and_local)
    custody.close()


def _tell_reports(custody: "Custody", session: "Session") -> None:
    """Say which reports that were sent from a session stay when it goes, and how to let go of them."""
    from bailee.flows.feedback.storage import list_sent_from

    for report in list_sent_from(custody.vault, session.account, session.id, today=custody.today()):
        click.echo(
            f"The report that was sent from it stays, as it was sent to be kept: bailee feedback withdraw "
            f"{report.id}",
            err=True,
        )


def _find(
    engine: object, session_id: str, account: str | None, names: dict[str, str], *, is_exact: bool = False
) -> "Session":
    """Return the session of that id, or the only one whose id begins so.

    Args:
        is_exact: take no beginning of an id.

    Raises:
        Problem: there is none, or there are several.
    """
    from sqlalchemy import Engine

    from bailee.vault.reader import list_sessions

    assert isinstance(engine, Engine)
    if not session_id:
        raise Problem("an empty id names no session", where="SESSION_ID", fix="see: bailee sessions list")
    found = list_sessions(engine, account=account, session=session_id, flow=None)
    if is_exact and found and found[0].id != session_id:
        listed = ", ".join(session.id for session in found[:5])
        raise Problem(
            f"there is no session {session_id!r}", where=f"begin so: {listed}", fix="give the whole id"
        )
    if not found:
        raise Problem(f"there is no session {session_id!r}", fix="see: bailee sessions list")
    if len({session.id for session in found}) > 1:
        listed = ", ".join(session.id for session in found[:5])
        raise Problem(
            f"{len(found)} sessions begin with {session_id!r}", where=listed, fix="give more of the id"
        )
    if len(found) > 1:
        owners = ", ".join(sorted(names.get(session.account, session.account) for session in found))
        raise Problem(
            f"several accounts have a session {session_id!r}", where=owners, fix="name one with --account"
        )
    return found[0]


def _tell_keeping(session: "Session") -> str:
    size = tell_size(session.stored_bytes)
    if session.retention != "none":
        expiry = f", until {session.expires_on}" if session.expires_on else ""
        trains = "may train models" if session.trainable else "does not train models"
        return f"Kept {session.retention}{expiry}; {trains}; {size} stored, encrypted."
    if session.stored_bytes:
        return f"Its time is over; {size} are held until the next sweep, or as long as a legal hold asks."
    return "No content is held of it."


def _describe(session: "Session", names: dict[str, str]) -> dict[str, object]:
    import msgspec

    shown: dict[str, object] = msgspec.to_builtins(session)
    shown["account"] = names.get(session.account, session.account)
    return shown


def _reveal(transcript: "Transcript") -> dict[str, object]:
    from bailee.flows.messages.conversations import decode_body

    return {
        "request_headers": transcript.request_headers.reveal().decode("latin-1"),
        "request": transcript.request.reveal().decode("utf-8", "replace"),
        "response_headers": transcript.response_headers.reveal().decode("latin-1"),
        "response": decode_body(transcript.response_headers, transcript.response).decode("utf-8", "replace"),
    }

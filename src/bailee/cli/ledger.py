"""`bailee ledger`: what was decided, granted and erased, and that nobody altered it since."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from bailee.characters import make_visible
from bailee.cli.options import echo_json, with_home, with_json
from bailee.cli.progress import draw_progress
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.ledger.log import Log
    from bailee.ledger.notes import Verifier

EXIT_NOT_VERIFIED = 1
MAX_RECEIPT_BYTES = 256 * 1024 * 1024


@click.group()
def ledger() -> None:
    """Show and verify the log of what was decided, granted and erased."""


@ledger.command()
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@with_home
@with_json
def show(limit: int, home: Path, as_json: bool) -> None:
    """Show the last entries, the newest at the end.

    An entry that is no JSON is shown by its size, and with --json as base64.
    """
    log = _open_log(home)
    size = log.size
    first = max(0, size - limit)
    listed = enumerate(log.read(first, size), first)
    if as_json:
        echo_json([_describe(index, entry) for index, entry in listed])
        return
    for index, entry in listed:
        click.echo(f"{index}  {_tell(_describe(index, entry))}")
    if not size:
        click.echo("No entries yet.", err=True)


@ledger.command()
@with_home
def checkpoint(home: Path) -> None:
    """Print the signed checkpoint: how many entries there are, and what they hash to.

    Keep it where nobody who can write to this home can write: with --since it shows later that nothing before
    it was altered or dropped.
    """
    log = _open_log(home)
    note = log.note()
    log.checkpoint(note)
    click.echo(note, nl=False)


@ledger.command()
@with_home
def key(home: Path) -> None:
    """Print the public key that verifies this ledger and its receipts."""
    click.echo(_open_log(home).verifier.text)


@ledger.command(epilog="Exit codes: 0 verified, 1 not verified, 2 the call is wrong or there is no ledger.")
@click.argument("receipt", required=False, type=click.File("rb"))
@click.option(
    "--key",
    "key_text",
    metavar="KEY|FILE",
    help="The public key as `bailee ledger key` prints it, or a file that holds it. [default: this home's]",
)
@click.option(
    "--since",
    type=click.File("rb"),
    help="A checkpoint kept from earlier: the ledger must begin with all that it had then.",
)
@with_home
@with_json
def verify(
    receipt: BinaryIO | None, key_text: str | None, since: BinaryIO | None, home: Path, as_json: bool
) -> None:
    """Verify a receipt, or several in one file, or without one this home's whole ledger.

    A receipt needs the public key and nothing else. The ledger is read in full: every entry is hashed anew
    and compared with the tiles and the signed checkpoint. A key that lies beside the ledger cannot tell that
    both were replaced: keep the key elsewhere, and name it with --key.

    \b
    Examples:
      bailee ledger verify
      bailee ledger verify receipt.json --key ledger.pub
      bailee ledger verify --since checkpoint-of-january
    """
    if receipt is None:
        _verify_ledger(home, key_text, since.read(MAX_RECEIPT_BYTES) if since else None, as_json=as_json)
    elif since is not None:
        raise click.UsageError("--since is about the whole ledger, not about a receipt")
    else:
        _verify_receipts(receipt, find_verifier(home, key_text), as_json=as_json)


def _verify_receipts(file: BinaryIO, verifier: "Verifier", *, as_json: bool) -> None:
    """Verify a receipt, or several that were given out together."""
    from bailee.ledger.receipts import split_receipts

    data = file.read(MAX_RECEIPT_BYTES + 1)
    given = split_receipts(data) if len(data) <= MAX_RECEIPT_BYTES else [data]
    if not given:
        raise Problem(
            "there is no receipt in this file", where="RECEIPT", fix="name the file of one, or several"
        )
    found = [_verify_receipt(one, verifier) for one in given]
    held = sum(bool(one["verified"]) for one in found)
    if as_json and len(found) == 1:
        echo_json(found[0])
    elif as_json:
        echo_json({"verified": held == len(found), "origin": verifier.name, "receipts": found})
    else:
        for number, one in enumerate(found, 1):
            _tell_verdict(one, f"{number}: " if len(found) > 1 else "")
        if len(found) > 1:
            click.echo(f"{held} of {len(found)} receipts hold.")
    if held < len(found):
        raise SystemExit(EXIT_NOT_VERIFIED)


def _verify_receipt(data: bytes, verifier: "Verifier") -> dict[str, Any]:
    from bailee.ledger.receipts import ReceiptRefused, verify_receipt
    from bailee.service.receipts import verify_run

    try:
        if len(data) > MAX_RECEIPT_BYTES:
            raise ReceiptRefused("it is too long for a receipt")
        if (run := verify_run(data, verifier)) is not None:
            data = run.proof.encode()
        proven = verify_receipt(data, verifier)
    except ReceiptRefused as refused:
        return {"verified": False, "origin": verifier.name, "fault": str(refused)}
    entries = [_describe(entry.index, entry.entry) for entry in proven]
    return {"verified": True, "origin": verifier.name, "entries": entries}


def _tell_verdict(found: dict[str, Any], number: str) -> None:
    if not found["verified"]:
        click.echo(f"{number}Not verified: {make_visible(found['fault'])}.")
        return
    click.echo(f"{number}Verified: {len(found['entries'])} entries of {make_visible(found['origin'])}.")
    for entry in found["entries"]:
        click.echo(f"{entry['index']}  {_tell(entry)}")


def _tell_rollback(home: Path) -> str:
    """Say how the ledger is not the one that the home's keystore knows; empty where there is no keystore."""
    from bailee.ledger.log import FOLDER, open_log
    from bailee.vault.anchors import tell_rollback
    from bailee.vault.store import open_keys

    if not (home / "keystore").is_dir():
        return ""
    keys = open_keys(home)
    try:
        return tell_rollback(keys.engine, open_log(home / FOLDER))
    finally:
        keys.close()


def _verify_ledger(home: Path, key_text: str | None, since: bytes | None, *, as_json: bool) -> None:
    from bailee.ledger.log import FOLDER
    from bailee.ledger.storage import DirectoryTiles
    from bailee.ledger.verification import Fault, Verification, verify_ledger

    directory = home / FOLDER
    if not directory.is_dir():
        raise Problem("there is no ledger here", where=str(directory), fix="name another home with --home")
    try:
        verifier = find_verifier(home, key_text)
    except Problem as problem:
        if key_text is not None:
            raise
        # The home's own file: not a wrong call but a ledger that is not whole.
        found = Verification(faults=[Fault(problem.what, "verifier")])
    else:
        with draw_progress("Verifying") as progress:
            found = verify_ledger(DirectoryTiles(directory), verifier, since=since, progress=progress)
        if found.verified and key_text is None and (rollback := _tell_rollback(home)):
            found.faults.append(Fault(rollback, "checkpoint"))
    held = found.checkpoint
    if as_json:
        echo_json(
            {
                "verified": found.verified,
                "origin": held.origin if held else None,
                "size": held.size if held else None,
                "root": held.root if held else None,
                "since": found.since,
                "faults": found.faults,
                "leftovers": found.leftovers,
            }
        )
    else:
        for fault in found.faults:
            entry = "" if fault.entry is None else f"entry {fault.entry}, "
            click.echo(f"{entry}{make_visible(fault.path)}: {make_visible(fault.what)}")
        if found.verified and held is not None:
            begins = (
                "" if found.since is None else f"; it begins with the {found.since} of the earlier checkpoint"
            )
            click.echo(f"Verified: {held.size} entries of {make_visible(held.origin)}{begins}.")
        else:
            click.echo("Not verified.")
        if found.leftovers:
            click.echo(
                f"note: {len(found.leftovers)} files are left of an append that was interrupted; "
                "the next one takes them away",
                err=True,
            )
    if not found.verified:
        raise SystemExit(EXIT_NOT_VERIFIED)


@ledger.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@with_home
@with_json
def mirror(folder: Path, home: Path, as_json: bool) -> None:
    """Copy the ledger into FOLDER, or bring an earlier copy there up to date.

    Only what is new is copied, and no private key. Made often and kept on another machine, it tells a restore
    what was erased after a backup; and it shows when a ledger was rewritten.
    """
    from bailee.ledger.copies import copy_log
    from bailee.ledger.log import FOLDER

    log = _open_log(home)
    size = log.checkpoint(copy_log(home / FOLDER, folder, log.verifier)).size
    if as_json:
        echo_json({"folder": str(folder), "origin": log.verifier.name, "size": size})
    else:
        click.echo(f"{size} entries of {log.verifier.name}: {folder}")


def _open_log(home: Path) -> "Log":
    from bailee.ledger.log import FOLDER, open_log

    return open_log(home / FOLDER)


def find_verifier(home: Path, key_text: str | None) -> "Verifier":
    """Return the public key that somebody names, or this home's.

    Raises:
        Problem: it is no key.
    """
    from bailee.ledger.notes import parse_verifier

    if key_text is None:
        return _open_log(home).verifier
    if "+" in key_text and not Path(key_text).exists():
        return parse_verifier(key_text)
    try:
        return parse_verifier(Path(key_text).read_text())
    except (OSError, UnicodeDecodeError):
        raise Problem(
            "this is neither a verifier key nor a file that can be read",
            where=f"--key {key_text}",
            fix="give the one line that `bailee ledger key` prints, or a file that holds it",
        ) from None


def _decode(entry: bytes) -> object:
    """Return what an entry says as JSON.

    Raises:
        ValueError: it is no JSON.
    """
    import msgspec

    try:
        return msgspec.json.decode(entry)
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError("no JSON") from None


def _describe(index: int, entry: bytes) -> dict[str, object]:
    try:
        return {"index": index, "entry": _decode(entry)}
    except ValueError:
        return {"index": index, "base64": entry}


def _tell(described: dict[str, Any]) -> str:
    import msgspec

    if "entry" in described:
        return make_visible(msgspec.json.encode(described["entry"]).decode())
    return f"{len(described['base64'])} bytes, no JSON"

"""`bailee backup`: copies that can be kept, and a home that comes back without what was erased since."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bailee.cli.accesses import operator
from bailee.cli.options import echo_json, echo_table, with_home, with_json
from bailee.cli.progress import draw_progress
from bailee.cli.proofs import claiming, write_proof
from bailee.moments import tell_minute
from bailee.policy.problems import Problem
from bailee.sizes import tell_count, tell_size

if TYPE_CHECKING:
    from bailee.vault.backups.staging import Restoration

EXIT_NOT_VERIFIED = 1


@click.group()
def backup() -> None:
    """Back a home up, and restore it without what was erased or has expired since."""


@backup.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Copy the keys too, into this file: needed where the whole machine is lost.",
)
@click.option(
    "--window", default="7d", show_default=True, metavar="DAYS", help="How long that copy may be used."
)
@with_home
@with_json
def create(folder: Path, keys: Path | None, window: str, home: Path, as_json: bool) -> None:
    """Back up vault, accounts and ledger into FOLDER, which is made; a service may be running.

    No key is in it: beside the keystore that is there it opens what that opens, for as long as you keep it.

    A copy of the keys is another matter: what is erased opens with it until it is deleted. Delete it when its
    window ends, and say so: `bailee backup forget`. It opens with the key-encryption key only (keystore/kek),
    which is in neither and has a backup of its own.

    \b
    Examples:
      bailee backup create /backups/2026-11-24
      bailee backup create /backups/2026-11-24 --keys /safe/keys-2026-11-24 --window 7d
    """
    from bailee.policy.periods import Period
    from bailee.vault.backups.creation import create_backup
    from bailee.vault.custody import open_custody

    period = Period.parse(window, where="--window")
    _require_home(home)
    custody = open_custody(home)
    with draw_progress("Backing up") as progress:
        made = create_backup(custody, folder, keys=keys, window=period, by=operator(), report=progress)
    custody.close()
    if as_json:
        echo_json(made)
        return
    click.echo(
        f"Backed up {tell_count(made.counts['segments'], 'segment')}, "
        f"{tell_count(made.counts['exchanges'], 'exchange')}, "
        f"{made.ledger_entries} entries of the ledger, "
        f"{tell_size(made.bytes)}: {folder}"
    )
    if made.keys is not None and made.keys_until_ms is not None:
        click.echo(
            f"{tell_count(made.keys, 'key')} in {keys}: delete it by {tell_minute(made.keys_until_ms)} UTC, "
            f"then: bailee backup forget {made.id[:8]}",
            err=True,
        )
    else:
        click.echo("No keys are in it: it opens beside this home's keystore only.", err=True)


@backup.command(epilog="Exit codes: 0 verified, 1 not verified, 2 the call is wrong.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--key",
    "key_text",
    metavar="KEY|FILE",
    help="The ledger's public key, or a file that holds it. [default: this home's, else the backup's own]",
)
@with_home
@with_json
def verify(folder: Path, key_text: str | None, home: Path, as_json: bool) -> None:
    """Read all of a backup and compare it with its signed manifest.

    With the backup's own key it is only seen to be whole; whose it is, this home's key or --key tells.
    """
    from bailee.cli.ledger import find_verifier
    from bailee.ledger.log import FOLDER, VERIFIER
    from bailee.vault.backups.verification import read_verifier, verify_backup

    is_own = key_text is None and not (home / FOLDER / VERIFIER).exists()
    try:
        verifier = read_verifier(folder) if is_own else find_verifier(home, key_text)
        with draw_progress("Verifying") as progress:
            manifest = verify_backup(folder, verifier, progress)
    except Problem as problem:
        if key_text is not None and problem.where.startswith("--key"):
            raise
        if as_json:
            echo_json({"verified": False, "fault": problem.what, "where": problem.where})
        else:
            click.echo(f"Not verified: {problem.what} ({problem.where}).")
        raise SystemExit(EXIT_NOT_VERIFIED) from None
    if as_json:
        echo_json({"verified": True, "origin": verifier.name, "by_own_key": is_own, "manifest": manifest})
        return
    click.echo(
        f"Verified: {tell_count(manifest.counts['segments'], 'segment')}, "
        f"{tell_count(manifest.counts['exchanges'], 'exchange')}, made {tell_minute(manifest.made_ms)} UTC, "
        f"of {verifier.name}."
    )
    if is_own:
        click.echo("By the key that lies in it: name the home's with --key to see whose it is.", err=True)


@backup.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--keys", type=click.Path(path_type=Path), metavar="FILE", help="The copy of the keys, if these are lost."
)
@click.option(
    "--key-encryption-key",
    "kek",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Its own backup. [default: keystore/kek in the home]",
)
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The newest copy of the ledger, if that is lost: it tells what was erased after the backup.",
)
@click.option(
    "--accept-unknown",
    "unknown",
    metavar="REASON",
    help="There is no newer ledger than the backup's, and what was erased since comes back. Ledgered.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be restored, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--receipt", type=click.Path(dir_okay=False, path_type=Path), help="Write the receipt to this new file."
)
@with_home
@with_json
def restore(
    folder: Path,
    keys: Path | None,
    kek: Path | None,
    ledger: Path | None,
    unknown: str | None,
    dry_run: bool,
    yes: bool,
    receipt: Path | None,
    home: Path,
    as_json: bool,
) -> None:
    """Restore the vault of a home, and what else of it is lost, from a backup.

    Before anything of it opens, every erasure that the ledger tells of is applied to it, and so are expiry,
    consents, limits, holds and revoked keys.

    Where keystore and ledger are still there nothing else is needed. Where the machine is lost, name the copy
    of the keys, the key-encryption key and the newest copy of the ledger you have. No service may be running.
    Killed in between, the home does not open until the same command is run again.

    \b
    Examples:
      bailee backup restore /backups/2026-11-24 --dry-run
      bailee backup restore /backups/2026-11-24 --keys /safe/keys-2026-11-24 \\
          --key-encryption-key /vaulted/kek --ledger /mirror/ledger
    """
    from bailee.service.running import lock_home
    from bailee.vault.backups.installing import begin, discard, finish, install, read_unfinished
    from bailee.vault.backups.sources import Request
    from bailee.vault.backups.staging import stage

    request = Request(folder, keys, kek, ledger, unknown, operator())
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with claiming(None if dry_run else receipt), lock_home(home):
        unfinished = read_unfinished(home)
        if unfinished is None:
            with draw_progress("Restoring") as progress:
                staged = stage(home, request, now_ms=_now_ms(), report=progress)
            try:
                if dry_run:
                    _tell(staged, None, as_json=as_json, is_done=False)
                    return
                _confirm(staged, yes=yes)
                begin(home)
            finally:
                discard(home)  # unless it is being put into place
        else:
            staged = unfinished
            _check_same(staged, folder, dry_run=dry_run)
            click.echo("Going on with the restore that was not finished.", err=True)
        install(home, at_ms=_now_ms())
        proof = finish(home, staged)
    write_proof(receipt, proof)
    _tell(staged, receipt, as_json=as_json, is_done=True)


@backup.command(name="list-keys")
@with_home
@with_json
def list_keys(home: Path, as_json: bool) -> None:
    """List the copies of keys that were made and that nobody has said are deleted."""
    from bailee.vault.backups.creation import list_key_copies
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    found = list_key_copies(custody)
    now_ms = custody.now_ms()
    custody.close()
    if as_json:
        echo_json(found)
        return
    rows = [
        (
            one.backup,
            tell_minute(one.made_ms),
            tell_minute(one.until_ms),
            "over" if one.until_ms < now_ms else "open",
        )
        for one in found
    ]
    heads = ("BACKUP", "MADE (UTC)", "DELETE BY (UTC)", "WINDOW")
    echo_table(heads, rows, empty="No copies of keys wait to be deleted.")


@backup.command()
@click.argument("backup_id")
@with_home
@with_json
def forget(backup_id: str, home: Path, as_json: bool) -> None:
    """Say that every copy of the keys made with a backup is deleted. It is ledgered.

    The beginning of the id will do. From then on nothing opens any more what was erased since.
    """
    from bailee.vault.backups.creation import confirm_deleted
    from bailee.vault.custody import open_custody

    custody = open_custody(home)
    known = confirm_deleted(custody, backup_id, by=operator())
    custody.close()
    if as_json:
        echo_json(known)
    else:
        click.echo(f"The copy of the keys made with {known.backup} is on record as deleted.")


def _require_home(home: Path) -> None:
    from bailee.ledger.log import FOLDER

    if not (home / FOLDER).is_dir() and not home.is_dir():
        raise Problem(
            "there is nothing here to back up", where=str(home), fix="name another home with --home"
        )


def _check_same(unfinished: "Restoration", folder: Path, *, dry_run: bool) -> None:
    import re

    from bailee.vault.backups.manifests import MANIFEST, read_plain

    if dry_run:
        raise Problem("a restore has begun here and is not finished", fix="run it again without --dry-run")
    try:
        text = read_plain(folder / MANIFEST, limit=1_000_000).decode("utf-8", "replace")
    except OSError:
        text = ""
    found = re.search(r'"id":"([0-9a-f]{32})"', text)
    if text and (found is None or found[1] != unfinished.backup):
        raise Problem(
            f"the restore of another backup, {unfinished.backup}, has begun here and is not finished",
            where=str(folder),
            fix="run that one again first",
        )


def _confirm(staged: "Restoration", *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Problem("nobody is there to be asked", where="--yes", fix="confirm with --yes")
    for line in _lines(staged):
        click.echo(f"  {line}", err=True)
    click.confirm("Replace the vault of this home by that? It cannot be undone", abort=True, err=True)


def _tell(staged: "Restoration", receipt: Path | None, *, as_json: bool, is_done: bool) -> None:
    if as_json:
        import msgspec

        echo_json({**msgspec.to_builtins(staged), "dry_run": not is_done})
        return
    click.echo("Restored:" if is_done else "Would restore:")
    for line in _lines(staged):
        click.echo(f"  {line}")
    if receipt is not None:
        click.echo(f"Receipt: {receipt} (verify: bailee ledger verify {receipt})", err=True)


def _lines(staged: "Restoration") -> list[str]:
    changes = staged.changes
    lines = [
        f"backup {staged.backup[:8]} of {tell_minute(staged.made_ms)} UTC: "
        f"{tell_count(staged.segments, 'segment')}, {tell_count(staged.exchanges, 'exchange')}"
        + (f", {tell_count(staged.people, 'account')}" if staged.accounts == "backup" else ""),
        f"erasures applied up to {tell_minute(staged.ledger_until_ms)} UTC "
        f"(ledger of the {staged.ledger}, {staged.ledger_entries} entries)",
    ]
    if staged.unknown is not None:
        lines.append(f"what was erased later is NOT known, accepted: {staged.unknown}")
    lines += [f"dropped, {why}: {tell_count(count, 'segment')}" for why, count in changes.dropped.items()]
    told = (
        (changes.facts_dropped, "exchange", "without content dropped"),
        (changes.accounts_erased, "account", "erased since, dropped"),
        (changes.tightened, "segment", "under stricter terms now"),
        (changes.consents, "consent", "changed since, applied"),
        (changes.limits, "limit", "set since, applied"),
        (changes.keys_revoked, "agents' key", "revoked"),
        (changes.holds_placed, "hold", "placed since, in force"),
        (changes.holds_released, "hold", "released since"),
        (staged.keys or 0, "key", "put back from the copy"),
        (staged.keys_destroyed, "key", "of what is not put back, destroyed for good"),
        (staged.keys_kept, "key", "of what the backup does not hold, kept for a legal hold"),
    )
    lines += [f"{tell_count(count, thing)} {what}" for count, thing, what in told if count]
    return lines + changes.notes


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)

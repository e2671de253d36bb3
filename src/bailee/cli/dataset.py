"""`bailee dataset`: what may train models, written out and verified."""

from contextlib import closing
from pathlib import Path

import click

from bailee.cli.accesses import operator
from bailee.cli.options import echo_json, with_home, with_json
from bailee.cli.progress import draw_progress
from bailee.dumps import forbid_dumps
from bailee.sizes import tell_count, tell_size

EXIT_NOT_IN_ORDER = 1


@click.group()
def dataset() -> None:
    """Write out what may train models, and check it again later."""


@dataset.command()
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="A new or empty folder."
)
@click.option(
    "--reason", required=True, help="Why it is built: ledgered, and shown to each account holder in it."
)
@with_home
@with_json
def build(out: Path, reason: str, home: Path, as_json: bool) -> None:
    """Build a dataset of what is trainable at this moment, as Parquet with a manifest.

    Only what a consent in force now covers and what is neither expired nor erased; not what a legal hold
    alone keeps. Secrets found in it are masked and counted. Accounts and sessions have pseudonyms that hold
    for this build only. Interrupted, it goes on when it is run again.
    """
    from bailee.flows.messages.conversations import read_messages
    from bailee.sealing.masking import open_masker
    from bailee.vault.custody import open_custody
    from bailee.vault.datasets.building import DatasetBuilder

    forbid_dumps()  # it opens everybody's content
    custody = open_custody(home)
    masker = open_masker(home / "cache")
    builder = DatasetBuilder(
        custody, out, reason=reason, by=operator(), read_messages=read_messages, mask=masker.mask_json
    )
    with draw_progress("Building") as progress:
        manifest = builder.build(progress)
    custody.close()
    if as_json:
        echo_json(manifest)
        return
    size = sum(file.bytes for file in manifest.files)
    accounts = tell_count(len(manifest.consents), "account")
    click.echo(f"Built {tell_count(manifest.counts.items, 'item')} of {accounts}, {tell_size(size)}: {out}")
    for why, count in sorted(manifest.counts.excluded.items()):
        click.echo(f"  left out, {why.replace('_', ' ')}: {count}")
    for kind, count in manifest.masked.items():
        click.echo(f"  masked, {kind}: {count}")
    click.echo(f"Check it before each use: bailee dataset verify {out}", err=True)


@dataset.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@with_home
@with_json
def withdraw(folder: Path, home: Path, as_json: bool) -> None:
    """Take out of a dataset all that verification names: consents that ended, what was erased or expired.

    Its files are written anew without those items, and the manifest says what went and why. What is erased
    or expires is taken out without being asked; what a consent covered that has ended is not.
    """
    from bailee.vault.custody import open_custody
    from bailee.vault.datasets.withdrawing import withdraw_dataset

    with closing(open_custody(home)) as custody:
        taken = withdraw_dataset(custody, folder)
    if as_json:
        echo_json({"withdrawn": taken})
        return
    click.echo(f"Withdrew {tell_count(sum(taken.values()), 'item')}.")
    for why, count in taken.items():
        click.echo(f"  {why.replace('_', ' ')}: {count}")


@dataset.command(
    epilog="Exit codes: 0 all in order, 1 something is to be removed or is altered, 2 wrong call."
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@with_home
@with_json
def verify(folder: Path, home: Path, as_json: bool) -> None:
    """Verify a dataset: its files, its place in the ledger, and that all in it may still be there.

    Names every item whose consent has since gone, or whose record was erased or has expired.
    """
    from bailee.vault.custody import open_custody
    from bailee.vault.datasets.verification import verify_dataset

    custody = open_custody(home)
    verdict = verify_dataset(custody, folder)
    custody.close()
    if as_json:
        echo_json(
            {
                "verified": verdict.is_in_order,
                "items": verdict.items,
                "gone": verdict.gone,
                "faults": verdict.faults,
            }
        )
    else:
        for fault in verdict.faults:
            click.echo(f"{fault.path}: {fault.what}")
        for gone in verdict.gone:
            click.echo(f"{gone.item}  {gone.why}  {gone.file}")
        if verdict.is_in_order:
            click.echo(f"Verified: {tell_count(verdict.items, 'item')}, all of which may be there.")
        else:
            click.echo(f"To remove: {tell_count(len(verdict.gone), 'item')} of {verdict.items}.", err=True)
            if verdict.gone and not verdict.faults:
                click.echo(f"Remove them: bailee dataset withdraw {folder}", err=True)
    if not verdict.is_in_order:
        raise SystemExit(EXIT_NOT_IN_ORDER)

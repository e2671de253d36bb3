"""`python -m bench.vault`: bytes kept and CPU spent for each turn, beside storing every request."""

import json
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from bench.gateway.corpus import load
from bench.machine import describe_machine, read_busy_cores, tell_machine, write_table
from bench.vault.conversations import is_recorded, make_conversation
from bench.vault.stores import keep_by_recorder, keep_every_request

TURNS = (12, 50, 100, 200)
QUICK_TURNS = (4, 12)
ROUNDS = 3
# Of what storing every request takes, at most.
AIMS = {50: 0.07, 200: 0.03}
BUSY_CORES = 0.2

NOTES = """\
- Bytes of all files of the store, index, keys and word for the ledger included, logs emptied, less what a new
  store has. `every request` is each request and answer compressed alone with Zstandard, level 3, a row each,
  in clear.
- CPU of the process that keeps it, start left out: for Bailee the recorder, which finds what is new,
  compresses, seals and commits each turn on its own. Medians of rounds.
- Not comparable: peers keep what they store in clear, and most keep it as JSON, uncompressed, which is the
  column `sent`."""


@dataclass(frozen=True)
class Measured:
    """What a conversation of so many turns took, medians of rounds."""

    turns: int
    sent_bytes: int
    kept_bytes: float
    whole_bytes: float
    kept_cpu_seconds: float
    whole_cpu_seconds: float


@click.command()
@click.option("--quick", is_flag=True, help="Fewer turns, one round.")
@click.option(
    "--corpus",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A recording to begin with.",
)
@click.option("--synthetic", is_flag=True, help="Begin with a made-up session instead of a recorded one.")
@click.option("--directory", type=click.Path(path_type=Path), help="On the disk to measure. [default: here]")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here."
)
def main(
    quick: bool, corpus: Path | None, synthetic: bool, directory: Path | None, json_file: Path | None
) -> None:
    """Measure what is stored of a conversation of 12 to 200 turns, and the CPU that it takes.

    Tables go to standard output, progress to standard error.
    """
    from bench.gateway.corpus import synthesize

    loaded = synthesize() if synthetic else load(corpus, None)
    busy = read_busy_cores()
    measured = []
    with tempfile.TemporaryDirectory(dir=directory or Path.cwd(), prefix=".bench-vault-") as name:
        for turns in QUICK_TURNS if quick else TURNS:
            exchanges = make_conversation(loaded, turns)
            sent = sum(len(one.request) + len(one.answer) for one in exchanges)
            kept, whole = [], []
            for number in range(1 if quick else ROUNDS):
                print(f"{turns} turns, {sent / 1e6:,.1f} MB, round {number + 1}", file=sys.stderr)
                home, path = Path(name, "home"), Path(name, "every.db")
                kept.append(keep_by_recorder(home, exchanges))
                whole.append(keep_every_request(path, exchanges))
                shutil.rmtree(home)
                path.unlink()
            measured.append(
                Measured(
                    turns,
                    sent,
                    statistics.median(one.stored_bytes for one in kept),
                    statistics.median(one.stored_bytes for one in whole),
                    statistics.median(one.cpu_seconds for one in kept),
                    statistics.median(one.cpu_seconds for one in whole),
                )
            )
    begins = "Begins with a session " + (
        "recorded from the real agent" if is_recorded(loaded) else "made up: SYNTHETIC"
    )
    if json_file is not None:
        document = {
            "machine": describe_machine(),
            "corpus": begins,
            "measured": [asdict(one) for one in measured],
        }
        json_file.write_text(json.dumps(document, indent=1) + "\n")
    click.echo(write_tables(measured, begins, busy, quick), nl=False)


def write_tables(measured: list[Measured], begins: str, busy: float, quick: bool) -> str:
    """Return the tables as Markdown."""
    about = f"{tell_machine()} {begins}{'. QUICK' if quick else ''}."
    if busy > BUSY_CORES:
        about += f" BUSY MACHINE: others used {busy:.1f} cores at the beginning."
    heads = ["turns", "sent MB", "every request MB", "bailee MB", "bailee B/turn", "bailee / every request"]
    heads += ["aim", "CPU ms/turn, every request", "CPU ms/turn, bailee"]
    rows = []
    for one in measured:
        share, aim = one.kept_bytes / one.whole_bytes, AIMS.get(one.turns)
        told = "-" if aim is None else f"{aim:.0%}: {'met' if share <= aim else 'MISSED'}"
        rows.append(
            [
                str(one.turns),
                f"{one.sent_bytes / 1e6:,.2f}",
                f"{one.whole_bytes / 1e6:,.3f}",
                f"{one.kept_bytes / 1e6:,.3f}",
                f"{one.kept_bytes / one.turns:,.0f}",
                f"{share:.1%}",
                told,
                f"{1e3 * one.whole_cpu_seconds / one.turns:.2f}",
                f"{1e3 * one.kept_cpu_seconds / one.turns:.2f}",
            ]
        )
    return "\n\n".join(["# Vault", about, write_table(heads, rows), NOTES]) + "\n"


if __name__ == "__main__":
    main()

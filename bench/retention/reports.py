"""What was measured of retention, as Markdown for people and as JSON for programs."""

import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path

from bailee.service.sweeping import LOOK_SECONDS
from bench.machine import describe_machine, tell_machine, write_table
from bench.retention.homes import REQUEST_BYTES, RESPONSE_BYTES
from bench.retention.measurements import Measured

AIM_SECONDS, AIM_DUE = 60.0, 1_000_000
BUSY_CORES = 0.2
_NUMBERS = ("gone_seconds", "seconds", "cpu_seconds", "bytes_before", "bytes_after")

NOTES = f"""\
- `gone`: from the deadline until nothing that was due can be read any more. For Bailee that is the last key
  destroyed, with word of it for the ledger; the {LOOK_SECONDS:g} s after which the service notices at the
  latest, and the start of the sweeper, are in it. For a peer it is the last row deleted, by a job that starts
  at the deadline, where theirs start once a day. `work` leaves the time to notice out.
- `all`: until the rows are gone and the space is given back. A peer gives none back.
- Every segment has one exchange and {REQUEST_BYTES + RESPONSE_BYTES:,} bytes of content; a real one has some
  hundred times that. `gone` does not depend on it for Bailee, `all` does; a peer's row has the same bytes,
  where peers store each request whole. A fifth of what is not due is held for five years.
- The sweeper runs at the low priority that the service gives it, the peer's deletion at the usual one: beside
  other work the two do not compare.
- Rows of several sweeps are their medians. CPU and memory are those of the sweeper, without PostgreSQL's.
- Not comparable: a peer's deleted rows stay readable on the disk until something overwrites them, in SQLite's
  free pages and PostgreSQL's dead rows. Bailee destroys keys in a database of their own, overwrites them
  (SQLite) or vacuums them (PostgreSQL), leaves word of each in a ledger, and only then deletes rows."""


def combine(measured: list[Measured]) -> list[Measured]:
    """Return one of what was measured several times: medians, and the most of memory and disturbance."""
    groups: dict[tuple[str, str, int, int], list[Measured]] = {}
    for one in measured:
        groups.setdefault((one.database, one.what, one.held, one.due), []).append(one)
    combined = []
    for group in groups.values():
        middle = {name: statistics.median(getattr(one, name) for one in group) for name in _NUMBERS}
        most = {name: max(getattr(one, name) for one in group) for name in ("peak_bytes", "busy")}
        combined.append(replace(group[0], **middle, **most))
    return combined


def write_tables(measured: list[Measured], versions: str, settings: str) -> str:
    """Return the tables as Markdown."""
    combined = combine(measured)
    busy = max((one.busy for one in combined), default=0.0)
    about = f"{tell_machine()} {versions}. {settings}."
    if busy > BUSY_CORES:
        about += f" BUSY MACHINE: others used up to {busy:.1f} cores just before a sweep."
    heads = ["database", "how", "held", "due", "gone s", "all s", "work us/due", "CPU us/due", "peak MB"]
    heads += ["disk before MB", "given back MB", "work, to batched DELETE"]
    rows = [
        [
            one.database,
            one.what,
            f"{one.held:,}",
            f"{one.due:,}",
            f"{one.gone_seconds:,.1f}",
            f"{one.seconds:,.1f}",
            f"{1e6 * _working(one) / one.due:,.0f}",
            f"{1e6 * one.cpu_seconds / one.due:,.0f}" if one.cpu_seconds else "-",
            f"{one.peak_bytes / 1e6:,.0f}" if one.peak_bytes else "-",
            f"{one.bytes_before / 1e6:,.0f}",
            f"{round((one.bytes_before - one.bytes_after) / 1e6):,}",
            _ratio(one, combined),
        ]
        for one in combined
    ]
    return "\n\n".join(["# Retention", about, write_table(heads, rows), _tell_aims(combined), NOTES]) + "\n"


def write_json(measured: list[Measured], versions: str, settings: str, path: Path) -> None:
    """Write all of it, figures unrounded."""
    document = {
        "machine": describe_machine(),
        "versions": versions,
        "settings": settings,
        "measured": [asdict(one) for one in measured],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _working(one: Measured) -> float:
    """Return the seconds that depend on how many are due."""
    return one.gone_seconds - (LOOK_SECONDS if one.what == "bailee" else 0.0)


def _ratio(one: Measured, all_of_them: list[Measured]) -> str:
    for other in all_of_them:
        same = (other.database, other.held, other.due) == (one.database, one.held, one.due)
        if same and other.what != one.what and one.what == "bailee":
            return f"{_working(one) / other.gone_seconds:.2f}x"
    return "-"


def _tell_aims(combined: list[Measured]) -> str:
    """Return what became of the aims: seconds for a million, and that cost follows what is due."""
    lines = []
    ours = [one for one in combined if one.what == "bailee"]
    for database in dict.fromkeys(one.database for one in ours):
        of_it = [one for one in ours if one.database == database]
        for one in of_it:
            if one.due == AIM_DUE:
                met = "met" if one.gone_seconds < AIM_SECONDS else "MISSED"
                lines.append(
                    f"- {database}, {one.due:,} due of {one.held:,}: keys destroyed {one.gone_seconds:.1f} s"
                    f" after the deadline (aim: under {AIM_SECONDS:g} s): {met}."
                )
        for due in sorted({one.due for one in of_it}):
            alike = sorted((one for one in of_it if one.due == due), key=lambda one: one.held)
            if len(alike) > 1:
                ratio = _working(alike[-1]) / _working(alike[0])
                lines.append(
                    f"- {database}, {due:,} due: {ratio:.2f} times the work where"
                    f" {alike[-1].held / alike[0].held:.1f} times as much is held."
                )
    return "\n".join(lines)

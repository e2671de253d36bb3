"""What is held of metrics, read and added up: latency, reliability and usage, without whoever sent it."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec

from bailee.flows.metrics.drops import Drops, read_drops
from bailee.flows.metrics.points import unpack
from bailee.manifests.catalogues import Kept
from bailee.moments import begin_of
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.vault.reader import list_exchanges, list_sessions, read_session
from bailee.vault.store import open_keys, open_vault

HOUR_MS = 3_600_000
# What answers of the model are called, by who sends them, and their fields.
_ANSWERS = {"bailee.answer": "milliseconds", "claude_code.api_request": "duration_ms"}
_FAILURES = ("claude_code.api_error",)
_TURNS = "bailee.turn"


class Held(msgspec.Struct, frozen=True):
    """A point with the hour in which it came; nothing that leads to who sent it.

    Attributes:
        hour: the beginning of the hour, UTC.
    """

    hour: datetime
    name: str
    fields: dict[str, Kept]


class Latency(msgspec.Struct, frozen=True):
    """How long the model took to answer, milliseconds, on a UTC day."""

    day: date
    model: str
    answers: int
    p50: float
    p95: float
    most: float


class Reliability(msgspec.Struct, frozen=True):
    """How often something came to its end, on a UTC day."""

    day: date
    what: str
    done: int
    failed: int
    other: int


class Usage(msgspec.Struct, frozen=True):
    """How much of something there was, on a UTC day: of a counter its sum, of an event how often it came."""

    day: date
    name: str
    kind: str
    amount: float


class Summary(msgspec.Struct, frozen=True):
    """All of it."""

    latency: list[Latency]
    reliability: list[Reliability]
    usage: list[Usage]


def count_dropped(home: Path, *, since: date) -> dict[str, Drops]:
    """Return how much was dropped because no entry of the catalogue names it, by the path that it came by.

    Args:
        since: the first UTC day.
    """
    vault = open_vault(home)
    found: defaultdict[str, Drops] = defaultdict(Drops)
    try:
        for one in list_exchanges(vault, flow=FlowId.METRICS, since_ms=begin_of(since)):
            if (drops := read_drops(one.reason)) != Drops():
                found[one.path] += drops
    finally:
        vault.dispose()
    return dict(sorted(found.items()))


def read_points(home: Path, *, since: date | None = None) -> list[Held]:
    """Return the points that are held, the oldest first.

    Args:
        since: the first UTC day.

    Raises:
        Problem: see `vault.store`; or what is held cannot be understood.
    """
    vault, keys, today = open_vault(home), open_keys(home), datetime.now(UTC).date()
    found: list[Held] = []
    try:
        for session in list_sessions(vault, flow=FlowId.METRICS):
            exchanges = list_exchanges(vault, account=session.account, session=session.id)
            began = {one.id: one.started_ms for one in exchanges if one.flow == FlowId.METRICS}
            for transcript in read_session(vault, keys, session.account, session.id, today=today):
                if transcript.exchange not in began:
                    continue
                hour_ms = began[transcript.exchange] // HOUR_MS * HOUR_MS
                hour = datetime.fromtimestamp(hour_ms / 1000, UTC)
                if since is None or hour.date() >= since:
                    points = unpack(transcript.request.reveal())
                    found += [Held(hour, point.name, point.fields) for point in points]
    except msgspec.MsgspecError:
        raise Problem("what is held of metrics cannot be understood", where=str(home)) from None
    finally:
        keys.close()
        vault.dispose()
    return sorted(found, key=lambda one: one.hour)


def summarize(points: Iterable[Held]) -> Summary:
    """Add points up by UTC day."""
    times: defaultdict[tuple[date, str], list[float]] = defaultdict(list)
    ends: defaultdict[tuple[date, str], Counter[str]] = defaultdict(Counter)
    amounts: defaultdict[tuple[date, str, str], float] = defaultdict(float)
    for point in points:
        day = point.hour.date()
        if (field := _ANSWERS.get(point.name)) is not None:
            milliseconds = point.fields.get(field)
            if isinstance(milliseconds, float | int):
                times[day, str(point.fields.get("model", "unknown"))].append(float(milliseconds))
            ends[day, "answers of the model"]["done"] += 1
        elif point.name in _FAILURES:
            ends[day, "answers of the model"]["failed"] += 1
        elif (outcome := _tell_outcome(point)) is not None:
            what = "turns" if point.name == _TURNS else f"tool {_tool(point)}"
            ends[day, what][outcome] += 1
        value = point.fields.get("value", 1.0)
        amounts[day, point.name, _kind(point)] += float(value) if isinstance(value, float | int) else 1.0
    return Summary(
        [
            Latency(day, model, len(found), _quantile(found, 0.5), _quantile(found, 0.95), max(found))
            for (day, model), found in sorted(times.items())
        ],
        [
            Reliability(day, what, count["done"], count["failed"], count["other"])
            for (day, what), count in sorted(ends.items())
        ],
        [Usage(*key, amount) for key, amount in sorted(amounts.items())],
    )


def _tell_outcome(point: Held) -> str | None:
    if point.name in ("bailee.turn", "bailee.tool"):
        outcome = point.fields.get("outcome")
        return str(outcome) if outcome in ("done", "failed") else "other"
    if point.name == "claude_code.tool_result":
        return {"true": "done", "false": "failed"}.get(str(point.fields.get("success")), "other")
    return None


def _tool(point: Held) -> str:
    return str(point.fields.get("tool", point.fields.get("tool_name", "other")))


def _kind(point: Held) -> str:
    """Return what tells usage of one name apart: the first of the fields that are there."""
    for name in ("type", "tool", "tool_name", "start_type", "surface", "decision", "outcome"):
        if name in point.fields:
            return str(point.fields[name])
    return ""


def _quantile(values: list[float], share: float) -> float:
    """Return the value that at least this share of values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

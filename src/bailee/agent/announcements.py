"""What a person is told without asking: once, how long sessions are kept; daily, which ones go, and went."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bailee.agent.sessions.periods import Limits, Swept
from bailee.agent.state import make_private
from bailee.agent.work import Work
from bailee.characters import make_visible
from bailee.files import replace_file
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.sizes import tell_count

FILE = "told.json"
Tell = Callable[[str], None]


class Told(msgspec.Struct, frozen=True):
    """What has been told already.

    Attributes:
        has_greeted: how long sessions are kept, and what is sent.
        swept: the UTC day, and the limits, of the last clean-up: nothing comes of another one before either
            changes.
    """

    has_greeted: bool = False
    swept: str = ""


def announce(work: Work, tell: Tell, warn: Tell) -> None:
    """Tell what is to be told, clean up what is due, and remember it. In incognito nothing is written."""
    for notice in work.settings.notices:
        warn(notice)
    if work.account_doubt:
        warn(work.account_doubt)
    told = read_told(work.state)
    if work.is_incognito:
        tell("Incognito: nothing of this session is written on this machine.")
        return
    if not told.has_greeted:
        for line in introduce(work):
            tell(line)
        work.is_first = True
        work.metrics.hold_back()
    day = datetime.now(UTC).date()
    swept = f"{day} {_written(work.limits)}"
    if told.swept != swept and work.cache.paths():
        tell_swept(work.sweep_sessions(day), tell, warn)
    if not told.has_greeted or told.swept != swept:
        try:
            make_private(work.state)
            replace_file(work.state / FILE, msgspec.json.encode(Told(True, swept)))
        except (OSError, Problem) as fault:
            warn(f"the agent's state cannot be written: {fault}")


def read_told(state: Path) -> Told:
    """Return what has been told; a file that cannot be understood only means telling it once more."""
    try:
        return msgspec.json.decode((state / FILE).read_bytes(), type=Told)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Told()


def introduce(work: Work) -> list[str]:
    """Return what is said at the first start: how long is kept, and what is asked."""
    period = work.limits.everywhere.period
    kept = "as long as you leave them" if period.is_unlimited else f"for {period}"
    lines = [
        f"Sessions are kept on this machine {kept}, encrypted, secrets masked, to go on with (--continue).",
        '  Another time: bailee config set cleanupPeriodDays 7 (or "none", "unlimited"). Once: --incognito.',
    ]
    if work.decision(FlowId.METRICS).allowed:
        lines.append(
            "From the next start on the agent sends counts, such as how long answers take, to the Bailee "
            "service that started it or that it is logged in to; without one they stay here. "
            "See: bailee telemetry status. Off: bailee telemetry off"
        )
    if work.service is not None and work.decision(FlowId.SURVEY).allowed:
        lines.append(
            "Now and then you are asked how a session goes; the rating is sent, and nothing else. "
            "Off: bailee config set feedbackSurveyRate 0"
        )
    return lines


def tell_swept(swept: Swept, tell: Tell, warn: Tell) -> None:
    """Tell which sessions went, which go within a week, and what could not be deleted."""
    if swept.deleted:
        names = "; ".join(f"{make_visible(session.title)}" for session in swept.deleted[:10])
        more = "; ..." if len(swept.deleted) > 10 else ""
        count = tell_count(len(swept.deleted), "session")
        tell(f"{count} reached the end of the time they are kept for and went: {names}{more}")
    for session, day in swept.soon[:10]:
        tell(
            f"The session {make_visible(session.title)!r} goes on {day}; to keep it: "
            f"bailee sessions --local pin {session.id[:8]}"
        )
    if len(swept.soon) > 10:
        tell(f"... and {len(swept.soon) - 10} more: bailee sessions --local list")
    for problem in swept.problems:
        warn(str(problem))


def _written(limits: Limits) -> str:
    return (
        "/".join(
            str(period)
            for limit in (limits.everywhere, limits.here)
            for period in (limit.period, limit.pinned)
        )
        + f" {limits.folder if limits.here != limits.everywhere else ''}"
    )

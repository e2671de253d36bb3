"""How long sessions stay on this machine: to the day, announced a week before, and never on a doubt.

A session counts from the day it was last used: going on with it sends and keeps all of it anew, as the vault
counts it too. It goes as day D+N begins, where D is that UTC day and N the period.

A period of the owner's counts at once, also where it was made shorter or nobody was there to be told: what
goes is named as it goes. One that a repository asks came with somebody else's change: what goes by it alone
goes a week after that was announced, and nothing that is pinned does.
"""

import contextlib
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import msgspec

from bailee.agent.sessions.cache import Cache, Session
from bailee.policy.contexts import Context
from bailee.policy.decisions import decide
from bailee.policy.flows import Flow
from bailee.policy.layers import REPOSITORY, Layer, LayerName
from bailee.policy.periods import Period, tightest
from bailee.policy.problems import Problem

ANNOUNCED = timedelta(days=7)


class Plan(msgspec.Struct, frozen=True):
    """What becomes of the sessions on a day.

    Attributes:
        due: those whose time is over.
        soon: those that go within a week, with the day.
        unannounced: those of them of which it has to be noted that their week begins.
    """

    due: tuple[Session, ...]
    soon: tuple[tuple[Session, date], ...]
    unannounced: tuple[Session, ...] = ()


class Swept(msgspec.Struct, frozen=True):
    """What a clean-up did.

    Attributes:
        deleted: the sessions that are gone.
        soon: those that go within a week, with the day.
        problems: why others whose time is over are still there.
    """

    deleted: tuple[Session, ...]
    soon: tuple[tuple[Session, date], ...]
    problems: tuple[Problem, ...]


class Limit(msgspec.Struct, frozen=True):
    """How long a session stays, and how long one that its user pinned.

    A pin frees a session from the default, from the user's own period and from what a repository asks, not
    from what a managed file asks.
    """

    period: Period
    pinned: Period


class Limits(msgspec.Struct, frozen=True):
    """The limits of this machine, and those of the project the agent was started in.

    Attributes:
        folder: the project's folder: what a repository asks reaches its own sessions and no others.
    """

    everywhere: Limit
    here: Limit
    folder: str

    @classmethod
    def of(cls, flow: Flow, context: Context, folder: str) -> "Limits":
        """Return what the policy decides about the local cache.

        Only periods count. A switch such as CLAUDE_CODE_SKIP_PROMPT_HISTORY keeps a session from being
        written; nobody who sets it asks for the others to be deleted.
        """
        layers = tuple(
            msgspec.structs.replace(layer, variables={}, off={}) for layer in context.layers if layer.cache
        )
        own = tuple(layer for layer in layers if layer.name not in REPOSITORY)
        return cls(_limit(flow, context, own), _limit(flow, context, layers), folder)

    def of_session(self, session: Session, today: date | None = None) -> date | None:
        """Return the day at whose beginning a session goes; None for never.

        Args:
            today: from which a week is counted that has not been announced; by default the day it is.
        """
        own = _day(self.everywhere, session)
        if session.folder != self.folder or session.is_pinned:
            return own
        asked = _day(self.here, session)
        if asked is None or asked == own:
            return own
        begun = date.fromisoformat(session.announced) if session.announced else None
        week = (begun or today or datetime.now(UTC).date()) + ANNOUNCED
        return max(asked, week) if own is None else min(own, max(asked, week))

    def waits(self, session: Session, today: date) -> bool:
        """Tell whether a session goes by what a repository asks alone, and nobody has been told yet."""
        return not session.announced and self.of_session(session, today) != _day(self.everywhere, session)


def _day(limit: Limit, session: Session) -> date | None:
    used = datetime.fromtimestamp(session.used / 1000, UTC).date()
    return (limit.pinned if session.is_pinned else limit.period).expires_on(used)


def _limit(flow: Flow, context: Context, layers: tuple[Layer, ...]) -> Limit:
    period = decide(flow, msgspec.structs.replace(context, layers=layers)).terms.retention
    binding = [
        layer.cache
        for layer in layers
        if layer.cache is not None and layer.name is not LayerName.USER and layer.name not in REPOSITORY
    ]
    return Limit(period, tightest(binding))


def plan(sessions: Sequence[Session], limits: Limits, today: date) -> Plan:
    """Tell which sessions go today and which within a week; pure."""
    due, soon = [], []
    for session in sessions:
        day = limits.of_session(session, today)
        if day is None:
            continue
        if day <= today:
            due.append(session)
        elif day <= today + ANNOUNCED:
            soon.append((session, day))
    told = tuple(sorted(soon, key=lambda one: one[1]))
    return Plan(tuple(due), told, tuple(session for session, _ in told if limits.waits(session, today)))


def sweep(cache: Cache, limits: Limits, today: date) -> Swept:
    """Delete what is due. A session that cannot be read is left alone and told of."""
    cache.finish()
    sessions, problems = cache.list()
    planned = plan(sessions, limits, today)
    deleted = []
    for session in planned.due:
        try:
            cache.delete(session.id)
            deleted.append(session)
        except Problem as problem:
            problems.append(problem)
    for session in planned.unannounced:
        with contextlib.suppress(Problem):  # open in another terminal: its week begins with the next clean-up
            cache.note(session.id, {"announced": today.isoformat()})
    return Swept(tuple(deleted), planned.soon, tuple(problems))

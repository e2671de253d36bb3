"""What is held of errors, grouped by class and the frame in which it was raised."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bailee.flows.errors.faults import Fault, Raised, unpack
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.vault.reader import list_exchanges, list_sessions, read_session
from bailee.vault.store import open_keys, open_vault


class Held(msgspec.Struct, frozen=True):
    """An error and when it came, milliseconds since 1970 UTC; nothing that leads to who sent it."""

    at_ms: int
    fault: Fault


class Group(msgspec.Struct, frozen=True):
    """Errors of one class, raised in one frame.

    Attributes:
        where: module, function and line of the innermost frame that is held.
        first_ms, last_ms: milliseconds since 1970 UTC.
        trace: the frames of the one that came last, the innermost last.
    """

    name: str
    where: str
    count: int
    first_ms: int
    last_ms: int
    versions: list[str]
    agents: list[str]
    trace: list[str]


def read_faults(home: Path) -> list[Held]:
    """Return the errors that are held, the oldest first.

    Raises:
        Problem: see `vault.store`; or what is held cannot be understood.
    """
    vault, keys, today = open_vault(home), open_keys(home), datetime.now(UTC).date()
    found: list[Held] = []
    try:
        for session in list_sessions(vault, flow=FlowId.ERRORS):
            exchanges = list_exchanges(vault, account=session.account, session=session.id)
            began = {one.id: one.started_ms for one in exchanges if one.flow == FlowId.ERRORS}
            for transcript in read_session(vault, keys, session.account, session.id, today=today):
                if (at_ms := began.get(transcript.exchange)) is not None:
                    found += [Held(at_ms, fault) for fault in unpack(transcript.request.reveal())]
    except msgspec.MsgspecError:
        raise Problem("what is held of errors cannot be understood", where=str(home)) from None
    finally:
        keys.close()
        vault.dispose()
    return sorted(found, key=lambda one: one.at_ms)


def group(held: list[Held]) -> list[Group]:
    """Group errors, the one that came last first."""
    groups: dict[tuple[str, str], list[Held]] = {}
    for one in held:
        raised = one.fault.exceptions[-1]
        groups.setdefault((raised.name, _where(raised)), []).append(one)
    found = [
        Group(
            name,
            where,
            len(ones),
            ones[0].at_ms,
            ones[-1].at_ms,
            sorted({str(one.fault.fields.get("version", "?")) for one in ones}),
            sorted({str(one.fault.fields.get("agent", "?")) for one in ones}),
            [_tell(frame) for frame in ones[-1].fault.exceptions[-1].frames],
        )
        for (name, where), ones in groups.items()
    ]
    return sorted(found, key=lambda one: one.last_ms, reverse=True)


def _where(raised: Raised) -> str:
    return _tell(raised.frames[-1]) if raised.frames else "in no published code"


def _tell(frame: dict[str, str | float]) -> str:
    line = f":{int(frame['line'])}" if "line" in frame else ""
    return f"{frame['module']}.{frame['function']}{line}"

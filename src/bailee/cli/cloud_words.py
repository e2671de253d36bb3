"""What is known of a cloud session, in words for people."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bailee.characters import make_visible
from bailee.cloud.records import STOP_REASON, CloudSession, Sessions
from bailee.moments import tell_minute
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.sizes import tell_size

_MOMENTS = ("created_ms", "changed_ms", "snapshot_ms")
_SIZES = ("disk_bytes", "snapshot_bytes", "traffic_bytes")
# Of use to programs alone.
_LEFT_OUT = ("keys", "disk", "disk_digest", "snapshot", "snapshot_digest")


def tell_start(session: CloudSession, *, emulated: bool) -> Iterator[str]:
    """Say how a session that was just begun is followed, and where its machine takes its time.

    Args:
        emulated: whether its machine is (`service.isolations.is_emulated`).
    """
    if emulated:
        yield "KVM cannot be used here: its machine is emulated, and may take minutes to its first word."
        yield "Faster, but with the host's kernel alone between: --isolation namespace"
    yield f"It pushes to {session.branch}. See: bailee cloud logs -f {session.id}"


def tell_state(session: CloudSession) -> str:
    """Say where a session stands, and why if that says more."""
    says_more = session.reason and session.reason != STOP_REASON
    return f"{session.state}{f': {make_visible(session.reason)}' if says_more else ''}"


def tell_left(conversations: Sequence[str]) -> Iterator[str]:
    """Say what is still held of a session that was removed, and how it is let go of.

    Args:
        conversations: as `find_conversations` has them.
    """
    if conversations:
        yield "Its conversation is still held, until its day. To erase it:"
    for one in conversations:
        yield f"  bailee sessions erase {make_visible(one)}"


def find_conversations(home: Path, sessions: Sessions, id: str) -> list[str]:
    """Return the ids of the conversations that the service holds of a session; none if it is unreadable."""
    from bailee.vault.reader import list_exchanges
    from bailee.vault.store import open_vault

    try:
        keys = sessions.look(id).keys
    except Problem:
        return []
    vault = open_vault(home)
    try:
        held = [one.session for key in keys for one in list_exchanges(vault, key=key, flow=FlowId.MESSAGES)]
    finally:
        vault.dispose()
    return list(dict.fromkeys(held))


def tell_session(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the names and values that say something, in the order in which they are known.

    Args:
        told: as `bailee cloud show --json` has it.
    """
    for name, value in told.items():
        if name in _LEFT_OUT or not value or (name == "reason" and value == STOP_REASON):
            continue
        if name == "turns":
            for number, turn in enumerate(value, 1):
                yield f"turn {number}", make_visible(turn)
        elif name == "limits":
            yield "memory", f"{value.memory_mb} MB"
            yield "disk", f"{value.disk_mb} MB"
            yield "processes", str(value.processes)
            if told["isolation"] == "vm":
                yield "processors", str(value.processors)
        else:
            yield _name(name), _tell(name, value)


def _name(name: str) -> str:
    for ending in ("_ms", "_bytes"):
        name = name.removesuffix(ending)
    return name.removeprefix("is_").removeprefix("has_").replace("_", " ")


def _tell(name: str, value: Any) -> str:
    if name in _MOMENTS:
        return tell_minute(value)
    if name in _SIZES:
        return tell_size(value)
    if isinstance(value, bool):
        return "yes"
    if isinstance(value, tuple | list):
        return make_visible(", ".join(value))
    return make_visible(str(value))

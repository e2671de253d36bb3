"""What is known of a cloud session, in words for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from bailee.characters import make_visible
from bailee.moments import tell_minute
from bailee.sizes import tell_size

_MOMENTS = ("created_ms", "changed_ms", "snapshot_ms")
_SIZES = ("disk_bytes", "snapshot_bytes", "traffic_bytes")
# Of use to programs alone.
_LEFT_OUT = ("keys", "disk", "disk_digest", "snapshot", "snapshot_digest")


def tell_session(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the names and values that say something, in the order in which they are known.

    Args:
        told: as `bailee cloud show --json` has it.
    """
    for name, value in told.items():
        if name in _LEFT_OUT or not value:
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

"""A cloud session in words."""

import msgspec

from bailee.cli.cloud_words import tell_session
from bailee.cloud.records import CloudSession, State
from bailee.sandbox.machines import Limits


def test_a_session_in_words() -> None:
    """No value is shown as Python or as a number of milliseconds, and nothing empty is shown."""
    session = CloudSession(
        id="0123456789ab",
        account="me",
        repository="https://host/app",
        base="",
        branch="bailee/x",
        agent="bailee",
        isolation="namespace",
        network="custom",
        upstream="rehearsal",
        allow=("a.example", "b.example"),
        setup="",
        seconds=3600,
        traffic_bytes=1_000_000,
        turns=("one", "two \x1b[2J"),
        answered=1,
        state=State.DONE,
        reason="",
        limits=Limits(),
        created_ms=1_795_763_731_944,
        changed_ms=1_795_763_731_944,
        has_unsaved=True,
    )
    told = dict(tell_session(msgspec.structs.asdict(session)))
    assert told["allow"] == "a.example, b.example"
    assert told["turn 2"] == "two \\x1b[2J"
    assert told["memory"] == "2000 MB"
    assert told["created"].startswith("2026-")
    assert told["unsaved"] == "yes"
    assert "base" not in told
    assert not any(mark in value for value in told.values() for mark in ("(", "Limits", "1795763731944"))

"""A cloud session in words."""

import os
from pathlib import Path

import msgspec
import pytest

from bailee.cli.cloud_words import tell_session, tell_start, tell_state
from bailee.cloud.records import STOP_REASON, CloudSession, State
from bailee.sandbox import virtual
from bailee.sandbox.machines import Kind, Limits
from bailee.service.isolations import is_emulated


def make_session(state: State = State.DONE, reason: str = "") -> CloudSession:
    return CloudSession(
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
        state=state,
        reason=reason,
        limits=Limits(),
        created_ms=1_795_763_731_944,
        changed_ms=1_795_763_731_944,
        has_unsaved=True,
    )


def test_a_session_in_words() -> None:
    """No value is shown as Python or as a number of milliseconds, and nothing empty is shown."""
    session = make_session()
    told = dict(tell_session(msgspec.structs.asdict(session)))
    assert told["allow"] == "a.example, b.example"
    assert told["turn 2"] == "two \\x1b[2J"
    assert told["memory"] == "2000 MB"
    assert told["created"].startswith("2026-")
    assert told["unsaved"] == "yes"
    assert "base" not in told
    assert not any(mark in value for value in told.values() for mark in ("(", "Limits", "1795763731944"))


def test_a_state_is_told_with_what_says_more_than_it() -> None:
    """That a stopped session was stopped is said once; any other reason is told beside the state."""
    stopped = make_session(State.STOPPED, STOP_REASON)
    assert tell_state(stopped) == "stopped"
    assert "reason" not in dict(tell_session(msgspec.structs.asdict(stopped)))
    other = make_session(State.STOPPED, "its 10 s were over")
    assert tell_state(other) == "stopped: its 10 s were over"  # Control
    assert dict(tell_session(msgspec.structs.asdict(other)))["reason"] == "its 10 s were over"


def test_who_waits_for_an_emulated_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without KVM a virtual machine is told to be slow, with what is faster; else nothing is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(virtual.os, "access", lambda path, mode: False)
    assert is_emulated(Kind.VM)
    assert not is_emulated(Kind.NAMESPACE)
    first, second, last = tell_start(make_session(), emulated=True)
    assert "emulated" in first
    assert "--isolation namespace" in second
    assert last.endswith("See: bailee cloud logs -f 0123456789ab")
    monkeypatch.setattr(virtual.os, "access", lambda path, mode: True)
    assert not is_emulated(Kind.VM)  # Control
    assert list(tell_start(make_session(), emulated=False)) == [last]
    refusal = virtual.cache_folder() / f"kvm-does-not-work-{os.uname().release}"
    refusal.parent.mkdir(parents=True)
    refusal.touch()
    assert is_emulated(Kind.VM)

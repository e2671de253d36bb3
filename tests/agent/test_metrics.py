"""What the agent counts: catalogued events alone, sent where they may be, a copy of each upload kept."""

import json
import os
import sys
from collections.abc import Callable, Generator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.agent import metrics as metrics_of_agent
from bailee.agent.events import Answered, Ended, Result, Usage
from bailee.agent.events import Event as Happened
from bailee.agent.metrics import Line, Metrics, is_counted
from bailee.agent.telemetry import LOCAL, Store
from bailee.flows.metrics import sender
from bailee.flows.metrics.exports import Signal, read_json
from bailee.flows.metrics.results import read_points
from bailee.flows.metrics.sender import Event, Wire, make_event
from bailee.flows.metrics.statsig import read_events
from bailee.manifests import load_manifest
from bailee.policy.contexts import Context
from bailee.policy.layers import Layer, LayerName
from counterparts.programs import run_program
from counterparts.sinks import URL, run_with_sink

NOW = 1_777_000_000.0
FACTS: dict[str, object] = {"version": "1.2.3", "provider": "anthropic"}
CANARY = "canary /home/ada/plan.txt ada@example.invalid"


class Sink(list[bytes]):
    """Takes what is posted, and answers as it is told."""

    status = 200

    def __call__(self, path: str, body: bytes) -> int:
        if not self.status:
            raise ConnectionRefusedError
        self.append(body)
        return self.status


def turn(text: str = CANARY) -> Generator[Happened]:
    """Give the events of a turn, a text in every place that has room for one."""
    yield Answered(text, Usage(10, 20), text, 1234)
    yield Result(text, text, text, is_error=False)
    yield Result("1", "bash", text, is_error=True)
    yield Ended("done", 2, Usage())


def work(metrics: Metrics, events: Callable[[], Generator[Happened]] = turn) -> None:
    """Have a session of one turn."""
    metrics.begin_session(is_resumed=False)
    for _ in metrics.observe(events()):
        pass
    metrics.end_session(surface="print")
    metrics.close()


def make(tmp_path: Path, sink: Sink | None, wire: Wire = Wire.OTLP, to: str = "here") -> Metrics:
    line = Line(to, f"http://{to}", sink) if sink is not None else None
    return Metrics(Store(tmp_path), line, wire, facts=FACTS, clock=lambda: NOW)


def unreachable() -> Sink:
    """Give a sink that nobody reaches: what is counted for it stays pending."""
    sink = Sink()
    sink.status = 0
    return sink


def names(events: Sequence[Event]) -> list[str]:
    return [event.name for event in events]


@pytest.mark.parametrize("wire", list(Wire))
def test_a_session_is_counted_and_sent(tmp_path: Path, wire: Wire) -> None:
    """By either wire, the receiver reads what was counted, and none of the texts is among it."""
    sink = Sink()
    work(make(tmp_path, sink, wire))
    (body,) = sink
    samples = read_events(body) if wire is Wire.STATSIG else read_json(body, Signal.LOGS)
    expected = ["bailee.answer", "bailee.tool", "bailee.tool", "bailee.turn", "bailee.session"]
    assert [sample.name for sample in samples] == expected
    assert samples[2].fields["outcome"] == "failed"
    assert not [word for word in CANARY.split() if word.encode() in body]
    assert Store(tmp_path).read() == []


def test_an_exact_copy_is_kept(tmp_path: Path) -> None:
    """Byte for byte what was sent, with the answer, in files of their owner alone."""
    sink = Sink()
    work(make(tmp_path, sink))
    ((path, upload),) = Store(tmp_path).list_uploads()
    assert path.read_bytes() == sink[0]
    assert (upload.status, upload.bytes) == (200, len(sink[0]))
    assert all(one.stat().st_mode & 0o077 == 0 for one in (tmp_path / "telemetry").rglob("*"))


@pytest.mark.parametrize(
    ("status", "stays"), [(0, True), (503, True), (429, True), (403, False), (400, False)]
)
def test_what_was_not_taken_is_sent_again(tmp_path: Path, status: int, stays: bool) -> None:
    """Unreachable or busy: it stays pending and goes with the next; refused for good, it does not."""
    sink = Sink()
    sink.status = status
    work(make(tmp_path, sink))
    assert bool(Store(tmp_path).read()) is stays
    sink.status = 200
    before = len(sink)
    work(make(tmp_path, sink))
    assert len(read_json(sink[before], Signal.LOGS)) == (10 if stays else 5)


def test_what_was_counted_locally_is_never_sent(tmp_path: Path) -> None:
    """Switched on later, only what is counted from then on is sent."""
    sink = Sink()
    work(make(tmp_path, None))
    assert len(Store(tmp_path).read(LOCAL)) == 5
    work(make(tmp_path, sink))
    (body,) = sink
    assert len(read_json(body, Signal.LOGS)) == 5
    assert len(Store(tmp_path).read(LOCAL)) == 5


def test_what_was_counted_for_one_recipient_goes_to_no_other(tmp_path: Path) -> None:
    """Counted for one that was away, it is not in what another gets, and goes once that one is back; counted
    without a service, or by a program that noted none, it goes to nobody."""
    store = Store(tmp_path)
    work(make(tmp_path, unreachable(), to="one"))
    work(make(tmp_path, None))
    with (tmp_path / "telemetry" / "pending.jsonl").open("ab") as file:
        file.write(
            msgspec.json.encode({"name": "bailee.turn", "fields": {}, "hour_ms": int(NOW * 1000)}) + b"\n"
        )
    one, other = Sink(), Sink()
    work(make(tmp_path, other, to="other"))
    assert [len(read_json(body, Signal.LOGS)) for body in other] == [5]
    assert sorted({event.recipient for event in store.read()}) == ["", "one"]
    work(make(tmp_path, one, to="one"))
    assert [len(read_json(body, Signal.LOGS)) for body in one] == [10]
    assert [event.recipient for event in store.read()] == [""]
    assert [upload.place for _, upload in store.list_uploads()] == ["http://other", "http://one"]


def test_control_where_whoever_comes_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: where the recipient is not looked at, another gets it."""
    monkeypatch.setattr(metrics_of_agent, "next_request", lambda events, recipient, now_ms: list(events))
    work(make(tmp_path, unreachable(), to="one"))
    other = Sink()
    work(make(tmp_path, other, to="other"))
    assert [len(read_json(body, Signal.LOGS)) for body in other] == [10]


def test_nothing_goes_in_the_run_that_tells_of_it(tmp_path: Path) -> None:
    """It is counted and stays pending, so that the user can say no before the first byte."""
    sink = Sink()
    metrics = make(tmp_path, sink)
    metrics.hold_back()
    work(metrics)
    assert sink == []
    assert len(Store(tmp_path).read()) == 5


def test_without_a_store_nothing_is_counted(tmp_path: Path) -> None:
    """Switched off, or incognito: no file, no upload."""
    sink = Sink()
    work(Metrics(None, Line("here", "http://here", sink), Wire.OTLP, facts=FACTS))
    assert sink == []
    assert list(tmp_path.iterdir()) == []


def test_all_of_it_goes_after_30_days(tmp_path: Path) -> None:
    """What is pending, what is local, and the copies of what was sent."""
    sink = Sink()
    work(make(tmp_path, sink))
    work(make(tmp_path, unreachable()))
    work(make(tmp_path, None))
    store = Store(tmp_path)
    store.sweep(int((NOW + 29 * 86_400) * 1000))
    assert (len(store.read()), len(store.read(LOCAL)), len(store.list_uploads())) == (5, 5, 1)
    store.sweep(int((NOW + 31 * 86_400) * 1000))
    assert (store.read(), store.read(LOCAL), store.list_uploads()) == ([], [], [])


def test_interrupts_reach_the_turn(tmp_path: Path) -> None:
    """Counting stands between a turn and whoever shows it, unnoticed; the turn is counted as such."""
    seen: list[str] = []

    def interrupted() -> Generator[Happened]:
        try:
            yield from turn()
        except KeyboardInterrupt:
            seen.append("interrupted")
            yield Ended("interrupted", 1, Usage())

    metrics = make(tmp_path, unreachable())
    events = metrics.observe(interrupted())
    next(events)
    assert isinstance(events.throw(KeyboardInterrupt()), Ended)
    assert list(events) == []
    metrics.close()
    assert seen == ["interrupted"]
    (counted,) = [event for event in Store(tmp_path).read() if event.name == "bailee.turn"]
    assert counted.fields["outcome"] == "interrupted"


def test_a_failed_turn_is_counted_as_failed(tmp_path: Path) -> None:
    """And its failure goes on to whoever asked."""

    def failing() -> Generator[Happened]:
        yield Answered("claude", Usage(), "end_turn", 1)
        raise ConnectionError(CANARY)

    metrics = make(tmp_path, unreachable())
    with pytest.raises(ConnectionError):
        list(metrics.observe(failing()))
    metrics.close()
    (counted,) = [event for event in Store(tmp_path).read() if event.name == "bailee.turn"]
    assert counted.fields["outcome"] == "failed"
    assert CANARY not in (tmp_path / "telemetry" / "pending.jsonl").read_text()


def test_a_full_disk_stops_no_work(tmp_path: Path) -> None:
    """Counting that cannot be kept is not kept, and nobody hears of it."""
    (tmp_path / "telemetry").write_text("a file where a folder would be")
    with pytest.raises(Exception, match="kept"):
        Store(tmp_path).add([])
    work(make(tmp_path, Sink()))


def off(layer: LayerName, **more: Any) -> Context:
    return Context(layers=(Layer(name=layer, **more),))


@pytest.mark.parametrize(
    ("context", "setting", "counted"),
    [
        (Context(), "on", True),
        (off(LayerName.USER, off={"metrics": "telemetry"}), "local", True),
        (off(LayerName.USER, off={"metrics": "telemetry"}), "off", False),
        (off(LayerName.ENVIRONMENT, variables={"DISABLE_TELEMETRY": "1"}), "local", False),
        (off(LayerName.ENVIRONMENT, variables={"DO_NOT_TRACK": "1"}), "on", False),
    ],
)
def test_local_is_no_way_past_another_switch(context: Context, setting: str, counted: bool) -> None:
    """`local` counts where it alone stops sending; a variable stops counting as well."""
    assert is_counted(load_manifest("bailee").flow("metrics"), context, setting) is counted


ANYTHING = st.text() | st.integers() | st.floats() | st.booleans() | st.none()


@given(st.text(), st.dictionaries(st.text() | st.sampled_from(["version", "outcome", "tool"]), ANYTHING))
def test_nothing_uncatalogued_becomes_an_event(name: str, fields: dict[str, object]) -> None:
    """Whatever a caller passes, an event has an entry's name, and its fields are what the entry says."""
    for entry in ("bailee.turn", "bailee.tool", name):
        event = make_event(entry, {"version": "1.2.3", **fields}, now_ms=1, today=date(2026, 11, 24))
        if event is not None:
            assert event.name.startswith(("bailee.", "claude_code."))
            assert set(event.fields) <= {"version", "outcome", "tool", "rounds", "milliseconds"}


def test_control_without_the_catalogue_at_the_sender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: passed on as they come, the texts are in the upload."""

    def make_as_it_comes(name: str, fields: dict[str, Any], **more: Any) -> Event:
        return Event(name, fields, int(NOW * 1000))

    monkeypatch.setattr(sender, "make_event", make_as_it_comes)
    sink = Sink()
    work(make(tmp_path, sink))
    assert b"ada@example.invalid" in sink[0]


# --- The program itself ---


def start(tmp_path: Path, *arguments: str, **environment: str) -> "Any":
    """Run the agent through a service of its own, at a home and a state that are there already."""
    (tmp_path / "project").mkdir(exist_ok=True)
    whole = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "BAILEE_HOME": str(tmp_path / "home"),
        "BAILEE_STATE": str(tmp_path / "state"),
        "LANG": "C.UTF-8",
        **environment,
    }
    return run_program(*arguments, environment=whole, folder=tmp_path / "project")


PROGRAM = (str(Path(sys.executable).with_name("bailee")),)
AGENT = (
    "run",
    "--upstream",
    "rehearsal",
    "--",
    *PROGRAM,
    "code",
    "--model",
    "rehearsal",
    "-p",
    "rehearse greet",
)


@pytest.mark.usefixtures("state")
def test_from_the_agent_to_the_table(tmp_path: Path) -> None:
    """The first run tells and sends nothing, the second sends both, and `bailee metrics` adds them up."""
    first = start(tmp_path, *AGENT)
    assert first.returncode == 0, first.stderr
    assert "From the next start on the agent sends counts" in first.stderr
    assert read_points(tmp_path / "home") == []
    shown = start(tmp_path, "telemetry", "preview").stdout
    assert len(read_json(shown.encode(), Signal.LOGS)) == 3
    start(tmp_path, *AGENT)
    assert [point.name for point in read_points(tmp_path / "home")].count("bailee.turn") == 2
    told = json.loads(start(tmp_path, "metrics", "--json").stdout)
    assert {"day", "model", "answers", "p50", "p95", "most"} == told["latency"][0].keys()
    assert told["latency"][0]["answers"] == 2
    status = json.loads(start(tmp_path, "telemetry", "status", "--json").stdout)
    assert (status["metrics"]["value"], status["pending"], status["uploads"]) == ("on", 0, 1)
    listed = json.loads(start(tmp_path, "telemetry", "log", "--json").stdout)
    copy = start(tmp_path, "telemetry", "log", listed[0]["id"]).stdout.strip()
    assert len(copy.encode()) == status["last"]["bytes"]
    start(tmp_path, "telemetry", "clean")
    assert json.loads(start(tmp_path, "telemetry", "status", "--json").stdout)["uploads"] == 0


@pytest.mark.parametrize(
    "switch", ["DISABLE_TELEMETRY", "DO_NOT_TRACK", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"]
)
def test_each_switch_stops_counting(tmp_path: Path, state: Path, switch: str) -> None:
    """No file of it is written, and the service gets none."""
    for _ in range(2):
        assert start(tmp_path, *AGENT, **{switch: "1"}).returncode == 0
    assert not (state / "telemetry").exists()
    assert read_points(tmp_path / "home") == []


@pytest.mark.parametrize("switch", ["", "DISABLE_TELEMETRY"])
def test_on_the_wire(tmp_path: Path, state: Path, switch: str) -> None:
    """In a network of its own, a sink for a service gets the events; with the switch set, not a byte."""
    from bailee.agent.announcements import FILE, Told

    (state / FILE).write_bytes(msgspec.json.encode(Told(True, "")))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "BAILEE_STATE": str(state),
        "BAILEE_SERVICE": URL,
        "ANTHROPIC_AUTH_TOKEN": "bailee_a_b",
        "LANG": "C.UTF-8",
    }
    if switch:
        environment[switch] = "1"
    command = [*PROGRAM, "code", "--model", "rehearsal", "-p", "rehearse greet"]
    seen = run_with_sink(command, tmp_path, environment)
    assert seen.status == 0, seen.stderr
    assert ("POST /v1/logs" in seen.received) is not bool(switch)
    assert bool(seen.received) is not bool(switch)


def test_of_a_session_full_of_secrets_nothing_is_sent(tmp_path: Path, state: Path) -> None:
    """Paths, code, secrets, addresses, emoji and huge lines in prompt, files, folder and errors: the bytes
    that reach the service hold none of it."""
    from bailee.agent.announcements import FILE, Told
    from counterparts.projects import git, make_project

    pieces = ["heron-folder", "heron_code", "ghp_heron0123456789", "heron@example.invalid", "\U0001f426heron"]
    project = tmp_path / f"a {pieces[0]} \U0001f426"
    make_project(project)
    for path in project.glob("*.py"):
        path.write_text(path.read_text() + f"# {' '.join(pieces)} {'heron ' * 5000}\n")
    git(project, "commit", "-qam", "heron")
    (state / FILE).write_bytes(msgspec.json.encode(Told(True, "")))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "BAILEE_STATE": str(state),
        "BAILEE_SERVICE": URL,
        "ANTHROPIC_AUTH_TOKEN": "bailee_a_b",
        "LANG": "C.UTF-8",
    }
    prompt = f"Please fix the failing test {' '.join(pieces)}"
    command = [*PROGRAM, "code", "--model", "rehearsal", "--mode", "all", "-p", prompt]
    seen = run_with_sink(command, project, environment)
    assert seen.status == 0, seen.stderr
    assert "POST /v1/logs" in seen.received
    assert "bailee.tool" in seen.received
    assert "heron" not in seen.received
    assert "example" not in seen.received
    kept = b"".join(path.read_bytes() for path in (state / "telemetry").rglob("*") if path.is_file())
    assert b"bailee.tool" in kept
    assert b"heron" not in kept

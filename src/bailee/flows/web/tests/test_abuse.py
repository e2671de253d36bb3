"""Rules against abuse: slowed down first, stopped if it goes on, and let go where it does not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.flows.web.abuse import Action, Finding, Kind, Limit, Limits, Watch
from bailee.flows.web.files import read_rules_file
from bailee.flows.web.log import Abused, ConnectionLog, Way, read_log
from bailee.flows.web.rules import Refusal, Rule, Rules
from bailee.flows.web.sessions import Session
from bailee.flows.web.targets import read_target
from bailee.policy.problems import Problem


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def only(kind: Kind, limit: Limit | None, *, stop: bool | None = None) -> Limits:
    """Return limits of one kind alone."""
    return Limits(stop=stop, **{one.value: limit if one is kind and limit else "off" for one in Kind})


def watch(limits: Limits, *, stops: bool = True) -> tuple[Watch, Clock]:
    """Return a watch with its clock."""
    clock = Clock()
    return Watch(limits, stops=stops, clock=clock), clock


LIMIT = Limit(slow=5, stop=3, seconds=10)


def refuse_others(watched: Watch, step: int) -> list[Finding]:
    return watched.note_refused(f"{step}.example", 443, "unreachable")


def refuse_again(watched: Watch, step: int) -> list[Finding]:
    return watched.note_refused("a.example", 443, "undeclared")


def connect(watched: Watch, step: int) -> list[Finding]:
    return [found] if (found := watched.note_connection()) else []


def send(watched: Watch, step: int) -> list[Finding]:
    return [found] if (found := watched.note_sent(1)) else []


DOES: dict[Kind, Callable[[Watch, int], list[Finding]]] = {
    Kind.RATE: connect,
    Kind.VOLUME: send,
    Kind.SCAN: refuse_others,
    Kind.DENIALS: refuse_again,
}


@pytest.mark.parametrize("kind", Kind)
def test_slowed_first_then_stopped(kind: Kind) -> None:
    """What reaches the first limit is slowed down, what goes on to the second is stopped, and no sooner."""
    watched, _ = watch(only(kind, LIMIT))
    told = [(step, one.action) for step in range(20) for one in DOES[kind](watched, step)]
    assert told == [(4, Action.SLOWED), (7, Action.STOPPED)]
    assert watched.is_stopped
    assert watched.delay > 0


@pytest.mark.parametrize("kind", Kind)
def test_what_ends_is_let_go(kind: Kind) -> None:
    """Once a whole window was below the first limit nothing waits any more, and all begins anew."""
    watched, clock = watch(only(kind, LIMIT))
    for step in range(6):
        DOES[kind](watched, step)
    assert watched.delay > 0
    clock.now += 9
    assert watched.delay > 0
    clock.now += 1
    assert watched.delay == 0
    told = [(step, one.action) for step in range(20) for one in DOES[kind](watched, 100 + step)]
    assert told == [(4, Action.SLOWED), (7, Action.STOPPED)]


@pytest.mark.parametrize("kind", Kind)
def test_control_what_is_off_is_not_counted(kind: Kind) -> None:
    """Control: with the limit off the same is neither slowed down nor stopped."""
    watched, _ = watch(only(kind, None))
    assert [one for step in range(100) for one in DOES[kind](watched, step)] == []
    assert watched.delay == 0


@pytest.mark.parametrize(("stops", "stop"), [(False, None), (True, False)])
def test_told_where_it_is_not_to_be_stopped(stops: bool, stop: bool | None) -> None:
    """Without stopping the same is told, once, and stays slowed down; the file stands above who runs it."""
    watched, _ = watch(only(Kind.RATE, LIMIT, stop=stop), stops=stops)
    told = [one.action for step in range(50) for one in connect(watched, step)]
    assert told == [Action.SLOWED, Action.TOLD]
    assert not watched.is_stopped
    assert watched.delay > 0


def test_a_scan_is_of_different_ones() -> None:
    """The same host and port again and again is no scan, nor is what the proxy itself cannot do."""
    watched, _ = watch(only(Kind.SCAN, LIMIT))
    for _ in range(100):
        assert watched.note_refused("a.example", 443, "undeclared") == []
        assert watched.note_refused("", 0, "no_log") == []
    assert [one for port in range(5) for one in watched.note_refused("b.example", port, "undeclared")]


def test_a_clock_that_is_set_back() -> None:
    """Nothing is let go before its time, and nothing breaks."""
    watched, clock = watch(only(Kind.RATE, LIMIT))
    for step in range(6):
        connect(watched, step)
    clock.now -= 500
    assert watched.delay > 0
    clock.now += 509
    assert watched.delay > 0
    clock.now += 1
    assert watched.delay == 0


class Reference:
    """The same in the plainest way: a list of all that was, summed up at each step."""

    def __init__(self, limit: Limit, *, is_scan: bool) -> None:
        self.limit, self.is_scan = limit, is_scan
        self.events: list[tuple[int, int, int]] = []
        self.action: Action | None = None
        self.since = 0

    def total(self, now: int) -> int:
        held = [one for one in self.events if one[0] > now - self.limit.seconds]
        return len({what for _, what, _ in held}) if self.is_scan else sum(amount for _, _, amount in held)

    def add(self, now: int, what: int, amount: int) -> Action | None:
        if self.action is Action.STOPPED:
            return None
        calm = self.total(now) < self.limit.slow and now - self.since >= self.limit.seconds
        if self.action is Action.SLOWED and calm:
            self.action = None
        self.events.append((now, what, amount))
        total = self.total(now)
        if self.action is None and total >= self.limit.slow:
            found = Action.SLOWED
        elif self.action is Action.SLOWED and total >= self.limit.stop:
            found = Action.STOPPED
        else:
            return None
        self.action, self.since, self.events = found, now, []
        return found


@given(
    limit=st.builds(Limit, slow=st.integers(1, 12), stop=st.integers(1, 12), seconds=st.integers(1, 8)),
    kind=st.sampled_from([Kind.VOLUME, Kind.SCAN]),
    events=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20), st.integers(1, 4)), max_size=120),
)
def test_as_the_reference_has_it(limit: Limit, kind: Kind, events: list[tuple[int, int, int]]) -> None:
    """Whatever the pace and the amounts, each step is answered as a plain sum over all of them answers it."""
    watched, clock = watch(only(kind, limit))
    reference = Reference(limit, is_scan=kind is Kind.SCAN)
    for pause, what, amount in events:
        clock.now += pause
        if kind is Kind.SCAN:
            found: list[Finding | None] = [*watched.note_refused(f"{what}.example", 443, "unreachable")]
        else:
            found = [watched.note_sent(amount)]
        expected = reference.add(int(clock.now), what, 1 if kind is Kind.SCAN else amount)
        assert [one.action for one in found if one] == ([expected] if expected else [])
        assert watched.is_stopped is (reference.action is Action.STOPPED)


@given(
    limit=st.builds(Limit, slow=st.integers(2, 50), stop=st.integers(2, 50), seconds=st.integers(1, 60)),
    count=st.integers(0, 120),
)
def test_nothing_is_stopped_that_was_not_slowed(limit: Limit, count: int) -> None:
    """However much comes at once, being slowed down comes first; what stays below both is let be."""
    watched, clock = watch(only(Kind.RATE, limit))
    actions = [one.action for step in range(count) for one in connect(watched, step)]
    assert actions in ([], [Action.SLOWED], [Action.SLOWED, Action.STOPPED])
    below, clock = watch(only(Kind.RATE, limit))
    for _ in range(min(count, 5)):
        for step in range(limit.slow - 1):
            assert connect(below, step) == []
        clock.now += limit.seconds


def test_a_package_install_stays_below() -> None:
    """As many connections, refusals and bytes as installs and clones were seen to have, and none waits."""
    watched, clock = watch(Limits())
    for _ in range(17):
        for _ in range(60):
            assert watched.note_connection() is None
            assert watched.note_sent(500) is None
            assert watched.delay == 0
        clock.now += 1


def test_an_install_that_is_refused_is_slowed_down_alone() -> None:
    """A registry that is not allowed, tried 15 times a second for ten minutes, ends no session."""
    watched, clock = watch(Limits())
    actions: list[Action] = []
    for _ in range(600):
        for _ in range(15):
            found = watched.note_refused("registry.example", 443, "undeclared")
            actions += [one.action for one in found]
        clock.now += 1
    assert actions == [Action.SLOWED]


def make_session(path: Path, limits: Limits, stopped: list[str]) -> tuple[Session, ConnectionLog]:
    """Return a session with its log."""

    async def resolve(name: str, port: int) -> list[object]:
        return []

    log = ConnectionLog(path, bytes(32), "test")
    session = Session(
        Rules(allowed=(Rule(host="a.example", origin="test"),)),
        log,
        resolve=resolve,  # type: ignore[arg-type]
        watch=Watch(limits, stops=True, clock=Clock()),
        on_stop=stopped.append,
    )
    return session, log


def test_a_stop_is_final_and_in_the_log(tmp_path: Path) -> None:
    """Nothing passes after it, whatever rules come, and both findings are rows of the sealed log."""
    stopped: list[str] = []
    session, log = make_session(tmp_path / "log", only(Kind.DENIALS, LIMIT), stopped)
    allowed = read_target("a.example:443")
    assert not isinstance(session.decide(allowed), Refusal)
    for _ in range(20):
        session.note_refused(1, Way.CONNECT, "b.example", 443, Refusal("undeclared", "no"))
    assert len(stopped) == 1
    session.change(session.rules, Limits())
    found = session.decide(allowed)
    assert isinstance(found, Refusal)
    assert "stopped for repeated denials" in found.reason
    assert not session.may_send((), 1, Way.SERVICE)
    log.close()
    rows = list(read_log((tmp_path / "log").read_bytes(), bytes(32), "test"))
    assert [row.action for row in rows if isinstance(row, Abused)] == [Action.SLOWED, Action.STOPPED]


def test_what_goes_to_the_service_is_no_volume(tmp_path: Path) -> None:
    """A conversation that sends itself again each turn is let be; the same to a host is not (control)."""
    stopped: list[str] = []
    session, log = make_session(tmp_path / "log", only(Kind.VOLUME, LIMIT), stopped)
    assert all(session.may_send((), 100, Way.SERVICE) for _ in range(20))
    assert session.delay == 0
    assert not all(session.may_send((), 100, Way.CONNECT) for _ in range(20))
    assert stopped
    log.close()


@pytest.mark.parametrize(
    "text",
    [
        "abuse = 1",
        "[abuse]\nrate = 0",
        '[abuse]\nrate = "none"',
        "[abuse]\nstop = 0",
        '[abuse]\nstop = "no"',
        "[abuse]\nrate = { slow = 5 }",
        "[abuse]\nrate = { slow = 0, stop = 5, seconds = 60 }",
        "[abuse]\nrate = { slow = 5, stop = -1, seconds = 60 }",
        "[abuse]\nrate = { slow = 5, stop = 5, seconds = 0 }",
        "[abuse]\nrate = { slow = 5, stop = 5, seconds = 60, after = 1 }",
        "[abuse]\nrates = { slow = 5, stop = 5, seconds = 60 }",
        "[abuse]\nscan = { slow = 5, stop = 5000000, seconds = 60 }",
    ],
)
def test_limits_that_cannot_be_meant(tmp_path: Path, text: str) -> None:
    """Refused with the place, as a whole: nothing of such a file counts, so that it loosens nothing."""
    path = tmp_path / "boundary.toml"
    path.write_text(text)
    with pytest.raises(Problem) as told:
        read_rules_file(path)
    assert "abuse" in told.value.where


def test_limits_of_a_file(tmp_path: Path) -> None:
    """What is written counts, and what is not stays as it is."""
    path = tmp_path / "boundary.toml"
    path.write_text('[abuse]\nstop = false\nrate = { slow = 5, stop = 3, seconds = 10 }\nvolume = "off"\n')
    read = read_rules_file(path).abuse
    assert (read.stop, read.get(Kind.RATE), read.get(Kind.VOLUME)) == (False, LIMIT, None)
    assert read.get(Kind.SCAN) == Limits().get(Kind.SCAN)

"""The rows of a log as an audit tells them: each request once, whatever became of it."""

from hypothesis import given
from hypothesis import strategies as st

from bailee.flows.web.abuse import Action, Kind
from bailee.flows.web.log import Abused, Closed, Opened, Refused, Requested, Row, Way
from bailee.flows.web.sessions import TOO_MUCH
from bailee.service.audits import tell_lines, tell_rows


def opened(number: int, *, at_ms: int = 1, host: str = "a.example", way: Way = Way.CONNECT) -> Opened:
    """Return a row."""
    return Opened(number=number, at_ms=at_ms, way=way, host=host, port=443, flow="web", rule="--allow: a")


def refused(number: int, rule: str, *, host: str = "a.example") -> Refused:
    """Return a row."""
    return Refused(number=number, at_ms=2, way=Way.CONNECT, host=host, port=443, rule=rule, reason="because")


def closed(number: int, outcome: str = "done") -> Closed:
    """Return a row."""
    return Closed(
        number=number,
        at_ms=9,
        sent=10,
        received=20,
        kernel_sent=None,
        kernel_received=None,
        address="",
        outcome=outcome,
    )


def requested(number: int, path: str, at_ms: int = 3) -> Requested:
    """Return a row."""
    return Requested(number=number, at_ms=at_ms, method="GET", path=path)


def test_a_tunnel() -> None:
    """One line, with the bytes of both ways; open still, without them; cut off, with what ended it."""
    (one,) = tell_rows([opened(1), closed(1)])
    assert (one.verdict, one.rule, one.sent, one.received, one.reason) == ("passed", "--allow: a", 10, 20, "")
    (one,) = tell_rows([opened(1)])
    assert (one.sent, one.received, one.reason) == (None, None, "still open")
    (one,) = tell_rows([opened(1), closed(1, "reset by the host")])
    assert (one.verdict, one.reason) == ("passed", "reset by the host")


def test_what_is_looked_into() -> None:
    """Each request is a line of its own; the first has the connection's bytes, so that a sum is right."""
    told = tell_rows([opened(1), requested(1, "/x"), requested(1, "/y", 5), closed(1)])
    assert [(one.at_ms, one.path, one.sent) for one in told] == [(1, "/x", 10), (5, "/y", None)]
    told = tell_rows([opened(1), requested(1, "/x"), refused(1, "request"), closed(1)])
    assert [(one.path, one.verdict, one.rule) for one in told] == [
        ("/x", "passed", "--allow: a"),
        ("", "refused", "request"),
    ]


def test_what_did_not_pass() -> None:
    """A refusal before anything was dialled or after it is one line, and so is a host that is not there."""
    (one,) = tell_rows([refused(1, "undeclared"), closed(1, "refused: undeclared")])
    assert (one.verdict, one.rule, one.sent, one.reason) == ("refused", "undeclared", 10, "because")
    (one,) = tell_rows([opened(1), refused(1, "not_tls"), closed(1, "refused: not_tls")])
    assert (one.verdict, one.rule, one.reason) == ("refused", "not_tls", "because")
    (one,) = tell_rows([opened(1), refused(1, "unreachable"), closed(1, "refused: unreachable")])
    assert (one.verdict, one.is_denied) == ("failed", True)
    told = tell_rows([refused(0, "undeclared", host="b"), refused(0, "undeclared", host="c")])
    assert [one.host for one in told] == ["b", "c"]


def test_what_was_cut_off_by_its_limit_is_told() -> None:
    """A connection that sent as much as its rule allows was refused by it; its bytes are told."""
    (one,) = tell_rows([opened(1), closed(1, TOO_MUCH)])
    assert (one.verdict, one.rule, one.reason, one.sent) == ("refused", "--allow: a", TOO_MUCH, 10)
    (one,) = tell_rows([opened(1), closed(1, "reset by the agent")])
    assert one.verdict == "passed"  # Control


def test_abuse_is_a_line_of_its_own() -> None:
    """What was done about many requests stands between them, with its reason in place of a request."""
    found = Abused(at_ms=4, kind=Kind.SCAN, action=Action.STOPPED, count=3, seconds=9, reason="stopped for x")
    (one,) = tell_rows([found])
    assert (one.way, one.rule, one.verdict, one.is_denied) == ("abuse", "scan", "stopped", True)
    (line,) = tell_lines([one])
    assert "stopped for x" in line


ROWS = st.one_of(
    st.builds(opened, st.integers(1, 4), host=st.sampled_from(["a.example", "b.example"])),
    st.builds(requested, st.integers(1, 4), st.sampled_from(["/x", "/y"])),
    st.builds(refused, st.integers(0, 4), st.sampled_from(["undeclared", "request"])),
    st.builds(closed, st.integers(1, 4)),
)


@given(rows=st.lists(ROWS, max_size=30))
def test_nothing_refused_is_lost(rows: list[Row]) -> None:
    """Whatever the order of rows, no more passes than was opened or asked, and each refusal is told."""
    told = tell_rows(rows)
    refusals = sum(one.verdict == "refused" for one in told)
    assert refusals == sum(isinstance(row, Refused) for row in rows)
    assert len(told) <= sum(isinstance(row, Opened | Requested | Refused) for row in rows)

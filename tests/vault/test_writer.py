"""What is taken in is durable when it is said to be, and is read back byte for byte or not at all."""

import os
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bailee.policy.periods import UNLIMITED, Period
from bailee.policy.problems import Problem
from bailee.vault import tables, writer
from bailee.vault.frames import Begin
from bailee.vault.reader import list_exchanges, list_sessions, read_session
from bailee.vault.writer import STRETCH_BYTES

if TYPE_CHECKING:
    from vault.conftest import Said, Vault

BODY = b'{"model":"m","messages":[{"role":"user","content":"hello \xc3\xa9"}]}'


def grow(turns: int) -> list[bytes]:
    """Return the bodies of a conversation that grows by a message a turn."""
    messages = [b'{"role":"user","content":"%d %s"}' % (turn, b"word " * 50) for turn in range(turns)]
    return [b'{"messages":[' + b",".join(messages[: turn + 1]) + b"]}" for turn in range(turns)]


def milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


# --- Byte for byte ---


def test_an_exchange_reads_back_byte_for_byte(vault: "Vault") -> None:
    """Request and answer, headers and parts, come back as they went in, be they text or not."""
    body, parts = BODY + bytes(range(256)), [b"event: a\n", b"\xff\x00", b"", b"\n\n"]
    vault.begin(1, body, b"anthropic-version: 2023-06-01\nx: \xe9\n")
    for part in parts:
        vault.part(1, part)
    vault.finish(1, b"the end", b"content-type: text/event-stream\n")
    assert vault.writer.commit() == [1]
    assert vault.read() == {
        1: (
            b"anthropic-version: 2023-06-01\nx: \xe9\n",
            body,
            b"content-type: text/event-stream\n",
            b"".join(parts) + b"the end",
        )
    }


def test_an_exchange_of_nothing_reads_back(vault: "Vault") -> None:
    """Empty headers, an empty body and an empty answer are content too."""
    vault.begin(1)
    vault.finish(1)
    vault.writer.commit()
    assert vault.read() == {1: (b"", b"", b"", b"")}


def test_facts_stand_beside_the_content(vault: "Vault") -> None:
    """What is listed of an exchange is what the frames said of it."""
    vault.record(1, BODY)
    [exchange] = list_exchanges(vault.engine)
    assert (exchange.id, exchange.state, exchange.status, exchange.is_kept) == (1, "complete", 200, True)
    assert (exchange.request_bytes, exchange.response_bytes) == (len(BODY), len(b"answer"))
    assert (exchange.model, exchange.stop_reason, exchange.output_tokens) == (
        "claude-sonnet-4-5",
        "end_turn",
        20,
    )
    [session] = list_sessions(vault.engine)
    assert (session.id, session.exchanges, session.retention) == ("session-1", 1, "30d")
    assert session.expires_on == vault.day + timedelta(days=30)
    [(stored,)] = vault.rows("SELECT SUM(LENGTH(sealed)) FROM records")
    assert session.stored_bytes == stored


def test_exchanges_that_overlap_do_not_mix(vault: "Vault") -> None:
    """Answers that come interleaved, in one session and in two, are told apart."""
    vault.begin(1, b"request 1")
    vault.begin(2, b"request 2")
    vault.begin(3, b"request 3", session="session-2")
    for exchange in (2, 1, 3, 2, 1):
        vault.part(exchange, b"%d" % exchange * 3)
    vault.finish(2, b"!")
    assert vault.writer.commit() == [2]
    vault.part(3, b"...")
    vault.finish(1, b"?")
    vault.finish(3)
    assert vault.writer.commit() == [1, 3]
    assert vault.read() == {1: (b"", b"request 1", b"", b"111111?"), 2: (b"", b"request 2", b"", b"222222!")}
    assert vault.read("session-2") == {3: (b"", b"request 3", b"", b"333...")}


def test_nothing_is_there_before_the_commit(vault: "Vault") -> None:
    """What was taken in is in no table until `commit`, which names the exchanges that ended and no others."""
    vault.begin(1, BODY)
    vault.begin(2, BODY)
    vault.finish(1)
    assert vault.rows("SELECT id FROM exchanges") == []
    assert vault.writer.commit() == [1]
    assert vault.rows("SELECT id, state FROM exchanges ORDER BY id") == [(1, "complete"), (2, "open")]
    assert vault.writer.commit() == []
    vault.finish(2)
    assert vault.writer.commit() == [2]


def test_what_was_committed_survives_a_kill(vault: "Vault", open_home: "Callable[[], Vault]") -> None:
    """Another process reads what was committed, though the writer closed nothing, and no more than that."""
    said = vault.record(1, BODY)
    vault.begin(2, b"lost")
    assert open_home().read() == {1: said}


@pytest.mark.sqlite
def test_content_is_in_no_file_in_clear(vault: "Vault") -> None:
    """Neither the databases nor their logs hold a word that was said; the facts they do hold."""
    words = random.Random(1).randbytes(32).hex().encode()
    vault.begin(1, words, b"x-request: " + words)
    vault.part(1, words)
    vault.finish(1, words, b"x-answer: " + words)
    vault.writer.commit()
    files = {path: path.read_bytes() for path in vault.home.rglob("*") if path.is_file()}
    assert vault.read()[1][1] == words
    assert not [path for path, data in files.items() if words[:8] in data or words[-8:] in data]
    assert [path for path, data in files.items() if b"/v1/messages" in data]


# --- Stretches ---


def test_a_long_answer_is_written_in_stretches(vault: "Vault") -> None:
    """An answer longer than a stretch is several records, each past the stretch by one part at most."""
    answer = random.Random(2).randbytes(4 * STRETCH_BYTES)
    part = 10_000
    vault.begin(1, BODY)
    for start in range(0, len(answer), part):
        vault.part(1, answer[start : start + part])
    vault.finish(1, b"end", b"headers")
    vault.writer.commit()
    lengths = [
        length
        for (length,) in vault.rows(
            "SELECT LENGTH(sealed) FROM records WHERE kind = :k ORDER BY sequence", k=tables.Kind.RESPONSE
        )
    ]
    assert len(lengths) == 4
    # Random bytes do not shrink; what is around them is small.
    assert all(STRETCH_BYTES <= length < STRETCH_BYTES + part + 100 for length in lengths[:3])
    assert vault.read()[1] == (b"", BODY, b"headers", answer + b"end")


@pytest.mark.parametrize("by", [-1, 0, 1])
def test_an_answer_at_the_edge_of_a_stretch(vault: "Vault", by: int) -> None:
    """A stretch ends with the byte that fills it, and an answer that ends there ends with its headers."""
    answer = random.Random(3).randbytes(STRETCH_BYTES + by)
    vault.begin(1)
    vault.part(1, answer)
    vault.finish(1, b"", b"headers")
    vault.writer.commit()
    assert vault.rows("SELECT COUNT(*) FROM records WHERE kind = 1") == [(1 if by < 0 else 2,)]
    assert vault.read()[1] == (b"", b"", b"headers", answer)


def test_a_killed_recorder_loses_the_last_stretch_only(vault: "Vault") -> None:
    """Of an answer that was cut off by a kill, the stretches that were committed read back."""
    answer = random.Random(4).randbytes(2 * STRETCH_BYTES)
    vault.begin(1, BODY)
    vault.part(1, answer[:STRETCH_BYTES])
    vault.part(1, answer[STRETCH_BYTES:])
    vault.part(1, b"and then")
    vault.writer.commit()
    vault.restart()
    assert vault.read() == {1: (b"", BODY, b"", answer)}


# --- Nothing kept ---


def test_without_keep_no_record_is_stored(vault: "Vault") -> None:
    """Of an exchange that keeps nothing the facts remain: no record, no segment, no key."""
    vault.begin(1, keep=False)
    vault.finish(1)
    assert vault.writer.commit() == [1]
    assert vault.rows("SELECT COUNT(*) FROM records") == [(0,)]
    assert vault.rows("SELECT COUNT(*) FROM segments") == [(0,)]
    assert vault.wrapped_keys() == {}
    [exchange] = list_exchanges(vault.engine)
    assert (exchange.state, exchange.is_kept) == ("complete", False)
    assert list_sessions(vault.engine)[0].stored_bytes == 0
    assert vault.read() == {}


def test_without_keep_beside_exchanges_that_are_kept(vault: "Vault") -> None:
    """In one session, what is kept is stored and what is not is not, also in one transaction."""
    vault.begin(1, b"kept")
    vault.begin(2, keep=False)
    vault.begin(3, b"kept too")
    for exchange in (1, 2, 3):
        vault.finish(exchange)
    vault.writer.commit()
    assert list(vault.read()) == [1, 3]
    assert vault.rows("SELECT DISTINCT exchange FROM records ORDER BY 1") == [(1,), (3,)]


def test_a_request_that_came_without_keep_is_not_stored(vault: "Vault") -> None:
    """A request's content that came by mistake where nothing is kept is dropped."""
    vault.begin(1, b"by mistake", b"by mistake", keep=False)
    vault.finish(1)
    vault.writer.commit()
    assert vault.rows("SELECT COUNT(*) FROM records") == [(0,)]
    assert vault.read() == {}


@pytest.mark.parametrize(
    "answer",
    [
        lambda vault: vault.part(1, b"content"),
        lambda vault: vault.finish(1, b"content"),
        lambda vault: vault.finish(1, b"", b"content"),
    ],
    ids=["a part", "the last bytes", "headers"],
)
def test_content_without_keep_is_a_problem(vault: "Vault", answer: "Callable[[Vault], None]") -> None:
    """An answer's content where nothing is kept is an error, and none of it is stored."""
    vault.begin(1, keep=False)
    with pytest.raises(Problem):
        answer(vault)
    vault.writer.commit()
    assert vault.rows("SELECT COUNT(*) FROM records") == [(0,)]


def test_a_record_without_its_decision_is_a_problem(vault: "Vault") -> None:
    """No content is taken in under terms that nobody told."""
    frame = Begin(
        1, "a", "s", "k", b"d" * 32, "messages", True, 0, "anthropic", "/v1/messages", 4, b"", b"body"
    )
    with pytest.raises(Problem):
        vault.writer.take([frame])
    vault.writer.commit()
    assert vault.rows("SELECT COUNT(*) FROM records") == [(0,)]


# --- Segments ---


def test_a_change_of_decision_starts_another_segment(vault: "Vault") -> None:
    """Each decision of a day has a segment with its own terms, and what goes back to one goes on with it."""
    vault.offer("standard", Period.days(30))
    vault.offer("loose", Period.years(5), trainable=True)
    said = {
        1: vault.record(1, b"one", decision="standard"),
        2: vault.record(2, b"two", decision="loose"),
        3: vault.record(3, b"three", decision="standard"),
    }
    assert vault.read() == said
    query = (
        "SELECT DISTINCT s.retention, CAST(s.expires_on AS TEXT), s.trainable, r.exchange FROM segments s "
        "JOIN records r ON r.segment = s.number ORDER BY s.retention, r.exchange"
    )
    assert vault.rows(query) == [
        ("30d", "2026-06-03", False, 1),
        ("30d", "2026-06-03", False, 3),
        ("5y", "2031-05-04", True, 2),
    ]


def test_another_day_starts_another_segment(vault: "Vault") -> None:
    """The UTC day on which a request came chooses its segment, to the millisecond, and so its expiry."""
    moments = {
        1: milliseconds("2026-05-04T23:59:59.998"),
        2: milliseconds("2026-05-04T23:59:59.999"),
        3: milliseconds("2026-05-05T00:00:00.000"),
        4: milliseconds("2026-05-05T00:00:00.001"),
    }
    said = {id: vault.record(id, b"%d" % id, started_ms=moment) for id, moment in moments.items()}
    query = (
        "SELECT DISTINCT CAST(s.day AS TEXT), CAST(s.expires_on AS TEXT), r.exchange FROM segments s "
        "JOIN records r ON r.segment = s.number ORDER BY r.exchange"
    )
    assert vault.rows(query) == [
        ("2026-05-04", "2026-06-03", 1),
        ("2026-05-04", "2026-06-03", 2),
        ("2026-05-05", "2026-06-04", 3),
        ("2026-05-05", "2026-06-04", 4),
    ]
    assert vault.read() == said


def test_an_answer_stays_with_its_request_over_midnight(vault: "Vault") -> None:
    """An answer that comes the next day is kept with its request, under its request's terms."""
    vault.begin(1, b"late", started_ms=milliseconds("2026-05-04T23:59:59"))
    vault.begin(2, b"early", started_ms=milliseconds("2026-05-05T00:00:01"))
    vault.finish(1, b"answer 1")
    vault.finish(2, b"answer 2")
    vault.writer.commit()
    assert vault.rows("SELECT COUNT(DISTINCT segment) FROM records GROUP BY exchange") == [(1,), (1,)]
    assert vault.read(today=date(2026, 6, 3)) == {2: (b"", b"early", b"", b"answer 2")}


def test_accounts_that_use_one_session_id_share_nothing(vault: "Vault") -> None:
    """The same session id of another account is another segment, and reads as another session."""
    one = vault.record(1, b"one", account="account-1")
    other = vault.record(2, b"other", account="account-2")
    assert vault.read(account="account-1") == {1: one}
    assert vault.read(account="account-2") == {2: other}
    assert len(vault.segments()) == 2


def test_each_segment_has_a_key_of_its_own(vault: "Vault") -> None:
    """No two segments share a data key."""
    for number in range(5):
        vault.record(number, BODY, session=f"session-{number}")
    keys = {vault.keystore.get(id) for (id,) in vault.rows("SELECT id FROM segments")}
    assert len(keys) == 5
    assert None not in keys


@pytest.mark.parametrize("bound", ["SEGMENTS_IN_MEMORY", "SEGMENTS_IN_MEMORY_BYTES"])
def test_segments_that_fell_out_of_memory_go_on(
    vault: "Vault", monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """With next to no room in memory, sessions that take turns each go on with the one segment they have."""
    monkeypatch.setattr(writer, bound, 2)
    said: dict[str, dict[int, Said]] = {}
    exchange = 0
    for body in grow(6):
        for number in range(5):
            exchange += 1
            session = f"session-{number}"
            said.setdefault(session, {})[exchange] = vault.record(exchange, body, session=session)
            assert len(vault.writer._segments) <= 2
    assert {session: vault.read(session) for session in said} == said
    assert vault.rows("SELECT COUNT(*) FROM segments") == [(5,)]


def test_a_segment_in_use_is_not_let_go(vault: "Vault", monkeypatch: pytest.MonkeyPatch) -> None:
    """While an answer is coming its segment stays, whatever else is written; no sequence is used twice."""
    monkeypatch.setattr(writer, "SEGMENTS_IN_MEMORY", 1)
    vault.begin(1, b"slow")
    for exchange in range(2, 8):
        vault.record(exchange, BODY, session=f"session-{exchange}")
        vault.part(1, b"%d" % exchange)
    vault.begin(8, b"slow too")
    vault.finish(1, b"!", b"h")
    vault.finish(8, b"!", b"h")
    vault.writer.commit()
    assert vault.read() == {1: (b"", b"slow", b"h", b"234567!"), 8: (b"", b"slow too", b"h", b"!")}


def test_what_waits_for_its_commit_is_not_forgotten_by_a_segment_that_comes_back(
    vault: "Vault", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session taken up from disk between two commits brings the ends that were waiting to disk, once."""
    monkeypatch.setattr(writer, "SEGMENTS_IN_MEMORY", 1)
    first = vault.record(1, b"one")
    vault.record(2, b"two", session="session-2")
    vault.begin(3, b"three", session="session-3")
    vault.finish(3, b"answer 3")
    vault.begin(4, b"four")
    vault.finish(4, b"answer 4")
    assert sorted(vault.writer.commit()) == [3, 4]
    assert vault.writer.commit() == []
    assert vault.read() == {1: first, 4: (b"", b"four", b"", b"answer 4")}
    assert vault.read("session-3") == {3: (b"", b"three", b"", b"answer 3")}


# --- Restarts ---


def test_a_restarted_writer_goes_on_with_the_segment(vault: "Vault") -> None:
    """After a restart in the middle of a session its segment goes on, and stores no message again."""
    bodies = grow(9)
    said = {}
    for exchange, body in enumerate(bodies):
        if exchange in (3, 6):
            vault.restart()
        said[exchange] = vault.record(exchange, body)
    assert vault.read() == said
    assert len(vault.segments()) == 1
    sizes = [
        size for (size,) in vault.rows("SELECT LENGTH(sealed) FROM records WHERE kind = 0 ORDER BY sequence")
    ]
    assert max(sizes[3], sizes[6]) < sizes[5] + 60


def test_a_restarted_writer_seals_at_a_sequence_nobody_has_used(vault: "Vault") -> None:
    """Sequences go on where they stood, also behind an exchange that never ended."""
    vault.record(1, b"one")
    vault.begin(2, b"two")
    vault.writer.commit()
    vault.restart()
    vault.record(3, b"three")
    assert vault.rows("SELECT sequence, exchange, kind FROM records ORDER BY sequence") == [
        (0, 1, 0),
        (1, 1, 1),
        (2, 2, 0),
        (3, 3, 0),
        (4, 3, 1),
    ]


def test_what_an_earlier_service_left_open_is_marked_interrupted(vault: "Vault") -> None:
    """Exchanges that never ended are marked with a reason, once; those that ended stay as they are."""
    vault.record(1, BODY)
    vault.begin(2, b"cut off")
    vault.begin(3, keep=False)
    vault.writer.commit()
    vault.restart()
    assert vault.writer.interrupt_open() == 2
    assert vault.writer.interrupt_open() == 0
    assert [(exchange.state, bool(exchange.reason)) for exchange in list_exchanges(vault.engine)] == [
        ("complete", False),
        ("interrupted", True),
        ("interrupted", True),
    ]
    assert vault.read()[2] == (b"", b"cut off", b"", b"")


SESSIONS = ("session-1", "session-2", "session-3")
actions = st.one_of(
    st.tuples(st.just("begin"), st.sampled_from(SESSIONS), st.sampled_from(["standard", "loose"])),
    st.tuples(st.just("part"), st.integers(0, 5), st.binary(max_size=20)),
    st.tuples(st.just("finish"), st.integers(0, 5), st.binary(max_size=20)),
    st.tuples(st.just("commit")),
    st.tuples(st.just("restart")),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(actions, max_size=40), in_memory=st.sampled_from([1, 2, 512]))
def test_whatever_the_order_what_was_committed_reads_back(
    make_vault: "type[Vault]", steps: list[tuple[object, ...]], in_memory: int
) -> None:
    """Any order of beginnings, parts, ends, commits and kills leaves what was committed, whole and exact."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(writer, "SEGMENTS_IN_MEMORY", in_memory)
        walk(make_vault(Path(folder)), steps)


def walk(vault: "Vault", steps: list[tuple[object, ...]]) -> None:
    """Take the steps and compare what is read with what was said."""
    sessions: dict[int, str] = {}
    requests: dict[int, bytes] = {}
    answers: dict[int, bytes] = {}
    going: list[int] = []
    durable: set[int] = set()
    for number, (action, *values) in enumerate(steps):
        match action, values:
            case "begin", [str(session), str(decision)]:
                earlier = [requests[id] for id in requests if sessions[id] == session]
                requests[number] = (earlier[-1] if earlier else b"") + b'{"role":"user","n":%d}' % number
                sessions[number], answers[number] = session, b""
                vault.begin(number, requests[number], session=session, decision=decision)
                going.append(number)
            case (("part" | "finish"), [int(which), bytes(data)]) if going:
                exchange = going[which % len(going)]
                answers[exchange] += data
                if action == "part":
                    vault.part(exchange, data)
                else:
                    vault.finish(exchange, data)
                    going.remove(exchange)
            case "commit", _:
                durable |= set(vault.writer.commit())
            case "restart", _:
                vault.restart()
                going = []
    durable |= set(vault.writer.commit())
    held: dict[int, Said] = {}
    for session in SESSIONS:
        held |= vault.read(session)
    stored = {id for (id,) in vault.rows("SELECT id FROM exchanges")}
    [(used, records)] = vault.rows("SELECT COUNT(DISTINCT segment || '-' || sequence), COUNT(*) FROM records")
    vault.close()
    assert set(held) == stored
    assert durable <= stored
    assert used == records
    for id, (_, request, _, answer) in held.items():
        assert request == requests[id]
        assert answer == answers[id] if id in durable else answers[id].startswith(answer)


# --- Altered ---


@pytest.fixture
def recorded(vault: "Vault") -> "Vault":
    """Give a vault with a session of three exchanges, records 0 to 5, beside another session."""
    for exchange, body in enumerate(grow(3), 1):
        vault.record(exchange, body, b"answer %d" % exchange)
    vault.record(9, BODY, session="session-2")
    assert len(vault.read()) == 3
    return vault


@pytest.mark.parametrize("sequence", range(6))
def test_an_altered_record_is_a_problem(recorded: "Vault", sequence: int) -> None:
    """One bit changed in any record makes the session an error, and leaves others as they are."""
    [(sealed,)] = recorded.rows(
        "SELECT sealed FROM records JOIN segments ON number = segment WHERE session = 'session-1' "
        "AND sequence = :s",
        s=sequence,
    )
    altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    recorded.alter("UPDATE records SET sealed = :new WHERE sealed = :old", new=altered, old=sealed)
    with pytest.raises(Problem) as refused:
        recorded.read()
    assert f"record {sequence} " in str(refused.value)
    assert refused.value.fix
    assert list(recorded.read("session-2")) == [9]


@pytest.mark.parametrize(("one", "other"), [(0, 2), (1, 3), (0, 1), (4, 5), (1, 5)])
def test_records_that_changed_places_are_a_problem(recorded: "Vault", one: int, other: int) -> None:
    """Two envelopes exchanged within a segment do not open, though both are untouched."""
    sealed = dict(
        recorded.rows(
            "SELECT sequence, sealed FROM records JOIN segments ON number = segment "
            "WHERE session = 'session-1'"
        )
    )
    for place, envelope in ((one, sealed[other]), (other, sealed[one])):
        recorded.alter(
            "UPDATE records SET sealed = :sealed WHERE sequence = :place AND segment = "
            "(SELECT number FROM segments WHERE session = 'session-1')",
            sealed=envelope,
            place=place,
        )
    with pytest.raises(Problem):
        recorded.read()


def move(vault: "Vault", sequence: int) -> None:
    vault.alter(
        "UPDATE records SET sequence = 100 WHERE sequence = :s AND segment = "
        "(SELECT number FROM segments WHERE session = 'session-1')",
        s=sequence,
    )


@pytest.mark.parametrize("sequence", [1, 3, 4, 5])
def test_a_record_moved_to_a_free_place_is_a_problem(recorded: "Vault", sequence: int) -> None:
    """An envelope moved to the end of its segment does not open there."""
    move(recorded, sequence)
    with pytest.raises(Problem):
        recorded.read()


@pytest.mark.parametrize("sequence", [0, 2])
def test_a_request_moved_behind_those_that_rest_on_it_is_a_problem(recorded: "Vault", sequence: int) -> None:
    """An envelope moved behind requests that refer to it is an error a person can read."""
    move(recorded, sequence)
    with pytest.raises(Problem):
        recorded.read()


@pytest.mark.parametrize(
    "sequence",
    [
        0,
        2,
        1,
        3,
        4,
    ],
)
def test_a_record_taken_out_is_a_problem(recorded: "Vault", sequence: int) -> None:
    """What is shown without a record that was there would not be what was said."""
    recorded.alter(
        "DELETE FROM records WHERE sequence = :s AND segment = "
        "(SELECT number FROM segments WHERE session = 'session-1')",
        s=sequence,
    )
    with pytest.raises(Problem):
        recorded.read()


def test_an_answer_given_to_another_request_is_a_problem(recorded: "Vault") -> None:
    """A record whose row was made to name another exchange is not shown as that exchange's."""
    recorded.alter("UPDATE records SET exchange = 4 - exchange WHERE kind = 1 AND exchange IN (1, 3)")
    with pytest.raises(Problem):
        recorded.read()


@pytest.mark.parametrize("sequence", [0, 1])
def test_a_record_called_another_kind_is_a_problem(recorded: "Vault", sequence: int) -> None:
    """A request called an answer, or an answer called a request, is an error a person can read."""
    recorded.alter("UPDATE records SET kind = 1 - kind WHERE sequence = :s", s=sequence)
    with pytest.raises(Problem):
        recorded.read()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE segments SET session = 'session-9' WHERE session = 'session-1'",
        "UPDATE segments SET account = 'account-9' WHERE session = 'session-1'",
    ],
)
def test_a_segment_given_to_another_is_a_problem(recorded: "Vault", change: str) -> None:
    """A segment whose row was made to name another session or account does not open as theirs."""
    recorded.alter(change)
    session = "session-9" if "session-9" in change else "session-1"
    account = "account-9" if "account-9" in change else "account-1"
    with pytest.raises(Problem):
        recorded.read(session, account=account)


# --- Expired ---


def test_an_expired_segment_is_not_opened(vault: "Vault") -> None:
    """From the day a segment expires nothing of it is read, though record and key are still there."""
    vault.offer("short", Period.days(2))
    vault.offer("long", UNLIMITED)
    short = vault.record(1, b"short", decision="short")
    long = vault.record(2, b"long", decision="long")
    assert vault.read(today=vault.day) == {1: short, 2: long}
    assert vault.read(today=vault.day + timedelta(days=1)) == {1: short, 2: long}
    assert vault.read(today=vault.day + timedelta(days=2)) == {2: long}
    assert vault.read(today=date.max) == {2: long}
    assert vault.rows("SELECT COUNT(*) FROM records") == [(4,)]
    assert all(vault.keystore.get(id) for (id,) in vault.rows("SELECT id FROM segments"))


def test_an_expired_segment_is_not_even_unsealed(vault: "Vault") -> None:
    """A segment that expired is passed over before its key is asked for: damage in it does not show."""
    vault.offer("short", Period.days(2))
    vault.record(1, b"short", decision="short")
    vault.alter("UPDATE records SET sealed = :sealed", sealed=bytes(1))
    with pytest.raises(Problem):
        vault.read(today=vault.day)
    assert vault.read(today=vault.day + timedelta(days=2)) == {}


# --- Order and terms over several segments ---


def test_exchanges_are_read_in_the_order_they_began(vault: "Vault") -> None:
    """A session of many segments reads from its beginning to its end."""
    for exchange in range(12):
        vault.record(exchange, b"%d" % exchange, decision=f"decision {exchange}")
    exchanges = [
        transcript.exchange
        for transcript in read_session(
            vault.engine, vault.keystore, "account-1", "session-1", today=vault.day
        )
    ]
    assert sorted(exchanges) == list(range(12))
    assert exchanges == list(range(12))


def test_a_session_kept_in_part_without_end_has_no_expiry(vault: "Vault") -> None:
    """Where one segment of a session is kept without end, no day is given on which the last one expires."""
    vault.offer("long", UNLIMITED)
    vault.record(1, b"standard")
    vault.record(2, b"long", decision="long")
    [session] = list_sessions(vault.engine)
    assert session.retention.split(" and ") in (["30d", "unlimited"], ["unlimited", "30d"])
    assert session.expires_on is None


@pytest.mark.sqlite
def test_every_file_is_for_the_owner_alone(open_home: "Callable[[], Vault]") -> None:
    """Every file of the home is readable by its owner only, logs included, whatever the umask allows."""
    before = os.umask(0)
    try:
        vault = open_home()
        vault.record(1, BODY)
    finally:
        os.umask(before)
    files = [path for path in vault.home.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"vault.db", "vault.db-wal", "keys.db", "keys.db-wal", "kek"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    folders = {path.parent for path in files}
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}

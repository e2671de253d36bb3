"""What was erased opens nowhere: not here, not in a copy, not under a service that is running."""

import contextlib
import functools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import sqlalchemy as sa

from bailee.database.engines import is_overwriting
from bailee.ledger.entries import Erased
from bailee.policy.periods import Period
from bailee.policy.problems import Problem
from bailee.sealing.envelopes import Place, SealBroken, SegmentCipher
from bailee.vault.erasure import Erasure, count_session
from bailee.vault.erasure import erase as erase_held
from bailee.vault.reader import list_exchanges, list_sessions, read_session
from bailee.vault.store import KEYSTORE, VAULT, open_keys, open_vault

if TYPE_CHECKING:
    from bailee.vault.keystore import Keystore
    from vault.conftest import Said, Vault

ACCOUNT, SESSION, OTHER = "account-1", "session-1", "session-2"
NEXT_DAY_MS = int(datetime(2026, 5, 5, 12, tzinfo=UTC).timestamp() * 1000)
TABLES = ("exchanges", "segments", "records")


def erase_session(engine: sa.Engine, keystore: "Keystore", account: str, session: str) -> Erasure:
    """Erase as the command does, with the entry that the ledger is told."""
    count_session(engine, account, session)
    facts = dict.fromkeys(("segments", "records", "exchanges", "stored_bytes"), 0)
    entry = Erased(id="0" * 32, at_ms=NEXT_DAY_MS, subject="", session="", by="", **facts)
    return erase_held(engine, keystore, account, session, entry=entry)[0]


def erase(vault: "Vault", session: str = SESSION, account: str = ACCOUNT) -> Erasure:
    return erase_session(vault.engine, vault.keystore, account, session)


def count_rows(vault: "Vault") -> dict[str, int]:
    return {table: vault.rows(f"SELECT COUNT(*) FROM {table}")[0][0] for table in TABLES}  # noqa: S608


def files_with(folder: Path, data: bytes) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and data in path.read_bytes()]


@pytest.fixture
def said(vault: "Vault") -> "dict[int, Said]":
    """Record a session over two days and two decisions, and another session; return what the other said."""
    vault.offer("loose", Period.years(5), trainable=True)
    for exchange in range(1, 5):
        vault.record(exchange, b"turn %d" % exchange)
    vault.record(5, b"turn 5", decision="loose")
    vault.begin(6, b"turn 6", started_ms=NEXT_DAY_MS)
    vault.part(6, Random(6).randbytes(300_000))
    vault.finish(6)
    vault.begin(7, keep=False)
    vault.finish(7)
    vault.writer.commit()
    assert len(vault.segments()) == 3
    return {11: vault.record(11, b"other 1", session=OTHER), 12: vault.record(12, b"other 2", session=OTHER)}


# --- What goes ---


@pytest.mark.usefixtures("said")
def test_what_was_counted_is_what_went(vault: "Vault") -> None:
    """The count before, what the erasure says and the rows that went are the same, in every number."""
    before = count_rows(vault)
    [(stored,)] = vault.rows(
        "SELECT SUM(LENGTH(sealed)) FROM records JOIN segments ON number = segment WHERE session = :s",
        s=SESSION,
    )
    counted = count_session(vault.engine, ACCOUNT, SESSION)
    assert count_rows(vault) == before  # counting changes nothing
    assert msgspec.structs.replace(counted, is_overwritten=is_overwriting(vault.keystore.engine)) == erase(
        vault
    )
    after = count_rows(vault)
    assert {table: before[table] - after[table] for table in TABLES} == {
        "exchanges": counted.exchanges,
        "segments": counted.segments,
        "records": counted.records,
    }
    assert counted == Erasure(ACCOUNT, SESSION, 3, 13, 7, stored)
    vault.check_references()


@pytest.mark.parametrize(("account", "session"), [(ACCOUNT, "session-3"), ("account-2", SESSION), ("", "")])
def test_erasing_nothing_is_no_success(
    vault: "Vault", said: "dict[int, Said]", account: str, session: str
) -> None:
    """A session nobody knows, or another account's, is an error, and nothing is touched."""
    before, keys = count_rows(vault), vault.wrapped_keys()
    for attempt in (count_session, lambda engine, *of: erase_session(engine, vault.keystore, *of)):
        with pytest.raises(Problem) as refused:
            attempt(vault.engine, account, session)
        assert refused.value.fix
    assert count_rows(vault) == before
    assert vault.wrapped_keys() == keys
    assert vault.read(OTHER) == said


@pytest.mark.usefixtures("said")
def test_erasing_twice_is_no_success(vault: "Vault") -> None:
    """Once erased, a session is unknown."""
    erase(vault)
    with pytest.raises(Problem):
        erase(vault)


@pytest.mark.usefixtures("said")
def test_nothing_of_it_is_listed(vault: "Vault") -> None:
    """Neither facts nor content of an erased session show anywhere."""
    erase(vault)
    assert [session.id for session in list_sessions(vault.engine)] == [OTHER]
    assert {exchange.session for exchange in list_exchanges(vault.engine)} == {OTHER}
    assert vault.read() == {}


def test_a_session_of_which_only_facts_are_held_is_erased(vault: "Vault") -> None:
    """Where no content was kept, the facts go."""
    vault.begin(1, keep=False)
    vault.finish(1)
    vault.writer.commit()
    assert msgspec.structs.replace(erase(vault), is_overwritten=True) == Erasure(ACCOUNT, SESSION, 0, 0, 1, 0)
    assert list_sessions(vault.engine) == []


def test_other_sessions_are_untouched(vault: "Vault", said: "dict[int, Said]") -> None:
    """Another session reads as before, keeps its key, and goes on in its segment."""
    keys = {id: vault.keystore.get(id) for id in vault.segments(OTHER)}
    erase(vault)
    assert vault.read(OTHER) == said
    assert {id: vault.keystore.get(id) for id in vault.segments(OTHER)} == keys
    assert set(vault.wrapped_keys()) == set(keys)
    said[13] = vault.record(13, b"other 3", session=OTHER)
    assert vault.read(OTHER) == said
    assert vault.segments(OTHER) == set(keys)


def test_the_same_session_id_of_another_account_is_untouched(vault: "Vault") -> None:
    """Two accounts that use one session id are erased apart."""
    vault.record(1, b"one")
    other = vault.record(2, b"two", account="account-2")
    erase(vault)
    assert vault.read(account="account-2") == {2: other}


# --- What is left ---


@pytest.fixture
def copy(vault: "Vault", said: object, tmp_path: Path) -> Iterator[sa.Engine]:
    """Give a copy of the vault, made before anything was erased, log and all."""
    vault.truncate_logs()
    path = tmp_path / "backup" / VAULT
    path.parent.mkdir(parents=True)
    for file in (vault.home / VAULT).parent.iterdir():
        shutil.copy(file, path.parent)
    engine = open_vault(tmp_path / "backup")
    yield engine
    engine.dispose()


@pytest.mark.sqlite
def test_an_old_copy_does_not_open(vault: "Vault", said: "dict[int, Said]", copy: sa.Engine) -> None:
    """A backup that opened until the erasure does not open any more; other sessions in it still do."""

    def read_copy(session: str) -> list[int]:
        today = vault.day + timedelta(days=1)
        transcripts = read_session(copy, vault.keystore, ACCOUNT, session, today=today)
        return sorted(transcript.exchange for transcript in transcripts)

    assert read_copy(SESSION) == [1, 2, 3, 4, 5, 6]
    assert read_copy(OTHER) == sorted(said)
    erase(vault)
    assert read_copy(SESSION) == []
    assert read_copy(OTHER) == sorted(said)
    with copy.connect() as connection:
        for (id,) in connection.execute(
            sa.text("SELECT id FROM segments WHERE session = :s"), {"s": SESSION}
        ):
            assert vault.keystore.get(id) is None


@pytest.mark.sqlite
def test_control_without_key_destruction(vault: "Vault", copy: sa.Engine) -> None:
    """Control: where only rows are deleted, as peers do it, the copy opens as if nothing had been erased."""
    with vault.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM records"))
    today = vault.day + timedelta(days=1)
    assert vault.read() == {}
    assert read_session(copy, vault.keystore, ACCOUNT, SESSION, today=today)


@pytest.mark.sqlite
def test_no_key_there_is_opens_a_record_of_the_copy(vault: "Vault", copy: sa.Engine) -> None:
    """Tried one by one, no data key of the keystore opens any erased record, though each opens its own."""

    def count_opened() -> dict[str, int]:
        opened = {SESSION: 0, OTHER: 0}
        keys = [vault.keystore.get(segment) for segment in vault.wrapped_keys()]
        query = (
            "SELECT session, id, sequence, exchange, kind, sealed"
            " FROM records JOIN segments ON segment = number"
        )
        with copy.connect() as connection:
            for session, *where, sealed in connection.execute(sa.text(query)):
                for key in keys:
                    assert key is not None
                    try:
                        SegmentCipher(key, bytes).open(sealed, Place(ACCOUNT, session, *where))
                    except SealBroken:
                        continue
                    opened[session] += 1
        return opened

    assert count_opened() == {SESSION: 13, OTHER: 4}
    erase(vault)
    assert count_opened() == {SESSION: 0, OTHER: 4}


@pytest.mark.sqlite
@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("logs", ["in the log", "in the database"])
def test_the_wrapped_key_is_in_no_file_any_more(vault: "Vault", logs: str) -> None:
    """No file of the keystore holds a byte run of the destroyed keys, wherever they stood before."""
    if logs == "in the database":
        vault.truncate_logs()
    folder = vault.home / KEYSTORE
    wrapped = vault.wrapped_keys()
    gone = [key for segment, key in wrapped.items() if segment in vault.segments()]
    kept = [key for segment, key in wrapped.items() if segment in vault.segments(OTHER)]
    assert len(gone) == 3
    where = "keys.db-wal" if logs == "in the log" else "keys.db"
    assert all(files_with(folder, key) == [where] for key in gone)
    erase(vault)
    for key in gone:
        # Nonce, ciphertext and tag, each on its own: half a key that is left is a key that is left.
        for run in (key[:12], key[12:28], key[28:44], key[44:]):
            assert files_with(folder, run) == []
    assert all(files_with(folder, key) for key in kept)


@pytest.mark.sqlite
@pytest.mark.usefixtures("said")
def test_the_sealed_records_are_in_no_file_any_more(vault: "Vault", open_home: "Callable[[], Vault]") -> None:
    """What was sealed is overwritten in the vault's files too, though a service has them open."""
    folder = (vault.home / VAULT).parent
    query = "SELECT sealed FROM records JOIN segments ON number = segment WHERE session = :s"
    # The end of a record lies on one page, however many it is spread over.
    gone = [sealed[-60:] for (sealed,) in vault.rows(query, s=SESSION)]
    kept = [sealed[-60:] for (sealed,) in vault.rows(query, s=OTHER)]
    assert all(files_with(folder, piece) for piece in gone + kept)
    erase(open_home())
    assert [piece for piece in gone if files_with(folder, piece)] == []
    assert all(files_with(folder, piece) for piece in kept)


def test_a_lost_key_file_is_not_made_anew_beside_wrapped_keys(vault: "Vault") -> None:
    """While there is a wrapped key, a missing key-encryption key is an error: another would open nothing."""
    vault.record(1, b"one")
    (vault.home / KEYSTORE / "kek").rename(vault.home / "saved")
    with pytest.raises(Problem) as refused:
        open_keys(vault.home)
    assert refused.value.where.endswith("kek")
    assert not (vault.home / KEYSTORE / "kek").exists()
    (vault.home / "saved").rename(vault.home / KEYSTORE / "kek")
    vault.restart()
    assert list(vault.read()) == [1]


# --- Under a running service ---


@pytest.fixture
def person(vault: "Vault", open_home: "Callable[[], Vault]") -> "Vault":
    """Give the home as another process has it, which erases while `vault` goes on writing."""
    return open_home()


def assert_never_written_again(vault: "Vault", erased: set[bytes], numbers: set[int]) -> None:
    assert not erased & {id for (id,) in vault.rows("SELECT id FROM segments")}
    assert not numbers & {number for (number,) in vault.rows("SELECT segment FROM records")}
    assert not numbers & {number for (number,) in vault.rows("SELECT segment FROM exchanges")}
    assert not erased & set(vault.wrapped_keys())
    vault.check_references()


def numbers_of(vault: "Vault", session: str = SESSION) -> set[int]:
    return {number for (number,) in vault.rows("SELECT number FROM segments WHERE session = :s", s=session)}


def test_a_running_writer_begins_a_new_segment(
    vault: "Vault", person: "Vault", said: "dict[int, Said]"
) -> None:
    """What a session says after its erasure is in a new segment under a new key, and reads back."""
    erased, numbers = vault.segments(), numbers_of(vault)
    erase(person)
    after = {exchange: vault.record(exchange, b"after %d" % exchange) for exchange in (21, 22)}
    assert_never_written_again(vault, erased, numbers)
    assert len(vault.segments()) == 1
    assert vault.read() == after
    assert vault.read(OTHER) == said
    [session] = list_sessions(vault.engine, session=SESSION)
    assert session.exchanges == 2


def test_a_running_writer_does_not_tell_what_was_erased(vault: "Vault", person: "Vault") -> None:
    """The new segment refers to nothing of the erased one: the same request again is stored whole."""
    body = b'{"messages":[{"role":"user","content":"%s"}]}' % b"said before ".join(
        b"%d" % n for n in range(400)
    )
    vault.record(1, body)
    erase(person)
    again = vault.record(2, body)
    assert vault.read() == {2: again}


@pytest.mark.parametrize("when", ["before it was written", "after it was written", "between its parts"])
def test_an_exchange_that_is_open_is_erased_under_the_writer(
    vault: "Vault", person: "Vault", said: "dict[int, Said]", when: str
) -> None:
    """An answer that is coming while its session is erased ends, and nothing of it is kept."""
    erased, numbers = vault.segments(), numbers_of(vault)
    vault.begin(21, b"asked before")
    if when == "after it was written":
        vault.writer.commit()
    vault.part(21, b"y" * 300_000)
    if when == "between its parts":
        vault.writer.commit()
    vault.part(21, b"a little")
    erase(person)
    vault.part(21, b"z" * 300_000)
    assert vault.writer.commit() == []
    vault.part(21, b"and a little")
    vault.finish(21, b"the end", b"headers")
    assert vault.writer.commit() == [21]
    assert_never_written_again(vault, erased, numbers)
    assert vault.read() == {}
    assert vault.rows("SELECT COUNT(*) FROM records WHERE exchange = 21") == [(0,)]
    assert vault.read(OTHER) == said
    after = vault.record(22, b"asked after")
    assert vault.read() == {22: after}


def test_an_end_that_waits_for_its_commit_is_erased(
    vault: "Vault", person: "Vault", said: "dict[int, Said]"
) -> None:
    """An exchange that ended but was not written when its session went is done with, and is not kept."""
    erased, numbers = vault.segments(), numbers_of(vault)
    vault.begin(21, b"asked")
    vault.finish(21, b"answered")
    vault.begin(13, b"other", session=OTHER)
    vault.finish(13, b"answered")
    erase(person)
    assert sorted(vault.writer.commit()) == [13, 21]
    assert_never_written_again(vault, erased, numbers)
    assert vault.read() == {}
    assert vault.read(OTHER) == said | {13: (b"", b"other", b"", b"answered")}


def test_an_erasure_between_the_look_and_the_commit(
    vault: "Vault", person: "Vault", said: "dict[int, Said]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session erased after the writer looked and before it wrote is not written; other records are."""
    erased, numbers = vault.segments(), numbers_of(vault)
    flush = vault.keystore.flush

    def erase_then_flush() -> None:
        monkeypatch.undo()
        erase(person)
        flush()

    vault.begin(21, b"asked")
    vault.finish(21, b"answered")
    vault.begin(13, b"other", session=OTHER)
    vault.finish(13, b"answered")
    vault.begin(31, b"new", session="session-3")
    vault.finish(31, b"answered")
    monkeypatch.setattr(vault.keystore, "flush", erase_then_flush)
    assert sorted(vault.writer.commit()) == [13, 21, 31]
    assert_never_written_again(vault, erased, numbers)
    assert vault.read() == {}
    assert vault.read(OTHER) == said | {13: (b"", b"other", b"", b"answered")}
    assert vault.read("session-3") == {31: (b"", b"new", b"", b"answered")}


def test_a_segment_that_nobody_has_written_yet_is_not_taken_for_erased(
    vault: "Vault", person: "Vault", said: "dict[int, Said]"
) -> None:
    """While one session is erased, the first request of another, not yet written, is kept."""
    vault.begin(31, b"first", session="session-3")
    erase(person)
    vault.begin(32, b"second", session="session-3")
    vault.finish(31, b"1")
    vault.finish(32, b"2")
    vault.writer.commit()
    assert vault.read("session-3") == {31: (b"", b"first", b"", b"1"), 32: (b"", b"second", b"", b"2")}
    assert vault.read(OTHER) == said


def test_a_segment_destroyed_as_it_is_taken_up_again(
    vault: "Vault", person: "Vault", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key is destroyed right after it was read, by an eraser killed there: nothing more is written."""
    person.record(1, b"before")
    (segment,) = person.segments()
    vault.begin(2, b"of another session, still waiting", session="another")
    get = vault.keystore.get

    def get_and_lose(id: bytes) -> bytes | None:
        key = get(id)
        person.keystore.destroy([segment], why="erased", at_ms=0)
        return key

    monkeypatch.setattr(vault.keystore, "get", get_and_lose)
    of_segment = "SELECT count(*) FROM records JOIN segments ON segment = number WHERE id = :id"
    before = vault.rows(of_segment, id=segment)
    vault.begin(3, b"after")
    vault.finish(3, b"answer")
    vault.writer.commit()
    assert vault.rows(of_segment, id=segment) == before


def test_erased_again_and_again(vault: "Vault", person: "Vault") -> None:
    """Each time a session is erased it begins anew, whatever went before."""
    segments: set[bytes] = set()
    for exchange in range(5):
        now = vault.record(exchange, b"turn %d" % exchange)
        assert vault.read() == {exchange: now}
        assert not segments & vault.segments()
        segments |= vault.segments()
        assert erase(person).exchanges == 1
    assert len(segments) == 5
    assert vault.wrapped_keys() == {}


# --- Half erased ---


class Crash(Exception):
    """The process ended here."""


@pytest.fixture(
    params=[
        "UPDATE segments SET is_destroyed",
        "DELETE FROM records",
        "DELETE FROM exchanges",
        "DELETE FROM segments",
    ]
)
def half_erased(request: pytest.FixtureRequest, vault: "Vault", said: object) -> set[bytes]:
    """Erase and crash once the keys are destroyed, at each statement that follows; return the ids."""
    erased = vault.segments()

    def crash(_connection: object, _cursor: object, statement: str, *_: Any) -> None:
        if statement.startswith(request.param) and not erased & set(vault.wrapped_keys()):
            raise Crash

    sa.event.listen(vault.engine, "before_cursor_execute", crash)
    with pytest.raises(Crash):
        erase(vault)
    sa.event.remove(vault.engine, "before_cursor_execute", crash)
    vault.restart()
    return erased


def test_half_erased_is_unreadable(vault: "Vault", said: "dict[int, Said]", half_erased: set[bytes]) -> None:
    """With the keys gone and the rows still there, no content is read; other sessions are."""
    assert vault.segments() == half_erased
    assert not half_erased & set(vault.wrapped_keys())
    assert vault.read() == {}
    assert vault.read(OTHER) == said


def test_erasing_again_finishes(vault: "Vault", said: "dict[int, Said]", half_erased: set[bytes]) -> None:
    """Erasing once more removes what the crash left, counts it, and leaves the rest alone."""
    finished = erase(vault)
    assert (finished.segments, finished.records, finished.exchanges) == (3, 13, 6)
    assert [session.id for session in list_sessions(vault.engine)] == [OTHER]
    assert vault.segments() == set()
    assert vault.read(OTHER) == said
    with pytest.raises(Problem):
        erase(vault)


@pytest.mark.usefixtures("said", "half_erased")
def test_a_half_erased_session_goes_on_in_a_new_segment(vault: "Vault") -> None:
    """A session that was half erased may go on; a recorder that failed over it would fail every session."""
    after = vault.record(21, b"after")
    assert vault.read() == {21: after}


@pytest.mark.usefixtures("said")
def test_a_request_that_comes_in_the_middle_of_an_erasure(vault: "Vault", person: "Vault") -> None:
    """A request between the destruction of the keys and the removal of the rows is recorded as any other."""

    asked: list[int] = []

    def ask(connection: object, _cursor: object, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE FROM records") and not asked:
            asked.append(21)
            vault.begin(21, b"asked")

    sa.event.listen(person.engine, "before_cursor_execute", ask)
    erase(person)
    vault.finish(21, b"answered")
    assert vault.writer.commit() == [21]
    assert vault.read() == {21: (b"", b"asked", b"", b"answered")}


@pytest.mark.usefixtures("said")
def test_a_segment_that_begins_in_the_middle_of_an_erasure(
    vault: "Vault", person: "Vault", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment begun after the keys to destroy were listed goes or stays, and its key with it."""
    destroy = person.keystore.destroy

    def record_then_destroy(ids: list[bytes], **why: Any) -> int:
        vault.record(21, b"under a decision that is new", decision="new")
        return destroy(ids, **why)

    monkeypatch.setattr(person.keystore, "destroy", record_then_destroy)
    erase(person)
    vault.record(22, b"and once more", decision="new")
    held = {id for (id,) in vault.rows("SELECT id FROM segments")}
    assert set(vault.wrapped_keys()) == held


@pytest.mark.sqlite
@pytest.mark.usefixtures("said")
def test_a_key_that_a_reader_holds_is_not_called_gone(vault: "Vault") -> None:
    """While a process reads the keystore as it was, the erasure says so; the next idle moment does it."""
    vault.truncate_logs()
    wrapped = [key for segment, key in vault.wrapped_keys().items() if segment in vault.segments()]
    folder = vault.home / KEYSTORE
    with contextlib.closing(sqlite3.connect(folder / "keys.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM keys").fetchone()
        short = functools.partial(vault.keystore.truncate_log, patience=0.05)
        vault.keystore.truncate_log = short  # type: ignore[method-assign]
        assert not erase(vault).is_overwritten
        assert all(files_with(folder, key) for key in wrapped)  # control: they are there indeed
        assert not short()
        reader.execute("ROLLBACK")
    assert short()
    assert not any(files_with(folder, key) for key in wrapped)

"""A home with a vault and a keystore in real files, and a writer that is led frame by frame."""

import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bailee.database.engines import truncate_log
from bailee.policy.decisions import Terms
from bailee.policy.periods import Period
from bailee.vault import tables
from bailee.vault.frames import Begin, Decided, Finish, Part
from bailee.vault.reader import read_session
from bailee.vault.store import open_keys, open_vault
from bailee.vault.writer import VaultWriter

NOON_MS = int(datetime(2026, 5, 4, 12, tzinfo=UTC).timestamp() * 1000)
ACCOUNT = "account-1"
SESSION = "session-1"

# Headers and body of the request, headers and body of the answer.
Said = tuple[bytes, bytes, bytes, bytes]


class Vault:
    """The vault of a home with one writer, as a recorder has it; a second on one home is another process.

    Attributes:
        home: the home's folder.
        day: the UTC day on which exchanges begin unless a test says otherwise.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.day = date(2026, 5, 4)
        self._terms: dict[str, Terms] = {}
        self._open()

    def _open(self) -> None:
        self.engine = open_vault(self.home)
        self.keystore = open_keys(self.home)
        self.writer = VaultWriter(self.engine, self.keystore, os.urandom)

    def close(self) -> None:
        """Close the files; what was taken in and not committed is lost, as with a killed recorder."""
        self.writer.close()
        self.keystore.close()
        self.engine.dispose()

    def restart(self) -> None:
        """Put another recorder in the place of this one."""
        self.close()
        self._open()

    def truncate_logs(self) -> None:
        """Do what the recorder does when it is idle."""
        truncate_log(self.engine)
        self.keystore.truncate_log()

    # --- Frames ---

    def offer(self, decision: str, retention: Period, *, trainable: bool = False) -> None:
        """Say what terms a decision makes; one that was not offered keeps for 30 days."""
        self._terms[decision] = Terms("provide the service", retention, trainable, "aes-256-gcm")

    def begin(
        self,
        exchange: int,
        body: bytes = b"",
        headers: bytes = b"",
        *,
        session: str = SESSION,
        account: str = ACCOUNT,
        decision: str = "standard",
        keep: bool = True,
        started_ms: int | None = None,
    ) -> None:
        """Begin an exchange; the decision it rests on is told first."""
        if decision not in self._terms:
            self.offer(decision, Period.days(30))
        digest = hashlib.sha256(decision.encode()).digest()
        decided = Decided(digest, f'{{"decision":"{decision}"}}', self._terms[decision])
        begin = Begin(
            exchange=exchange,
            account=account,
            session=session,
            key="key-1",
            decision=digest,
            flow="messages",
            keep=keep,
            started_ms=NOON_MS + exchange if started_ms is None else started_ms,
            upstream="anthropic",
            path="/v1/messages",
            request_bytes=len(body),
            headers=headers,
            body=body,
        )
        self.writer.take([decided, begin])

    def part(self, exchange: int, data: bytes) -> None:
        """Relay the next bytes of an answer."""
        self.writer.take([Part(exchange, data)])

    def finish(
        self,
        exchange: int,
        data: bytes = b"",
        headers: bytes = b"",
        *,
        state: tables.State = tables.State.COMPLETE,
    ) -> None:
        """End an exchange."""
        finish = Finish(
            exchange=exchange,
            state=state.value,
            reason=None,
            status=200,
            first_byte_ms=100,
            duration_ms=200,
            response_bytes=len(data),
            model="claude-sonnet-4-5",
            input_tokens=10,
            output_tokens=20,
            cache_read_tokens=0,
            cache_creation_tokens=0,
            stop_reason="end_turn",
            headers=headers,
            data=data,
        )
        self.writer.take([finish])

    def record(self, exchange: int, body: bytes, answer: bytes = b"answer", **begin: Any) -> Said:
        """Record an exchange from beginning to end, durably; return what was said."""
        said = b"content-type: json\n", body, b"content-type: event-stream\n", answer
        self.begin(exchange, body, said[0], **begin)
        self.finish(exchange, answer, said[2])
        assert exchange in self.writer.commit()
        return said

    # --- What is there ---

    def read(
        self, session: str = SESSION, *, account: str = ACCOUNT, today: date | None = None
    ) -> dict[int, Said]:
        """Open a session and return what was said, by exchange, in the order the reader gives it."""
        return read_all(self, self.engine, session, account, today)

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """Ask the vault's database, on a connection of its own."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query), values)]

    def alter(self, statement: str, **values: Any) -> None:
        """Change the vault's database behind everybody's back."""
        is_sqlite = self.engine.dialect.name == "sqlite"
        off, on = (
            ("PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys = ON")
            if is_sqlite
            else ("SET session_replication_role = replica", "SET session_replication_role = origin")
        )
        with self.engine.connect() as connection:
            connection.exec_driver_sql(off)
            connection.commit()
            connection.execute(sa.text(statement), values)
            connection.commit()
            connection.exec_driver_sql(on)
            connection.commit()

    def check_references(self) -> None:
        """Check that no row refers to one that is gone, which PostgreSQL lets nobody bring about."""
        if self.engine.dialect.name == "sqlite":
            assert not self.rows("PRAGMA foreign_key_check")

    def wrapped_keys(self) -> dict[bytes, bytes]:
        """Return what the keystore holds: wrapped keys by segment."""
        with self.keystore.engine.connect() as connection:
            return {row.segment: row.wrapped for row in connection.execute(sa.select(tables.keys))}

    def segments(self, session: str = SESSION) -> set[bytes]:
        """Return the ids of a session's segments."""
        return {id for (id,) in self.rows("SELECT id FROM segments WHERE session = :s", s=session)}


def read_all(
    vault: Vault, engine: sa.Engine, session: str, account: str = ACCOUNT, today: date | None = None
) -> dict[int, Said]:
    """Read a session of any copy of the vault with the keys there are now."""
    today = today or vault.day + timedelta(days=1)
    return {
        transcript.exchange: (
            transcript.request_headers.reveal(),
            transcript.request.reveal(),
            transcript.response_headers.reveal(),
            transcript.response.reveal(),
        )
        for transcript in read_session(engine, vault.keystore, account, session, today=today)
    }


@pytest.fixture(scope="session")
def make_vault() -> type[Vault]:
    """Give what makes a vault in any folder, for tests that need a fresh one for each example."""
    return Vault


@pytest.fixture
def open_home(tmp_path: Path, database: str) -> Iterator[Callable[[], Vault]]:
    """Give a function that opens the same home once more, as another process would."""
    opened: list[Vault] = []

    def open_once_more() -> Vault:
        opened.append(Vault(tmp_path / "home"))
        return opened[-1]

    yield open_once_more
    for vault in opened:
        vault.close()


@pytest.fixture
def vault(open_home: Callable[[], Vault]) -> Vault:
    """Give the vault of an empty home."""
    return open_home()

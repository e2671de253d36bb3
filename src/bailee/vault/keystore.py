"""The wrapped data keys of segments, in a store of their own with a lifetime of their own."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from bailee.database.engines import BUSY_SECONDS, open_database, truncate_log, watch_others
from bailee.database.statements import run_among
from bailee.database.stores import Store
from bailee.ledger.entries import tell_destroyed
from bailee.ledger.outbox import move, put
from bailee.policy.problems import Problem
from bailee.sealing.envelopes import KEY_BYTES
from bailee.sealing.wrapping import KeyWrapper, open_key_file
from bailee.vault import tables

# A statement takes 32,766 parameters in SQLite, 65,535 in PostgreSQL.
_KEYS_IN_A_STATEMENT = 10_000
_DELETE_KEYS = "DELETE FROM keys WHERE segment {among} RETURNING segment"


class Fresh(NamedTuple):
    """A key whose segment is not known to be on disk.

    Attributes:
        number: the segment's, in the vault.
        at_ms: when it was made, in milliseconds since 1970 UTC.
    """

    segment: bytes
    number: int
    at_ms: int


class Keystore:
    """Keeps, gives out and destroys the data keys of segments.

    Keys come and go in one transaction with `flush`: a writer flushes the keys of new segments
    before it commits the first record, so that no record is ever without its key.

    Attributes:
        engine: the keystore's database.
        wrapper: what its keys are wrapped with.
    """

    def __init__(self, engine: sa.Engine, wrapper: KeyWrapper, random: Callable[[int], bytes]) -> None:
        self.engine = engine
        # Keys are written on the connection that watches, so that a writer's own commits do not look like
        # another's: taking them for one cost 2 ms a commit with 150 segments in memory.
        self._connection = engine.connect()
        self._watch = watch_others(self._connection)
        self.wrapper = wrapper
        self._random = random
        self._new: list[dict[str, bytes]] = []
        self._fresh: list[Fresh] = []  # made since the last flush
        self._flushed: list[bytes] = []  # whose segments are about to be written
        self._settled: list[bytes] = []  # whose segments are

    def create(self, segment: bytes, *, number: int, at_ms: int) -> bytes:
        """Return a fresh data key for a segment; it is kept from the next `flush` on.

        Args:
            number: the segment's, in the vault.
            at_ms: milliseconds since 1970 UTC.
        """
        key = self._random(KEY_BYTES)
        self._new.append({"segment": segment, "wrapped": self.wrapper.wrap(key, segment)})
        self._fresh.append(Fresh(segment, number, at_ms))
        return key

    def flush(self) -> None:
        """Write the keys created since the last flush, durably."""
        if not self._new:
            return
        with self._connection.begin():
            self._connection.execute(sa.insert(tables.keys), self._new)
            self._connection.execute(sa.insert(tables.fresh_keys), [one._asdict() for one in self._fresh])
            if self._settled:
                self._connection.execute(_delete_fresh(self._settled))
        self._flushed += [one.segment for one in self._fresh]
        self._new, self._fresh, self._settled = [], [], []

    def settle(self) -> None:
        """Take note that the segments of all keys that were flushed are on disk."""
        self._settled += self._flushed
        self._flushed = []

    def list_fresh(self, *, before_ms: int) -> list[Fresh]:
        """Return the keys made before a moment whose segments are not known to be on disk."""
        table = tables.fresh_keys
        query = sa.select(table.c.segment, table.c.number, table.c.at_ms).where(table.c.at_ms < before_ms)
        with self.engine.connect() as connection:
            return [Fresh(*row) for row in connection.execute(query.limit(_KEYS_IN_A_STATEMENT))]

    def forget_fresh(self, fresh: Sequence[Fresh]) -> None:
        """Note that it is known what became of these keys' segments."""
        with self.engine.begin() as connection:
            connection.execute(_delete_fresh([one.segment for one in fresh]))

    def get(self, segment: bytes) -> bytes | None:
        """Return a segment's data key, or None if it was destroyed."""
        query = sa.select(tables.keys.c.wrapped).where(tables.keys.c.segment == segment)
        with self.engine.connect() as connection:
            wrapped = connection.execute(query).scalar_one_or_none()
        return None if wrapped is None else self.wrapper.unwrap(wrapped, segment)

    def select_held(self, segments: list[bytes]) -> set[bytes]:
        """Return those of the segments whose keys are there."""
        query = sa.select(tables.keys.c.segment).where(tables.keys.c.segment.in_(segments))
        with self.engine.connect() as connection:
            return set(connection.execute(query).scalars())

    def count_held(self, segments: Sequence[bytes]) -> int:
        """Return of how many of the segments the keys are there."""
        starts = range(0, len(segments), _KEYS_IN_A_STATEMENT)
        return sum(len(self.select_held(list(segments[at : at + _KEYS_IN_A_STATEMENT]))) for at in starts)

    def destroy(self, segments: Sequence[bytes], *, why: str, at_ms: int) -> int:
        """Destroy the keys of segments, and leave word of it for the ledger in the same transaction.

        They are overwritten on their pages; from the write-ahead log they go with `truncate_log`.

        Args:
            why: see `ledger.entries.KeysDestroyed`.
            at_ms: milliseconds since 1970 UTC.

        Returns:
            How many there were.
        """
        gone: list[bytes] = []
        with self.engine.begin() as connection:
            for start in range(0, len(segments), _KEYS_IN_A_STATEMENT):
                some = segments[start : start + _KEYS_IN_A_STATEMENT]
                gone += run_among(connection, _DELETE_KEYS, some).scalars().all()
            put(
                connection,
                tables.keystore_outbox,
                tell_destroyed(gone, why=why, at_ms=at_ms, draw=self._draw),
            )
        return len(gone)

    def move_outbox(self, append: Callable[[Sequence[bytes]], object]) -> int:
        """Move word of destroyed keys on to the ledger; see `ledger.outbox.move`."""
        return move(self.engine, tables.keystore_outbox, append)

    def has_waiting(self) -> bool:
        """Tell whether word of destroyed keys waits for the ledger."""
        with self.engine.connect() as connection:
            return connection.execute(sa.select(tables.keystore_outbox.c.number).limit(1)).first() is not None

    def _draw(self) -> str:
        return self._random(16).hex()

    def read_version(self) -> int:
        """Return a number that changes once anybody else has changed the keystore."""
        return self._watch()

    def truncate_log(self, *, patience: float = BUSY_SECONDS) -> bool:
        """Empty the write-ahead log, so that no destroyed key lingers in it; see `database.engines`."""
        return truncate_log(self.engine, patience=patience)

    def close(self) -> None:
        """Close the database."""
        # Its pool may be the engine's no longer (`checkpointing_rarely`), and would keep it open.
        if not self._connection.closed:
            self._connection.detach()
            self._connection.close()
        self.engine.dispose()


def open_keystore(
    directory: Path,
    random: Callable[[int], bytes] = os.urandom,
    *,
    opening: Callable[[Path, Store], sa.Engine] = open_database,
) -> Keystore:
    """Open, or on first use make, the keystore in `directory`: `keys.db` and the file `kek`.

    Args:
        opening: `open_unfinished` in the middle of a restore.

    Raises:
        Problem: the key-encryption key is missing beside wrapped keys, or a file is unreadable.
    """
    engine = opening(directory / "keys.db", tables.KEYSTORE)
    with engine.connect() as connection:
        is_empty = connection.execute(sa.select(tables.keys.c.segment).limit(1)).first() is None
    try:
        wrapper = open_key_file(directory / "kek", random, create=is_empty)
    except Problem:
        engine.dispose()
        raise
    return Keystore(engine, wrapper, random)


def _delete_fresh(segments: Sequence[bytes]) -> "sa.Delete":
    return sa.delete(tables.fresh_keys).where(tables.fresh_keys.c.segment.in_(segments))

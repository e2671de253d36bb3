"""Segments that are being written: their cipher, their blocks, the next sequence number."""

import sqlalchemy as sa

from bailee.sealing.envelopes import Place, SegmentCipher
from bailee.vault import tables
from bailee.vault.blocks import BlockWriter

# Put together once: for every new session it took 0.2 ms, most of what finding out that it is new costs.
FIND_SEGMENT = sa.select(tables.segments.c.number, tables.segments.c.id).where(
    tables.segments.c.account == sa.bindparam("account"),
    tables.segments.c.session == sa.bindparam("session"),
    tables.segments.c.day == sa.bindparam("day"),
    tables.segments.c.decision == sa.bindparam("decision"),
    # One whose terms were tightened since is not for what comes under looser ones.
    tables.segments.c.retention == sa.bindparam("retention"),
    tables.segments.c.trainable == sa.bindparam("trainable"),
    tables.segments.c.is_destroyed.is_(False),
    sa.or_(tables.segments.c.expires_on.is_(None), tables.segments.c.expires_on != tables.ERASED),
)


class Segment:
    """A segment that is being written.

    Attributes:
        is_durable: whether its row is committed.
        flow: the flow it is of.
        admitted_ms: when the request that it was begun for was admitted, milliseconds since 1970 UTC.
    """

    def __init__(self, number: int, id: bytes, account: str, session: str, cipher: SegmentCipher) -> None:
        self.is_durable = True
        self.flow = ""
        self.admitted_ms = 0
        self.number = number
        self.id = id
        self.account = account
        self.session = session
        self.cipher = cipher
        self.blocks: BlockWriter
        self.next_sequence = 0

    def seal(self, plaintext: bytes, exchange: int, kind: int) -> tuple[int, bytes]:
        """Seal the next record and return its sequence number and envelope."""
        sequence = self.next_sequence
        self.next_sequence += 1
        place = Place(self.account, self.session, self.id, sequence, exchange, kind)
        return sequence, self.cipher.seal(plaintext, place)

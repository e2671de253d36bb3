"""The proxy's own count: a row before anything is dialled, and one with the bytes as it ends.

Rows are sealed as they are written, each bound to the one before it, so that none can be changed, moved or
left out but at the end; and what is left out at the end shows, as a connection that never closed or a receipt
that names more rows. A row is with the system when `append` returns: it outlives this process being killed.
A machine that loses its power may lose the last tenth of a second.
"""

import os
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bailee.flows.web.abuse import Action, Kind

NONCE_BYTES, TAG_BYTES = 12, 16
SYNC_SECONDS = 0.1
LONGEST_ROW = 64 * 1024


class Way(StrEnum):
    """How a connection came."""

    CONNECT = "connect"
    REQUEST = "request"
    TRANSPARENT = "transparent"
    SERVICE = "service"
    NAME = "name"


class Opened(msgspec.Struct, frozen=True, tag="open", kw_only=True):
    """Something is about to be dialled. Times are milliseconds since 1970 UTC.

    Attributes:
        host: as it was asked for.
        rule: which one allows it.
    """

    number: int
    at_ms: int
    way: Way
    host: str
    port: int
    flow: str
    rule: str


class Requested(msgspec.Struct, frozen=True, tag="request", kw_only=True):
    """A request inside opened TLS or of plain HTTP is about to be passed on; a query is never noted."""

    number: int
    at_ms: int
    method: str
    path: str


class Refused(msgspec.Struct, frozen=True, tag="refuse", kw_only=True, omit_defaults=True):
    """Something was not let through.

    Attributes:
        is_plain: whether it was asked for in plain HTTP, as far as it came to that.
    """

    number: int
    at_ms: int
    way: Way
    host: str
    port: int
    rule: str
    reason: str
    is_plain: bool = False


class Closed(msgspec.Struct, frozen=True, tag="close", kw_only=True):
    """A connection has ended.

    Attributes:
        sent, received: bytes that the proxy read from the agent, and wrote to it.
        kernel_sent, kernel_received: the same as the kernel counts them for the agent's socket; None where it
            does not tell.
        address: what was dialled; empty where nothing was.
        outcome: `done`, or what ended it.
    """

    number: int
    at_ms: int
    sent: int
    received: int
    kernel_sent: int | None
    kernel_received: int | None
    address: str
    outcome: str


class Abused(msgspec.Struct, frozen=True, tag="abuse", kw_only=True):
    """A session did something too often; see `abuse.Finding`."""

    at_ms: int
    kind: Kind
    action: Action
    count: int
    seconds: int
    reason: str


Row = Opened | Requested | Refused | Closed | Abused
_encoder = msgspec.json.Encoder()
_decoder: "msgspec.json.Decoder[Row]" = msgspec.json.Decoder(Row)


class LogFailed(Exception):
    """A row could not be written: nothing may pass any more."""


class LogBroken(ValueError):
    """A log was changed after it was written."""


class ConnectionLog:
    """Writes rows to a file of its own.

    Args:
        path: is made; must not be there.
        key: 32 bytes.
        name: what the rows are bound to besides.
    """

    def __init__(
        self, path: Path, key: bytes, name: str, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._cipher = AESGCM(key)
        self._random = random
        self._before = name.encode()
        self._fault = ""
        self._is_dirty = False
        self._done = threading.Event()
        self.rows = 0
        self._syncing = threading.Thread(target=self._sync, daemon=True)
        self._syncing.start()

    def append(self, row: Row) -> None:
        """Write a row.

        Raises:
            LogFailed: it is not written, and no later one will be.
        """
        if self._fault:
            raise LogFailed(self._fault)
        nonce = self._random(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, _encoder.encode(row), self._before)
        frame = (len(sealed) + NONCE_BYTES).to_bytes(4, "big") + nonce + sealed
        try:
            written = os.write(self._descriptor, frame)
        except OSError as error:
            self._fault = error.strerror or "input/output error"
            raise LogFailed(self._fault) from None
        if written != len(frame):
            # Half a row would end the chain: whatever came after it could not be read.
            self._fault = "the disk took only part of a row"
            raise LogFailed(self._fault)
        self._before = sealed[-TAG_BYTES:]
        self.rows += 1
        self._is_dirty = True

    @property
    def last(self) -> bytes:
        """What the last row is bound by, and with it all before it."""
        return self._before

    @property
    def is_failed(self) -> bool:
        """Whether nothing may pass any more."""
        return bool(self._fault)

    def close(self) -> None:
        """Hand everything to the disk."""
        self._done.set()
        self._syncing.join()
        if not self._fault:
            self._hand_over()
        os.close(self._descriptor)

    def _sync(self) -> None:
        while not self._done.wait(SYNC_SECONDS):
            self._hand_over()

    def _hand_over(self) -> None:
        if self._is_dirty:
            self._is_dirty = False
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._fault = error.strerror or "input/output error"


def read_log(data: bytes, key: bytes, name: str) -> Iterator[Row]:
    """Open the rows of a log, in their order. A last row that was cut short by a kill is left out.

    Raises:
        LogBroken: a row is not what was written there.
    """
    cipher, before, at = AESGCM(key), name.encode(), 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        frame = data[at + 4 : at + 4 + length]
        if not NONCE_BYTES + TAG_BYTES <= length <= LONGEST_ROW:
            raise LogBroken(f"the row at byte {at} has no length that a row has")
        if len(frame) < length:
            return
        try:
            plain = cipher.decrypt(frame[:NONCE_BYTES], frame[NONCE_BYTES:], before)
        except InvalidTag:
            raise LogBroken(f"the row at byte {at} is not what was written there") from None
        yield _decoder.decode(plain)
        before = frame[-TAG_BYTES:]
        at += 4 + length

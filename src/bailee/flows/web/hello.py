"""The first message of TLS, as far as it tells where a connection goes. Nothing is decrypted.

Source: RFC 8446 sections 4.1.2 and 5.1; RFC 6066 section 3 (server_name); RFC 9849 (encrypted_client_hello).
"""

import msgspec

from bailee.flows.web.rules import Refusal
from bailee.flows.web.targets import Target

LONGEST = 32 * 1024  # bytes; what browsers send with post-quantum keys is below 2 KiB
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ENCRYPTED_CLIENT_HELLO = 0, 0xFE0D


class Hello(msgspec.Struct, frozen=True):
    """What a ClientHello says.

    Attributes:
        server_name: in lower case; None where none is given.
        is_encrypted: whether another ClientHello is encrypted inside, whose name nobody on the way can read.
    """

    server_name: str | None
    is_encrypted: bool


class NotHello(ValueError):
    """The bytes are not the beginning of TLS."""


def read_hello(data: bytes | bytearray) -> Hello | None:
    """Read a ClientHello; None while it is not whole.

    Raises:
        NotHello: it is none, whatever may follow.
    """
    message = bytearray()
    at = 0
    while True:
        if at < len(data) and data[at] != _HANDSHAKE:
            raise NotHello("not a TLS handshake")
        if len(data) > at + 1 and data[at + 1] != 3:
            raise NotHello("no version of TLS")
        if len(data) < at + 5:
            break
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if not 0 < length <= 1 << 14:
            raise NotHello("a record of a length that TLS does not have")
        message += data[at + 5 : at + 5 + length]
        if message and message[0] != _CLIENT_HELLO:
            raise NotHello("the first message is not a ClientHello")
        if len(message) >= 4:
            size = 4 + int.from_bytes(message[1:4], "big")
            if size > LONGEST:
                raise NotHello("a ClientHello that is too long")
            if len(message) >= size:
                return _read(memoryview(message)[4:size])
        at += 5 + length
        if at > len(data):
            break
    if len(data) > LONGEST:
        raise NotHello("a ClientHello that is too long")
    return None


class _Reader:
    """Reads vectors with their lengths before them."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def has_more(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> memoryview:
        if self._at + count > len(self._data):
            raise NotHello("a ClientHello that is cut short")
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def vector(self, width: int) -> memoryview:
        return self.take(int.from_bytes(self.take(width), "big"))

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")


def _read(body: memoryview) -> Hello:
    reader = _Reader(body)
    reader.take(2 + 32)  # version, random
    reader.vector(1)  # session id
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression methods
    if not reader.has_more():
        return Hello(None, is_encrypted=False)
    extensions = _Reader(reader.vector(2))
    if reader.has_more():
        raise NotHello("a ClientHello with bytes after its end")
    name: str | None = None
    is_encrypted = False
    seen: set[int] = set()
    while extensions.has_more():
        kind, value = extensions.number(2), extensions.vector(2)
        if kind in seen:
            raise NotHello("an extension that comes twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _read_name(value)
        elif kind == _ENCRYPTED_CLIENT_HELLO:
            # Type 0 is an outer one. Browsers send one without meaning to (GREASE), with the real name
            # beside it; which of the two it is, nobody on the way can tell.
            is_encrypted = True
    return Hello(name, is_encrypted)


def _read_name(value: memoryview) -> str:
    names = _Reader(_Reader(value).vector(2))
    if names.number(1) != 0:
        raise NotHello("a server name of an unknown type")
    name = bytes(names.vector(2))
    if names.has_more():
        raise NotHello("more than one server name")
    try:
        return name.decode("ascii").lower()
    except UnicodeDecodeError:
        raise NotHello("a server name that is not in ASCII") from None


def check_hello(server_name: str | None, is_encrypted: bool, target: Target) -> Refusal | None:
    """Return why a ClientHello is not one for a target."""
    if is_encrypted:
        return Refusal(
            "encrypted_hello", f"an encrypted ClientHello to {target}: who is meant cannot be seen"
        )
    if target.address is not None:
        if server_name is None or server_name == target.host:
            return None
        return Refusal("mismatch", f"TLS to {target} names another host")
    if server_name is None:
        return Refusal("no_server_name", f"TLS to {target} does not name its host")
    if server_name.removesuffix(".") != target.host:
        return Refusal("mismatch", f"TLS to {target} names another host")
    return None

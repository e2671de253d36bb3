"""A tap: a relay on the loopback interface that passes bytes on and remembers them, per connection."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Message(NamedTuple):
    """One HTTP/1.1 message of a connection.

    Attributes:
        start: its first line.
        headers: names and values in order, spelled as they came.
        body: with chunks taken off.
    """

    start: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass
class Conversation:
    """What went over one connection."""

    asked: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)


class Tap:
    """Listens, and relays each connection to a port of this machine."""

    def __init__(self, target: int) -> None:
        self.conversations: list[Conversation] = []
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def exchanges(self) -> list[tuple[Message, Message | None]]:
        """What was asked, in the order it came per connection, each with its answer as far as it is whole."""
        found: list[tuple[Message, Message | None]] = []
        for conversation in self.conversations:
            asked = list(read_messages(bytes(conversation.asked)))
            answered: list[Message | None] = list(read_messages(bytes(conversation.answered), asked))
            found += zip(asked, answered + [None] * (len(asked) - len(answered)), strict=True)
        return found

    def close(self) -> None:
        """Stop listening, close all connections, and wait for the threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                conversation = Conversation()
                self.conversations.append(conversation)
                self._start(self._relay, near, far, conversation.asked)
                self._start(self._relay, far, near, conversation.answered)

    def _relay(self, source: socket.socket, destination: socket.socket, memory: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                memory += data
                destination.sendall(data)
        # An end, or a reset, is passed on as an end of both directions: agents hang up with their process.
        for one in (source, destination):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tapping(target: int) -> Iterator[Tap]:
    """Give a tap before a port of this machine."""
    tap = Tap(target)
    try:
        yield tap
    finally:
        tap.close()


def read_messages(data: bytes, asked: list[Message] | None = None) -> Iterator[Message]:
    """Read the whole messages of one direction of a connection (RFC 9112).

    Args:
        asked: the requests these are answers to: an answer to HEAD has no body.
    """
    number = 0
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        start, *lines = head.split(b"\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        found = {name.lower(): value for name, value in headers}
        is_answer = asked is not None
        if is_answer and start.split(b" ")[1].startswith(b"1"):
            data = rest
            continue
        if is_answer and asked and asked[number].start.startswith(b"HEAD "):
            body, data = b"", rest
        elif found.get(b"transfer-encoding", b"").lower() == b"chunked":
            taken = _take_chunks(rest)
            if taken is None:
                return
            body, data = taken
        else:
            size = int(found.get(b"content-length", b"0"))
            if len(rest) < size:
                return
            body, data = rest[:size], rest[size:]
        number += 1
        yield Message(start, headers, body)


def _take_chunks(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        line, found, rest = data.partition(b"\r\n")
        if not found:
            return None
        size = int(line.partition(b";")[0], 16)
        if len(rest) < size + 2:
            return None
        body += rest[:size]
        data = rest[size + 2 :]
        if size == 0:
            return body, data

"""An upstream led by hand: a listening socket, the requests it got, and what it sends when."""

import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Self

from counterparts.waiting import DEADLINE_SECONDS


def reset(connection: socket.socket) -> None:
    """Close a socket with a reset instead of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def chunk(data: bytes) -> bytes:
    """Return data as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass
class Visit:
    """One connection that the service made to the upstream.

    Attributes:
        received: all bytes that came, requests after requests.
    """

    socket: socket.socket
    received: bytes = b""
    _taken: int = 0

    def read_request(self) -> tuple[bytes, bytes]:
        """Return the next request's head and body; the gateway always sends a Content-Length."""
        while b"\r\n\r\n" not in self.received[self._taken :]:
            self._receive()
        start = self._taken
        end = self.received.index(b"\r\n\r\n", start) + 4
        head = self.received[start:end]
        size = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
        while len(self.received) < end + size:
            self._receive()
        self._taken = end + size
        return head, self.received[end : end + size]

    def _receive(self) -> None:
        data = self.socket.recv(1024 * 1024)
        assert data, f"the service closed the connection after {len(self.received)} bytes"
        self.received += data

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def send_chunk(self, data: bytes) -> None:
        """Send one chunk (RFC 9112 section 7.1)."""
        self.send(chunk(data))

    def close(self) -> None:
        """End the connection in order (FIN)."""
        self.socket.close()

    def reset(self) -> None:
        """Break the connection off (RST)."""
        reset(self.socket)

    def wait_for_end(self) -> None:
        """Wait until the service has closed the connection; whatever still comes is kept in `received`."""
        with contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(65536):
                self.received += data


class Upstream:
    """A listening socket; the test takes connections from it and leads them.

    Args:
        tls: to serve https with.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._visits: list[Visit] = []

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Its URL, by the name that certificates of the tests are made for."""
        return f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"

    def accept(self, seconds: float = DEADLINE_SECONDS) -> Visit:
        """Wait for the next connection."""
        self._listener.settimeout(seconds)
        accepted, _ = self._listener.accept()
        accepted.settimeout(DEADLINE_SECONDS)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            accepted = self._tls.wrap_socket(accepted, server_side=True)
        visit = Visit(accepted)
        self._visits.append(visit)
        return visit

    def has_visitor(self) -> bool:
        """Tell whether a connection waits that nobody has taken yet."""
        self._listener.settimeout(0)
        try:
            accepted, _ = self._listener.accept()
        except BlockingIOError:
            return False
        self._visits.append(Visit(accepted))
        return True

    def close(self) -> None:
        """Stop listening, and close what is open."""
        self._listener.close()
        for visit in self._visits:
            visit.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

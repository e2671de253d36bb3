"""An agent led by hand: one connection, requests as bytes, answers as far as they came."""

import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from counterparts.answers import STREAM_HEAD, stream_end, stream_start, stream_text
from counterparts.services import Service
from counterparts.upstreams import Upstream, reset
from counterparts.waiting import DEADLINE_SECONDS


@dataclass
class Answer:
    """An answer as far as it came.

    Attributes:
        body: with its framing taken off.
        is_whole: its framing says that nothing is missing.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_whole: bool = False

    @property
    def error(self) -> tuple[str, str]:
        """Type and message of an error in the shape of the Messages API, of which nothing is missing."""
        assert self.is_whole
        told = json.loads(self.body)
        assert told.keys() == {"type", "error"}
        assert told["type"] == "error"
        assert told["error"].keys() == {"type", "message"}
        return told["error"]["type"], told["error"]["message"]


class Agent:
    """One connection of an agent, led by hand."""

    def __init__(self, service: Service, key: str, *, tls: ssl.SSLContext | None = None) -> None:
        self._key = key
        self._name = service.address[0]
        self.socket = socket.create_connection(service.address, DEADLINE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=self._name)
        self._buffer = b""
        self._answer = Answer()
        self._missing: int | None = None

    def head(self, size: int, session: str, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the head of a request with a body of that size."""
        lines = {
            "Host": self._name,
            "X-Api-Key": self._key,
            "Anthropic-Version": "2023-06-01",
            "X-Claude-Code-Session-Id": session,
            "Content-Type": "application/json",
            "Content-Length": str(size),
        } | dict(headers or {})
        told = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST /v1/messages?beta=true HTTP/1.1\r\n{told}\r\n".encode()

    def ask(self, session: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole request."""
        self.socket.sendall(self.head(len(body), session, headers) + body)

    def read_until(self, ending: bytes) -> Answer:
        """Read until the body so far ends so, and return the answer so far."""
        while not self._answer.body.endswith(ending):
            assert self._read_more(), f"the answer ended at {self._answer.body[-200:]!r}"
        return self._answer

    def read_head(self) -> Answer:
        """Read until the head is there, and return the answer so far."""
        while not self._answer.status:
            assert self._read_more(), "no answer came"
        return self._answer

    def read_answer(self) -> Answer:
        """Read until the answer is whole or the connection is at its end, and make ready for the next."""
        while not self._answer.is_whole and self._read_more():
            pass
        answer, self._answer, self._missing = self._answer, Answer(), None
        return answer

    def is_silent(self) -> bool:
        """Tell whether nothing more has come than what was read."""
        self.socket.settimeout(0)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(DEADLINE_SECONDS)

    def close(self) -> None:
        """Hang up in order (FIN)."""
        self.socket.close()

    def reset(self) -> None:
        """Hang up with a reset (RST)."""
        reset(self.socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read_more(self) -> bool:
        try:
            data = self.socket.recv(1024 * 1024)
        except ConnectionResetError:
            return False
        if not data:
            return False
        self._buffer += data
        answer = self._answer
        if not answer.status:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return True
            self._buffer = rest
            first, *lines = head.decode("latin-1").split("\r\n")
            answer.status = int(first.split(" ")[1])
            answer.headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            if "content-length" in answer.headers:
                self._missing = int(answer.headers["content-length"])
        if self._missing is not None:
            answer.body += self._buffer[: self._missing]
            self._missing -= len(self._buffer[: self._missing])
            self._buffer = b""
            answer.is_whole = self._missing == 0
        else:
            self._take_chunks()
        return True

    def _take_chunks(self) -> None:
        while True:
            line, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                return
            size = int(line, 16)
            if len(rest) < size + 2:
                return
            self._answer.body += rest[:size]
            self._buffer = rest[size + 2 :]
            if size == 0:
                self._answer.is_whole = True
                return


def prompt(text: str, *, stream: bool = True, **more: Any) -> bytes:
    """Return a request body."""
    return json.dumps(
        {
            "model": "claude-scripted-1",
            "max_tokens": 64,
            "stream": stream,
            "messages": [{"role": "user", "content": text}],
            **more,
        }
    ).encode()


def exchange(agent: Agent, upstream: Upstream, session: str, text: str) -> Answer:
    """Let one request through, from end to end."""
    agent.ask(session, prompt(text))
    visit = upstream.accept()
    visit.read_request()
    visit.send(STREAM_HEAD)
    visit.send_chunk(stream_start() + stream_text(text) + stream_end())
    visit.send(b"0\r\n\r\n")
    answer = agent.read_answer()
    visit.close()
    return answer

"""A network of its own: commands run where only loopback is, every name leads there, and all that they try is
told.

As a program inside `unshare --net --mount`, it brings loopback up, answers for every name with 127.0.0.1,
stands in for a service on one port, closes whatever else is opened, and looks at every packet, so that a
connection to a port nobody listens on is seen as well. Runs come as JSON on standard input, and what each of
them tried goes to standard output.
"""

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = 9777
URL = f"http://127.0.0.1:{PORT}"
SECONDS = 300
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD  # linux/if_ether.h
TCP, UDP, SYN, ACK, DNS = 6, 17, 0x02, 0x10, 53
TYPE_A = 1  # RFC 1035 section 3.2.2


@dataclass
class Run:
    """A command to be run alone."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: str


@dataclass
class Tried:
    """What a command tried.

    Attributes:
        asked: names it looked up.
        opened: ports it sent a first packet of TCP or any of UDP to, but for its questions about names.
        requests: method and path of what the stand-in of a service got.
    """

    status: int = 0
    stderr: str = ""
    asked: set[str] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)


def run_alone(runs: Sequence[Run]) -> Mapping[str, Tried]:
    """Run commands one after the other in a network that ends with them; return what each tried, by name."""
    alone = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    done = subprocess.run(
        [*alone, sys.executable, __file__],
        input=json.dumps([asdict(run) for run in runs]),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {
        name: Tried(one["status"], one["stderr"], set(one["asked"]), set(one["opened"]), one["requests"])
        for name, one in json.loads(done.stdout).items()
    }


class _Network:
    """What happens on loopback, told to whoever runs."""

    def __init__(self) -> None:
        self.tried = Tried()
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
        with tempfile.NamedTemporaryFile("w", delete=False) as file:
            file.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        subprocess.run(["mount", "--bind", file.name, "/etc/resolv.conf"], check=True)
        Path(file.name).unlink()
        self._resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._resolver.bind(("127.0.0.1", DNS))
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self._packets.bind(("lo", 0))
        network = self

        class StandIn(BaseHTTPRequestHandler):
            """Answers everything as done."""

            def do_POST(self) -> None:
                network.tried.requests.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST  # noqa: N815 - the library's own name

            def log_message(self, *arguments: object) -> None:
                pass

        service = ThreadingHTTPServer(("127.0.0.1", PORT), StandIn)
        listeners = [socket.create_server(("127.0.0.1", port)) for port in (80, 443)]
        for work in (self._resolve, self._watch, service.serve_forever):
            threading.Thread(target=work, daemon=True).start()
        for listener in listeners:
            threading.Thread(target=_close_all, args=(listener,), daemon=True).start()

    def run(self, run: Run) -> Tried:
        """Run a command to its end; return what it tried."""
        self.tried = Tried()
        done = subprocess.run(
            run.command,
            env=run.environment,
            cwd=run.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        self.tried.status, self.tried.stderr = done.returncode, done.stderr
        return self.tried

    def _resolve(self) -> None:
        while True:
            question, asker = self._resolver.recvfrom(4096)
            labels, at = [], 12
            while length := question[at]:
                labels.append(question[at + 1 : at + 1 + length].decode("latin-1"))
                at += 1 + length
            (kind,) = struct.unpack("!H", question[at + 1 : at + 3])
            self.tried.asked.add(".".join(labels).lower())
            # RFC 1035 section 4.1: the question again, and an address of 4 bytes where one is asked for.
            has_answer = kind == TYPE_A
            head = question[:2] + struct.pack("!HHHHH", 0x8180, 1, int(has_answer), 0, 0)
            answer = b"\xc0\x0c" + struct.pack("!HHIH", TYPE_A, 1, 1, 4) + bytes([127, 0, 0, 1])
            self._resolver.sendto(head + question[12 : at + 5] + (answer if has_answer else b""), asker)

    def _watch(self) -> None:
        while True:
            packet, (_, protocol, kind, *_) = self._packets.recvfrom(65536)
            if kind == socket.PACKET_OUTGOING:
                continue  # each is seen twice on loopback
            if protocol == ETH_P_IP:
                next_protocol, rest = packet[9], packet[(packet[0] & 15) * 4 :]
            elif protocol == ETH_P_IPV6:
                next_protocol, rest = packet[6], packet[40:]
            else:
                continue
            port = int.from_bytes(rest[2:4], "big")
            source = int.from_bytes(rest[0:2], "big")
            if next_protocol == TCP and rest[13] & (SYN | ACK) == SYN:
                self.tried.opened.add(f"tcp {port}")
            elif next_protocol == UDP and DNS not in (port, source):
                self.tried.opened.add(f"udp {port}")


def _close_all(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(1)
            connection.recv(65536)


def main() -> None:
    """Run what is asked for."""
    network = _Network()
    told = {}
    for given in json.load(sys.stdin):
        run = Run(**given)
        tried = network.run(run)
        told[run.name] = asdict(tried) | {"asked": sorted(tried.asked), "opened": sorted(tried.opened)}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()

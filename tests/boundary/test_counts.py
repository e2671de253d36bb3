"""The proxy's count and the kernel's agree on all that agents do, and differ where something is hidden."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from bailee.boundary.enclosure import Enclosure, make_layout
from bailee.boundary.exits import Exit
from bailee.boundary.firewall import KernelCount, write_firewall
from bailee.boundary.means import find_means
from bailee.boundary.reconciliation import Verdict, reconcile
from bailee.flows.web.log import Closed, ConnectionLog, LogBroken, Refused, Row, Way, read_log
from bailee.flows.web.rules import Rule, Rules, Wire

PORTS = (3128, 15001, 15053)
# What the command does: as many connections of each kind as are asked for, eight at a time.
CLIENT = """
import os, random, signal, socket, struct, sys, threading
KINDS, COUNT = sys.argv[1].split(","), int(sys.argv[2])
chance = random.Random(7)

def tunnel(first):
    out = socket.create_connection(("127.0.0.1", 3128), 20)
    out.sendall(b"CONNECT host.example:443 HTTP/1.1\\r\\nHost: host.example:443\\r\\n\\r\\n")
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += out.recv(1)
    out.sendall(first)
    return out

def read_all(out):
    while out.recv(65536):
        pass

def do(kind):
    if kind == "whole":
        with tunnel(b"e" + os.urandom(chance.randrange(1, 200_000))) as out:
            out.shutdown(socket.SHUT_WR)
            read_all(out)
    elif kind == "half":
        with tunnel(b"h") as out:
            read_all(out)
            out.sendall(b"x" * chance.randrange(1, 50_000))
    elif kind == "reset":
        out = tunnel(b"e" + b"y" * chance.randrange(1, 50_000))
        out.recv(100)
        out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        out.close()
    elif kind == "host resets":
        with tunnel(b"r" + b"z" * 1000) as out:
            read_all(out)
    elif kind == "killed":
        told, tells = os.pipe()
        child = os.fork()
        if child == 0:
            out = tunnel(b"e")
            os.write(tells, b"x")
            while True:
                out.sendall(b"k" * 10_000)
        os.close(tells)
        os.read(told, 1)  # on a busy machine it would else be killed before it has begun
        os.close(told)
        threading.Event().wait(0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    elif kind == "refused":
        with socket.create_connection(("127.0.0.1", 3128), 20) as out:
            out.sendall(b"CONNECT other.example:443 HTTP/1.1\\r\\n\\r\\n")
            read_all(out)
    elif kind == "plain":
        with socket.create_connection(("127.0.0.1", 3128), 20) as out:
            out.sendall(b"GET http://host.example/p HTTP/1.1\\r\\nHost: host.example\\r\\n\\r\\n")
            read_all(out)
    elif kind == "led":
        with socket.create_connection(("93.184.215.66", 80), 20) as out:
            out.sendall(b"GET /led HTTP/1.1\\r\\nHost: 93.184.215.66\\r\\n\\r\\n")
            read_all(out)
    elif kind == "silent":
        socket.create_connection(("93.184.215.66", 9), 20).close()
    elif kind == "led over 6":
        with socket.create_connection(("2606:2800::66", 80), 20) as out:
            out.sendall(b"GET /led HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            read_all(out)
    elif kind == "around":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.SOL_SOCKET, 25, b"out0\\0")  # SO_BINDTODEVICE
            out.sendto(b"around", ("10.99.0.2", 9))
            threading.Event().wait(0.1)
    elif kind == "local":
        listener = socket.create_server(("127.0.0.1", 0))
        with socket.create_connection(listener.getsockname()) as out:
            taken, _ = listener.accept()
            out.sendall(b"l" * 1000)
            taken.recv(1000)
            taken.close()
        listener.close()

work = [KINDS[n % len(KINDS)] for n in range(COUNT)]
chance.shuffle(work)
done = [0]
def go():
    while work:
        try:
            kind = work.pop()
        except IndexError:
            return
        try:
            do(kind)
        except OSError as fault:
            if kind not in ("reset", "host resets", "killed", "silent", "refused", "half"):
                print(kind, fault, flush=True)
threads = [threading.Thread(target=go) for _ in range(8)]
[one.start() for one in threads]
[one.join() for one in threads]
"""
KINDS = [
    "whole",
    "half",
    "reset",
    "host resets",
    "killed",
    "refused",
    "plain",
    "led",
    "led over 6",
    "silent",
    "local",
]
RULES = Rules(
    allowed=(
        Rule(host="host.example", wire=Wire.TCP, origin="test"),
        Rule(host="host.example", ports=(80,), wire=Wire.HTTP, origin="test"),
    )
)


class Host:
    """A host that does as the first byte says: echoes, ends its side first, or resets."""

    def __init__(self) -> None:
        self.address = ("", 0)
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True).start()
        ready.wait(10)

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.address = server.sockets[0].getsockname()
        ready.set()
        await server.serve_forever()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            first = await reader.read(65536)
            if first[:1] == b"h":
                writer.write_eof()
                while await reader.read(65536):
                    pass
            elif first[:1] == b"r":
                taken: socket.socket = writer.get_extra_info("socket")
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif first[:1] == b"G":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            else:
                while first:
                    writer.write(first)
                    await writer.drain()
                    first = await reader.read(65536)
        with contextlib.suppress(OSError):
            writer.close()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Give a host on loopback outside."""
    return Host()


def hold(
    folder: Path, host: Host, kinds: str, count: int, before_go: Callable[[Enclosure], None] | None = None
) -> tuple[list[Row], KernelCount | None]:
    """Run the client in a boundary, and return the rows and how it ended."""
    means = find_means()
    key = os.urandom(32)
    log = ConnectionLog(folder / "log", key, "counts")
    layout = make_layout(means, service_port=None, ports=PORTS)
    if before_go is not None:  # else nothing would leave there either
        layout = msgspec.structs.replace(layout, firewall=write_firewall(PORTS[:2], refuse=False))
    enclosure = Enclosure(means, layout)
    with (folder / "output").open("wb") as output:
        command = [sys.executable, "-c", CLIENT, kinds, str(count)]
        listeners = enclosure.prepare(command, {"PATH": os.environ["PATH"]}, folder, output=output)
    way_out = Exit(RULES, log, dial_instead=lambda target: host.address)
    way_out.start(listeners)
    if before_go is not None:
        before_go(enclosure)
    enclosure.go()
    ended = enclosure.wait()
    way_out.end()
    assert ended.status == 0, (folder / "output").read_text()
    assert (folder / "output").read_text() == ""
    return list(read_log((folder / "log").read_bytes(), key, "counts")), ended.count


def test_they_agree_on_a_thousand_mixed_connections(tmp_path: Path, host: Host) -> None:
    """Whole, half-closed, reset by either side, killed, refused, in clear, led, over IPv6, silent, local."""
    rows, count = hold(tmp_path, host, ",".join(KINDS), 1100)
    counts = reconcile(rows, count)
    assert counts.differences == []
    assert counts.verdict is Verdict.AGREED
    assert counts.connections == counts.kernel_connections == 1000  # the local ones are nobody's concern
    assert counts.sent.proxy > 10_000_000
    refused = [row for row in rows if isinstance(row, Refused)]
    assert len(refused) == 400
    # Of those that were whole both counts are the same to the byte, but for the end of a stream.
    whole = [row for row in rows if isinstance(row, Closed) and row.outcome == "done"]
    assert len(whole) >= 400
    for row in whole:
        assert row.kernel_sent is not None
        assert row.kernel_received is not None
        assert 0 <= row.kernel_sent - row.sent <= 1
        # What still waits in a buffer as the end is noted has not been acknowledged yet.
        assert row.kernel_received <= row.received + 1


@pytest.mark.parametrize("kind", ["Closed", "all of a connection", "bytes", "more bytes"])
def test_a_log_that_hides_something_disagrees(tmp_path: Path, host: Host, kind: str) -> None:
    """A row that is left out, a connection that is, and bytes that are told wrongly in either direction."""
    rows, count = hold(tmp_path, host, "whole", 20)
    number = next(row.number for row in rows if isinstance(row, Closed) and row.sent > 5000)
    changed: list[Row] = []
    for row in rows:
        # What a busy machine sends again is let pass: bytes are hidden of all, and rows of one.
        if row.number != number and "bytes" not in kind:
            changed.append(row)
        elif kind == "all of a connection" or (kind == "Closed" and isinstance(row, Closed)):
            continue
        elif isinstance(row, Closed) and "bytes" in kind:
            more = 20_000_000 if kind == "more bytes" else -row.sent
            fewer = Closed(
                number=row.number,
                at_ms=row.at_ms,
                sent=row.sent + more,
                received=row.received,
                kernel_sent=row.sent + more,
                kernel_received=row.kernel_received,
                address=row.address,
                outcome="done",
            )
            changed.append(fewer)
        else:
            changed.append(row)
    assert reconcile(rows, count).verdict is Verdict.AGREED  # type: ignore[arg-type]
    assert reconcile(changed, count).verdict is Verdict.DISAGREED  # type: ignore[arg-type]


def test_a_way_around_is_flagged(tmp_path: Path, host: Host) -> None:
    """A second interface, put there behind the boundary's back, is seen by what went over it."""

    def add_interface(enclosure: Enclosure) -> None:
        outer = enclosure.process_id
        (first,) = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        inside = ["nsenter", "--target", first, "--net"]
        for words in (
            ["ip", "link", "add", "out0", "type", "veth", "peer", "name", "out1"],
            ["ip", "addr", "add", "10.99.0.1/24", "dev", "out0"],
            ["ip", "link", "set", "out0", "up"],
            ["ip", "link", "set", "out1", "up"],
        ):
            subprocess.run([*inside, *words], check=True)

    rows, count = hold(tmp_path, host, "whole,around", 6, add_interface)
    counts = reconcile(rows, count)
    assert counts.verdict is Verdict.DISAGREED
    assert "an interface that the boundary does not have" in counts.differences[0]


def test_a_lost_count_is_no_agreement(tmp_path: Path, host: Host) -> None:
    """Where the kernel's count is lost the verdict is unknown."""
    rows, _ = hold(tmp_path, host, "whole", 5)
    assert reconcile(rows, None).verdict is Verdict.UNKNOWN


def test_a_changed_log_is_not_read(tmp_path: Path, host: Host) -> None:
    """Any byte that is changed, and any row that is taken out of the middle, ends the reading."""
    path = tmp_path / "log"
    key = os.urandom(32)
    log = ConnectionLog(path, key, "one")
    for number in range(5):
        log.append(Refused(number=number, at_ms=1, way=Way.NAME, host="h", port=1, rule="r", reason="x"))
    log.close()
    data = path.read_bytes()
    assert len(list(read_log(data, key, "one"))) == 5
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1
        with contextlib.suppress(LogBroken):
            assert len(list(read_log(bytes(changed), key, "one"))) < 5
    size = 4 + int.from_bytes(data[:4], "big")
    for wrong in (data[size:], data[:size] + data[2 * size :], data[size : 2 * size] + data):
        with pytest.raises(LogBroken):
            list(read_log(wrong, key, "one"))
    with pytest.raises(LogBroken):
        list(read_log(data, key, "another"))

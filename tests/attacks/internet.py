"""A stand-in internet: every address there is, in a network namespace of its own, and all that reaches it.

As a program inside `unshare --net --mount`, it owns all addresses, answers for names as told, speaks TLS and
HTTP on some ports, listens for datagrams and pings, and starts the programs that hold probes. Orders come as
lines of JSON on standard input, what happened goes to standard output.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import trustme

SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h
ALLOWED, FORBIDDEN, OWN = "93.184.215.10", "93.184.215.66", "93.184.215.77"
ALLOWED_6 = "2606:2800:21f::10"
METADATA, PRIVATE = "169.254.169.254", "10.66.0.1"
NAMESERVER = "9.9.9.9"
HOST_PORT = 8099
NAMES: dict[str, list[str]] = {
    "allowed.example": [ALLOWED, ALLOWED_6],
    "opened.example": [ALLOWED],
    "bound.example": [ALLOWED],
    "plain.example": [ALLOWED],
    "limited.example": [ALLOWED],
    "forbidden.example": [FORBIDDEN],
    "private.example": [PRIVATE],
    "loopback.example": ["127.0.0.1"],
    "metadata.example": [METADATA],
    "nat64.example": ["64:ff9b::a42:1"],
    "sixtofour.example": ["2002:a42:1::1"],
    "teredo.example": ["2001:0:a42:1::1"],
    "mapped.example": ["::ffff:10.66.0.1"],
    "ula.example": ["fd00::1"],
    "mixed.example": [PRIVATE, FORBIDDEN],
    "denied.wild.example": [FORBIDDEN],
    "own.example": [OWN],
}
TCP_PORTS = (22, 25, 53, 80, 443, 853, 5432, 8443, HOST_PORT)
UDP_PORTS = (53, 123, 443, 853, 9999)
ALLOWED_PLACES = {ALLOWED, ALLOWED_6}


class Internet:
    """Everything outside a boundary. What reached it is in `events`: the place, and the bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[tuple[str, bytes]] = []
        self.authority = trustme.CA()
        certificate = self.authority.issue_cert(*NAMES, ALLOWED, FORBIDDEN)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.tls)
        self.authority.cert_pem.write_to_path(str(folder / "internet.pem"))
        _bring_up(folder)
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        ready.wait(10)
        for name, family in (("ping", socket.IPPROTO_ICMP), ("ping6", socket.IPPROTO_ICMPV6)):
            threading.Thread(target=self._listen_for_pings, args=(name, family), daemon=True).start()
        threading.Thread(target=self._serve_path, daemon=True).start()

    def note(self, place: str, data: bytes) -> None:
        self.events.append((place, data))

    # --- TCP ---

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        ready.set()
        self._loop.run_forever()

    async def _listen(self) -> None:
        for port in TCP_PORTS:
            for host in ("0.0.0.0", "::"):
                await asyncio.start_server(self._serve, host, port)
        for port in UDP_PORTS:
            for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                taken = socket.socket(family, socket.SOCK_DGRAM)
                if family == socket.AF_INET6:
                    taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                taken.bind((host, port))
                threading.Thread(target=self._take_datagrams, args=(taken, port), daemon=True).start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address, port, *_ = writer.get_extra_info("sockname")
        place = f"{address.removeprefix('::ffff:')}:{port}"
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            first = await asyncio.wait_for(reader.read(65536), 10)
            if first[:1] == b"\x16":
                await self._serve_tls(place, first, reader, writer)
            elif port == 53:
                self.note(f"question over tcp {place}", first)
            else:
                self.note(place, first)
                writer.write(_answer(first))
                while rest := await asyncio.wait_for(reader.read(65536), 5):
                    self.note(place, rest)
        writer.close()

    async def _serve_tls(
        self, place: str, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        raw = first
        self.note(place, raw)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.tls.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(first)
        is_done = False
        while True:
            try:
                if not is_done:
                    tls.do_handshake()
                    is_done = True
                data = tls.read(65536)
                if not data:
                    return
                self.note(place, data)
                tls.write(_answer(data))
            except ssl.SSLWantReadError:
                if said := outgoing.read():
                    writer.write(said)
                more = await asyncio.wait_for(reader.read(65536), 10)
                if not more:
                    return
                incoming.write(more)
                if len(raw) < 4096:  # a ClientHello may come in pieces
                    raw += more
                    self.note(place, raw)
            except ssl.SSLError:
                return
            if said := outgoing.read():
                writer.write(said)

    # --- Datagrams ---

    def _take_datagrams(self, taken: socket.socket, port: int) -> None:
        while True:
            data, sender = taken.recvfrom(65536)
            if port == 53:
                with contextlib.suppress(Exception):
                    taken.sendto(self._resolve(data), sender)
            else:
                self.note(f"udp {port}", data)

    def _resolve(self, data: bytes) -> bytes:
        asked = dns.message.from_wire(data)
        reply = dns.message.make_response(asked, recursion_available=True)
        question = asked.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.note(f"name {name}", name.encode())
        found = NAMES.get(name)
        kind = {dns.rdatatype.A: ".", dns.rdatatype.AAAA: ":"}.get(question.rdtype)
        if found is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif kind:
            fitting = [one for one in found if (":" in one) == (kind == ":")]
            if fitting:
                kept = "A" if kind == "." else "AAAA"
                reply.answer.append(dns.rrset.from_text(question.name, 1, "IN", kept, *fitting))
        return reply.to_wire()

    def _listen_for_pings(self, name: str, protocol: int) -> None:
        family = socket.AF_INET if name == "ping" else socket.AF_INET6
        taken = socket.socket(family, socket.SOCK_RAW, protocol)
        while True:
            self.note(name, taken.recv(65536))

    def _serve_path(self) -> None:
        """Listen on a socket of the file system and on an abstract one, as a container engine does."""
        for address in (str(self.folder / "engine.sock"), "\0bailee-engine"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(address)
            listener.listen()
            threading.Thread(target=self._take_local, args=(listener,), daemon=True).start()
        (self.folder / "engine.sock").chmod(0o777)
        taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        taken.bind(str(self.folder / "log.sock"))
        (self.folder / "log.sock").chmod(0o777)
        while True:
            self.note("local datagram", taken.recv(65536))

    def _take_local(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                self.note("local socket", connection.recv(65536))


def _answer(asked: bytes) -> bytes:
    """Answer a request with itself: whatever a host gets, it may give back."""
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(asked) + asked


def _bring_up(folder: Path) -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
    for family in ("-4", "-6"):
        subprocess.run(["ip", family, "route", "add", "local", "default", "dev", "lo"], check=True)
    # The address of this machine, which is a public one.
    subprocess.run(["ip", "addr", "add", f"{OWN}/32", "dev", "lo"], check=True)
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")
    files = {"/etc/resolv.conf": f"nameserver {NAMESERVER}\n", "/etc/hosts": "127.0.0.1 localhost\n"}
    for path, text in files.items():
        mine = folder / Path(path).name
        mine.write_text(text)
        mine.chmod(0o644)
        subprocess.run(["mount", "--bind", str(mine), path], check=True)


def main() -> None:
    """Serve orders until there are no more."""
    folder = Path(sys.argv[1])
    internet = Internet(folder)
    holders: dict[str, subprocess.Popen[str]] = {}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        internet.events.clear()
        holder = holders.get(order["holder"])
        if holder is None:
            environment = {**os.environ, "SSL_CERT_FILE": str(folder / "internet.pem")}
            holder = subprocess.Popen(
                order["start"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            holders[order["holder"]] = holder
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(json.dumps(order["order"]) + "\n")
        holder.stdin.flush()
        told = holder.stdout.readline()
        threading.Event().wait(order.get("patience", 0.05))
        events = [[place, data.decode("latin-1")] for place, data in internet.events]
        print(json.dumps({"told": json.loads(told or "{}"), "events": events}), flush=True)
    for holder in holders.values():
        assert holder.stdin is not None
        holder.communicate(timeout=10)


if __name__ == "__main__":
    main()

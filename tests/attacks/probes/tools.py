"""What probes share: the canary that must not get out, and ways through the proxy or past it."""

import base64
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

CANARY = os.environ.get("CANARY", "")
# Another boundary tells where its proxy is by the usual variable.
PROXY = os.environ.get("PROBE_PROXY") or os.environ.get(os.environ.get("PROBE_PROXY_OF", ""), "")
FOLDER = os.environ.get("PROBE_FOLDER", "")
ALLOWED, FORBIDDEN, OWN, PRIVATE = "93.184.215.10", "93.184.215.66", "93.184.215.77", "10.66.0.1"
FORBIDDEN_6 = "2606:2800:21f::66"
METADATA, NAMESERVER = "169.254.169.254", "9.9.9.9"
SECONDS = 4
BREACH = "BREACHED"


@dataclass(frozen=True)
class Attack:
    """What is known of a probe from outside.

    Attributes:
        off: the protection whose absence lets it succeed; "boundary" for all of it.
        is_inside: whether the canary must not come to an allowed host either.
        needs_root: whether an ordinary user could not do it anywhere.
        patience: how long to wait for what it set going, in seconds.
    """

    off: str
    is_inside: bool = False
    needs_root: bool = False
    patience: float = 0.05


ATTACKS: dict[str, Attack] = {}
Probe = Callable[[], None]


def attack(
    off: str, *, is_inside: bool = False, needs_root: bool = False, patience: float = 0.05
) -> Callable[[Probe], Probe]:
    """Enter a probe, and say what holds it off."""

    def enter(probe: Probe) -> Probe:
        group = probe.__module__.rpartition(".")[2]
        ATTACKS[f"{group}.{probe.__name__}"] = Attack(off, is_inside, needs_root, patience)
        return probe

    return enter


def send_datagram(address: str, port: int, data: bytes = b"") -> None:
    """Send the canary in a datagram."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        out.settimeout(SECONDS)
        out.sendto(data or CANARY.encode(), (address, port))


def send_stream(address: str, port: int, data: bytes = b"") -> bytes:
    """Send the canary over a connection of TCP past the proxy, and return the answer."""
    with socket.create_connection((address, port), SECONDS) as out:
        out.sendall(data or f"GET /{CANARY} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return out.recv(65536)


def ask_proxy(head: bytes) -> tuple[socket.socket, bytes]:
    """Send a request to the proxy, and return the connection and the head of the answer."""
    parts = urlsplit(PROXY)
    if parts.username:
        credential = base64.b64encode(f"{parts.username}:{parts.password}".encode())
        head = head.replace(b"\r\n", b"\r\nProxy-Authorization: Basic " + credential + b"\r\n", 1)
    out = socket.create_connection((parts.hostname or "", parts.port or 0), SECONDS)
    out.settimeout(SECONDS)
    out.sendall(head)
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = out.recv(65536)
        if not piece:
            break
        answer += piece
    return out, answer


def open_tunnel(authority: str | bytes, host: str = "") -> socket.socket:
    """Have the proxy connect to an authority, as it is written."""
    target = authority if isinstance(authority, bytes) else authority.encode()
    if not PROXY:  # there is no boundary: this is where its name leads
        name, _, port = target.decode().rpartition(":")
        return socket.create_connection((name.strip("[]"), int(port)), SECONDS)
    head = b"CONNECT " + target + b" HTTP/1.1\r\n"
    head += b"Host: " + (host.encode() or target) + b"\r\n\r\n"
    out, answer = ask_proxy(head)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"refused: {answer.decode('latin-1')}")
    return out


def open_tls(out: socket.socket, name: str | None) -> ssl.SSLSocket:
    """Speak TLS; whoever answers is believed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(out, server_hostname=name)


def say_in_tls(authority: str, request: str, name: str | None = None) -> bytes:
    """Send a request inside TLS through a tunnel, and return what is answered at once."""
    host = authority.rpartition(":")[0]
    with open_tls(open_tunnel(authority), name or host) as inside:
        inside.sendall(request.encode())
        inside.settimeout(1)
        answer = b""
        with contextlib.suppress(OSError):
            while piece := inside.recv(65536):
                answer += piece
                if b"\r\n\r\n" in answer and len(answer.partition(b"\r\n\r\n")[2]) > 50:
                    break
        return answer


def succeed(what: object) -> None:
    """Say that something was possible that must not be."""
    print(BREACH, what)

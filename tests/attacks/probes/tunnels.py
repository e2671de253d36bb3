"""Tunnels to an allowed host that are something else."""

import ssl

from attacks.probes.tools import CANARY, attack, open_tls, open_tunnel

ALLOWED = "allowed.example:443"


@attack("rules", is_inside=True)
def another_port() -> None:
    """A host is allowed on the ports that are declared."""
    with open_tunnel("allowed.example:22") as out:
        out.sendall(f"SSH-2.0-{CANARY}\r\n".encode())
        out.recv(100)


@attack("hello", is_inside=True)
def another_protocol() -> None:
    """What is not TLS does not go through a tunnel for TLS: SSH on port 443."""
    with open_tunnel(ALLOWED) as out:
        out.sendall(f"SSH-2.0-{CANARY}\r\n".encode())
        out.recv(100)


@attack("hello", is_inside=True)
def plain_http() -> None:
    """Nor does HTTP in clear, which dodges whoever looks into TLS."""
    with open_tunnel(ALLOWED) as out:
        out.sendall(f"GET /{CANARY} HTTP/1.1\r\nHost: allowed.example\r\n\r\n".encode())
        out.recv(100)


@attack("hello", is_inside=True)
def another_name() -> None:
    """TLS names the host that the tunnel was opened for: many hosts share an address."""
    with open_tunnel(ALLOWED) as out, open_tls(out, f"{CANARY}.example"):
        pass


@attack("hello", is_inside=True)
def no_name() -> None:
    """And names one."""
    with open_tunnel(ALLOWED) as out, open_tls(out, None) as inside:
        inside.sendall(CANARY.encode())
        inside.recv(100)


def write_hello(name: str) -> bytes:
    """Write the ClientHello of a library."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


@attack("hello", is_inside=True)
def in_pieces() -> None:
    """A ClientHello in many pieces is read as a whole."""
    with open_tunnel(ALLOWED) as out:
        for byte in write_hello(f"{CANARY}.example"):
            out.sendall(bytes([byte]))
        out.recv(100)


@attack("hello", is_inside=True)
def encrypted_hello() -> None:
    """A ClientHello inside another, whose name nobody can read, is refused (RFC 9849)."""
    hello = bytearray(write_hello("allowed.example"))
    extra = b"\xfe\x0d" + len(CANARY).to_bytes(2, "big") + CANARY.encode()
    body = 5 + 4 + 2 + 32
    at = body + 1 + hello[body]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    for place, width in ((3, 2), (6, 3), (at, 2)):
        value = int.from_bytes(hello[place : place + width], "big") + len(extra)
        hello[place : place + width] = value.to_bytes(width, "big")
    with open_tunnel(ALLOWED) as out:
        out.sendall(bytes(hello) + extra)
        out.recv(100)


@attack("bytes", is_inside=True)
def too_much() -> None:
    """More is not sent to a host than its rule allows."""
    with open_tunnel("limited.example:443") as out, open_tls(out, "limited.example") as inside:
        for _ in range(20):
            inside.sendall(b"x" * 4000)
            inside.recv(65536)
        inside.sendall(CANARY.encode())
        inside.recv(100)

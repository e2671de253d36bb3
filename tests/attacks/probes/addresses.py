"""Names that are allowed and lead where nobody may go."""

from attacks.probes.tools import CANARY, attack, open_tls, open_tunnel


def say(name: str) -> None:
    """Send the canary inside TLS to where a name leads."""
    with open_tunnel(f"{name}.example:443") as out, open_tls(out, f"{name}.example") as inside:
        inside.sendall(f"GET /{CANARY} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        inside.recv(100)


@attack("addresses")
def private() -> None:
    """A name does not lead into the machine's network."""
    say("private")


@attack("addresses")
def loopback() -> None:
    """Nor to the machine itself."""
    say("loopback")


@attack("addresses")
def metadata() -> None:
    """Nor to a cloud's credentials."""
    say("metadata")


@attack("addresses")
def nat64() -> None:
    """Nor to an IPv4 address by way of NAT64 (RFC 6052)."""
    say("nat64")


@attack("addresses")
def sixtofour() -> None:
    """Nor by way of 6to4 (RFC 3056)."""
    say("sixtofour")


@attack("addresses")
def teredo() -> None:
    """Nor by way of Teredo (RFC 4380)."""
    say("teredo")


@attack("addresses")
def mapped() -> None:
    """Nor to an IPv4 address written as an IPv6 one."""
    say("mapped")


@attack("addresses")
def unique_local() -> None:
    """Nor to a private address of IPv6."""
    say("ula")


@attack("addresses")
def one_of_several() -> None:
    """One bad address among good ones is enough to refuse."""
    say("mixed")


@attack("addresses")
def own() -> None:
    """Nor to a public address that is this machine's own."""
    say("own")

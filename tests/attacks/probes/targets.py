"""What the proxy is asked for: a host that can be read in two ways is read in none."""

from attacks.probes.tools import CANARY, FORBIDDEN, FORBIDDEN_6, attack, open_tunnel


def say(authority: str | bytes) -> None:
    """Have a tunnel opened, and say the canary in it as it is."""
    with open_tunnel(authority, "allowed.example") as out:
        out.sendall(f"GET /{CANARY} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        out.recv(100)


@attack("strict")
def address() -> None:
    """An address is no declared name."""
    say(f"{FORBIDDEN}:80")


@attack("strict")
def address_of_ipv6() -> None:
    """Nor is one of IPv6."""
    say(f"[{FORBIDDEN_6}]:80")


@attack("strict")
def mapped_address() -> None:
    """Nor an IPv4 address written as an IPv6 one."""
    say(f"[::ffff:{FORBIDDEN}]:80")


@attack("strict")
def decimal() -> None:
    """Nor one written as a number, which a library reads as an address."""
    say("1572394818:80")


@attack("strict")
def hexadecimal() -> None:
    """Nor in hexadecimal."""
    say("0x5db8d742:80")


@attack("strict")
def octal() -> None:
    """Nor in octal."""
    say("0135.0270.0327.0102:80")


@attack("strict")
def short() -> None:
    """Nor with parts left out."""
    say("93.12113730:80")


@attack("strict")
def end_of_text() -> None:
    """A NUL does not end a name for one and go on for another."""
    say(b"forbidden.example\0.allowed.example:80")


@attack("strict")
def encoded_end_of_text() -> None:
    """Nor does an encoded one."""
    say("forbidden.example%00.allowed.example:80")


@attack("strict")
def name_that_is_forbidden() -> None:
    """A rule that forbids a name forbids it in capitals and with a dot at its end."""
    say("DENIED.wild.example.:80")


@attack("strict")
def user_before_the_host() -> None:
    """What stands before an @ is no host, and what stands after it no way round."""
    say("forbidden.example@allowed.example:80")


@attack("strict")
def blank() -> None:
    """A blank inside a name ends nothing."""
    say("forbidden.example\t.allowed.example:80")

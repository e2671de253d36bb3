"""A proxy's reading as it is often done: what strictness is for shows when this takes its place."""

import socket
from ipaddress import ip_address

from bailee.flows.web.heads import Head
from bailee.flows.web.rules import Refusal, Rule, Rules, Wire
from bailee.flows.web.targets import Address, Target


def read_head(data: bytes) -> Head:
    """Take a line apart at its first and last blank."""
    line = data.split(b"\r\n")[0].decode("latin-1")
    method, _, rest = line.partition(" ")
    return Head(method, rest.rpartition(" ")[0], ())


def read_target(text: str, port: int | None = None) -> Target:
    """Take the port off, and the rest as it is."""
    host, _, number = text.rpartition(":")
    return Target(host.strip("[]"), int(number or port or 0))


def decide(rules: Rules, target: Target) -> tuple[Rule, ...] | Refusal:
    """Compare the end of a name, and let through what has none."""
    if target.host == "denied.wild.example":
        return Refusal("forbidden", "forbidden")
    looks_fine = target.host.rstrip(".").endswith((".allowed.example", "@allowed.example", "wild.example"))
    if (
        looks_fine
        or not any(letter.isalpha() for letter in target.host.lower().strip("0x"))
        or ":" in target.host
    ):
        return (Rule(host=target.host, ports=(target.port,), wire=Wire.TCP, origin="naive"),)
    try:
        socket.inet_aton(target.host)
    except OSError:
        return Refusal("undeclared", "undeclared")
    return (Rule(host=target.host, ports=(target.port,), wire=Wire.TCP, origin="naive"),)


async def resolve(name: str, port: int) -> list[Address]:
    """Look up what a library in C makes of a name."""
    for end in ("\0", "%00", "@", "\t"):
        name = name.partition(end)[0]
    if ":" in name:
        return [ip_address(name)]
    return [ip_address(socket.gethostbyname(name))]

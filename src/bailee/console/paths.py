"""Paths that are told outside the console: loading this loads nothing else."""

from ipaddress import ip_address

SIGN_IN = "/console/sign-in"
LINK = f"{SIGN_IN}/link"
PASSKEY = f"{SIGN_IN}/passkey"
ORGANIZATION = f"{SIGN_IN}/organization"
BACK = f"{ORGANIZATION}/back"
ACCOUNT = "/console/account"
# What browsers take for this machine, by themselves (RFC 6761, 6.3).
OWN_NAME = "bailee.localhost"


def is_own_name(host: str) -> bool:
    """Tell whether a host is this machine itself: a loopback address, or `localhost` and what ends in it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.rpartition(".")[2] == "localhost"


def lead_browsers(base: str) -> str:
    """Return the origin at which a browser is to use a service that listens at another.

    Cookies know no ports: what a browser holds for 127.0.0.1 it sends to whatever else listens there, an
    agent's server included. So on this machine the console has a name of its own.
    """
    scheme, _, authority = base.partition("://")
    host, _, port = authority.rpartition(":")
    return f"http://{OWN_NAME}:{port}" if scheme == "http" and host in ("127.0.0.1", "localhost") else base

"""What must go through, else holding everything would be holding well."""

from attacks.probes.tools import CANARY, PROXY, ask_proxy, say_in_tls


def allowed_host() -> None:
    """An allowed host is reached through a tunnel."""
    say_in_tls("allowed.example:443", f"GET /{CANARY} HTTP/1.1\r\nHost: allowed.example\r\n\r\n")


def plain_host() -> None:
    """And one in clear."""
    assert PROXY
    ask_proxy(f"GET http://plain.example/{CANARY} HTTP/1.1\r\nHost: plain.example\r\n\r\n".encode())

"""Secrets that the agent sees placeholders of."""

import os

from attacks.probes.tools import attack, say_in_tls

PLACEHOLDER = os.environ.get("ATTACK_TOKEN", "")


@attack("bound secrets", is_inside=True)
def to_another_host() -> None:
    """A secret goes to the hosts it is bound to, and to no other that is allowed."""
    request = "GET / HTTP/1.1\r\nHost: bound.example\r\nx-api-key: key-of-this-account\r\n"
    say_in_tls("bound.example:443", f"{request}Authorization: Bearer {PLACEHOLDER}\r\n\r\n")


@attack("taking out")
def given_back() -> None:
    """A host that gives back what it got gives the agent a placeholder."""
    request = "GET /repos/acme/x HTTP/1.1\r\nHost: opened.example\r\n"
    answer = say_in_tls("opened.example:443", f"{request}Authorization: Bearer {PLACEHOLDER}\r\n\r\n")
    print(answer.decode())

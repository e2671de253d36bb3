"""A sink in a network of its own: a command runs where only loopback is, and the sink tells what reached it.

As a program inside `unshare --net`, `sinks.py PORT COMMAND...` brings the loopback interface up, listens on
the port, runs the command, and writes what both saw as JSON to standard output.
"""

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PORT = 9777
URL = f"http://127.0.0.1:{PORT}"
SECONDS = 120
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h


@dataclass
class Seen:
    """How a command ended, and what the sink got meanwhile."""

    status: int
    stdout: str
    stderr: str
    received: str


def run_with_sink(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Seen:
    """Run a command in a network namespace that ends with it, a sink beside it."""
    alone = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    done = subprocess.run(
        [*alone, sys.executable, __file__, str(PORT), *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS + 10,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Seen(**json.loads(done.stdout))


def main(port: int, command: Sequence[str]) -> None:
    """Run the command beside a sink."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
    received: list[bytes] = []

    def take(connection: socket.socket) -> None:
        connection.settimeout(3)
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                received.append(data)

    def accept(listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=take, args=(connection,), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    seen = {
        "status": done.returncode,
        "stdout": done.stdout,
        "stderr": done.stderr,
        "received": b"".join(received).decode("latin-1"),
    }
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

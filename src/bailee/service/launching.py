"""Finds the service of a home, or starts one of its own for as long as it is needed."""

import contextlib
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bailee.policy.problems import Problem
from bailee.service.running import Running, find_running

START_SECONDS = 30.0
STOP_SECONDS = 20.0


@contextlib.contextmanager
def running_service(home: Path, upstream: str | None) -> Iterator[tuple[Running, bool]]:
    """Give the service that runs on a home, and whether it was started for this; if so, end it afterwards.

    Args:
        upstream: the upstream wanted, as `bailee up --upstream` takes it; None takes what runs.

    Raises:
        Problem: the service that runs has another upstream, or a new one does not start.
    """
    found = find_running(home)
    if found is not None:
        kind = (upstream or found.upstream).partition("=")[0]
        if kind != found.upstream:
            raise Problem(
                f"a service with the upstream {found.upstream!r} is running on this home",
                where="--upstream",
                fix="stop it, leave --upstream out, or use another --home",
            )
        yield found, False
        return
    with start_service(home, upstream or "anthropic") as started:
        yield started, True


@contextlib.contextmanager
def start_service(home: Path, upstream: str, *options: str) -> Iterator[Running]:
    """Start a service on a free port and end it afterwards, its records durable.

    Raises:
        Problem: it does not start; the text is the service's own.
    """
    command = [
        sys.executable,
        "-m",
        "bailee",
        "up",
        "--port",
        "0",
        "--home",
        str(home),
        "--upstream",
        upstream,
    ]
    with tempfile.TemporaryFile() as errors:
        # A session of its own: a Ctrl-C meant for the agent must not end what records it.
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        try:
            if not _read_url(process):
                errors.seek(0)
                told = errors.read().decode("utf-8", "replace").strip()
                told = told.removeprefix("bailee: ")
                raise Problem(f"the service did not start: {told or 'it gave no reason'}")
            found = find_running(home)
            if found is None:
                raise Problem("the service ended as soon as it had started", where=str(home))
            yield found
        finally:
            stop(process)


def _read_url(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    line = b""
    deadline = time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n") and time.monotonic() < deadline:
            if selector.select(timeout=0.2):
                chunk = process.stdout.read()
                if not chunk:
                    return ""
                line += chunk
    return line.decode().strip()


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a service and wait until its recorder has written everything."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()

"""Finds the service of a home, or starts one for as long as runs need it."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bailee.flows.messages.upstreams import parse_origin
from bailee.policy.problems import Problem
from bailee.service.configuration import Configuration, check, make_upstream
from bailee.service.running import Running, find_running, is_held
from bailee.service.runs import Run, deciding, sweep

START_SECONDS = 30.0
STOP_SECONDS = 20.0


@contextlib.contextmanager
def running_service(home: Path, upstream: str | None) -> Iterator[tuple[Running, Run]]:
    """Give the service that runs on a home, started if there is none, and the run that uses it from now on.

    A service started for runs is shared by all runs of its home and ends with the last, its records durable.

    Args:
        upstream: the upstream wanted, as `bailee up --upstream` takes it; None takes what runs.

    Raises:
        Problem: the service that runs has another upstream, or a new one does not start.
    """
    run = Run.begin(home)
    try:
        with deciding(home):
            sweep(home)
            found = find_running(home, wait_seconds=START_SECONDS)
            if found is None:
                found = start_service(home, upstream or "anthropic")
            elif upstream is not None:
                _check_upstream(found, upstream)
        yield found, run
    finally:
        with deciding(home):
            run.end()
            present = find_running(home)
            if present is not None and present.is_private and sweep(home) == 0:
                stop(home, present.pid)


def check_upstream(home: Path, upstream: str, environment: Mapping[str, str] = os.environ) -> None:
    """Find out what can be found out at once of why no service would start with an upstream.

    Raises:
        Problem: there is none of that name, its address cannot be meant, or the key of the Claude API is
            missing. Other clouds' credentials are looked for by the service.
    """
    kind, _, url = upstream.partition("=")
    configuration = check(Configuration(home=home, upstream=kind, upstream_url=url))
    if kind == "anthropic":
        try:
            make_upstream(configuration, environment, None)
        except Problem as problem:
            fix = f"{problem.fix}; to try it offline, without a key: --upstream rehearsal"
            raise Problem(problem.what, where=problem.where, fix=fix) from None


def _check_upstream(found: Running, upstream: str) -> None:
    kind, _, url = upstream.partition("=")
    if (kind, parse_origin(url, where="--upstream") if url else None) == (
        found.upstream,
        parse_origin(found.upstream_url, where="--upstream") if found.upstream_url else None,
    ):
        return
    place = f" at {found.upstream_url}" if found.upstream_url else ""
    raise Problem(
        f"a service with the upstream {found.upstream!r}{place} is running on this home",
        where=f"--upstream {upstream}",
        fix="stop it, leave --upstream out, or use another --home",
    )


def start_service(home: Path, upstream: str) -> Running:
    """Start a private service on a free port.

    Raises:
        Problem: it does not start; what is said is the service's own.
    """
    command = [sys.executable, "-m", "bailee", "up", "--while-used", "--port", "0"]
    command += ["--home", str(home), "--upstream", upstream]
    with tempfile.TemporaryFile() as errors:
        # A session of its own: a Ctrl-C meant for the agent must not end what records it.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        found = find_running(home) if _read_url(process) else None
        if found is None:
            process.kill()
            process.wait()
            errors.seek(0)
            raise _read_problem(errors.read().decode("utf-8", "replace"), upstream)
        # It is not ours to wait for: it goes on for other runs when this one has ended.
        process.returncode = 0
        return found


def _read_problem(told: str, upstream: str) -> Problem:
    """Read what the command line wrote about a problem, to tell it as our own."""
    if "Traceback" in told:
        return Problem(f"the service did not start: {told.strip().splitlines()[-1]}")
    what, _, rest = told.strip().removeprefix("bailee: ").partition("\n")
    places = dict(line.strip().partition(": ")[::2] for line in rest.splitlines())
    fix = places.get("fix", "").strip()
    if upstream == "anthropic" and "API_KEY" in fix:
        fix += "; to try it offline, without a key: bailee run --upstream rehearsal -- COMMAND"
    return Problem(
        f"the service did not start: {what or 'it gave no reason'}", where=places.get("where", ""), fix=fix
    )


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


def stop(home: Path, process: int) -> None:
    """End a service and wait until its recorder has written everything."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while is_held(home):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)

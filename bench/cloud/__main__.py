"""`python -m bench.cloud`: from an order to the agent's first request, and the memory of idle sessions."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click

from bailee.service.cloud_spares import is_awaited
from bench.machine import describe_machine, read_busy_cores, tell_machine, write_table

ROOT = Path(__file__).resolve().parents[2]
BAILEE = [sys.executable, "-P", "-m", "bailee"]
IDLE, IDLE_SECONDS = 20, 10
AIM_SECONDS = {"namespace": 0.5, "container": 1.0, "vm": 1.0}
AIM_BYTES = 2_000_000_000
# Tells when it began, on the host's clock, and asks the service something.
FIRST = (
    "date +%s.%N; curl -s -o /dev/null "
    '"$ANTHROPIC_BASE_URL/v1/models" -H "Authorization: Bearer $ANTHROPIC_AUTH_TOKEN"'
)
NOTES = """\
- To the first request: from the order until the agent's command begins in its machine, the clone of a
  repository of two files from git's own host on this machine included. By command: `bailee cloud start`. Over
  HTTP: the service starts the driver. A service runs already; warm: and has a driver that waits.
- Memory: proportional set size of all processes of a session: driver, boundary, machine, a sleeping agent."""


@click.command()
@click.option(
    "--isolation",
    type=click.Choice(sorted(AIM_SECONDS)),
    default="namespace",
    show_default=True,
    help="What machines are made of.",
)
@click.option("--quick", is_flag=True, help="Three sessions of each, and three idle ones: rough figures.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all here.")
def main(isolation: str, quick: bool, json_file: Path | None) -> None:
    """Measure cloud sessions in machines of one kind."""
    sys.path.insert(0, str(ROOT / "tests"))  # git's own host behind credentials
    from counterparts.git_hosts import run_git_host

    runs, idle = (3, 3) if quick else (10, IDLE)
    busy = read_busy_cores()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        for host in run_git_host(folder / "host"):
            url = host.add("app", {"a": "b", "c": "d"})
            environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "user"), "LANG": "C.UTF-8"}
            (folder / "user").mkdir()
            # What virtual machines start from is made once and kept, as it is for a user.
            environment["XDG_CACHE_HOME"] = str(ROOT / ".cache")
            bench = _Bench(folder / "home", url, environment, isolation)
            bench.bailee("secrets", "set", "GIT_CREDENTIAL", "--repo", url, value=host.accepted)
            with bench.serving() as (address, key):
                bench.time_command()  # makes what virtual machines start from
                cold = [bench.time_command() for _ in range(runs)]
                bench.time_http(address, key)  # from now on a driver waits
                command = [bench.time_command(is_warm=True) for _ in range(runs)]
                over_http = [bench.time_http(address, key, is_warm=True) for _ in range(runs)]
                sizes, busy_share = bench.measure_idle(address, key, idle)
    facts = {
        "isolation": isolation,
        "cold": cold,
        "command": command,
        "http": over_http,
        "idle_bytes": sizes,
        "idle_cores": busy_share,
        "machine": describe_machine(),
    }
    if json_file:
        json_file.write_text(json.dumps(facts, indent=1) + "\n")
    rows = [
        ["to the first request, by command, cold", _seconds(cold), ""],
        ["to the first request, by command, warm", _seconds(command), f"{AIM_SECONDS[isolation]} s"],
        ["to the first request, over HTTP, warm", _seconds(over_http), f"{AIM_SECONDS[isolation]} s"],
        ["memory of an idle session", f"{statistics.median(sizes) / 1e6:.0f} MB", ""],
        [
            f"memory of {idle} idle sessions",
            f"{sum(sizes) / 1e6:.0f} MB",
            f"{AIM_BYTES / 1e6:.0f} MB for {IDLE}",
        ],
        ["idle sessions that a core carries", f"{idle / max(busy_share, 0.001):.0f}", ""],
    ]
    click.echo(f"{tell_machine()} Median of {runs}; others used {busy:.1f} cores.\n")
    click.echo(write_table([isolation, "", "aim"], rows))
    click.echo(f"\n{NOTES}")


class _Bench:
    """A home with a credential, and sessions of it."""

    def __init__(self, home: Path, url: str, environment: dict[str, str], isolation: str) -> None:
        self._home = home
        self._url = url
        self._environment = environment
        self._isolation = isolation

    def bailee(self, *words: str, value: str | None = None) -> str:
        """Run a command and return what it prints."""
        done = subprocess.run(
            [*BAILEE, *words, "--home", str(self._home)],
            env=self._environment,
            input=value,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"bailee {' '.join(words)}: {done.stderr}")
        return done.stdout

    @contextlib.contextmanager
    def serving(self) -> Iterator[tuple[str, str]]:
        """Run a service, and give its address with a key that proves the account holder."""
        key = self.bailee("keys", "create", "--account", "me").strip()
        words = [*BAILEE, "up", "--home", str(self._home), "--port", "0", "--upstream", "rehearsal"]
        errors = (self._home.parent / "service").open("wb")
        with (
            errors,
            subprocess.Popen(
                words, env=self._environment, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as process,
        ):
            assert process.stdout is not None
            address = next(
                word for word in process.stdout.readline().split() if word.startswith("http")
            ).rstrip(";")
            try:
                yield address, key
            finally:
                process.terminate()

    def time_command(self, *, is_warm: bool = False) -> float:
        """Return how long it takes to the first request, by the command."""
        self._await_driver(is_warm)
        began = time.time()
        words = ["--repo", self._url, "--agent", FIRST, "--isolation", self._isolation, "--wait", "x"]
        id = self.bailee("cloud", "start", *words).split()[0]
        return self._read_moment(id) - began

    def time_http(self, address: str, key: str, *, is_warm: bool = False) -> float:
        """Return how long it takes to the first request, over HTTP."""
        self._await_driver(is_warm)
        began = time.time()
        id = self._order(address, key, FIRST)
        self._wait(id, "done")
        return self._read_moment(id) - began

    def _await_driver(self, is_wanted: bool) -> None:
        """Wait until a driver waits for a session, if one is wanted."""
        deadline = time.monotonic() + 60
        while is_wanted and not is_awaited(self._home) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1 if is_wanted else 0)  # what the session before leaves to do is not of this one

    def measure_idle(self, address: str, key: str, count: int) -> tuple[list[int], float]:
        """Return the memory of sessions that do nothing, each with its processes, and the cores they take."""
        ids = [self._order(address, key, "sleep 600") for _ in range(count)]
        for id in ids:
            self._wait(id, "working")
        time.sleep(2)
        drivers = [int((self._home / "cloud" / id / "lock").read_text()) for id in ids]
        sizes = [sum(map(_measure_memory, _list_with_below(one))) for one in drivers]
        before = sum(_measure_work(one) for driver in drivers for one in _list_with_below(driver))
        time.sleep(IDLE_SECONDS)
        after = sum(_measure_work(one) for driver in drivers for one in _list_with_below(driver))
        for id in ids:
            self.bailee("cloud", "stop", id)
        return sizes, (after - before) / IDLE_SECONDS

    def _order(self, address: str, key: str, agent: str) -> str:
        asked = {"repository": self._url, "prompt": "x", "agent": agent, "isolation": self._isolation}
        body = json.dumps(asked).encode()
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        request = urllib.request.Request(f"{address}/api/cloud/sessions", body, headers)
        with urllib.request.urlopen(request) as answer:
            return str(json.load(answer)["id"])

    def _wait(self, id: str, state: str) -> None:
        path = self._home / "cloud" / id / "session.json"
        deadline = time.monotonic() + 120
        while (known := json.loads(path.read_text()))["state"] != state:
            if time.monotonic() > deadline or known["state"] in ("failed", "lost"):
                raise SystemExit(f"a session is {known['state']}: {known['reason']}")
            time.sleep(0.05)

    def _read_moment(self, id: str) -> float:
        lines = self.bailee("cloud", "logs", id).splitlines()
        return next(float(line) for line in lines if line.replace(".", "", 1).isdigit())


def _list_with_below(process: int) -> list[int]:
    """Return a process and all below it."""
    found = [process]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _list_with_below(int(child))
    return found


def _measure_memory(process: int) -> int:
    """Return the proportional set size of a process, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _measure_work(process: int) -> float:
    """Return the seconds of a core that a process has taken."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _seconds(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"


if __name__ == "__main__":
    main()

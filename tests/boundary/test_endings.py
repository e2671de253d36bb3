"""Nothing of a boundary is left behind, however it ends."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from counterparts.waiting import wait_for

TESTS = Path(__file__).parents[1]
AT_ONCE = 4
KINDS = ("net", "mnt", "pid", "user", "ipc", "uts")
# Leaves a process that would outlive it, and one that makes connections.
BUSY = "(setsid sleep 60 &); while :; do curl -s http://elsewhere.example/ > /dev/null; done"
AS_USER = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]


def start(folder: Path, *command: str, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """Start a command in a boundary. Its processes have the folder in their PATH, and are known by it."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "counterparts.enclosed", str(folder), *command],
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": f"{os.environ['PATH']}:{folder}", "PYTHONPATH": str(TESTS)},
    )


def list_processes(folder: Path) -> set[str]:
    """Return the processes that were started for a folder, whatever they are and wherever they went."""
    mark = f":{folder}".encode()
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(one.endswith(mark) for one in (process / "environ").read_bytes().split(b"\0")):
                found.add(process.name)
        except OSError:
            continue
    return found


def list_namespaces(processes: set[str]) -> set[str]:
    """Return the namespaces that some processes are in, and this one is not."""
    found = set()
    for process in processes:
        for kind in KINDS:
            try:
                found.add(str(Path(f"/proc/{process}/ns/{kind}").readlink()))
            except OSError:
                continue
    return found - {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in KINDS}


def kill_one(folder: Path, seed: int) -> None:
    """Start one as root or as an ordinary user, and kill one of its processes after a while."""
    chance = random.Random(seed)
    prefix = tuple(AS_USER) if chance.random() < 0.5 else ()
    process = start(folder, "sh", "-c", BUSY, prefix=prefix)
    assert process.stdout is not None
    if chance.random() < 0.3:  # while it is being made
        time.sleep(chance.random() * 0.3)
        process.kill()
    else:
        ids = process.stdout.readline().split()
        time.sleep(chance.random() * 0.1)
        if ids:
            os.kill(int(chance.choice(ids)), signal.SIGKILL)
    process.communicate(timeout=60)


@pytest.mark.parametrize("runs", [40, pytest.param(200, marks=pytest.mark.soak)])
def test_nothing_is_left_after_random_kills(tmp_path: Path, runs: int) -> None:
    """After runs in which a process was killed at random: no process, namespace, mount or descriptor."""
    mounts = Path("/proc/self/mountinfo").read_text()
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda seed: kill_one(tmp_path, seed), range(runs)))
    # A namespace that no process is in is no more, if nothing is mounted from it and no descriptor holds it.
    wait_for("the last processes", lambda: not list_processes(tmp_path) or None)
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # noqa: PTH208


def test_control_what_is_left_would_be_seen(tmp_path: Path) -> None:
    """Control: one that goes on is seen by what looks for leftovers, with namespaces of its own."""
    process = start(tmp_path, "sh", "-c", BUSY)
    assert process.stdout is not None
    ids = process.stdout.readline().split()
    found = list_processes(tmp_path)
    assert found >= set(ids)
    assert len(list_namespaces(found)) == len(KINDS)
    os.kill(int(ids[0]), signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for("its end", lambda: not list_processes(tmp_path) or None)


@pytest.mark.parametrize("prefix", [(), tuple(AS_USER)], ids=["root", "user"])
def test_what_a_command_left_running_ends_with_it(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    """A process in the background is ended, and the counts are told."""
    process = start(tmp_path, "sh", "-c", "setsid sleep 60 & exit 7", prefix=prefix)
    out, _ = process.communicate(timeout=30)
    assert out.splitlines()[1] == "7 agreed"
    assert list_processes(tmp_path) == set()


FAULTS: dict[str, Callable[[dict[str, object]], None]] = {
    "firewall": lambda asked: asked.update(firewall="no rules"),
    "a program that is missing": lambda asked: asked.update(nft="/nowhere/nft"),
    "route": lambda asked: asked.update(ip="/bin/false"),
    "filter": lambda asked: asked.update(filter="00" * 8),
    "listener": lambda asked: asked.update(
        listeners=[{"name": "proxy", "address": "300.1.1.1", "port": 3128, "kind": "tcp"}]
    ),
    "folder": lambda asked: asked.update(folder="/nowhere"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_where_a_step_fails_the_command_does_not_begin(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step that fails ends it before the command has begun, and nothing is left."""
    import json

    from bailee.boundary import enclosure
    from bailee.boundary.means import find_means
    from bailee.policy.problems import Problem

    written = json.dumps

    def dumps(asked: object) -> str:
        if isinstance(asked, dict) and "firewall" in asked:
            FAULTS[fault](asked)
        return written(asked)

    monkeypatch.setattr(enclosure.json, "dumps", dumps)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{tmp_path}")
    means = find_means()
    made = enclosure.Enclosure(
        means, enclosure.make_layout(means, service_port=None, ports=(3128, 15001, 15053))
    )
    began = tmp_path / "began"
    try:
        listeners = made.prepare(
            ["touch", str(began)], {"PATH": f"{os.environ['PATH']}:{tmp_path}"}, tmp_path
        )
    except Problem:
        pass
    else:
        for listener in listeners.values():
            listener.close()
        made.go()
        ended = made.wait()
        assert ended.status != 0
        assert ended.fault
    assert not began.exists()
    wait_for("its end", lambda: not list_processes(tmp_path) or None)


def test_control_without_a_fault_it_begins(tmp_path: Path) -> None:
    """Control: the same command begins where nothing fails."""
    process = start(tmp_path, "touch", str(tmp_path / "began"))
    process.communicate(timeout=30)
    assert (tmp_path / "began").exists()

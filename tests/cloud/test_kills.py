"""kill -9 of who drives a session, or of the service, in every state: told, cleaned up, nothing runs on."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from counterparts.clouds import World
from counterparts.git_hosts import git
from counterparts.processes import children, list_older, process_state
from counterparts.services import serving
from counterparts.waiting import wait_for

KINDS = ("namespace", "vm")
STATES = ("starting", "cloning", "working", "pushing")
# Emulated, each takes 10 s of both cores.
SELDOM = (("vm", "starting"), ("vm", "cloning"), ("vm", "pushing"))
SPACES = ("net", "mnt", "pid", "user")
# At work until it is stopped; it never comes to its push.
WORKING = "echo half > half.txt; sync; echo begun; sleep 302"
# Done at once, and then so slow to push that a kill finds it there; not when it is saved, without a prompt.
PUSHING = (
    "echo half > half.txt; git add -A; git commit -qm half; hook=.git/hooks/pre-push;"
    " printf '#!/bin/sh\\ntest -z \"$BAILEE_PROMPT\" || sleep 300\\n' > $hook; chmod +x $hook; sync;"
    " echo begun"
)


def list_below(process: int) -> list[int]:
    """Return all processes below one."""
    found = []
    for child in children(process):
        found += [child, *list_below(child)]
    return found


def list_spaces(processes: list[int]) -> set[str]:
    """Return the namespaces of processes that have not ended, but for this one's."""
    found = set()
    for process in (one for one in processes if process_state(one) not in ("", "Z", "X")):
        for kind in SPACES:
            with contextlib.suppress(OSError):
                found.add(str(Path(f"/proc/{process}/ns/{kind}").readlink()))
    return found - {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in SPACES}


def are_gone(processes: list[int]) -> bool | None:
    """Tell whether none of some processes is left."""
    return all(process_state(one) in ("", "Z", "X") for one in processes) or None


def read_state(world: World, id: str) -> str:
    """Return a session's state as it was last written, whoever drives it."""
    return str(json.loads((world.home / "cloud" / id / "session.json").read_text())["state"])


def start_until(world: World, state: str) -> tuple[str, list[int]]:
    """Start a session, wait until it is in a state, and return its id with the processes of its machine."""
    agent = PUSHING if state == "pushing" else WORKING
    words = ("--repo", world.url, "--isolation", world.isolation, "--agent", agent, "x")
    id = world.bailee("cloud", "start", "--upstream", "rehearsal", *words).split()[0]
    # The first states are short: one that has gone on meanwhile is killed a little later.
    wait_for(state, lambda: STATES.index(read_state(world, id)) >= STATES.index(state) or None, 60)
    driver = int((world.home / "cloud" / id / "lock").read_text())
    if state in ("working", "pushing"):
        wait_for("what it says", lambda: "begun" in world.bailee("cloud", "logs", id) or None, 60)
    if state == "pushing":
        time.sleep(1 if world.isolation == "vm" else 0.3)
    return id, [driver, *list_below(driver)]


def check_told(world: World, id: str, reasons: tuple[str, ...]) -> dict[str, Any]:
    """Check that a session has ended with a reason, and that its token opens nothing."""
    known = world.show(id)
    assert known["state"] in ("lost", "failed")
    assert known["reason"].startswith(reasons)
    assert not list_tokens(world)
    grants = world.home / "git"
    assert not grants.exists() or list(grants.iterdir()) == []
    return known


def list_tokens(world: World) -> list[str]:
    """Return the keys of sessions and runs that are valid."""
    keys = json.loads(world.bailee("keys", "list", "--json"))
    return [key["label"] for key in keys if key["label"].startswith(("cloud ", "run "))]


def check_saved(world: World, known: dict[str, Any]) -> None:
    """Check that the work of a session can be saved, and that its removal leaves nothing but a receipt."""
    world.bailee("cloud", "save", known["id"])
    changed = git("diff", "--name-only", "main", known["branch"], cwd=world.host.folder / "app.git")
    assert changed.split() == ["half.txt"]
    check_removed(world, known["id"])


def check_removed(world: World, id: str) -> None:
    """Check that a removal leaves nothing but a receipt that is proven."""
    world.bailee("retention", "sweep")  # what a killed one left in clear is sealed
    receipt = world.folder / "removed.json"
    world.bailee("cloud", "rm", "--yes", "--receipt", str(receipt), id)
    assert '"kind":"disk_destroyed"' in world.bailee("ledger", "verify", str(receipt))
    assert not (world.home / "cloud" / id).exists()


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        pytest.param(kind, state, marks=pytest.mark.soak if (kind, state) in SELDOM else ())
        for kind in KINDS
        for state in STATES
    ],
)
def test_a_driver_that_is_killed(world: World, kind: str, state: str) -> None:
    """Nothing of the machine runs on, its token opens nothing, the session is lost and its work is not."""
    world.isolation = kind
    id, processes = start_until(world, state)
    spaces = list_spaces(processes)
    os.kill(processes[0], signal.SIGKILL)
    # Numbers of namespaces are used again: what begins later, in another test's machine, is not of this one.
    killed = time.clock_gettime(time.CLOCK_BOOTTIME)
    wait_for("the end of the machine", lambda: are_gone(processes), 30)
    wait_for("the end of its namespaces", lambda: not spaces & list_spaces(list_older(killed)) or None, 30)
    known = check_told(world, id, ("whoever drove it was killed",))
    if state in ("working", "pushing"):
        assert spaces  # the control of what was looked for above
        check_saved(world, known)
    else:
        check_removed(world, id)


@pytest.mark.parametrize("state", STATES)
def test_a_service_that_is_killed(world: World, state: str) -> None:
    """Its sessions end with a reason, alone, and their work can be saved by the next."""
    options = ("--upstream", "rehearsal")
    with serving(world.home, world.folder / "service", *options, environment=world.environment) as service:
        id, processes = start_until(world, state)
        os.kill(service.process.pid, signal.SIGKILL)
        # One that had not come to use it begins a service of its own, and works.
        at_work = ("working", "pushing")
        wait_for("its end, or its work", lambda: are_gone(processes) or read_state(world, id) in at_work, 60)
        if not are_gone(processes):
            # Nobody would wait for five minutes to see that its push fails: it is stopped, as by a person.
            (world.home / "cloud" / id / "stop").touch()
        wait_for("the end of the machine", lambda: are_gone(processes), 60)
    known = world.show(id)
    assert known["state"] in ("failed", "stopped")
    assert known["reason"]
    assert not list_tokens(world)
    if state in ("working", "pushing"):
        check_saved(world, known)

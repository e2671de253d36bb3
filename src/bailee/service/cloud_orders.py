"""What is asked of cloud sessions, from the command line and over HTTP."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bailee.boundary.means import find_means
from bailee.cloud.records import ENDED, CloudSession, Sessions, State, WrongState
from bailee.flows.git.access import BRANCH_START, check_branch, check_url, is_ref
from bailee.flows.web.rules import read_rule
from bailee.policy.problems import Problem
from bailee.sandbox.machines import Kind, Limits
from bailee.service.cloud_logs import open_log
from bailee.service.cloud_rest import make_disk
from bailee.service.cloud_spares import DRIVE, hand_over
from bailee.service.isolations import choose_kind
from bailee.service.launching import check_upstream
from bailee.service.running import find_running

STOP_SECONDS = 30.0
MOST_RUNNING = 50  # at once on a home
_LOOK_SECONDS = 0.1
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=100_000)]
Short = Annotated[str, msgspec.Meta(max_length=4000)]


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session that is wanted.

    Attributes:
        repository: over HTTP, without credentials.
        base: the branch it begins from; empty for the repository's own.
        branch: what it pushes to, below `bailee/`; named after the session if empty.
        agent: `bailee`, `claude-code`, or a command line that finds the prompt in BAILEE_PROMPT.
        allow: hosts besides those of the network's level.
        setup: a script that runs first.
        fresh: whether it runs also where a snapshot of an earlier run is kept.
        seconds: how long a turn may take.
        isolation: what its machine is made of; `auto` for the strongest that can be made here.
        traffic_mb: how much it may send to each host.
        memory_mb, processors, disk_mb, processes: see `machines.Limits`.
    """

    repository: Short
    prompt: Text
    base: Short = ""
    branch: Short = ""
    agent: Short = "bailee"
    isolation: Literal["auto", "vm", "container", "namespace"] = "auto"
    network: Literal["none", "trusted", "custom"] = "none"
    allow: tuple[Short, ...] = ()
    setup: Annotated[str, msgspec.Meta(max_length=100_000)] = ""
    fresh: bool = False
    seconds: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 3600
    traffic_mb: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1000
    memory_mb: Annotated[int, msgspec.Meta(ge=256, le=1_000_000)] = 2000
    processors: Annotated[int, msgspec.Meta(ge=1, le=256)] = 2
    disk_mb: Annotated[int, msgspec.Meta(ge=100, le=10_000_000)] = 10_000
    processes: Annotated[int, msgspec.Meta(ge=100, le=100_000)] = 1000


def check_order(order: Order) -> Kind:
    """Find out before anything is made whether a session can be, and return the kind of its machine.

    Raises:
        Problem: something cannot be meant, or no machine can be made here.
    """
    check_url(order.repository, where="--repo")
    for where, text in (("PROMPT", order.prompt), ("--agent", order.agent), ("--setup", order.setup)):
        check_text(text, where=where)
    if order.base and not is_ref(f"refs/heads/{order.base}"):
        raise Problem(f"{order.base[:100]!r} is no branch", where="--base", fix="write the name of a branch")
    if order.branch:
        check_branch(order.branch, where="--branch")
    if order.allow and order.network == "none":
        what = "a session without a network reaches no host"
        raise Problem(what, where="--allow", fix="add: --network custom")
    for host in order.allow:
        read_rule(host, "--allow")
    if order.agent == "claude-code" and not shutil.which("claude"):
        raise Problem(
            "Claude Code is not installed: there is no program claude on the path",
            where="--agent",
            fix="install it, or add its folder to PATH; in a clone of Bailee: node_modules/.bin",
        )
    find_means()
    return choose_kind(order.isolation)


def check_text(text: str, *, where: str) -> None:
    """Raise Problem where a text cannot be an argument of a program."""
    if "\0" in text:
        raise Problem("there is a NUL in it", where=where, fix="take it out")


def begin(home: Path, account: str, order: Order, *, upstream: str = "") -> CloudSession:
    """Begin a session, and return when it is being driven.

    Args:
        account: its name.
        upstream: with which a service is started where none runs.

    Raises:
        Problem: see `check_order` and `check_upstream`.
    """
    kind = check_order(order)
    if find_running(home) is None:
        check_upstream(home, upstream or "anthropic")
    sessions = Sessions(home)
    if sum(sessions.is_driven(one) for one in sessions.ids()) >= MOST_RUNNING:
        what = f"{MOST_RUNNING} sessions are running already"
        raise WrongState(what, where="bailee cloud", fix="stop one, or wait: bailee cloud list")
    id = sessions.make()
    now = time.time_ns() // 1_000_000
    session = CloudSession(
        id=id,
        account=account,
        repository=order.repository,
        base=order.base,
        branch=order.branch or f"{BRANCH_START}{id}",
        agent=order.agent,
        isolation=kind,
        network=order.network,
        upstream=upstream,
        allow=order.allow,
        setup=order.setup,
        is_fresh=order.fresh,
        seconds=order.seconds,
        traffic_bytes=order.traffic_mb * 1_000_000,
        turns=(order.prompt,),
        answered=0,
        state=State.STARTING,
        reason="",
        limits=Limits(
            memory_mb=order.memory_mb,
            processors=order.processors,
            disk_mb=order.disk_mb,
            processes=order.processes,
        ),
        created_ms=now,
        changed_ms=now,
        disk=make_disk(home, account, id),
    )
    with sessions.holding(id) as lock:  # before anybody can look at it
        sessions.write(session)
        _have_driven(home, id, lock)
    return session


def say(home: Path, id: str, prompt: str) -> CloudSession:
    """Give a session another prompt: at once if it has ended, else after the one it works on."""
    check_text(prompt, where="PROMPT")
    sessions = Sessions(home)
    sessions.look(id)
    changed = sessions.change_by(id, lambda session: {"turns": (*session.turns, prompt)})
    # One that has ended is only being sealed, or opened: who does that looks at no prompt any more.
    while (is_driven := sessions.is_driven(id)) and sessions.read_facts(id).state in ENDED:
        time.sleep(_LOOK_SECONDS)
    if not is_driven:
        with contextlib.suppress(WrongState):  # whoever drives it by now works off this prompt too
            drive(home, id)
    return changed


def stop(home: Path, id: str) -> None:
    """End a session's machine, and return when it has ended; its disk may still be being sealed.

    Raises:
        Problem: it does not run.
    """
    sessions = Sessions(home)
    if not sessions.is_driven(id):
        raise WrongState("the session does not run", where=id, fix="see: bailee cloud list")
    try:
        (sessions.folder(id) / "stop").touch(mode=0o600)
    except FileNotFoundError:
        return  # somebody has just removed it
    deadline = time.monotonic() + STOP_SECONDS
    while sessions.is_driven(id) and sessions.read_facts(id).state not in ENDED:
        if time.monotonic() > deadline:
            if process := sessions.driver(id):
                os.kill(process, signal.SIGKILL)
            return
        time.sleep(_LOOK_SECONDS)


def drive(home: Path, id: str, *, only_saves: bool = False) -> None:
    """Have a process drive a session, apart from this one, and return when it does.

    Args:
        only_saves: see `Driver.run`.

    Raises:
        Problem: another process drives it.
    """
    sessions = Sessions(home)
    with sessions.holding(id) as lock:
        (sessions.folder(id) / "stop").unlink(missing_ok=True)  # meant for one that was killed
        _have_driven(home, id, lock, only_saves=only_saves)


def _have_driven(home: Path, id: str, lock: int, *, only_saves: bool = False) -> None:
    if hand_over(home, id, lock, os.environ, only_saves=only_saves):
        return
    sessions = Sessions(home)
    log = open_log(home, id)
    try:
        process = subprocess.Popen(
            [*DRIVE, "--home", str(home), "--lock", str(lock), *(["--save"] if only_saves else []), id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            start_new_session=True,
        )
    finally:
        os.close(log)
    while sessions.driver(id) != process.pid and process.poll() is None:
        time.sleep(0.02)

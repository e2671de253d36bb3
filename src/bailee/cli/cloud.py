"""`bailee cloud`: sessions in machines of their own."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bailee.cli.accesses import admit, with_access
from bailee.cli.options import echo_json, echo_table, with_home, with_json

if TYPE_CHECKING:
    from bailee.cloud.records import CloudSession, Sessions

_LOOK_SECONDS = 0.3


@click.group()
def cloud() -> None:
    """Let agents work in machines of their own, on a clone, without credentials, towards one branch."""


@cloud.command(epilog="Exit codes: 0 started, or with --wait done; 1 with --wait it failed; 2 refused.")
@click.option("--repo", required=True, metavar="URL", help="The repository, over HTTP, without credentials.")
@click.option(
    "--base", default="", metavar="BRANCH", help="Where it begins; the repository's own if left out."
)
@click.option(
    "--branch", metavar="BRANCH", help="What it pushes to, below bailee/; named after it if left out."
)
@click.option(
    "--agent",
    default="bailee",
    show_default=True,
    metavar="AGENT|COMMAND",
    help="bailee, claude-code, or a command line, which finds the prompt in BAILEE_PROMPT.",
)
@click.option(
    "--isolation",
    type=click.Choice(["auto", "vm", "container", "namespace"]),
    default="auto",
    show_default=True,
    help="What the machine is made of; auto for the strongest that can be made here.",
)
@click.option(
    "--network",
    type=click.Choice(["none", "trusted", "custom"]),
    default="none",
    show_default=True,
    help="What it reaches besides the model and its repository: nothing, package indexes, or --allow alone.",
)
@click.option(
    "--allow", multiple=True, metavar="HOST[:PORT]", help="With trusted or custom: this host as well."
)
@click.option(
    "--setup", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A script to run first."
)
@click.option("--fresh", is_flag=True, help="Run --setup also where a snapshot of what it made is kept.")
@click.option(
    "--seconds",
    type=click.IntRange(10, 86_400),
    default=3600,
    show_default=True,
    help="How long a turn may take.",
)
@click.option(
    "--traffic",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    show_default=True,
    metavar="MB",
    help="How much it may send to each host.",
)
@click.option(
    "--memory",
    type=click.IntRange(256, 1_000_000),
    default=2000,
    show_default=True,
    metavar="MB",
    help="How much memory its machine has.",
)
@click.option(
    "--processors",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    metavar="N",
    help="How many processors a virtual machine has; the others have those of the host.",
)
@click.option(
    "--disk",
    type=click.IntRange(100, 10_000_000),
    default=10_000,
    show_default=True,
    metavar="MB",
    help="How much it may write.",
)
@click.option(
    "--processes",
    type=click.IntRange(100, 100_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="How many processes, with their threads, it may have at once.",
)
@click.option("--account", help="Whose session it is; the only account, or `me`, if left out.")
@click.option("--upstream", default="", help="Start the service with this upstream, where none is running.")
@click.option("--wait", is_flag=True, help="Show its log, and end when it does.")
@with_home
@with_json
@click.argument("prompt")
def start(
    repo: str,
    base: str,
    branch: str | None,
    agent: str,
    isolation: str,
    network: str,
    allow: tuple[str, ...],
    setup: Path | None,
    fresh: bool,
    seconds: int,
    traffic: int,
    memory: int,
    processors: int,
    disk: int,
    processes: int,
    account: str | None,
    upstream: str,
    wait: bool,
    home: Path,
    as_json: bool,
    prompt: str,
) -> None:
    """Start a session: clone, work on PROMPT, push its branch. Nothing of your credentials goes along.

    \b
    Examples:
      bailee secrets set GIT_CREDENTIAL --repo https://github.com/acme/app < token
      bailee cloud start --repo https://github.com/acme/app --network trusted "fix the failing test"
      bailee cloud logs -f SESSION
    """
    from bailee.accounts.directory import open_directory
    from bailee.cli.cloud_words import tell_start
    from bailee.cloud.records import Sessions, State
    from bailee.service.cloud_orders import Order, begin, check_order
    from bailee.service.isolations import is_emulated

    order = Order(
        repository=repo,
        prompt=prompt,
        base=base,
        branch=branch or "",
        agent=agent,
        isolation=isolation,  # type: ignore[arg-type]
        network=network,  # type: ignore[arg-type]
        allow=allow,
        setup=setup.read_text() if setup else "",
        fresh=fresh,
        seconds=seconds,
        traffic_mb=traffic,
        memory_mb=memory,
        processors=processors,
        disk_mb=disk,
        processes=processes,
    )
    check_order(order)
    directory = open_directory(home)
    holder = directory.get(account) if account else directory.ensure_default()
    directory.close()
    session, sessions = begin(home, holder.name, order, upstream=upstream), Sessions(home)
    id = session.id
    if as_json:
        echo_json({"session": id, "branch": session.branch, "isolation": session.isolation})
    else:
        click.echo(id)
        for line in tell_start(session, emulated=is_emulated(session.isolation)):
            click.echo(line, err=True)
    if wait:
        _follow(sessions, id, is_followed=True)
        ended = sessions.look(id)
        _tell_end(ended)
        sys.exit(0 if ended.state is State.DONE else 1)


@cloud.command(hidden=True)
@click.option("--save", is_flag=True, help="Commit and push what is there; no turn.")
@click.option("--lock", type=int, help="The descriptor of a lock by which the session is held.")
@with_home
@click.argument("session")
def drive(save: bool, lock: int | None, home: Path, session: str) -> None:
    """Drive a session to its end. For `-` wait until one is handed over, or standard input ends."""
    from bailee.service.cloud import Driver

    if session == "-":
        from bailee.service.cloud_spares import drive_next

        drive_next(home, sys.stdin.fileno(), sys.stdout.fileno())
        return
    if lock is not None:
        os.set_inheritable(lock, False)  # what this process starts does not hold the session
    Driver(home, session).run(only_saves=save, held=lock)


@cloud.command(name="list")
@with_home
@with_json
def list_(home: Path, as_json: bool) -> None:
    """List the sessions, the newest first."""
    from bailee.characters import make_visible
    from bailee.cli.cloud_words import tell_state
    from bailee.moments import tell_minute
    from bailee.service.cloud_disks import tell_held
    from bailee.sizes import tell_size

    sessions = _open(home)
    found = sessions.all()
    for problem in sessions.list_unreadable():
        click.echo(f"{problem}; {problem.fix}", err=True)
    held = tell_held(home, found)
    if as_json:
        echo_json([{**_describe(one), "disk_until": held[one.id].until} for one in found])
        return
    rows = [
        (
            one.id,
            tell_state(one)[:60],
            one.account,
            one.repository,
            one.branch,
            tell_minute(one.created_ms),
            tell_size(held[one.id].size) if held[one.id].size else "-",
            str(held[one.id].until or "-"),
            make_visible(one.turns[0])[:40] if one.turns else "-",
        )
        for one in found
    ]
    echo_table(
        ("session", "state", "account", "repository", "branch", "begun", "disk", "until", "prompt"),
        rows,
        empty="There is no cloud session. Begin one: bailee cloud start --repo URL PROMPT",
    )


@cloud.command()
@with_home
@with_json
@click.argument("session")
def show(home: Path, as_json: bool, session: str) -> None:
    """Show a session, with the receipt of its last turn."""
    import msgspec

    from bailee.cli.cloud_words import tell_session
    from bailee.service.cloud_disks import tell_held
    from bailee.service.receipts import RunReceipt, tell_receipt

    found = _open(home).get(session)
    told = {**_describe(found), "disk_until": tell_held(home, [found])[found.id].until}
    if as_json:
        echo_json(told | {"receipt": msgspec.json.decode(found.receipt or "null")})
        return
    for name, value in tell_session(told):
        click.echo(f"{name:<16}{value}")
    if found.receipt:
        click.echo("\n".join(["", *tell_receipt(msgspec.json.decode(found.receipt, type=RunReceipt))]))


@cloud.command()
@click.option("--denied", is_flag=True, help="Only what was not let through, and what was done too often.")
@with_access
@with_home
@with_json
@click.argument("session")
def audit(denied: bool, reason: str | None, home: Path, as_json: bool, session: str) -> None:
    """List every request of a session to the outside: when, where to, by which rule, how many bytes.

    What went through the service (the model, Git) is in it, and so is what was refused, slowed down or
    stopped. While the session runs it is as of this moment. Bytes are a connection's: of several requests on
    it the first has them.
    """
    from bailee.cloud.records import Sessions
    from bailee.service.audits import HEADS, read_audit, tell_lines
    from bailee.vault.custody import open_custody

    found = Sessions(home).get(session)
    custody = open_custody(home)
    try:
        account = custody.directory.get(found.account).id
        admit(custody, account, f"cloud-{found.id}", purpose="audit", reason=reason)
    finally:
        custody.close()
    audited = [one for one in read_audit(home, found) if one.is_denied or not denied]
    if as_json:
        echo_json(audited)
    else:
        nothing = (
            "Nothing was refused." if denied else "It has made no request to the outside that is still held."
        )
        echo_table(HEADS, list(tell_lines(audited)), empty=nothing)


@cloud.command()
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@with_home
@click.argument("session")
def logs(follow: bool, home: Path, session: str) -> None:
    """Show what a session said. What would move your terminal is made visible."""
    sessions = _open(home)
    id = sessions.get(session).id
    _follow(sessions, id, is_followed=follow)
    _tell_end(sessions.look(id))


@cloud.command()
@with_home
@click.argument("session")
@click.argument("prompt")
def say(home: Path, session: str, prompt: str) -> None:
    """Give a session another prompt: at once if it has ended, else after the one it works on."""
    from bailee.service import cloud_orders

    cloud_orders.say(home, _open(home).get(session).id, prompt)


@cloud.command()
@with_home
@click.argument("session")
def attach(home: Path, session: str) -> None:
    """Show what a session says, and give it each line that you type as a prompt. Ctrl-D leaves it running.

    How it stands is told on standard error, in brackets, as it changes.
    """
    import threading

    from bailee.service import cloud_orders

    sessions = _open(home)
    found = sessions.get(session)
    watching = threading.Thread(
        target=_follow,
        args=(sessions, found.id),
        kwargs={"is_followed": True, "with_states": True},
        daemon=True,
    )
    watching.start()
    for line in sys.stdin:
        if prompt := line.strip():
            cloud_orders.say(home, found.id, prompt)


@cloud.command(epilog="Exit codes: 0 stopped, 2 it does not run, or does not stop.")
@with_home
@click.argument("session")
def stop(home: Path, session: str) -> None:
    """Stop a session. What it had done is in its folder: save it with `bailee cloud save`."""
    from bailee.cloud.records import Sessions
    from bailee.service import cloud_orders

    found = Sessions(home).get(session)
    cloud_orders.stop(home, found.id)
    click.echo(f"{found.id} is stopped.", err=True)


@cloud.command(epilog="Exit codes: 0 saved, 1 it could not be pushed, 2 it runs.")
@with_home
@click.argument("session")
def save(home: Path, session: str) -> None:
    """Commit what a session that ended had done, and push it to its branch, from a machine as before."""
    from bailee.policy.problems import Problem
    from bailee.service.cloud_orders import drive

    sessions = _open(home)
    found = sessions.get(session)
    if sessions.is_driven(found.id):
        raise Problem("the session is running", where=found.id, fix="wait, or stop it: bailee cloud stop")
    if not found.has_unsaved:
        click.echo(f"{found.branch}: there is nothing to save", err=True)
        return
    drive(home, found.id, only_saves=True)
    while sessions.is_driven(found.id):
        time.sleep(_LOOK_SECONDS)
    ended = sessions.look(found.id)
    click.echo(f"{ended.branch}: {ended.reason}", err=True)
    sys.exit(0 if ended.reason == "its work was saved" else 1)


@cloud.command(epilog="Exit codes: 0 removed, 2 it runs, or a legal hold keeps it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--receipt", type=click.Path(dir_okay=False, path_type=Path), help="Write the receipt to this new file."
)
@with_home
@with_json
@click.argument("session")
def rm(yes: bool, receipt: Path | None, home: Path, as_json: bool, session: str) -> None:
    """Remove a session: destroy the key of its disk, then the disk. What it did not push is gone.

    Its conversation stays, and is erased with: bailee sessions erase. With --json the receipt itself is
    printed: it proves the removal offline (`bailee ledger verify RECEIPT`).
    """
    from bailee.cli.accesses import operator
    from bailee.cli.cloud_words import find_conversations, tell_left
    from bailee.cli.erasures import require_confirmation
    from bailee.cli.proofs import claiming, write_proof
    from bailee.service.cloud_disks import receipt_of, remove_session

    sessions = _open(home)
    id = sessions.find(session)
    conversations = find_conversations(home, sessions, id)
    with claiming(receipt):
        require_confirmation(f"Remove the session {id} with what it did not push?", yes=yes)
        proof = remove_session(home, id, by=operator())
    write_proof(receipt, proof)
    if as_json:
        click.echo(proof, nl=False)
        return
    path = receipt or receipt_of(home, id)
    click.echo(f"{id} is gone with its disk, and the key is destroyed.", err=True)
    click.echo(f"Receipt: {path} (verify: bailee ledger verify {path})", err=True)
    for line in tell_left(conversations):
        click.echo(line, err=True)


def _open(home: Path) -> "Sessions":
    """Return the sessions of a home; what a killed driver has left in clear is sealed first."""
    from bailee.cloud.records import Sessions
    from bailee.service.cloud_rest import settle

    sessions = Sessions(home)
    settle(home, sessions)
    return sessions


def _follow(sessions: "Sessions", id: str, *, is_followed: bool, with_states: bool = False) -> None:
    from bailee.cli.cloud_words import tell_state
    from bailee.service.cloud_logs import read_log, tell_line

    at, rest, told = 0, b"", ""
    while True:
        if with_states and (state := tell_state(sessions.look(id))) != told:
            told = state
            click.echo(f"[{state}]", err=True)
        is_last = not sessions.is_driven(id)
        while data := read_log(sessions, id, at):
            at += len(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                click.echo(tell_line(line))
        if is_last or not is_followed:
            if rest:
                click.echo(tell_line(rest))
            return
        time.sleep(_LOOK_SECONDS)


def _tell_end(session: "CloudSession") -> None:
    """Tell how a session ended, beside what it said."""
    from bailee.cli.cloud_words import tell_state
    from bailee.cloud.records import ENDED

    if session.state in ENDED:
        click.echo(tell_state(session), err=True)


def _describe(session: "CloudSession") -> dict[str, Any]:
    import msgspec

    told: dict[str, Any] = msgspec.structs.asdict(session)
    for name in ("receipt", "sealed"):
        told.pop(name)
    return told

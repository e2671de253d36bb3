"""`bailee login` and `bailee logout`: the agent of this machine, let in to an account of a service."""

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from bailee.cli.options import echo_json, with_json
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.agent.login import Login

DEFAULT_SERVICE = "http://127.0.0.1:8787"
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell would tell it


@click.command(epilog="Exit codes: 0 logged in, 2 denied, too late or not possible, 130 interrupted.")
@click.option(
    "--service",
    default=DEFAULT_SERVICE,
    show_default=True,
    metavar="URL",
    help="The Bailee service. To another machine it takes https.",
)
@click.option("--machine", help="What this machine is called to whoever approves. [default: its host name]")
@with_json
def login(service: str, machine: str | None, as_json: bool) -> None:
    """Let the agent of this machine in to an account of a service.

    Shows a code, which the account holder approves where the service runs, and waits for that for ten
    minutes. The token goes to the system's keyring, or where there is none into a file that only you can
    read; it is for agents, and proves nobody. Sent is the machine's name, and nothing else.

    A key in the environment comes before a login, that of `bailee run` as well: see docs/agent.md.
    """
    import time
    from urllib.error import URLError

    from bailee.agent.account import LOGIN_FILE, ask_account, write_account
    from bailee.agent.clients import require_libraries
    from bailee.agent.device_codes import ask_for_codes, make_post, poll
    from bailee.agent.fetches import fetch_at_login
    from bailee.agent.login import Login, keep_login, read_login
    from bailee.agent.managed import forget_login_settings
    from bailee.agent.service import check_address
    from bailee.agent.state import state_folder
    from bailee.characters import make_visible

    require_libraries()
    service, state = check_address(service, where="--service"), state_folder()
    post = make_post(service, os.environ)

    def tell(text: str) -> None:
        click.echo(text, err=True)

    try:
        before = read_login(state)
    except Problem as problem:
        before = None  # a new one takes its place
        tell(f"note: the login before cannot be read, so that its token stays in force there: {problem}")

    try:
        codes = ask_for_codes(post, _name_machine(machine))
        code = make_visible(codes.user_code)
        until = datetime.fromtimestamp(time.time() + codes.expires_in, UTC).strftime("%H:%M")
        tell(f"To let this machine's agent in to an account of {service}, its holder runs, at the service:\n")
        tell(f"  bailee logins approve {code} --account NAME\n")
        tell(f"Or see {make_visible(codes.verification_uri)} and give the code {code}.")
        tell(f"It holds until {until} UTC. Waiting; Ctrl-C gives up.")
        token = poll(post, codes, wait=time.sleep, clock=time.monotonic, tell=tell)
    except KeyboardInterrupt:
        tell("Given up: nobody is let in, and the code expires.")
        sys.exit(EXIT_INTERRUPTED)
    except OSError as fault:
        raise _unreachable(service, fault) from None
    new = Login(service, token)
    try:
        account = ask_account(new.to_service(), os.environ, now=time.time_ns() // 1_000_000)
        # In this order, whatever ends the process in between: an account is never told of another login.
        (state / LOGIN_FILE).unlink(missing_ok=True)
        forget_login_settings(state)
        place = keep_login(state, new)
    except BaseException as fault:
        _revoke(new)  # a token that nobody knows of would stay in force
        if isinstance(fault, KeyboardInterrupt):
            sys.exit(EXIT_INTERRUPTED)
        if isinstance(fault, TimeoutError | ConnectionError | URLError):
            raise _unreachable(service, fault) from None
        raise
    write_account(state / LOGIN_FILE, account)
    if doubt := fetch_at_login(state, new.to_service(), os.environ, now=time.time_ns() // 1_000_000):
        tell(f"note: {doubt}")
    if before is not None and (reason := _revoke(before)):
        tell(f"note: the token of the login before was not revoked: {reason}")
    if as_json:
        echo_json({"service": service, "account": account.name, "plan": account.plan, "token_in": place})
    else:
        name = make_visible(account.name)
        click.echo(f"Logged in to {name}, plan {account.plan}, at {service}. The token is in {place}.")
    for variable in _overriding():
        tell(f"note: {variable} is set and comes before this login")


@click.command(epilog="Exit codes: 0 logged out, 1 the token could not be revoked, 2 it cannot be forgotten.")
@with_json
def logout(as_json: bool) -> None:
    """End the login of this machine's agent: revoke its token at the service, and forget it here.

    It is forgotten also where the service cannot be reached; then it stays in force there, and the account
    holder revokes it.
    """
    from bailee.agent.account import LOGIN_FILE, read_account
    from bailee.agent.clients import require_libraries
    from bailee.agent.login import drop_login, read_login
    from bailee.agent.managed import forget_login_settings
    from bailee.agent.service import key_id
    from bailee.agent.state import state_folder

    require_libraries()
    state = state_folder()
    login, id, fault, is_known = None, "", "", False
    # One that cannot be read keeps nobody from the other: the token is revoked whatever is known beside it.
    try:
        account = read_account(state / LOGIN_FILE)
        id, is_known = (account.key, True) if account else ("", False)
    except Problem:
        is_known = True
    try:
        login = read_login(state)
    except Problem as problem:
        fault = str(problem)
    if login is None and not fault and is_known:
        # What is known of it stays: else the next call would say that nobody is logged in.
        raise Problem(
            "somebody is logged in, and the token is not to be found",
            where="the system's keyring",
            fix="run it where the keyring opens (in the desktop session), or at the service: "
            f"bailee keys revoke {id or 'ID'}",
        )
    if login is not None:
        id, fault = key_id(login.token), _revoke(login)
    drop_login(state)
    (state / LOGIN_FILE).unlink(missing_ok=True)
    forget_login_settings(state)
    if as_json:
        echo_json({"service": login.service if login else None, "revoked": login is not None and not fault})
    elif login is None and not fault:
        click.echo("Nobody is logged in.", err=True)
    elif not fault:
        assert login is not None
        click.echo(f"Logged out of {login.service}: the token is revoked there and forgotten here.")
    if fault:
        click.echo(
            f"bailee: forgotten here, but the token was not revoked: {fault}\n"
            f"  fix:   at the service: bailee keys revoke {id or 'ID (see: bailee keys list)'}",
            err=True,
        )
        sys.exit(1)


def _revoke(login: "Login") -> str:
    """Revoke a login's token at its service, and return why that did not work; empty if it did."""
    from bailee.agent.device_codes import make_post, revoke
    from bailee.agent.service import tell_fault

    try:
        is_done = revoke(make_post(login.service, os.environ), login.token)
    except OSError as fault:
        return f"{login.service} could not be reached: {tell_fault(fault)}"
    return "" if is_done else f"{login.service} did not revoke it"


def _name_machine(given: str | None) -> str:
    import platform

    name = platform.node() if given is None else given
    return "".join(letter for letter in name if letter.isprintable())[:80]


def _overriding() -> list[str]:
    """Return which variables come before a login."""
    return [name for name in ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY") if os.environ.get(name)]


def _unreachable(service: str, fault: OSError) -> Problem:
    from bailee.agent.service import tell_fault

    return Problem(
        f"the service cannot be reached: {tell_fault(fault)}",
        where=f"--service {service}",
        fix="is it running (bailee up), and is that its address?",
    )

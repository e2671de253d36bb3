"""What the commands that read content have in common: who reads, and why."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bailee.dumps import forbid_dumps
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.accounts.holders import Operator
    from bailee.vault.custody import Custody

_Command = TypeVar("_Command", bound=Callable[..., Any])


def with_access(command: _Command) -> _Command:
    """Add `--reason`."""
    text = "Why you read what is another's: ledgered, and shown to the account holder."
    return click.option("--reason", help=text)(command)


def operator() -> str:
    """Return who runs this command: the name of the user of this machine."""
    from bailee.accounts.holders import user_name

    return user_name()


def this_operator() -> "Operator":
    """Return who runs this command, with the key they present in BAILEE_KEY."""
    from bailee.accounts.holders import Operator

    return Operator(operator(), os.getuid(), os.environ.get("BAILEE_KEY", ""))


def admit(custody: "Custody", account: str, session: str | None, *, purpose: str, reason: str | None) -> bool:
    """Let the account holder read, and return True; let anybody else give a reason, and record it.

    The account holder is the user of this machine whose account it is, or whoever presents a key in
    BAILEE_KEY that the account holder made or was handed.

    Raises:
        Problem: no reason is given where one is needed.
    """
    from bailee.accounts.holders import is_holder

    forbid_dumps()  # content is opened next
    if is_holder(custody.directory.engine, account, this_operator()):
        return True
    if reason is None:
        facts_only = "read the facts only with --facts, " if purpose == "show" else ""
        raise Problem(
            "this is another person's content, and reading it is recorded",
            where="--reason",
            fix=f"say why with --reason, {facts_only}or present a key of the account holder's in BAILEE_KEY",
        )
    custody.record_access(account, session, reader=operator(), purpose=purpose, reason=reason)
    return False

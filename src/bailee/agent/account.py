"""What the agent knows of the account it works for: its plan and consents, as the service last told them."""

from pathlib import Path
from typing import Any

import msgspec

from bailee.agent.state import make_private
from bailee.files import replace_file
from bailee.moments import tell_minute
from bailee.policy.contexts import Context
from bailee.policy.periods import Period
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem

FILE = "account.json"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account at a service, at a moment.

    Attributes:
        service: the URL of the service.
        as_of: milliseconds since 1970 UTC.
    """

    service: str
    name: str
    plan: Plan
    training: bool = False
    dpp: bool = False
    zdr: bool = False
    organization: str = ""
    organization_limit: str = ""
    account_limit: str = ""
    as_of: int = 0

    def context(self) -> Context:
        """Return what the policy decides in, but for the settings of this machine."""
        return Context(
            plan=self.plan,
            training=self.training,
            dpp=self.dpp,
            zdr=self.zdr,
            organization_limit=Period.parse(self.organization_limit) if self.organization_limit else None,
            account_limit=Period.parse(self.account_limit) if self.account_limit else None,
        )

    def told(self) -> str:
        """Return whose account it is, in words."""
        return f"of {self.name} at {self.service}, as of {tell_minute(self.as_of)} UTC"


def read_account(state: Path) -> Account | None:
    """Return what was last written down; None if nothing was.

    Raises:
        Problem: the file is there and cannot be understood.
    """
    path = state / FILE
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as fault:
        raise Problem(
            f"the account cannot be read: {fault.strerror}", where=str(path), fix="run: bailee logout"
        ) from None
    try:
        account = msgspec.json.decode(data, type=Account)
        account.context()
    except (msgspec.MsgspecError, Problem, UnicodeDecodeError):
        raise Problem("the account cannot be understood", where=str(path), fix="run: bailee login") from None
    return account


def write_account(state: Path, account: Account) -> None:
    """Write down what the service told."""
    make_private(state)
    replace_file(state / FILE, msgspec.json.format(msgspec.json.encode(account), indent=2))


def forget_account(state: Path) -> bool:
    """Remove what was written down; tell whether there was anything."""
    try:
        (state / FILE).unlink()
    except FileNotFoundError:
        return False
    return True


def understand_account(service: str, told: Any, *, now: int) -> Account:
    """Read a service's answer; raises Problem."""
    try:
        return msgspec.convert({**told, "service": service, "as_of": now}, Account)
    except (msgspec.ValidationError, TypeError) as fault:
        raise Problem(
            f"the service's answer cannot be understood: {fault}",
            where=service,
            fix="is it a Bailee service?",
        ) from None

"""What the agent knows of the account it works for: plan and consents, as its service last told them.

It is written down, with its moment, for two reasons: where the service cannot be reached the last known state
counts, and `bailee explain`, which asks nobody, says the same as the agent.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bailee.agent.login import Login, read_login
from bailee.agent.service import (
    BASE,
    Service,
    find_gateway,
    find_key,
    find_service,
    is_same_place,
    key_id,
)
from bailee.agent.state import make_private
from bailee.characters import make_visible
from bailee.files import replace_file
from bailee.moments import tell_minute
from bailee.policy.contexts import Context
from bailee.policy.flows import FlowId
from bailee.policy.periods import Period
from bailee.policy.plans import Plan, Provider
from bailee.policy.problems import Problem

# Of the login; of the key that the environment names.
LOGIN_FILE, GATEWAY_FILE = "account.json", "gateway-account.json"
PATH = "/api/account"
SECONDS = 3.0


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account at a service, at a moment.

    Attributes:
        service: the URL of the service.
        key: the id of the key that it was asked with, which is no secret.
        is_first_party: whether the service is known to reach the Claude API itself.
        as_of: milliseconds since 1970 UTC.
    """

    service: str
    key: str
    name: str
    plan: Plan
    training: bool
    dpp: bool
    zdr: bool
    organization: str | None
    organization_limit: str | None
    account_limit: str | None
    is_first_party: bool
    as_of: int
    organization_refuses: tuple[FlowId, ...] = ()
    account_refuses: tuple[FlowId, ...] = ()

    def context(self) -> Context:
        """Return what the policy decides in, but for the settings of this machine."""
        return Context(
            plan=self.plan,
            is_first_party=self.is_first_party,
            training=self.training,
            dpp=self.dpp,
            zdr=self.zdr,
            organization_limit=Period.parse(self.organization_limit) if self.organization_limit else None,
            account_limit=Period.parse(self.account_limit) if self.account_limit else None,
            organization_refuses=self.organization_refuses,
            account_refuses=self.account_refuses,
        )

    def told(self) -> str:
        """Return whose account it is, in words."""
        place = self.service if self.is_first_party else f"{self.service}, not known to reach the Claude API"
        return make_visible(f"account {self.name} at {place}, as of {tell_minute(self.as_of)} UTC")


def find_account(state: Path, environment: Mapping[str, str], provider: Provider) -> Account | None:
    """Return what was last written down of the account that model traffic is of; None if nothing tells.

    A key in the environment says whose traffic it is, also where it is not known whose; else the login does.
    Asks nobody, and looks into no keyring.

    Args:
        environment: the process's variables, and those of the owner's settings.

    Raises:
        Problem: the file is there and cannot be understood.
    """
    if provider is not Provider.ANTHROPIC:
        return None
    if find_key(environment):
        gateway = find_gateway(environment)
        known = read_account(state / GATEWAY_FILE) if gateway else None
        return known if known and gateway and _is_of(known, gateway) else None
    account = read_account(state / LOGIN_FILE)
    return account if account and is_login_used(environment, provider, account.service) else None


def is_login_used(environment: Mapping[str, str], provider: Provider, service: str) -> bool:
    """Tell whether model traffic goes to the service of the login, with its token.

    What the environment says comes first: a key, or an address, which a token of another place never goes to.
    """
    if provider is not Provider.ANTHROPIC or find_key(environment):
        return False
    base = environment.get(BASE, "")
    return not base or is_same_place(base, service)


def find_login(state: Path, environment: Mapping[str, str], provider: Provider) -> Login | None:
    """Return the login whose token model traffic goes with; None for none, or where something comes first.

    Raises:
        Problem: see `login.read_login`.
    """
    if provider is not Provider.ANTHROPIC or find_key(environment):
        return None
    login = read_login(state, environment)
    return login if login and is_login_used(environment, provider, login.service) else None


def choose_service(
    state: Path, environment: Mapping[str, str], provider: Provider, account: Account | None
) -> Service | None:
    """Return the Bailee service that metrics, errors, reports and ratings go to; None for none.

    That is the one that started the agent, or else that of the login where model traffic goes with it.

    Args:
        environment: the process's variables, and those of the owner's settings.
        account: what is known of the account that model traffic is of: without one nobody is logged in, and
            no keyring is asked, which might ask back.

    Raises:
        Problem: the address is none, or the login cannot be read.
    """
    found = find_service(environment)
    if found is None and account is not None:
        login = find_login(state, environment, provider)
        return login.to_service() if login else None
    return found


def ask_account(service: Service, environment: Mapping[str, str], *, now: int) -> Account:
    """Ask a service whose key it is and what is in force.

    Args:
        now: milliseconds since 1970 UTC.

    Raises:
        OSError: the service cannot be reached.
        Problem: it does not know the key, or its answer cannot be understood.
    """
    status, body = service.ask("GET", PATH, environment, seconds=SECONDS)
    if status == 401:
        raise Problem(
            "the service does not know the key any more", where=service.url, fix="run: bailee login"
        )
    if status >= 500:
        raise OSError(f"it answers {status}")
    try:
        told: Any = msgspec.json.decode(body) if status == 200 else None
        facts = {**told, "service": service.url, "key": key_id(service.key), "as_of": now}
        account = msgspec.convert(facts, Account)
        account.context()
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, Problem):
        raise Problem(
            f"the service's answer on the account cannot be understood ({status})",
            where=service.url,
            fix="is it a Bailee service, and one of this version?",
        ) from None
    return account


def read_account(path: Path) -> Account | None:
    """Return what was last written down; None if nothing was.

    Raises:
        Problem: the file is there and cannot be understood.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as fault:
        raise Problem(
            f"what is known of the account cannot be read: {fault.strerror}",
            where=str(path),
            fix="let this user read it, or remove it",
        ) from None
    try:
        account = msgspec.json.decode(data, type=Account)
        account.context()
    except (msgspec.MsgspecError, Problem, UnicodeDecodeError):
        raise Problem(
            "what is known of the account cannot be understood",
            where=str(path),
            fix="remove it: it is asked for anew",
        ) from None
    return account


def write_account(path: Path, account: Account) -> None:
    """Write down what the service told; raises Problem or OSError where it cannot be kept."""
    make_private(path.parent)
    replace_file(path, msgspec.json.format(msgspec.json.encode(account), indent=2))


def _is_of(account: Account, service: Service) -> bool:
    return is_same_place(account.service, service.url) and account.key == key_id(service.key)

"""What the organization of the agent's account manages: a settings file, as its service last told it.

It is kept with its ETag, so that the last known settings stay in force where the service cannot be reached,
and so that `bailee explain`, which asks nobody, says the same as the agent.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bailee.agent.account import LOGIN_FILE, is_login_used, read_account
from bailee.agent.service import RUN_ACCOUNT, Service, find_gateway, find_key, tell_place
from bailee.agent.state import make_private
from bailee.files import replace_file
from bailee.manifests import Manifest
from bailee.manifests.settings import Source, read_source
from bailee.policy.layers import LayerName
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

FOLDER = "managed"
LOGIN_SETTINGS = "login.json"


class Managed(msgspec.Struct, frozen=True):
    """A settings file of a service, at a moment.

    Attributes:
        recipient: the service and whose key it was asked with, without a secret; see `Service.recipient`.
        place: the service's address, without credentials.
        tag: the ETag it came with; empty for none.
        body: the file, as it came.
        as_of: when the service last said that it is in force, in milliseconds since 1970 UTC.
    """

    recipient: str
    place: str
    tag: str
    body: str
    as_of: int

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        return f"the organization's settings at {self.place.partition('://')[2]}"


def find_managed(state: Path, environment: Mapping[str, str], provider: Provider) -> Managed | None:
    """Return what was last kept for whom model traffic is of; None if nothing was.

    Whose traffic it is is told as by `account.find_account`. Asks nobody, and looks into no keyring.

    Args:
        environment: the process's variables, and those of the owner's settings.

    Raises:
        Problem: a file is there and cannot be understood.
    """
    if provider is not Provider.ANTHROPIC:
        return None
    if find_key(environment):
        gateway = find_caller(environment)
        return read_managed(path_of(state, gateway), gateway.recipient) if gateway else None
    account = read_account(state / LOGIN_FILE)
    if account is None or not is_login_used(environment, provider, account.service):
        return None
    # As `Service.recipient` says it, without the token.
    return read_managed(state / FOLDER / LOGIN_SETTINGS, f"{tell_place(account.service)}, key {account.key}")


def find_caller(environment: Mapping[str, str]) -> Service | None:
    """Return the Bailee service that the environment names for model traffic, with whose its keys are."""
    gateway = find_gateway(environment)
    account = environment.get(RUN_ACCOUNT, "")
    return msgspec.structs.replace(gateway, account=account) if gateway else None


def path_of(state: Path, gateway: Service) -> Path:
    """Return where the settings of a service that the environment names are kept: each has its own."""
    return state / FOLDER / f"{hashlib.sha256(gateway.recipient.encode()).hexdigest()[:32]}.json"


def read_managed(path: Path, recipient: str) -> Managed | None:
    """Return what was kept; None if nothing was, or for somebody else.

    Raises:
        Problem: the file is there and cannot be understood: nobody can know what it forbids.
    """
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Managed)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        raise Problem(
            "the organization's settings, as they were last told, cannot be read",
            where=str(path),
            fix="remove it while the service can be reached: they are asked for anew",
        ) from None
    return kept if kept.recipient == recipient else None


def write_managed(path: Path, managed: Managed) -> None:
    """Keep what the service told; raises Problem or OSError where it cannot be kept."""
    make_private(path.parent.parent)
    make_private(path.parent)
    replace_file(path, msgspec.json.encode(managed))


def forget_login_settings(state: Path) -> None:
    """Forget what was kept for the login; what is kept for keys of the environment stays."""
    (state / FOLDER / LOGIN_SETTINGS).unlink(missing_ok=True)


def read_managed_source(managed: Managed, manifest: Manifest) -> Source | None:
    """Return the layer; None where it says nothing. Of its variables the switches count, and nothing else.

    Raises:
        Problem: it is no settings file.
    """
    source = read_source(
        Path(managed.origin), LayerName.ORGANIZATION, manifest, {}, data=managed.body.encode()
    )
    if source is None or not source.settings:
        return None
    switches = {switch.name for flow in manifest.flows for switch in flow.switches}
    thrown = {name: value for name, value in source.decided.variables.items() if name in switches}
    decided = msgspec.structs.replace(source.decided, variables=thrown, leading=())
    return msgspec.structs.replace(source, decided=decided)

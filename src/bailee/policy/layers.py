"""Settings layers. Layers compose by tightening: the effective policy is the meet of all of them.

A layer can shorten a period and stop a flow. It has no way to say the opposite, so the order of layers
cannot matter and adding one cannot loosen. The one thing that is longer than its default when somebody asks
is a machine's own session cache, and that takes the machine's owner (`OWNER`): a repository's file or a
variable can only shorten it.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from bailee.policy.periods import Period


class LayerName(StrEnum):
    """Where a rule comes from: the specification, the provider's default, what the operator of the service
    configured, or a layer that tightens them.
    """

    SPECIFICATION = "specification"
    PROVIDER = "provider"
    SERVICE = "service"
    ACCOUNT = "account"
    ORGANIZATION = "organization"
    MANAGED = "managed"
    USER = "user"
    PROJECT = "project"
    LOCAL = "local"
    ENVIRONMENT = "environment"
    COMMAND_LINE = "command_line"


# Of several rules that refuse, the one named as deciding is the first in this order.
RANK: Mapping[str, int] = {name: place for place, name in enumerate(LayerName)}

# Files that travel with a repository: whoever wrote the repository may have written them.
REPOSITORY = frozenset({LayerName.PROJECT, LayerName.LOCAL})

# Files that only the owner of the machine or of the account on it can write.
OWNER = frozenset({LayerName.MANAGED, LayerName.USER})


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """What one source of settings asks for.

    Attributes:
        name: which layer it is.
        origin: the file or place it was read from, for people to find it.
        variables: the environment variables it sets.
        off: flows that it stops otherwise than by a variable: flow id to the settings key that says so.
        retention: the longest time that the service may hold records; None if it does not say.
        cache: the longest time that sessions cached on the machine may be kept; None if it does not say.
        leading: what in it leads data, or a credential, elsewhere than the environment does: names of
            variables and of settings keys, never their values.
    """

    name: LayerName
    origin: str = ""
    variables: Mapping[str, str] = {}
    off: Mapping[str, str] = {}
    retention: Period | None = None
    cache: Period | None = None
    leading: tuple[str, ...] = ()

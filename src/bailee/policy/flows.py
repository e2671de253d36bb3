"""A flow: one declared arrow of the data-flow diagram."""

from enum import StrEnum

import msgspec

from bailee.policy.plans import Location, Provider
from bailee.policy.retention import Holding
from bailee.policy.switches import Switch


class FlowId(StrEnum):
    """The name of a flow. Every manifest declares each of them once."""

    MESSAGES = "messages"
    METRICS = "metrics"
    ERRORS = "errors"
    FEEDBACK = "feedback"
    SURVEY = "survey"
    UPDATE = "update"
    LOCAL_CACHE = "local_cache"
    GIT = "git"
    WEB = "web"
    # Leaves the service, where all others leave the agent: Bailee's own manifest alone declares it.
    FORWARDING = "forwarding"


class Flow(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"origin": "from", "destinations": "to"},
):
    """What one arrow carries, from where, to where, and what can stop it.

    Attributes:
        id: the name of the flow.
        title: what a person calls it.
        what: the data it carries.
        origin: where the data comes from (`from` in a manifest).
        destinations: host or place it goes to, per provider (`to` in a manifest).
        hosts: the same for the security proxy, `HOST` or `HOST:PORT`; `{npm}` and `{pip}` stand for the
            package indexes configured on the machine, other braces for variables. Empty where the hosts are
            not known beforehand.
        moved_by: the variable that sends it elsewhere, per provider; absent where none does.
        required: the locations where the agent cannot work without it.
        essential: whether it is needed to answer a prompt; all else is non-essential traffic.
        default: whether it is on when nobody has said anything, per provider.
        switches: the variables that stop it.
        settings: keys of the agent's settings files that stop or shorten it.
        settings_off: keys of the agent's settings files, with dots between their parts, and the value of each
            that stops it.
        initiated_by: `agent`, or `user` where a person starts it each time.
        in_transit: how it is encrypted on the way.
        at_rest: how it is encrypted where it is held; `none` where it is not.
        holding: what kind of record comes of it; with the context this gives the retention period.
        purpose: what it may be used for.
        source: the sentence of the specification it rests on.
        note: what a reader should know besides.
        pending: what of it is declared and decided already, and not built yet.
    """

    id: FlowId
    title: str
    what: str
    origin: str
    destinations: dict[Provider, str]
    hosts: dict[Provider, tuple[str, ...]] = {}
    moved_by: dict[Provider, str] = {}
    required: tuple[Location, ...] = ()
    essential: bool
    default: dict[Provider, bool]
    switches: tuple[Switch, ...] = ()
    settings: tuple[str, ...] = ()
    settings_off: dict[str, bool | str] = {}
    initiated_by: str
    in_transit: str
    at_rest: str
    holding: Holding
    purpose: str
    source: str
    note: str = ""
    pending: str = ""

    def is_required(self, location: Location) -> bool:
        """Tell whether the agent cannot work without this flow at `location`."""
        return location in self.required

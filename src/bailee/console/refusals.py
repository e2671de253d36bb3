"""What agents send besides conversations, as one account or organization has it: taken, refused, or off."""

import msgspec

from bailee.accounts.people import Account
from bailee.manifests import load_manifest
from bailee.pages import Visit, require
from bailee.policy.consents import REFUSABLE
from bailee.policy.decisions import decide
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem


class Taken(msgspec.Struct, frozen=True):
    """A flow that can be refused, and what becomes of it.

    Attributes:
        name: of the flow, within a sentence.
        words: whether it is taken, and who has it otherwise.
        is_taken: whether what is sent is taken.
        is_refused: whether the one who is asked about refuses it.
    """

    flow: FlowId
    title: str
    words: str
    is_taken: bool
    is_refused: bool

    @property
    def name(self) -> str:
        return name_flow(self.flow)


def name_flow(flow: FlowId) -> str:
    """Return what a flow is called within a sentence."""
    title = load_manifest("bailee").flow(flow).title
    return title[0].lower() + title[1:]


def list_taken(visit: Visit, *, of_organization: bool = False) -> list[Taken]:
    """Return what is taken of the visitor, or of the members of their organization."""
    return [_tell(visit, visit.account, flow, of_organization) for flow in REFUSABLE]


def read_choice(visit: Visit) -> tuple[FlowId, bool]:
    """Return which flow a form is about, and whether it is to be refused.

    Raises:
        Problem: it names no such choice.
    """
    flow, to = require(visit.form, "flow"), require(visit.form, "to")
    if flow not in set(REFUSABLE) or to not in ("refused", "taken"):
        raise Problem("there is no such choice", where="What is taken", fix="load the page anew")
    return FlowId(flow), to == "refused"


def _tell(visit: Visit, account: Account, flow: FlowId, of_organization: bool) -> Taken:
    manifest, installation = load_manifest("bailee").flow(flow), visit.installation
    # Who refuses is told apart from what is off whatever they say.
    context = msgspec.structs.replace(
        account.to_context(installation.provider),
        account_refuses=(),
        organization_refuses=(),
        is_first_party=installation.is_first_party,
        has_next_hop=bool(installation.hops),
    )
    decision = decide(manifest, context)
    of_service = installation.decisions.get(flow, decision)
    by_organization = flow in account.organization_refuses
    is_refused = by_organization if of_organization else flow in account.refuses
    if is_refused:
        words = "refused" if of_organization else "refused by you"
    elif by_organization:
        words = "refused by your organization"
    elif decision.allowed and of_service.allowed:
        words = "taken"
    else:
        words = "off under zero data retention" if "zdr" in decision.decided_by else "off on this service"
    return Taken(flow, manifest.title, words, words == "taken", is_refused)

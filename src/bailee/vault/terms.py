"""The loosest terms that an account's content may be held under as things stand, flow by flow."""

import msgspec

from bailee.accounts.people import Account
from bailee.manifests import load_manifest
from bailee.policy.decisions import decide
from bailee.policy.flows import FlowId
from bailee.policy.plans import Provider
from bailee.vault.ceilings import Ceiling


def terms_of(account: Account, flow: FlowId) -> Ceiling:
    """Return the loosest terms that content of a flow may be held under.

    The first-party API has the loosest of all providers, so that its terms bound those of the others. What
    the policy refuses altogether, such as reports under zero data retention, is held no longer. What somebody
    refuses from now on was taken with their leave before, and keeps the terms that it came with.
    """
    context = msgspec.structs.replace(
        account.to_context(Provider.ANTHROPIC), account_refuses=(), organization_refuses=()
    )
    terms = decide(load_manifest("bailee").flow(flow), context).terms
    return Ceiling(terms.retention, terms.trainable)

"""`/privacy`: what `bailee explain` says, in the agent."""

from bailee.agent.clients import REHEARSAL
from bailee.agent.work import Work
from bailee.manifests.answers import block, brief_lines, context_line
from bailee.manifests.settings import notices
from bailee.policy.decisions import decide

OFFLINE = (
    "The rehearsal model answers, in this process: no message leaves the machine. What follows of messages "
    "is how it would be with a model that is reached."
)


def tell_privacy(work: Work, flow: str = "") -> list[str]:
    """Return the lines of `bailee explain`, brief or of one flow; before them, that a rehearsal goes nowhere.

    Raises:
        Problem: there is no such flow.
    """
    manifest, context = work.manifest, work.context
    flows = (manifest.flow(flow),) if flow else manifest.flows
    answers = [(declared, decide(declared, context)) for declared in flows]
    lines = [f"note: {notice}" for notice in (*work.settings.notices, *notices(manifest, context.layers))]
    if work.model_name == REHEARSAL:
        lines.append(OFFLINE)
    account = work.account.told() if work.account else ""
    lines += context_line(manifest, context, described=False, account=account).splitlines()
    lines.append("")
    if not flow:
        return lines + brief_lines(answers, colour=False)
    for declared, decision in answers:
        lines += block(manifest, declared, decision, context, colour=False)
    return lines

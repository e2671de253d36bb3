"""The line that says what is in force: mode, account, provider, training, ZDR, how long is kept."""

from bailee.agent.clients import REHEARSAL
from bailee.agent.work import Work
from bailee.characters import make_visible
from bailee.moments import tell_minute
from bailee.policy.flows import FlowId


def tell_indicator(work: Work) -> str:
    """Return the line for the terminal's bottom."""
    context = work.context
    messages = work.decision(FlowId.MESSAGES).terms
    here = str(work.limits.here.period) if work.is_kept else "none"
    account, since = work.account, ""
    if account is not None and work.account_doubt:
        since = f", as of {tell_minute(account.as_of)}"
    whose = f"{make_visible(account.name)} ({account.plan}{since})" if account else f"plan {context.plan}"
    if work.model_name == REHEARSAL:
        terms = ["rehearsal (offline)", "the conversation goes nowhere", f"kept here {here}"]
    else:
        terms = [
            str(context.provider),
            f"training {'on' if messages.trainable else 'off'}",
            f"ZDR {'on' if context.zdr else 'off'}",
            f"kept {messages.retention}, here {here}",
        ]
    return " | ".join([f"mode {work.gate.mode}", whose, *terms, work.model_name])

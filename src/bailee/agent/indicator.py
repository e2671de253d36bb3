"""The line that says what is in force: mode, plan, provider, training, ZDR, how long is kept."""

from bailee.agent.work import Work
from bailee.policy.flows import FlowId


def tell_indicator(work: Work) -> str:
    """Return the line for the terminal's bottom."""
    context = work.context
    messages = work.decision(FlowId.MESSAGES).terms
    here = str(work.limits.here.period) if work.is_kept else "none"
    parts = [
        f"mode {work.gate.mode}",
        f"plan {context.plan}",
        str(context.provider),
        f"training {'on' if messages.trainable else 'off'}",
        f"ZDR {'on' if context.zdr else 'off'}",
        f"kept {messages.retention}, here {here}",
        work.model_name,
    ]
    return " | ".join(parts)

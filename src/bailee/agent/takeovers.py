"""A conversation from elsewhere that becomes a session of this machine, under this machine's terms."""

import contextlib

from bailee.agent.sessions.copies import Taken
from bailee.agent.work import Work
from bailee.policy.problems import Problem


def take_over(work: Work, taken: Taken) -> str | None:
    """Let a new session begin with what was said elsewhere, and return its id, by which it is gone on with.

    Each message is masked, sealed and dated as one that is said here: how long it stays, and whether it is
    kept at all, is what is in force here. Nothing of it is done anew: a call without a result is told as
    interrupted.

    Returns:
        None where sessions are not kept: then the conversation goes on in memory alone.

    Raises:
        Problem: it is to be kept and cannot be; nothing of it is left then.
    """
    for entry in taken.entries:
        if isinstance(entry, str):
            work.conversation.replace(entry)
        else:
            work.conversation.add(entry)
    if work.recorder is None:
        return None
    id = work.session
    # What could not be recorded was told by `warn`; a part of a conversation is not what was asked for.
    if work.recorder.is_kept and work.recorder.is_whole:
        return id
    work.begin_session()
    with contextlib.suppress(Problem):
        work.cache.delete(id)
    raise Problem(
        "the conversation cannot be kept on this machine",
        where=str(work.cache.path(id)),
        fix="mend what is told above, or go on without keeping it: --incognito",
    )

"""Writing a session as it goes: each message masked, sealed and on the disk before the next thing happens.

The scanner takes 0.6 s to load, and 6 s the first time on a machine: it is loaded beside the first prompt.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from bailee.agent.conversations import Message
from bailee.agent.sessions.journals import Journal, Kind
from bailee.policy.problems import Problem
from bailee.sealing.masking import Masker, open_masker


class SecretMasker:
    """A masker that is being loaded in a thread while the user types.

    Args:
        known: the agent's own credentials.
    """

    def __init__(self, folder: Path, known: Iterable[str] = ()) -> None:
        self._known = tuple(known)
        self._masker: Masker | None = None
        self._problem: Problem | None = None
        self._folder = folder
        self._thread = threading.Thread(target=self._load, name="masker", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        try:
            self._masker = open_masker(self._folder, self._known)
        except Problem as problem:
            self._problem = problem
        except Exception as fault:  # a rule file that is broken, a folder that cannot be written
            self._problem = Problem(f"secrets cannot be masked: {fault}", where=str(self._folder))

    @property
    def is_ready(self) -> bool:
        """Tell whether it has been loaded."""
        return not self._thread.is_alive()

    def mask(self, value: Any) -> tuple[Any, dict[str, int]]:
        """Return a JSON value without its secrets, and how many of each kind were masked.

        Raises:
            Problem: secrets cannot be masked here.
        """
        self._thread.join()
        if self._masker is None:
            assert self._problem is not None
            raise self._problem
        try:
            masked = self._masker.mask_json(msgspec.json.encode(value))
        except (ValueError, UnicodeEncodeError) as fault:
            raise Problem(f"a message cannot be masked: {fault}") from None
        return msgspec.json.decode(masked.text), masked.kinds


class SessionRecorder:
    """Records a session into its journal.

    Where a message cannot be recorded the session goes on, is not recorded any further, and says so once:
    a part of it that comes without what it answers is of no use.

    Args:
        begin: opens the journal when there is something to record: without a prompt nothing is left.
        masker: gives what masks, when the first message is recorded.
        warn: told why nothing is recorded any more.
        journal: of a session that is gone on with.

    Attributes:
        masked: how many secrets of each kind were masked.
    """

    def __init__(
        self,
        begin: Callable[[], Journal],
        masker: Callable[[], SecretMasker],
        *,
        warn: Callable[[Problem], None],
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        journal: Journal | None = None,
    ) -> None:
        self._begin = begin
        self._masker = masker
        self._warn = warn
        self._now = now
        self._journal = journal
        self._is_broken = False
        self.masked: Counter[str] = Counter()

    @property
    def is_kept(self) -> bool:
        """Tell whether anything was recorded."""
        return self._journal is not None

    @property
    def is_whole(self) -> bool:
        """Tell whether all that was to be recorded is."""
        return not self._is_broken

    def message(self, message: Message) -> None:
        """Record a message; on return it is on the disk."""
        self._append(Kind.MESSAGE, _unsigned(message))

    def summary(self, summary: str) -> None:
        """Record that the conversation was replaced by its summary."""
        self._append(Kind.SUMMARY, summary)

    def fact(self, **facts: Any) -> None:
        """Record a fact, such as the session's name."""
        self._append(Kind.FACT, facts)

    def close(self) -> None:
        """Let the file go."""
        if self._journal is not None:
            self._journal.close()

    def _append(self, kind: Kind, value: Any) -> None:
        if self._is_broken:
            return
        try:
            if kind is Kind.MESSAGE:
                masked, kinds = self._masker().mask(_unnamed(value))
                names, _ = self._masker().mask(_names_of(value))
                masked = _with_names(value, masked, _stand_ins(_names_of(value), names))
            else:
                masked, kinds = self._masker().mask(value)
            if self._journal is None:
                self._journal = self._begin()
            self._journal.append(kind, masked, now=self._now())
        except (Problem, OSError) as fault:
            self._is_broken = True
            reason = (
                fault if isinstance(fault, Problem) else Problem(f"{fault.strerror}", where="the session")
            )
            self._warn(reason)
            return
        self.masked.update(kinds)


# What ties calls to their results. The model writes them: one that looks like a secret may be one.
_NAMES = ("type", "id", "name", "tool_use_id")


def _unnamed(message: Message) -> Message:
    content = message["content"]
    if isinstance(content, str):
        return message
    blocks = [{name: value for name, value in block.items() if name not in _NAMES} for block in content]
    return message | {"content": blocks}


def _names_of(message: Message) -> list[Any]:
    content = message["content"]
    if isinstance(content, str):
        return []
    return [block[name] for block in content for name in _NAMES if name in block]


def _stand_ins(names: list[Any], masked: list[Any]) -> list[Any]:
    """Return the names, with the same stand-in wherever a masked one stood: a call keeps its result."""
    return [
        name if name == after else f"masked_{hashlib.sha256(str(name).encode()).hexdigest()[:16]}"
        for name, after in zip(names, masked, strict=True)
    ]


def _with_names(message: Message, masked: Message, names: list[Any]) -> Message:
    if isinstance(message["content"], str):
        return masked
    rest = iter(names)
    blocks = zip(message["content"], masked["content"], strict=True)
    return masked | {
        "content": [
            {name: next(rest) for name in _NAMES if name in before} | after for before, after in blocks
        ]
    }


def _unsigned(message: Message) -> Message:
    """Leave out the model's thinking: its signature would not fit a masked text; nothing resumes on it."""
    content = message["content"]
    if isinstance(content, str):
        return message
    kinds = ("thinking", "redacted_thinking")
    return message | {"content": [block for block in content if block.get("type") not in kinds]}

"""The sessions of a machine: found, listed, pinned, taken up again, exported and deleted.

There is no index: what a session is called and when it was used last is read from its own file, so that
nothing of a session can be left behind when the file goes.
"""

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bailee.agent.conversations import Message, first_prompt
from bailee.agent.sessions.journals import (
    ENDING,
    Head,
    Journal,
    Kind,
    count_entries,
    destroy,
    finish_all,
    read_journal,
    read_last_moment,
)
from bailee.agent.sessions.keys import open_key
from bailee.agent.state import make_private
from bailee.agent.turns import summarized
from bailee.policy.problems import Problem

FOLDER = "sessions"
LONGEST_TITLE = 60  # characters


class Session(msgspec.Struct, frozen=True):
    """What is known of a session.

    Attributes:
        folder: the project's folder.
        title: its first prompt, or the name the user gave it.
        created, used: milliseconds since 1970 UTC.
        messages: how many were said, by either side.
        announced: the day, as ISO 8601 writes it, on which its user was told that a repository's period ends
            it; empty if that was not told.
        size: bytes on the disk.
    """

    id: str
    folder: str
    model: str
    title: str
    created: int
    used: int
    messages: int
    size: int
    is_pinned: bool
    announced: str = ""


class Kept(msgspec.Struct, frozen=True):
    """A session's content: what goes to the model when it is resumed, and all that was ever said."""

    session: Session
    messages: tuple[Message, ...]
    said: tuple[Message, ...]


class Cache:
    """The sessions below a state folder.

    Args:
        state: the folder of the agent's state.
        environment: tells whether there is a keyring.
    """

    def __init__(
        self,
        state: Path,
        *,
        environment: Mapping[str, str] = os.environ,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._folder = state / FOLDER
        self._state = state
        self._environment = environment
        self._random = random
        self._key: bytes | None = None

    def key(self) -> bytes:
        """Return the key of this machine's sessions; see `keys.open_key`."""
        if self._key is None:
            self._key = open_key(self._state, environment=self._environment, random=self._random)
        return self._key

    def begin(self, head: Head, *, now: int, id: str = "") -> Journal:
        """Begin a session."""
        make_private(self._state)
        make_private(self._folder)
        name = id or str(uuid.UUID(bytes=self._random(16), version=4))
        return Journal.create(self.path(name), self.key(), head, now=now, random=self._random)

    def resume(self, id: str) -> Journal:
        """Open a session to go on with it; raises Problem."""
        return Journal.open(self.path(id), self.key(), random=self._random)

    def paths(self) -> Sequence[Path]:
        """Return the files of all sessions."""
        return sorted(self._folder.glob(f"*{ENDING}")) if self._folder.is_dir() else []

    def list(self, *, folder: Path | None = None) -> tuple[list[Session], list[Problem]]:
        """Return the sessions, the one used last first, and what kept others from being read.

        Args:
            folder: only those of this project.
        """
        found: list[Session] = []
        problems: list[Problem] = []
        for path in self.paths():
            try:
                session = self.describe(path)
            except Problem as problem:
                problems.append(problem)
                continue
            if folder is None or session.folder == str(folder):
                found.append(session)
        return sorted(found, key=lambda session: -session.used), problems

    def find(self, beginning: str) -> Session:
        """Return the one session whose id begins so, or whose name is exactly so.

        Raises:
            Problem: there is none, or several.
        """
        sessions, _ = self.list()
        found = [one for one in sessions if one.id.startswith(beginning) or one.title == beginning]
        exact = [one for one in found if beginning in (one.id, one.title)]
        if len(found) != 1 and len(exact) != 1:
            what = f"{len(found)} sessions begin with" if found else "there is no session"
            raise Problem(f"{what} {beginning!r} on this machine", fix="see: bailee sessions --local list")
        return (exact or found)[0]

    def locate(self, beginning: str) -> str:
        """Return the id of the one session that is named so, also of one that cannot be read any more.

        Raises:
            Problem: there is none, or several.
        """
        try:
            return self.find(beginning).id
        except Problem:
            found = [path.stem for path in self.paths() if path.stem.startswith(beginning)]
            if len(found) != 1:
                raise
            return found[0]

    def finish(self) -> int:
        """Take away what killed processes left half made or half destroyed, and return how many files."""
        return finish_all(self._folder, self._random)

    def describe(self, path: Path) -> Session:
        """Read what is known of a session without opening its messages but the first; raises Problem."""
        facts: dict[str, Any] = {}
        head, created = Head("", "", ""), 0
        for entry in read_journal(path, self.key(), kinds=frozenset({Kind.HEAD, Kind.FACT})):
            if entry.kind is Kind.HEAD:
                head, created = msgspec.convert(entry.value, Head), entry.moment
            else:
                facts |= entry.value
        if not (title := str(facts.get("title", ""))):
            title = first_prompt(_first_messages(path, self.key()))[:LONGEST_TITLE]
        return Session(
            id=path.stem,
            folder=head.folder,
            model=str(facts.get("model", head.model)),
            title=title or "(nothing said)",
            created=created,
            used=read_last_moment(path),
            messages=count_entries(path, Kind.MESSAGE),
            size=path.stat().st_size,
            is_pinned=bool(facts.get("pinned", False)),
            announced=str(facts.get("announced", "")),
        )

    def read(self, id: str) -> Kept:
        """Return a session with its content; raises Problem."""
        path = self.path(id)
        sent: list[Message] = []
        said: list[Message] = []
        for entry in read_journal(path, self.key(), kinds=frozenset({Kind.MESSAGE, Kind.SUMMARY})):
            if entry.kind is Kind.MESSAGE:
                sent.append(entry.value)
                said.append(entry.value)
            else:
                sent = summarized(entry.value)
        return Kept(self.describe(path), tuple(sent), tuple(said))

    def note(self, id: str, facts: Mapping[str, Any]) -> None:
        """Add facts to a session, such as its name or that it is pinned; that is no use of it."""
        used = read_last_moment(self.path(id))
        journal = self.resume(id)
        try:
            journal.append(Kind.FACT, facts, now=used)
        finally:
            journal.close()

    def delete(self, id: str) -> None:
        """Destroy a session: its key, its content and all that is known of it; raises Problem."""
        path = self.path(id)
        try:
            destroy(path, self._random)
        except OSError as fault:
            raise Problem(f"the session cannot be deleted: {fault.strerror}", where=str(path)) from None

    def path(self, id: str) -> Path:
        """Return where a session is, or would be, kept."""
        return self._folder / f"{id}{ENDING}"


def _first_messages(path: Path, key: bytes) -> list[Message]:
    found: list[Message] = []
    for entry in read_journal(path, key, kinds=frozenset({Kind.MESSAGE})):
        found.append(entry.value)
        if first_prompt(found):
            break
    return found

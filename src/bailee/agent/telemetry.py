"""What is counted on this machine until it is sent, and an exact copy of what was.

A folder of its owner alone: `pending.jsonl`, an event to a line, with the one recipient that it may go to;
`local.jsonl`, what was counted while nothing might be sent or no service was known, and never is; and below
`sent` a file for each upload, byte for byte as it was sent.
All of it goes after 30 days.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bailee.agent.state import make_private
from bailee.files import replace_file
from bailee.flows.metrics.sender import Event

FOLDER, PENDING, LOCAL, SENT = "telemetry", "pending.jsonl", "local.jsonl", "sent"
KEPT_MS = 30 * 86_400_000
MOST_PENDING = 5000
# To one request: some 200 KB.
MOST_IN_A_REQUEST = 1000


class Counted(Event, frozen=True):
    """An event, and who alone may get it.

    Attributes:
        recipient: as `service.Service.recipient` tells it. Empty: nobody, as of what is counted without a
            service, and of what programs before this one wrote, which did not tell.
    """

    recipient: str = ""


def is_late(event: Event, now_ms: int) -> bool:
    """Tell whether an event is older than it may be kept, at a moment in milliseconds since 1970 UTC."""
    return event.hour_ms < now_ms - KEPT_MS


class Upload(msgspec.Struct, frozen=True):
    """What was sent once.

    Attributes:
        at_ms: milliseconds since 1970 UTC.
        status: what the service answered; 0 where it could not be reached.
        place: the address of the service; empty where a program before this one sent it.
    """

    at_ms: int
    path: str
    status: int
    bytes: int
    place: str = ""


class Store:
    """The folder of one machine's user; several agents may share it.

    Args:
        state: the agent's state folder.
    """

    def __init__(self, state: Path) -> None:
        self.folder = state / FOLDER

    def add(self, events: Sequence[Event], recipient: str = "") -> None:
        """Add events to what is pending for a recipient; without one, to what stays on this machine.

        Raises:
            OSError: it cannot be written.
        """
        make_private(self.folder)
        counted = (Counted(event.name, event.fields, event.hour_ms, recipient) for event in events)
        data = b"".join(msgspec.json.encode(event) + b"\n" for event in counted)
        with self._alone(), os.fdopen(_append(self.folder / (PENDING if recipient else LOCAL)), "ab") as file:
            file.write(data)

    def read(self, name: str = PENDING) -> list[Counted]:
        """Return what is in a file, the oldest first; a line that cannot be read is passed over."""
        try:
            lines = (self.folder / name).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        events = []
        for line in lines:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                events.append(msgspec.json.decode(line, type=Counted))
        return events

    @contextlib.contextmanager
    def taking(self, name: str = PENDING) -> Iterator[list[Counted]]:
        """Give what is pending to whoever sends it, alone; what is left in the list stays pending.

        Raises:
            BlockingIOError: another agent is sending it just now.
            OSError: it cannot be read or written.
        """
        make_private(self.folder)
        with self._alone(patient=False):
            events = self.read(name)
            before = len(events)
            yield events
            if len(events) != before:
                kept = events[-MOST_PENDING:]
                data = b"".join(msgspec.json.encode(event) + b"\n" for event in kept)
                replace_file(self.folder / name, data)

    def keep(self, upload: Upload, body: bytes) -> None:
        """Keep an exact copy of what was sent; raises OSError."""
        folder = make_private(self.folder / SENT)
        number = 0
        while (path := folder / f"{upload.at_ms}-{number}.json").exists():
            number += 1
        replace_file(path, body)
        replace_file(path.with_suffix(".facts"), msgspec.json.encode(upload))

    def list_uploads(self) -> list[tuple[Path, Upload]]:
        """Return what was sent, the oldest first."""
        found = []
        for path in sorted((self.folder / SENT).glob("*.facts")):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                found.append((path.with_suffix(".json"), msgspec.json.decode(path.read_bytes(), type=Upload)))
        return sorted(found, key=lambda one: one[1].at_ms)

    def clean(self) -> int:
        """Delete everything and return how many files that were."""
        found = [self.folder / PENDING, self.folder / LOCAL, *(self.folder / SENT).glob("*")]
        gone = 0
        for path in found:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                gone += 1
        return gone

    def sweep(self, now_ms: int) -> None:
        """Delete what is 30 days old; raises OSError."""
        for path, upload in self.list_uploads():
            if upload.at_ms < now_ms - KEPT_MS:
                path.unlink(missing_ok=True)
                path.with_suffix(".facts").unlink(missing_ok=True)
        for name in (PENDING, LOCAL):
            if any(is_late(event, now_ms) for event in self.read(name)):
                with self.taking(name) as events:
                    events[:] = [event for event in events if not is_late(event, now_ms)]

    @contextlib.contextmanager
    def _alone(self, *, patient: bool = True) -> Iterator[None]:
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
            yield
        finally:
            os.close(descriptor)


def _append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

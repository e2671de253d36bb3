"""Takes the logs of connections into custody once their agents have ended, however they ended.

A log is a file beside the key it is sealed with, itself wrapped by the home's key. What is in it becomes
records under the terms of the `web` flow, sealed, expired and erased like all others, and the file goes.
"""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from bailee.flows.web.log import Abused, ConnectionLog, LogBroken, Row, read_log
from bailee.policy.contexts import Context
from bailee.policy.decisions import decide
from bailee.policy.flows import Flow
from bailee.policy.problems import Problem
from bailee.sealing.wrapping import KeyWrapper
from bailee.vault.frames import Begin, Finish
from bailee.vault.recording import RecorderGone, Recording, decided_of
from bailee.vault.tables import State

FOLDER = "boundary"
LOG, OWNER, ENDED = ".log", ".owner", ".ended"
PATH = "connections"
# Rows that make one record; a segment's blocks are small.
_RECORD_BYTES = 256 * 1024
_NOTHING = (None, None, None, None, None, None, b"", b"")
_KEY_BYTES = 32
_encoder = msgspec.json.Encoder()
_decoder: "msgspec.json.Decoder[Row]" = msgspec.json.Decoder(Row)


class Owner(msgspec.Struct, frozen=True):
    """Whose log it is.

    Attributes:
        wrapped: the key that the log is sealed with, wrapped for the run's name.
    """

    account: str
    key: str
    wrapped: bytes


def begin_log(
    home: Path, run: str, *, account: str, key: str, wrapper: KeyWrapper
) -> tuple[ConnectionLog, bytes]:
    """Make the log of a run, and return it with the key that opens it."""
    folder = home / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    secret = os.urandom(_KEY_BYTES)
    owner = Owner(account, key, wrapper.wrap(secret, run.encode()))
    descriptor = os.open(folder / f"{run}{OWNER}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_encoder.encode(owner))
    return ConnectionLog(folder / f"{run}{LOG}", secret, run), secret


def read_rows(home: Path, run: str, secret: bytes) -> list[Row]:
    """Return the rows of a run's log; raises LogBroken if it was changed."""
    return list(read_log((home / FOLDER / f"{run}{LOG}").read_bytes(), secret, run))


def end_log(home: Path, run: str) -> None:
    """Leave a run's log, which is closed, to the service."""
    owner = home / FOLDER / f"{run}{OWNER}"
    owner.rename(owner.with_suffix(ENDED))


def is_taken(home: Path, run: str) -> bool:
    """Tell whether the service has taken a log."""
    return not (home / FOLDER / f"{run}{ENDED}").exists()


def read_live(home: Path, key: str, wrapper: KeyWrapper) -> list[Row] | None:
    """Return what the log of a key's run has so far; None where the vault has it, or nothing does.

    Raises:
        LogBroken: it was changed.
    """
    for path in _list_owners(home):
        try:
            owner = msgspec.json.decode(path.read_bytes(), type=Owner)
            if owner.key == key:
                secret = wrapper.unwrap(owner.wrapped, path.stem.encode())
                return list(read_log(path.with_suffix(LOG).read_bytes(), secret, path.stem))
        except FileNotFoundError:
            continue
        except msgspec.MsgspecError as fault:
            raise LogBroken(f"{path.name} is not what was written there") from fault
    return None


def is_open(home: Path, key: str) -> bool:
    """Tell whether the log of a key's run is still on its way to the vault."""
    for path in _list_owners(home):
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            if msgspec.json.decode(path.read_bytes(), type=Owner).key == key:
                return True
    return False


def _list_owners(home: Path) -> Iterator[Path]:
    # A log goes from the first name to the second, and from there into the vault: looked for in this order.
    for end in (OWNER, ENDED):
        yield from list((home / FOLDER).glob(f"*{end}"))


def read_held(body: bytes) -> list[Row]:
    """Return the rows of a record that the vault has of a log."""
    return [_decoder.decode(line) for line in body.splitlines() if line]


class ConnectionsReceiver:
    """Collects logs for a service.

    Args:
        find_context: the context of an account, by its id; None for one that is gone.
        wall_clock: seconds since 1970 UTC.

    Attributes:
        abuse: how often the logs that it took tell of which kind, and what was done about it.
    """

    def __init__(
        self,
        home: Path,
        *,
        flow: Flow,
        wrapper: KeyWrapper,
        recording: Recording,
        find_context: Callable[[str], Context | None],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._home = home
        self._flow = flow
        self._wrapper = wrapper
        self._recording = recording
        self._find_context = find_context
        self._wall_clock = wall_clock
        self._refused: set[str] = set()
        self.abuse: Counter[tuple[str, str]] = Counter()

    async def collect(self, running: Collection[str] | None = None) -> int:
        """Take the logs that were ended, and return how many.

        Args:
            running: runs that go on; of those that do not and were killed the logs are taken as well.
        """
        taken = 0
        for path in sorted((self._home / FOLDER).glob(f"*{ENDED}" if running is None else "*.*")):
            run = path.stem
            is_due = path.suffix == ENDED or (
                path.suffix == OWNER and running is not None and run not in running
            )
            if not is_due or run in self._refused:
                continue
            try:
                await self._take(path, run)
                taken += 1
            except (Problem, LogBroken, msgspec.MsgspecError, OSError):
                # It stays where it is: whoever looks into why must find it.
                self._refused.add(run)
            except RecorderGone:
                return taken
        return taken

    async def _take(self, path: Path, run: str) -> None:
        owner, bodies, abuse = await asyncio.to_thread(self._read, path, run)
        if (context := self._find_context(owner.account)) is not None:
            for body in bodies:
                await self._keep(owner, context, body)
        # Of an account that is gone nothing may be held any more.
        for one in (path.with_suffix(LOG), path):
            await asyncio.to_thread(one.unlink, missing_ok=True)
        self.abuse.update(abuse)

    def _read(self, path: Path, run: str) -> tuple[Owner, list[bytes], Counter[tuple[str, str]]]:
        owner = msgspec.json.decode(path.read_bytes(), type=Owner)
        log = path.with_suffix(LOG)
        if not log.exists():
            return owner, [], Counter()
        secret = self._wrapper.unwrap(owner.wrapped, run.encode())
        rows = list(read_log(log.read_bytes(), secret, run))
        abuse = Counter((row.kind.value, row.action.value) for row in rows if isinstance(row, Abused))
        return owner, list(_cut(rows)), abuse

    async def _keep(self, owner: Owner, context: Context, body: bytes) -> None:
        started_ms = int(self._wall_clock() * 1000)
        decided = decided_of(decide(self._flow, context))
        exchange = self._recording.new_exchange(started_ms)
        begin = Begin(
            exchange=exchange,
            account=owner.account,
            session=f"key-{owner.key}",
            key=owner.key,
            decision=decided.digest,
            flow=self._flow.id.value,
            keep=True,
            started_ms=started_ms,
            upstream="boundary",
            path=PATH,
            request_bytes=len(body),
            headers=b"",
            body=body,
        )
        self._recording.begin(begin, decided)
        await self._recording.finish(Finish(exchange, State.COMPLETE.value, None, 200, None, 0, 0, *_NOTHING))


def _cut(rows: Iterable[Row]) -> Iterator[bytes]:
    """Write rows as lines of JSON, in stretches that make a record each."""
    lines: list[bytes] = []
    size = 0
    for row in rows:
        line = _encoder.encode(row) + b"\n"
        if lines and size + len(line) > _RECORD_BYTES:
            yield b"".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield b"".join(lines)

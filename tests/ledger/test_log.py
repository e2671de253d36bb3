"""The log: what is appended is there, whoever is killed, whoever races, and nobody else reads it."""

import contextlib
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bailee.ledger import reading, storage
from bailee.ledger.checkpoints import Checkpoint, sign_checkpoint
from bailee.ledger.edges import Edge, grow
from bailee.ledger.log import CHECKPOINT, Log, open_log
from bailee.ledger.merkle import hash_leaf, is_consistent, is_included
from bailee.ledger.notes import Signer
from bailee.ledger.storage import Appending, DirectoryTiles
from bailee.ledger.tiles import list_partial_tiles
from bailee.ledger.verification import verify_ledger
from bailee.policy.problems import Problem
from counterparts.ledgers import MemoryTiles, make_entries, read_files


def is_whole(log: Log, directory: Path, *, clean: bool = True) -> bool:
    """Return whether a ledger verifies, has entries that tell their index, and nothing left over."""
    found = verify_ledger(DirectoryTiles(directory), log.verifier)
    entries = list(log.read())
    return found.verified and not (clean and found.leftovers) and entries == make_entries(0, len(entries))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_the_owners_alone(tmp_path: Path, umask: int) -> None:
    """Whatever the umask: folders 0700, files 0600, and only the files that belong there."""
    before = os.umask(umask)
    try:
        log = open_log(tmp_path / "home" / "ledger", create=True)
        log.append(make_entries(0, 257))
    finally:
        os.umask(before)
    for path in (tmp_path / "home").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert sorted(read_files(tmp_path / "home" / "ledger")) == [
        "checkpoint",
        "key",
        "tile/0/000",
        "tile/0/001.p/1",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/1",
        "verifier",
    ]


def test_a_new_ledger_is_empty_and_keeps_its_name(tmp_path: Path) -> None:
    """A new ledger has a signed checkpoint of nothing; opened again it is the same ledger."""
    log = open_log(tmp_path / "ledger", create=True)
    assert log.verifier.name.startswith("bailee.local/ledger/")
    assert len(log.verifier.name) == len("bailee.local/ledger/") + 16
    assert (log.size, list(log.read())) == (0, [])
    before = read_files(tmp_path / "ledger")
    assert open_log(tmp_path / "ledger", create=True).verifier == log.verifier
    assert read_files(tmp_path / "ledger") == before
    named = open_log(tmp_path / "named", create=True, origin="example.com/log")
    assert named.checkpoint().origin == named.verifier.name == "example.com/log"
    assert before["verifier"].decode() == f"{log.verifier.text}\n"


def test_without_create_nothing_is_made_or_changed(tmp_path: Path) -> None:
    """Opening for reading makes no folder, and needs no private key."""
    with pytest.raises(Problem, match="no ledger"):
        open_log(tmp_path / "ledger")
    assert not (tmp_path / "ledger").exists()
    log = open_log(tmp_path / "ledger", create=True)
    log.append(make_entries(0, 3))
    key = (tmp_path / "ledger" / "key").rename(tmp_path / "key")
    reader = open_log(tmp_path / "ledger")
    assert list(reader.read()) == make_entries(0, 3)
    with pytest.raises(Problem, match="key is missing"):
        reader.append([b"x"])
    assert reader.size == 3
    assert key.exists()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.data())
def test_what_is_appended_is_read_and_proved(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], data: st.DataObject
) -> None:
    """Any entry of any size is proved against the checkpoint, and any size against any later one."""
    directory = tmp_path_factory.mktemp("log") / "ledger"
    log = open_log(directory, create=True)
    checkpoints = [log.checkpoint()]
    for step in steps:
        size = log.size
        assert log.append(make_entries(size, size + step)) == range(size, size + step)
        checkpoints.append(log.checkpoint())
    size = log.size
    start, stop = data.draw(st.integers(0, size + 2)), data.draw(st.integers(0, size + 2))
    assert list(log.read(start, stop)) == make_entries(start, max(start, min(stop, size)))
    index = data.draw(st.integers(0, size - 1))
    proof = log.prove(index)
    leaf = hash_leaf(make_entries(index, index + 1)[0])
    assert proof.size == size
    assert is_included(leaf, index, size, proof.path, checkpoints[-1].root)
    for old in checkpoints:
        for new in checkpoints[checkpoints.index(old) :]:
            path = log.prove_consistency(old.size, new.size)
            assert is_consistent(old.size, new.size, old.root, new.root, path)
    assert is_whole(log, directory)


def test_entries_of_any_length_and_no_other(tmp_path: Path) -> None:
    """1 to 65,535 bytes; anything else refuses the batch and changes nothing."""
    log = open_log(tmp_path / "ledger", create=True)
    entries = [b"\0", b"x" * 65_535]
    assert log.append(entries) == range(2)
    assert log.append([]) == range(2, 2)
    before = read_files(tmp_path / "ledger")
    for wrong in (b"", b"x" * 65_536):
        with pytest.raises(Problem, match="1 to 65535 bytes"):
            log.append([b"fine", wrong])
    assert read_files(tmp_path / "ledger") == before
    assert list(log.read()) == entries
    for index in (-1, 2):
        with pytest.raises(Problem, match="no entry"):
            log.prove(index)
    with pytest.raises(Problem, match="does not hold"):
        log.prove_consistency(3)


def test_a_batch_costs_a_few_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """512 entries are durable with 18 syncs at most, one with 7: files, folders, checkpoint, lock."""
    log = open_log(tmp_path / "ledger", create=True)
    log.append(make_entries(0, 100))
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), sync(descriptor)))
    log.append(make_entries(100, 101))
    assert len(synced) <= 7
    synced.clear()
    log.append(make_entries(101, 613))
    assert len(synced) <= 18


class Killed(BaseException):
    """The process ends here: nothing of ours is run after it."""


@contextlib.contextmanager
def killing(at: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """End the appender at its step of that number: a write, a sync, a move, a removal."""
    steps: list[str] = []

    def guard(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def step(*arguments: object, **named: object) -> object:
            if len(steps) == at:
                raise Killed
            steps.append(name)
            return real(*arguments, **named)

        patch.setattr(owner, name, step)

    with monkeypatch.context() as patch:
        for owner, name in ((os, "fsync"), (os, "fdopen"), (os, "pwrite")):
            guard(owner, name)
        for name in ("rename", "unlink", "mkdir", "rmdir"):
            guard(Path, name)
        yield steps


def kill_everywhere(directory: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Log] = Log) -> int:
    """Kill an append at every step it has, and return after how many of them the ledger was not whole."""
    broken = 0
    for at in range(1000):
        folder = directory / str(at)
        first = open_log(folder, create=True)
        first.append(make_entries(0, 250))
        log = kind(DirectoryTiles(folder), first.verifier, first._load_signer, where="")
        with killing(at, monkeypatch), contextlib.suppress(Killed):
            log.append(make_entries(250, 520))
            return broken
        try:
            whole = is_whole(open_log(folder), folder, clean=False) and first.size in (250, 520)
            again = first if at % 2 else open_log(folder, create=True)
            again.append(make_entries(again.size, again.size + 10))
            broken += not (whole and is_whole(again, folder))
        except Problem:
            broken += 1
        if broken and kind is not Log:
            return broken  # a control has shown what it had to
    raise AssertionError("the append did not come to its end")


def test_an_append_killed_at_any_step_happened_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger verifies at once, the next append works, and what was left over is gone then."""
    assert kill_everywhere(tmp_path, monkeypatch) == 0


class Hasty(Log):
    """A log that writes its checkpoint first."""

    def _write(self, appending: Appending, edge: Edge, entries: Sequence[bytes]) -> tuple[bytes, Edge]:
        grown, files = grow(edge, entries)
        note = sign_checkpoint(Checkpoint(self.verifier.name, grown.size, grown.root), self._load_signer())
        appending.write({CHECKPOINT: note})
        appending.write(files)
        narrower = set(list_partial_tiles(edge.size)) - set(list_partial_tiles(grown.size))
        appending.remove(tile.path for tile in narrower)
        return note, grown


def test_a_checkpoint_written_first_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: with the order of writing turned round, killing breaks the ledger."""
    assert kill_everywhere(tmp_path, monkeypatch, Hasty) > 0


@pytest.mark.parametrize("step", range(0, 40, 3))
def test_a_creation_killed_at_any_step_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Whoever comes next makes what is missing, with the key that is there."""
    with killing(step, monkeypatch), contextlib.suppress(Killed):
        open_log(tmp_path / "ledger", create=True)
    log = open_log(tmp_path / "ledger", create=True)
    log.append(make_entries(0, 3))
    assert is_whole(log, tmp_path / "ledger")


_APPENDER = """
import sys
from pathlib import Path
{change}
from bailee.ledger.log import open_log
log = open_log(Path(sys.argv[1]), create=True)
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    size = {size}
    added = log.append([b'{{"n":%d}}' % index for index in range(size, size + 1 + number % 7)])
    print(added.start, added.stop, flush=True)
"""


def start_appender(directory: Path, count: int, *, size: str, change: str = "") -> "subprocess.Popen[str]":
    """Start a process that appends batches; it says which indices each of them got."""
    return subprocess.Popen(
        [sys.executable, "-c", _APPENDER.format(size=size, change=change), str(directory), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def go(process: "subprocess.Popen[str]") -> bool:
    """Let an appender begin, and return whether it could open the ledger."""
    assert process.stdin is not None
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        return False
    process.stdin.write("go\n")
    process.stdin.flush()
    return True


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    """A process killed at random points loses nothing it said was there, and the ledger goes on."""
    draw = random.Random(7)
    directory = tmp_path / "ledger"
    log = open_log(directory, create=True)
    for _ in range(8):
        with start_appender(directory, 10_000, size="log.size") as appender:
            assert go(appender)
            assert appender.stdout is not None
            told = [appender.stdout.readline().split()]  # a busy machine takes its time until the first
            time.sleep(draw.uniform(0.0, 0.12))
            appender.send_signal(signal.SIGKILL)
            told += [line.split() for line in appender.stdout if line.endswith("\n")]
        assert log.size >= int(told[-1][1])
        assert is_whole(log, directory, clean=False)
        log.append(make_entries(log.size, log.size + 1))
        assert is_whole(log, directory)


def race(directory: Path, change: str = "") -> bool:
    """Let processes append at once, and return whether each entry has a place of its own."""
    with contextlib.ExitStack() as ends:
        racers = [
            ends.enter_context(start_appender(directory, 30, size=f"{number}000", change=change))
            for number in range(1, 4)
        ]
        for racer in racers:
            if not go(racer):
                return False
        outputs = [racer.communicate(timeout=60)[0].splitlines() for racer in racers]
    taken: list[int] = []
    for output in outputs:
        for line in output:
            start, stop = map(int, line.split())
            taken += range(start, stop)
    log = open_log(directory)
    try:
        found = verify_ledger(DirectoryTiles(directory), log.verifier)
    except Problem:
        return False
    return found.verified and not found.leftovers and sorted(taken) == list(range(log.size)) != []


def test_processes_that_append_at_once_all_do(tmp_path: Path) -> None:
    """Three appenders interleave without loss; without the lock they lose entries or break the ledger."""
    assert race(tmp_path / "ledger")
    unlocked = "import fcntl; fcntl.flock = lambda *arguments: None"
    assert not all(race(tmp_path / f"control-{number}", unlocked) for number in range(3))


def test_readers_that_race_an_appender_see_one_state(tmp_path: Path) -> None:
    """While a process appends, each read, proof and verification is of one checkpoint."""
    directory = tmp_path / "ledger"
    log = open_log(directory, create=True)
    log.append(make_entries(0, 100))
    sizes = set()
    with start_appender(directory, 250, size="log.size") as appender:
        assert go(appender)
        while appender.poll() is None and len(sizes) < 60:
            reader = open_log(directory)
            checkpoint = reader.checkpoint()
            entries = list(reader.read())
            assert entries == make_entries(0, len(entries))
            assert len(entries) >= checkpoint.size
            path = reader.prove(checkpoint.size - 1, checkpoint.size).path
            leaf = hash_leaf(entries[checkpoint.size - 1])
            assert is_included(leaf, checkpoint.size - 1, checkpoint.size, path, checkpoint.root)
            assert verify_ledger(DirectoryTiles(directory), reader.verifier).verified
            sizes.add(checkpoint.size)
        appender.kill()
    assert len(sizes) > 5


class Overtaken(DirectoryTiles):
    """A log to which somebody appends between a reader's look at the checkpoint and at its first tile."""

    def __init__(self, root: Path, count: int) -> None:
        super().__init__(root)
        self.count = count

    def read(self, path: str) -> bytes | None:
        count, self.count = self.count, 0 if path.startswith("tile/") else self.count
        if self.count != count:
            log = open_log(self.root)
            log.append(make_entries(log.size, log.size + count))
        return super().read(path)


@pytest.mark.parametrize("count", [1, 156, 157, 1000])
def test_a_reader_takes_a_wider_tile_for_a_partial_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """A partial tile may be gone by the time it is read; without a look at wider ones the reader fails."""
    directory = tmp_path / "ledger"
    first = open_log(directory, create=True)
    first.append(make_entries(0, 100))

    def read() -> list[bytes]:
        tiles = Overtaken(directory, count)
        return list(Log(tiles, first.verifier, first._load_signer, where="").read())

    assert read() == make_entries(0, 100)
    first = open_log(directory)
    assert verify_ledger(Overtaken(directory, count), first.verifier).verified
    monkeypatch.setattr(
        reading, "read_tile", lambda storage, tile, _: (data := storage.read(tile.path)) and (tile, data)
    )
    if first.size % 256:
        with pytest.raises(Problem, match="is missing"):
            read()


def test_a_damaged_ledger_is_not_appended_to(tmp_path: Path) -> None:
    """To append to what does not fit the checkpoint would sign another history, so it is refused."""
    directory = tmp_path / "ledger"
    open_log(directory, create=True).append(make_entries(0, 300))
    whole = read_files(directory)
    for path in ("tile/0/001.p/44", "tile/entries/001.p/44", "tile/1/000.p/1", "checkpoint"):
        for harm in (b"", None, bytes([whole[path][9] ^ 1]).join((whole[path][:9], whole[path][10:]))):
            if harm is None:
                (directory / path).unlink()
            else:
                (directory / path).write_bytes(harm)
            with pytest.raises(Problem, match="damaged") as refused:
                open_log(directory).append([b"x"])
            assert refused.value.fix == "see: bailee ledger verify"
            (directory / path).write_bytes(whole[path])
    assert open_log(directory).append([b"x"]) == range(300, 301)


def test_an_old_checkpoint_put_back_is_not_appended_to(tmp_path: Path) -> None:
    """A second history over the first is refused, at once and with no help but what lies there."""
    directory = tmp_path / "ledger"
    log = open_log(directory, create=True)
    for step in (10, 20, 300):
        log.append(make_entries(log.size, log.size + step))
    note = (directory / CHECKPOINT).read_bytes()
    whole = read_files(directory)
    log.append(make_entries(330, 340))
    (directory / CHECKPOINT).write_bytes(note)
    for opened in (log, open_log(directory)):
        with pytest.raises(Problem, match="not of that size"):
            opened.append([b"x"])
    for path in read_files(directory).keys() - whole.keys():
        (directory / path).unlink()
    for path, data in whole.items():
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).write_bytes(data)
    open_log(directory).append([b"only a checkpoint kept elsewhere tells a rollback of everything"])


@pytest.mark.parametrize("lost", ["key", "verifier", "checkpoint"])
def test_a_lost_file_is_told_and_no_new_ledger_made_over_it(tmp_path: Path, lost: str) -> None:
    """Without its key or checkpoint a ledger is refused; its public key is written anew from the private."""
    directory = tmp_path / "ledger"
    verifier = open_log(directory, create=True).verifier
    open_log(directory).append(make_entries(0, 3))
    (directory / lost).unlink()
    before = read_files(directory)
    if lost == "verifier":
        with pytest.raises(Problem, match="verifier key is missing"):
            open_log(directory)
        assert open_log(directory, create=True).verifier == verifier
        return
    with pytest.raises(Problem, match="missing"):
        open_log(directory, create=True)
    assert read_files(directory) == before


def test_a_key_open_to_others_is_refused(tmp_path: Path) -> None:
    """A key that others can read is refused with the command that mends it; so is one that is not a pair."""
    directory = tmp_path / "ledger"
    open_log(directory, create=True)
    (directory / "key").chmod(0o640)
    for create in (True, False):
        with pytest.raises(Problem, match="read by others") as refused:
            open_log(directory, create=create).append([b"x"])
        assert "chmod 600" in refused.value.fix
    (directory / "key").chmod(0o600)
    (directory / "key").write_text(Signer("bailee.local/ledger/other", bytes(32)).export())
    with pytest.raises(Problem, match="not a pair"):
        open_log(directory).append([b"x"])
    (directory / "key").write_text("nonsense")
    with pytest.raises(Problem, match="not a signer key"):
        open_log(directory).append([b"x"])


def test_a_full_disk_is_told_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that cannot be written is told, leaves the checkpoint, and the next one clears up."""
    directory = tmp_path / "ledger"
    log = open_log(directory, create=True)
    log.append(make_entries(0, 10))

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", fail)
        with pytest.raises(Problem, match="No space left"):
            log.append(make_entries(10, 500))
    assert is_whole(log, directory, clean=False)
    log.append(make_entries(10, 20))
    assert is_whole(log, directory)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A file where the folder should be is an error that names it, not a fault."""
    (tmp_path / "ledger").write_text("in the way")
    with pytest.raises(Problem, match="cannot be written") as refused:
        open_log(tmp_path / "ledger", create=True)
    assert refused.value.where == str(tmp_path / "ledger")


def test_any_storage_will_do() -> None:
    """The log is written against a handful of calls, which a dictionary can do as well."""
    tiles = MemoryTiles()
    signer = Signer("bailee.local/ledger/memory", bytes(32))
    tiles.write({CHECKPOINT: sign_checkpoint(Checkpoint(signer.verifier.name, 0, Edge().root), signer)})
    log = Log(tiles, signer.verifier, lambda: signer, where="memory")
    for step in (1, 300, 40):
        log.append(make_entries(log.size, log.size + step))
    assert list(log.read()) == make_entries(0, 341)
    assert verify_ledger(tiles, signer.verifier).verified

"""The key-encryption key: a private file, made once, never replaced in silence; what it wraps stays put."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bailee.policy.problems import Problem
from bailee.sealing.envelopes import KEY_BYTES
from bailee.sealing.wrapping import open_key_file

KEY = bytes(range(KEY_BYTES))
SEGMENT = b"s" * 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keystore" / "kek"


def write_key(path: Path, key: bytes, mode: int = 0o600) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(key)
    path.chmod(mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_reads_the_file(path: Path, umask: int) -> None:
    """Whatever the umask allows, the key file is 0600 and its folder 0700."""
    before = os.umask(umask)
    try:
        open_key_file(path, create=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_made_key_is_a_whole_random_key_and_nothing_lies_beside_it(path: Path) -> None:
    """The file holds exactly the bytes drawn, and the folder holds only the file."""
    drawn: list[bytes] = []

    def draw(size: int) -> bytes:
        drawn.append(os.urandom(size))
        return drawn[-1]

    open_key_file(path, draw, create=True)
    assert [path.read_bytes()] == drawn
    assert len(drawn[0]) == KEY_BYTES
    assert list(path.parent.iterdir()) == [path]


def test_a_key_that_is_there_is_never_replaced(path: Path) -> None:
    """With `create`, a file that is there is read, and its key opens what it wrapped before."""
    wrapped = open_key_file(path, create=True).wrap(KEY, SEGMENT)
    before = path.read_bytes()
    assert open_key_file(path, create=True).unwrap(wrapped, SEGMENT) == KEY
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o777])
@pytest.mark.parametrize("create", [True, False])
def test_a_file_open_to_others_is_refused(path: Path, mode: int, create: bool) -> None:
    """A key that group or others can read, write or run is refused with the command that mends it."""
    write_key(path, KEY, mode)
    with pytest.raises(Problem) as refused:
        open_key_file(path, create=create)
    assert refused.value.where == str(path)
    assert "chmod 600" in refused.value.fix
    assert path.read_bytes() == KEY
    path.chmod(0o600)
    open_key_file(path, create=create)


@pytest.mark.parametrize("length", [0, 1, 16, 24, 31, 33, 64])
@pytest.mark.parametrize("create", [True, False])
def test_a_key_of_another_length_is_refused(path: Path, length: int, create: bool) -> None:
    """A short or long key is refused, and left as it is: 16 and 24 bytes would be keys of a weaker AES."""
    write_key(path, b"k" * length)
    with pytest.raises(Problem) as refused:
        open_key_file(path, create=create)
    assert refused.value.where == str(path)
    assert refused.value.fix
    assert path.read_bytes() == b"k" * length


def test_a_missing_key_is_refused_where_none_may_be_made(path: Path) -> None:
    """Without `create`, a missing file is an error that names it, and no file and no folder come to be."""
    with pytest.raises(Problem) as refused:
        open_key_file(path, create=False)
    assert refused.value.where == str(path)
    assert refused.value.fix
    assert not path.parent.exists()


def test_a_wrapped_key_is_bound_to_its_segment(path: Path) -> None:
    """A wrapped key unwraps for the segment it was wrapped for, and for no other."""
    wrapper = open_key_file(path, create=True)
    wrapped = wrapper.wrap(KEY, SEGMENT)
    assert wrapper.unwrap(wrapped, SEGMENT) == KEY
    for other in (b"t" * 16, b"s" * 15, b"s" * 17, b""):
        with pytest.raises(Problem):
            wrapper.unwrap(wrapped, other)


def test_every_changed_byte_of_a_wrapped_key_breaks_it(path: Path) -> None:
    """An altered or shortened wrapped key is a Problem that names the file, never another key."""
    wrapper = open_key_file(path, create=True)
    wrapped = wrapper.wrap(KEY, SEGMENT)
    altered = [wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in range(len(wrapped))]
    shortened = [wrapped[:length] for length in range(len(wrapped))]
    for broken in [*altered, *shortened, wrapped + b"\0"]:
        with pytest.raises(Problem) as refused:
            wrapper.unwrap(broken, SEGMENT)
        assert refused.value.where == str(path)
        assert refused.value.fix


def test_another_key_file_unwraps_nothing(path: Path) -> None:
    """What one key-encryption key wrapped is a Problem under another."""
    wrapped = open_key_file(path, create=True).wrap(KEY, SEGMENT)
    other = open_key_file(path.with_name("other"), create=True)
    with pytest.raises(Problem):
        other.unwrap(wrapped, SEGMENT)


def test_wrapping_hides_the_key_and_never_repeats(path: Path) -> None:
    """A wrapped key does not hold the key, and wrapping it again gives other bytes."""
    wrapper = open_key_file(path, create=True)
    many = [wrapper.wrap(KEY, SEGMENT) for _ in range(1000)]
    assert len({wrapped[:12] for wrapped in many}) == len(many)
    assert not any(KEY[:8] in wrapped for wrapped in many)


def test_the_later_of_two_creators_takes_the_key_of_the_first(path: Path) -> None:
    """A creator that finds a key once it has drawn its own lets its own go."""

    def draw_late(size: int) -> bytes:
        # Between the look for a file and the making of one, another has made it.
        first.append(open_key_file(path, create=True))
        return os.urandom(size)

    first: list[object] = []
    late = open_key_file(path, draw_late, create=True)
    assert len(first) == 1
    wrapped = late.wrap(KEY, SEGMENT)
    assert first[0].unwrap(wrapped, SEGMENT) == KEY  # type: ignore[attr-defined]
    assert open_key_file(path, create=False).unwrap(wrapped, SEGMENT) == KEY
    assert list(path.parent.iterdir()) == [path]


_RACER = """
import sys
from pathlib import Path
from bailee.sealing.wrapping import open_key_file
print("ready", flush=True)
sys.stdin.readline()
wrapper = open_key_file(Path(sys.argv[1]), create=True)
print(wrapper.wrap(b"k" * 32, b"s" * 16).hex(), flush=True)
"""


def test_processes_that_race_end_with_the_same_key(path: Path) -> None:
    """Of processes that make the key at the same moment one wins, and all of them wrap with its key."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    wrapped = [bytes.fromhex(racer.communicate(timeout=30)[0]) for racer in racers]
    wrapper = open_key_file(path, create=False)
    assert [wrapper.unwrap(each, b"s" * 16) for each in wrapped] == [b"k" * 32] * len(racers)
    assert list(path.parent.iterdir()) == [path]


def test_a_creator_that_was_killed_is_in_nobodys_way(path: Path) -> None:
    """What a killed creator of the same process id left behind (containers reuse them) is overcome."""
    write_key(path.with_name(f".{path.name}.{os.getpid()}"), KEY[:5])
    open_key_file(path, create=True)
    assert len(path.read_bytes()) == KEY_BYTES

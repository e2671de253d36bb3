"""The copy of a conversation from a session's disk: bounded, and through no link, whatever lies there."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bailee.agent.sessions.cache import Cache
from bailee.agent.sessions.copies import take_copy
from bailee.agent.sessions.journals import Head, Kind
from bailee.cloud import conversations
from bailee.cloud.conversations import (
    COPY,
    STATE,
    Disk,
    MachineDisk,
    copy_conversation,
    keep_conversation,
    open_copy,
    read_conversation,
)
from bailee.policy.problems import Problem
from bailee.sandbox.machines import Kind as MachineKind
from counterparts.machines import making

SESSION = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a session's folder whose disk holds a conversation."""
    keep(tmp_path, SESSION, "of the session")
    return tmp_path


def keep(folder: Path, id: str, text: str) -> Path:
    """Keep a session on the disk, as the agent in a machine does."""
    journal = Cache(folder / "work" / STATE, environment={}).begin(Head("/x", "m", "0"), now=1, id=id)
    journal.append(Kind.MESSAGE, {"role": "user", "content": text}, now=2)
    journal.close()
    return journal.path


def sessions(folder: Path) -> Path:
    return folder / "work" / STATE / "sessions"


def copied(folder: Path) -> str:
    """Copy, and return what was said."""
    assert keep_conversation(folder, Disk(folder / "work")) == ""
    copy = open_copy(read_conversation(folder))
    (entry,) = take_copy(copy.id, copy.key, copy.journal, there="/x", here=folder).entries
    assert not isinstance(entry, str)
    return str(entry["content"])


def test_the_session_used_last_is_copied(folder: Path) -> None:
    """Of several the one that was written last is copied, to a file of its owner alone; others are none."""
    newest = keep(folder, SESSION.replace("1111-", "2222-"), "later")
    os.utime(newest, ns=(2_000_000_000_000_000_000,) * 2)
    (sessions(folder) / "x\n\x1b.session").write_bytes(b"x")
    (sessions(folder) / f"{SESSION}.session.gone").write_bytes(b"x")
    assert copied(folder) == "later"
    assert (folder / COPY).stat().st_mode & 0o777 == 0o600


def test_it_needs_no_disk_later(folder: Path) -> None:
    """The copy is read without the disk that it is of."""
    assert copied(folder) == "of the session"
    shutil.rmtree(folder / "work")
    assert open_copy(read_conversation(folder)).id == SESSION


def link_file(folder: Path, victim: Path) -> None:
    (path := sessions(folder) / f"{SESSION}.session").unlink()
    path.symlink_to(victim)


def link_key(folder: Path, victim: Path) -> None:
    (path := folder / "work" / STATE / "key").unlink()
    path.symlink_to(victim)


def link_folder(folder: Path, victim: Path) -> None:
    shutil.rmtree(sessions(folder))
    sessions(folder).symlink_to(victim.parent)


def link_above(folder: Path, victim: Path) -> None:
    shutil.move(folder / "work" / "home", folder / "elsewhere")
    (folder / "work" / "home").symlink_to(folder / "elsewhere")


def make_pipe(folder: Path, victim: Path) -> None:
    (path := folder / "work" / STATE / "key").unlink()
    os.mkfifo(path)


def make_folder(folder: Path, victim: Path) -> None:
    (path := folder / "work" / STATE / "key").unlink()
    path.mkdir()


def make_huge(folder: Path, victim: Path) -> None:
    os.truncate(sessions(folder) / f"{SESSION}.session", 100_000_000_000)


def make_long_key(folder: Path, victim: Path) -> None:
    os.truncate(folder / "work" / STATE / "key", 100_000_000_000)


ATTACKS = [
    link_file,
    link_key,
    link_folder,
    link_above,
    make_pipe,
    make_folder,
    make_huge,
    make_long_key,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_what_a_machine_left_in_the_way(folder: Path, attack: Callable[[Path, Path], None]) -> None:
    """Links, pipes and files without an end are not copied; what was copied before goes; it is said why."""
    assert copied(folder)
    (victim := folder / "secrets" / f"{SESSION}.session").parent.mkdir()
    victim.write_bytes(b"a secret of the operator's........"[:32])
    attack(folder, victim)
    assert keep_conversation(folder, Disk(folder / "work"))
    assert not (folder / COPY).exists()
    assert read_conversation(folder) == b""


@pytest.mark.parametrize("attack", [link_key, link_folder, link_above], ids=lambda attack: attack.__name__)
def test_control_without_the_flag_links_are_followed(
    folder: Path, attack: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: opened without O_NOFOLLOW the same links lead to what is not the session's."""
    (victim := folder / "secrets" / f"{SESSION}.session").parent.mkdir()
    victim.write_bytes(b"a secret of the operator's........"[:32])
    attack(folder, victim)
    monkeypatch.setattr(os, "O_NOFOLLOW", 0)
    copy = copy_conversation(Disk(folder / "work"))
    assert copy is not None
    assert attack is link_above or b"a secret" in copy.key + copy.journal


def test_too_many_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with more files than anybody has sessions is not looked through."""
    monkeypatch.setattr(conversations, "MOST_NAMES", 3)
    for number in range(4):
        (sessions(folder) / str(number)).touch()
    assert "more than 3" in keep_conversation(folder, Disk(folder / "work"))


def test_a_disk_without_a_conversation(tmp_path: Path) -> None:
    """An agent that keeps none leaves none, and that is no fault."""
    (tmp_path / "work").mkdir()
    assert keep_conversation(tmp_path, Disk(tmp_path / "work")) == "its agent keeps none"
    (tmp_path / "work" / STATE / "sessions").mkdir(parents=True)
    assert keep_conversation(tmp_path, Disk(tmp_path / "work")) == "its agent keeps none"


@pytest.mark.parametrize("packed", [b"", b"x", b"\xc1", b"\x80", b"\x81\xa2id\x01", b"\x91" * 100_000])
def test_a_copy_that_is_none(packed: bytes) -> None:
    """What is no copy is refused in words."""
    with pytest.raises(Problem):
        open_copy(packed)


def test_a_machine_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something stops all else in a machine it is waited for so long, and no conversation is kept."""
    monkeypatch.setattr(conversations, "NAMES_SECONDS", 1.0)
    stop = "import os, signal, time\nwhile True: os.kill(-1, signal.SIGSTOP); time.sleep(0.02)"
    with making(MachineKind.NAMESPACE, tmp_path) as made:
        assert made.run("true") == 0
        until = time.monotonic() + 3
        made.run(f"setsid python3 -c '{stop}' & sleep 60", is_over=lambda: time.monotonic() > until)
        begun = time.monotonic()
        assert keep_conversation(tmp_path, MachineDisk(made.machine)) == (
            "it cannot be copied: its machine does not list it"
        )
        assert time.monotonic() - begun < 20

"""What a push asks for is read the same in whatever pieces it comes, and nothing of it is overlooked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.flows.git.access import Access, Attached, check_branch, check_url, is_ref, judge_push
from bailee.flows.git.pkt_lines import Malformed, write_line
from bailee.flows.git.pushes import Command, Push, PushReader, write_push
from bailee.policy.problems import Problem

OLD, NEW, NONE = "1" * 40, "2" * 40, "0" * 40
MINE = "refs/heads/bailee/work"
REPOSITORY = Attached("https://git.example/acme/app.git", "bailee/work", ("refs/heads/release/*",))
CAPABILITIES = "report-status side-band-64k agent=git/2.39.5"
PACK = b"PACK" + bytes(range(256)) * 3


def write(*commands: tuple[str, str, str], capabilities: str = CAPABILITIES, before: bytes = b"") -> bytes:
    """Return the beginning of a push as git sends it."""
    lines = [f"{old} {new} {ref}" for old, new, ref in commands]
    lines[:1] = [f"{lines[0]}\0 {capabilities}"]
    return before + b"".join(write_line(line.encode()) for line in lines) + b"0000"


def read(data: bytes, size: int = 10_000) -> Push:
    """Read a push that comes in pieces of a size."""
    reader = PushReader()
    for at in range(0, len(data), size):
        if (push := reader.feed(data[at : at + size])) is not None:
            return push
    return reader.finish()


@given(size=st.integers(1, 400))
def test_any_pieces_say_the_same(size: int) -> None:
    """Commands, shallow lines and options are the same in pieces of any size; the pack is not looked at."""
    data = write(
        (OLD, NEW, MINE),
        (NONE, NEW, "refs/tags/v1"),
        capabilities=CAPABILITIES + " push-options",
        before=write_line(b"shallow " + OLD.encode()),
    )
    data += write_line(b"ci.skip") + b"0000" + PACK
    push = read(data, size)
    assert push.commands == (Command(OLD, NEW, MINE), Command(NONE, NEW, "refs/tags/v1"))
    assert push.options == ("ci.skip",)
    assert "side-band-64k" in push.capabilities


@given(size=st.integers(1, 400), data=st.binary(max_size=300))
def test_nothing_of_a_push_is_lost(size: int, data: bytes) -> None:
    """What is written anew says the same, and what came behind the commands goes on byte for byte."""
    before = write_line(b"shallow " + OLD.encode())
    whole = write((OLD, NEW, MINE), (NONE, NEW, "refs/heads/release/7"), before=before) + data
    reader = PushReader()
    push, at = None, 0
    while push is None:
        push = reader.feed(whole[at : at + size])
        at += size
    assert reader.rest + whole[at:] == data
    assert push.shallow == (OLD,)
    assert read(write_push(push)) == push


@pytest.mark.parametrize(
    "told",
    [
        "push-options=1",
        "push-cert=1",
        "push-cert=<nonce>",
        "x",
        "object-format=sha512",
        "agent=a\x0bpush-options",
    ],
)
def test_capabilities_that_do_not_go_on(told: str) -> None:
    """Only capabilities of a list are written anew, in their plain form."""
    written = write_push(read(write((OLD, NEW, MINE), capabilities=f"{CAPABILITIES} {told}")))
    assert told.encode() not in written
    assert b"report-status side-band-64k" in written


def test_options_are_written_as_they_were_read() -> None:
    """Options that were read go on behind the commands; where none were read the host is told of none."""
    data = write((OLD, NEW, MINE), capabilities="report-status push-options")
    push = read(data + write_line(b"ci.skip\n") + b"0000" + PACK)
    assert write_push(push).endswith(b"0000" + write_line(b"ci.skip") + b"0000")
    assert b"push-options" not in write_push(read(write((OLD, NEW, MINE)) + PACK))


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_push_or_none(data: bytes) -> None:
    """Bytes of anything else are malformed or not yet whole; never another fault."""
    reader = PushReader()
    try:
        found = reader.feed(data)
    except Malformed:
        return
    assert found is None or isinstance(found, Push)


def test_the_probe_before_a_large_push() -> None:
    """Four bytes that ask for nothing are a push without commands, and so is nothing at all."""
    assert read(b"0000") == Push((), frozenset(), ())
    assert read(b"") == Push((), frozenset(), ())


def test_a_certificate_is_refused() -> None:
    """A signed push cannot be written anew, whatever stands in it."""
    certificate = (b"certificate version 0.1\n", b"\n", f"{OLD} {NEW} {MINE}\n".encode())
    data = write_line(b"push-cert\0" + CAPABILITIES.encode() + b"\n")
    data += b"".join(map(write_line, certificate)) + write_line(b"push-cert-end\n") + b"0000"
    for size in (1, 7, 10_000):
        with pytest.raises(Malformed, match="--no-signed"):
            read(data, size)


def test_objects_of_sha256() -> None:
    """Names of 64 digits are read as those of 40; one of each is nothing that git sends."""
    old, new = "a" * 64, "b" * 64
    assert read(write((old, new, MINE))).commands == (Command(old, new, MINE),)
    with pytest.raises(Malformed):
        read(write((OLD, new, MINE)))


@pytest.mark.parametrize(
    "data",
    [
        b"zzzz",
        b"+004",
        b" 004",
        b"0003",
        b"00010000",
        b"fff1" + b"x" * 70_000,
        write_line(b"hello") + b"0000",
        write_line(f"{OLD} {NEW}".encode()) + b"0000",
        write_line(b"shallow x") + b"0000",
        write((OLD, NEW, MINE))[:-4],
        write_line(f"{OLD} {NEW} refs/heads/".encode() + b"\xff") + b"0000",
        write_line(f"{OLD} {NEW} {MINE}\0a\0b".encode()) + b"0000",
        write((OLD, NEW, MINE))[:-4] + write_line(f"{OLD} {NEW} {MINE}\0push-options".encode()) + b"0000",
        write_line(f"{OLD} {NEW} {MINE}\n\n".encode()) + b"0000",
        write_line(b"shallow " + OLD.encode() + b"\0x") + b"0000",
        write((OLD, NEW, MINE), capabilities="push-options") + write_line(b"a\0b") + b"0000",
    ],
)
def test_what_is_no_push(data: bytes) -> None:
    """A push that cannot be read in one way only is refused."""
    with pytest.raises(Malformed):
        read(data)


def test_a_list_without_end_is_refused() -> None:
    """Commands are kept until they are known; more than there ever are is no push."""
    reader = PushReader()
    lines = write_line(f"{OLD} {NEW} {MINE}".encode()) * 20_000
    with pytest.raises(Malformed):
        reader.feed(lines)


ALLOWED = [(NONE, NEW, MINE), (OLD, NEW, MINE), (OLD, NEW, "refs/heads/release/7")]
REFUSED = [
    (OLD, NEW, "refs/heads/main"),
    (OLD, NEW, "refs/heads/bailee/other"),
    (OLD, NEW, "refs/heads/bailee/work/deeper"),
    (OLD, NONE, MINE),
    (NONE, NEW, "refs/tags/v1"),
    (NONE, NEW, "refs/heads/release/../main"),
    (NONE, NEW, "refs/heads/release/x.lock"),
    (NONE, NEW, "refs/pull/1/head"),
    (NONE, NEW, "HEAD"),
    (NONE, NEW, "refs/heads/bailee/work\x1b[2J"),
    (NONE, NEW, "refs/heads/bailee/wörk"),
]


@pytest.mark.parametrize("command", ALLOWED)
def test_what_a_session_may_push(command: tuple[str, str, str]) -> None:
    """Its own branch, and what its owner declared."""
    assert judge_push(read(write(command)), REPOSITORY) == {}


@pytest.mark.parametrize("command", REFUSED)
@pytest.mark.parametrize("beside", [(), (ALLOWED[0],)])
def test_what_a_session_may_not_push(
    command: tuple[str, str, str], beside: tuple[tuple[str, str, str], ...]
) -> None:
    """Another branch, a tag, a deletion, a name that is not plain: alone, and beside what it may."""
    reasons = judge_push(read(write(*beside, command)), REPOSITORY)
    assert list(reasons) == [command[2]]


def test_options_and_reading() -> None:
    """An option that is not declared refuses the push; without a branch of its own a session only reads."""
    push = Push((Command(OLD, NEW, MINE),), frozenset(), ("merge_request.create",))
    assert list(judge_push(push, REPOSITORY)) == [""]
    declared = Attached(REPOSITORY.url, "bailee/work", options=("merge_request.create",))
    assert judge_push(push, declared) == {}
    assert list(judge_push(read(write(ALLOWED[0])), Attached(REPOSITORY.url))) == [""]


def test_only_what_is_attached_is_found() -> None:
    """By host and path, with `.git` or without; nothing beside, above or below it."""
    access = Access("s", "a", (REPOSITORY,))
    for name in ("git.example/acme/app", "git.example/acme/app.git", "git.example/Acme/App"):
        assert access.find(name) is REPOSITORY
    for name in (
        "git.example/acme",
        "git.example/acme/app/x",
        "git.example/acme/other",
        "other.example/acme/app",
        "",
    ):
        assert access.find(name) is None


@pytest.mark.parametrize(
    "url",
    [
        *(
            "git@host:a/b",
            "ssh://host/a",
            "https://user:pass@host/a",
            "https://host",
            "https://host/a?x=1",
            "file:///a",
        ),
        *(
            "https://host/a/../b",
            "https://host/a b",
            "https://host/a%2fb",
            "https://host:x/a",
            "",
            "https://host/a//b",
        ),
    ],
)
def test_addresses_that_are_not_taken(url: str) -> None:
    """Of another protocol, with a credential in it, or not plain."""
    with pytest.raises(Problem):
        check_url(url, where="--repo")
    assert check_url("https://host:8443/a/b.git", where="--repo")


@given(name=st.text(max_size=30))
def test_a_branch_is_below_its_beginning(name: str) -> None:
    """A branch of a session is plain and below `bailee/`, or it is a problem."""
    try:
        check_branch(name, where="--branch")
    except Problem:
        return
    assert name.startswith("bailee/")
    assert is_ref(f"refs/heads/{name}")

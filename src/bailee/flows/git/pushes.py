"""What a push asks for, read from the beginning of its body: never from the pack, which is not looked at.

gitprotocol-pack(5), "Reference Update Request and Packfile Transfer". A host may read the same bytes in
another way: receive-pack ends lines at a NUL, and takes capabilities from every line. So what came is never
passed on: `write_push` writes what was judged anew. Signed certificates cannot be, and are refused.
"""

import re

import msgspec

from bailee.flows.git.pkt_lines import FLUSH, FLUSH_LINE, LineReader, Malformed, write_line

# Commands of the largest push there is: some ten thousand refs.
LARGEST = 2_000_000
MOST_COMMANDS = 10_000
_OBJECT = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")  # SHA-1 or SHA-256
_OPTIONS = "push-options"
# What goes on to a host (gitprotocol-capabilities(5)). None of these adds to what the commands ask for.
_CAPABILITY = re.compile(
    r"report-status|report-status-v2|side-band-64k|ofs-delta|quiet|atomic|push-options"
    r"|object-format=sha(?:1|256)|(?:agent|session-id)=[!-~]{1,200}"
)


class Command(msgspec.Struct, frozen=True):
    """One update of a ref.

    Attributes:
        old, new: object names in hexadecimal; zeros stand for none.
    """

    old: str
    new: str
    ref: str

    @property
    def is_delete(self) -> bool:
        """Whether the ref is taken away."""
        return not self.new.strip("0")


class Push(msgspec.Struct, frozen=True):
    """What a push asks for.

    Attributes:
        commands: all of them; none in the probe that a client sends before a large push.
        capabilities: what the client says it can do, as far as it may go on to a host.
        options: push options, with which some hosts do more than update refs.
        shallow: objects where the client's history ends.
    """

    commands: tuple[Command, ...]
    capabilities: frozenset[str]
    options: tuple[str, ...]
    shallow: tuple[str, ...] = ()


class PushReader:
    """Reads a push as its bytes come.

    `feed` returns the push once it is known in full; what came behind it is in `rest`.
    """

    def __init__(self) -> None:
        self._lines = LineReader()
        self._size = 0
        self._commands: list[Command] = []
        self._shallow: list[str] = []
        self._capabilities: frozenset[str] = frozenset()
        self._options: list[str] = []
        self._has_options = False

    @property
    def rest(self) -> bytes:
        """What was fed beyond the push: the beginning of its pack."""
        return self._lines.rest

    def feed(self, data: bytes) -> Push | None:
        """Take the next bytes.

        Raises:
            Malformed: this is no push, or one that cannot be read in one way only.
        """
        self._size += len(data)
        self._lines.add(data)
        while (line := self._lines.take()) is not None:
            if line == FLUSH:
                if self._has_options or _OPTIONS not in self._capabilities:
                    return self._made()
                self._has_options = True
            elif isinstance(line, int):
                raise Malformed("a packet that pushes do not have")
            elif self._has_options:
                self._options.append(_text(line.removesuffix(b"\n")))
            else:
                self._take(line)
            if len(self._commands) > MOST_COMMANDS:
                raise Malformed(f"more than {MOST_COMMANDS} commands")
        if self._size > LARGEST:
            raise Malformed("a list of commands that is too long")
        return None

    def finish(self) -> Push:
        """Return the push of a body that has ended.

        Raises:
            Malformed: it ended too early.
        """
        if self._size:
            raise Malformed("a push that ends before its commands do")
        return self._made()

    def _made(self) -> Push:
        commands, shallow = tuple(self._commands), tuple(self._shallow)
        return Push(commands, self._capabilities, tuple(self._options), shallow)

    def _take(self, line: bytes) -> None:
        if line.startswith(b"shallow "):
            name = line[8:].removesuffix(b"\n")
            if not _OBJECT.fullmatch(name):
                raise Malformed("a shallow line without an object")
            self._shallow.append(name.decode())
            return
        if not self._commands:
            line, _, told = line.partition(b"\0")
            found = _text(told.removesuffix(b"\n")).split(" ")
            self._capabilities = frozenset(one for one in found if _CAPABILITY.fullmatch(one))
        line = line.removesuffix(b"\n")
        if line == b"push-cert":
            raise Malformed("it is signed, which is not taken here: push with --no-signed")
        self._commands.append(_read_command(line))


def write_push(push: Push) -> bytes:
    """Return a push as it goes on to a host, up to its pack: what was read and judged, and nothing else."""
    lines = [f"shallow {name}".encode() for name in push.shallow]
    for number, command in enumerate(push.commands):
        told = "" if number else "\0 " + " ".join(sorted(push.capabilities))
        lines.append(f"{command.old} {command.new} {command.ref}{told}".encode())
    written = b"".join(map(write_line, lines)) + FLUSH_LINE
    if _OPTIONS in push.capabilities:
        written += b"".join(write_line(one.encode()) for one in push.options) + FLUSH_LINE
    return written


def _read_command(line: bytes) -> Command:
    old, first, rest = line.partition(b" ")
    new, second, ref = rest.partition(b" ")
    if not (first and second and _OBJECT.fullmatch(old) and _OBJECT.fullmatch(new) and len(old) == len(new)):
        raise Malformed("a command that is none")
    return Command(old.decode(), new.decode(), _text(ref))


def _text(data: bytes) -> str:
    if b"\0" in data or b"\n" in data:
        raise Malformed("a character that would end a line")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("a name that is not UTF-8") from None

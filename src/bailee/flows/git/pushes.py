"""What a push asks for, read from the beginning of its body: never from the pack, which is not looked at.

gitprotocol-pack(5), "Reference Update Request and Packfile Transfer", and receive-pack's own reading of it
(builtin/receive-pack.c): lines of `shallow` may come first, commands may stand in a signed certificate,
beside it or instead of it, and all of them are carried out.
"""

import re

import msgspec

from bailee.flows.git.pkt_lines import DELIMITER, END, FLUSH, LineReader, Malformed

# Commands and certificate of the largest push there is: some ten thousand refs.
LARGEST = 2_000_000
MOST_COMMANDS = 10_000
_OBJECT = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")  # SHA-1 or SHA-256


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
        capabilities: what the client says it can do.
        options: push options, with which some hosts do more than update refs.
    """

    commands: tuple[Command, ...]
    capabilities: frozenset[str]
    options: tuple[str, ...]


class PushReader:
    """Reads a push as its bytes come.

    `feed` returns the push once it is known in full; all that came until then is in `taken`.
    """

    def __init__(self) -> None:
        self._lines = LineReader()
        self._taken = bytearray()
        self._commands: list[Command] = []
        self._capabilities: frozenset[str] = frozenset()
        self._options: list[str] = []
        self._certificate: list[bytes] | None = None
        self._is_first = True
        self._has_options = False

    @property
    def taken(self) -> bytes:
        """Everything that was fed."""
        return bytes(self._taken)

    def feed(self, data: bytes) -> Push | None:
        """Take the next bytes.

        Raises:
            Malformed: this is no push, or one that cannot be read in one way only.
        """
        self._taken += data
        self._lines.add(data)
        while (line := self._lines.take()) is not None:
            if line == FLUSH:
                if self._certificate is not None:
                    raise Malformed("a certificate without an end")
                if self._has_options or "push-options" not in self._capabilities:
                    return Push(tuple(self._commands), self._capabilities, tuple(self._options))
                self._has_options = True
            elif line in (DELIMITER, END) or isinstance(line, int):
                raise Malformed("a packet that pushes do not have")
            elif self._has_options:
                self._options.append(_text(line.rstrip(b"\n")))
            else:
                self._take(line)
            if len(self._commands) > MOST_COMMANDS:
                raise Malformed(f"more than {MOST_COMMANDS} commands")
        if len(self._taken) > LARGEST:
            raise Malformed("a list of commands that is too long")
        return None

    def finish(self) -> Push:
        """Return the push of a body that has ended.

        Raises:
            Malformed: it ended too early.
        """
        if self._taken:
            raise Malformed("a push that ends before its commands do")
        return Push((), frozenset(), ())

    def _take(self, line: bytes) -> None:
        if self._certificate is not None:
            if line.rstrip(b"\n") == b"push-cert-end":
                self._read_certificate(self._certificate)
                self._certificate = None
            else:
                self._certificate.append(line)
            return
        if line.startswith(b"shallow "):
            if not _OBJECT.fullmatch(line[8:].rstrip(b"\n")):
                raise Malformed("a shallow line without an object")
            return
        # The first line has the capabilities behind a NUL; of later ones receive-pack cuts it off as well.
        line, nul, told = line.partition(b"\0")
        if nul and self._is_first:
            self._capabilities = frozenset(_text(told).split())
        self._is_first = False
        if line.rstrip(b"\n") == b"push-cert":
            self._certificate = []
            return
        self._commands.append(_read_command(line.rstrip(b"\n")))

    def _read_certificate(self, lines: list[bytes]) -> None:
        """Read the commands of a certificate: what stands between the blank line and the signature."""
        text = b"".join(line if line.endswith(b"\n") else line + b"\n" for line in lines)
        head, blank, rest = text.partition(b"\n\n")
        if not blank:
            raise Malformed("a certificate without commands")
        for line in head.split(b"\n"):
            if line.startswith(b"push-option "):
                self._options.append(_text(line[12:]))
        for line in rest.split(b"\n"):
            if line.startswith(b"-----BEGIN "):
                break
            if line:
                self._commands.append(_read_command(line))


def _read_command(line: bytes) -> Command:
    old, first, rest = line.partition(b" ")
    new, second, ref = rest.partition(b" ")
    if not (first and second and _OBJECT.fullmatch(old) and _OBJECT.fullmatch(new) and len(old) == len(new)):
        raise Malformed("a command that is none")
    return Command(old.decode(), new.decode(), _text(ref))


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("a name that is not UTF-8") from None

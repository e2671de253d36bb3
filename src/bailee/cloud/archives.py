"""Packs a session's folder into a stream and unpacks it again, whatever an agent left in it.

The stream is tar: POSIX pax headers, and GNU's sparse format 1.0 for files with holes, such as images of
disks. The tree is the agent's: it is walked by descriptors, one folder at a time, no path in it is resolved
and no link followed, outside the machine neither here nor later. What comes back is files, folders, links as
they were, and pipes; nothing of it has a set-user-id bit, and there are no devices and no sockets.
"""

import contextlib
import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bailee.policy.problems import Problem

# Linux opens nothing by a longer path: PATH_MAX is 4,096 bytes, and `/session/` comes before it.
LONGEST_PATH = 4000
_PIECE = 1024 * 1024
# A smaller hole is written as zeros, so that a map of holes stays small beside its file.
_SMALLEST_HOLE = 64 * 1024
_O_PATH = getattr(os, "O_PATH", 0)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
Extents = list[tuple[int, int]]


class Sink(Protocol):
    """What an archive is written to."""

    def write(self, data: bytes) -> int:
        """Take some bytes."""
        ...


class Source(Protocol):
    """What an archive is read from."""

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        ...

    def seek(self, at: int) -> object:
        """Go on reading at another place, which is never far."""
        ...

    def tell(self) -> int:
        """Return where reading goes on."""
        ...


class Survey(NamedTuple):
    """What a tree is like.

    Attributes:
        entries: how many there are.
        digest: SHA-256 over what the kernel says of each; another one where anything was changed by the next
            tick of its clock or later, wherever that clock was set meanwhile.
    """

    entries: int
    digest: bytes


class _Place:
    """A place in a tree: one open folder, and the way back to the top."""

    def __init__(self, top: Path) -> None:
        self.fd = os.open(top, _FOLDER)
        self.names: list[str] = []
        self._above: list[tuple[int, int]] = []

    def path(self, name: str) -> str:
        return "/".join([*self.names, name])

    def enter(self, name: str) -> None:
        below = os.open(name, _FOLDER, dir_fd=self.fd)
        self._above.append(_identity(self.fd))
        self._move(below)
        self.names.append(name)

    def leave(self) -> str:
        """Go up, and return the name of what was left."""
        above = os.open("..", _FOLDER, dir_fd=self.fd)
        self._move(above)
        if _identity(above) != self._above.pop():
            raise _refuse("a folder was moved while it was read")
        return self.names.pop()

    def close(self) -> None:
        os.close(self.fd)

    def _move(self, descriptor: int) -> None:
        os.close(self.fd)
        self.fd = descriptor


class Left(NamedTuple):
    """That a walk is done with a folder, and stands above it again."""

    name: str


class Found(NamedTuple):
    """Something that a walk came to; a folder is entered next."""

    name: str
    facts: os.stat_result


def pack(folder: Path, sink: Sink) -> int:
    """Write what is in a folder, and return how much below it has too long a path to be kept.

    Memory holds the names of one folder at each level, and the places of files that have several names.

    Raises:
        Problem: somebody moves folders meanwhile.
    """
    left_out = 0
    first: dict[tuple[int, int], str] = {}
    with contextlib.closing(_Place(folder)) as place:
        for step in _walk(place):
            if isinstance(step, Left):
                continue
            name, facts = step
            path = place.path(name)
            if len(os.fsencode(path)) > LONGEST_PATH:
                left_out += 1
                continue
            info = tarfile.TarInfo(path)
            info.mode = stat.S_IMODE(facts.st_mode) & 0o777
            seconds, rest = divmod(facts.st_mtime_ns, 1_000_000_000)
            info.mtime, info.pax_headers = seconds, {"mtime": f"{seconds}.{rest:09}"}
            if stat.S_ISDIR(facts.st_mode):
                info.type = tarfile.DIRTYPE
            elif stat.S_ISLNK(facts.st_mode):
                info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=place.fd)
            elif stat.S_ISFIFO(facts.st_mode):
                info.type = tarfile.FIFOTYPE
            elif not stat.S_ISREG(facts.st_mode):
                continue
            elif facts.st_nlink > 1 and (known := first.get((facts.st_dev, facts.st_ino))) is not None:
                info.type, info.linkname = tarfile.LNKTYPE, known
            else:
                if facts.st_nlink > 1:
                    first[(facts.st_dev, facts.st_ino)] = path
                _pack_file(place, name, info, sink)
                continue
            sink.write(_head(info))
    sink.write(bytes(2 * tarfile.BLOCKSIZE))
    return left_out


def unpack(source: Source, folder: Path) -> None:
    """Make anew what was packed, in an empty folder.

    Raises:
        Problem: the archive is none that `pack` makes.
    """
    ends: list[tarfile.TarInfo] = []

    def leave() -> None:
        name, info = place.leave(), ends.pop()
        os.utime(name, ns=_times(info), dir_fd=place.fd, follow_symlinks=False)
        _chmod(name, place.fd, info.mode & 0o777)

    with contextlib.closing(_Place(folder)) as place:
        try:
            # Not as a stream (`r|`): its buffer costs more than opening and unpacking do.
            with tarfile.TarFile(
                fileobj=source,  # type: ignore[arg-type]
                encoding="utf-8",
                errors="surrogateescape",
            ) as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]
                    *above, name = _split(info.name)
                    while place.names != above[: len(place.names)]:
                        leave()
                    if place.names != above:
                        raise _refuse(f"{info.name!r} comes before its folder")
                    if info.isdir():
                        os.mkdir(name, 0o700, dir_fd=place.fd)
                        place.enter(name)
                        ends.append(info)
                    else:
                        _unpack_one(archive, source, info, place, name, folder)
        except (
            tarfile.TarError,
            FileExistsError,
            FileNotFoundError,
            NotADirectoryError,
            ValueError,
        ) as fault:
            raise _refuse(str(fault)) from None
        while place.names:
            leave()


def survey(folder: Path) -> Survey:
    """Look over a tree."""
    entries = 0
    digest = hashlib.sha256()
    with contextlib.closing(_Place(folder)) as place:
        digest.update(_describe(os.fstat(place.fd)))
        for step in _walk(place):
            name = os.fsencode(step.name)
            digest.update(b"%c%d:%s" % (b"<>"[isinstance(step, Found)], len(name), name))
            if isinstance(step, Found):
                entries += 1
                digest.update(_describe(step.facts))
    return Survey(entries, digest.digest())


def _describe(facts: os.stat_result) -> bytes:
    # Its time of change nobody can set back, as they can that of its content.
    return b"%d %d %d %d;" % (facts.st_ino, facts.st_mode, facts.st_size, facts.st_ctime_ns)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, however deep it goes and whatever its modes are."""
    try:
        place = _Place(folder)
    except FileNotFoundError:
        return
    with contextlib.closing(place):
        for step in _walk(place, opened=0o700):
            if isinstance(step, Left):
                os.rmdir(step.name, dir_fd=place.fd)
            elif not stat.S_ISDIR(step.facts.st_mode):
                os.unlink(step.name, dir_fd=place.fd)
    folder.rmdir()


def _walk(place: _Place, *, opened: int = 0o500) -> Iterator[Found | Left]:
    """Go through a tree, folders before what is in them; those that have not the modes `opened` get them."""
    waiting = [_list(place)]
    while True:
        if waiting[-1]:
            name = waiting[-1].pop()
            try:
                facts = os.lstat(name, dir_fd=place.fd)
            except FileNotFoundError:
                continue  # it went meanwhile
            yield Found(name, facts)
            if stat.S_ISDIR(facts.st_mode):
                if facts.st_mode & opened != opened:
                    _chmod(name, place.fd, facts.st_mode & 0o777 | opened)
                place.enter(name)
                waiting.append(_list(place))
        else:
            waiting.pop()
            if not waiting:
                return
            yield Left(place.leave())


def _list(place: _Place) -> list[str]:
    return sorted(os.listdir(place.fd), reverse=True)  # noqa: PTH208 - a path is what this goes without


def _pack_file(place: _Place, name: str, info: tarfile.TarInfo, sink: Sink) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=place.fd)
    except PermissionError:
        _chmod(name, place.fd, 0o600)
        descriptor = os.open(name, flags, dir_fd=place.fd)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        facts = os.fstat(descriptor)
        extents, head = [(0, facts.st_size)], b""
        if facts.st_blocks * 512 < facts.st_size:
            extents = _find_extents(descriptor, facts.st_size)
            head = _write_map(extents)
            info.pax_headers = {
                **info.pax_headers,
                **_SPARSE,
                "GNU.sparse.name": info.name,
                "GNU.sparse.realsize": str(facts.st_size),
            }
        data = sum(size for _, size in extents)
        info.size = len(head) + data
        sink.write(_head(info))
        sink.write(head)
        for at, size in extents:
            file.seek(at)
            while size:
                # Of a file that became shorter meanwhile the rest is zeros: its header is written.
                piece = file.read(min(size, _PIECE)) or bytes(min(size, _PIECE))
                sink.write(piece)
                size -= len(piece)
    sink.write(bytes(-data % tarfile.BLOCKSIZE))


def _find_extents(descriptor: int, size: int) -> Extents:
    """Return where a file has data, with small holes in it."""
    found: Extents = []
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here on
                break
            raise
        at = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        if found and start - sum(found[-1]) < _SMALLEST_HOLE:
            found[-1] = (found[-1][0], at - found[-1][0])
        else:
            found.append((start, at - start))
    return found if found and sum(found[-1]) == size else [*found, (size, 0)]


def _write_map(extents: Extents) -> bytes:
    """Write where data is, as GNU tar's manual has it in "Storing Sparse Files", version 1.0."""
    numbers = [len(extents), *(number for extent in extents for number in extent)]
    written = "".join(f"{number}\n" for number in numbers).encode()
    return written + bytes(-len(written) % tarfile.BLOCKSIZE)


def _head(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _unpack_one(
    archive: tarfile.TarFile, source: Source, info: tarfile.TarInfo, place: _Place, name: str, top: Path
) -> None:
    if info.issym():
        os.symlink(info.linkname, name, dir_fd=place.fd)
    elif info.isfifo():
        os.mkfifo(name, info.mode & 0o777, dir_fd=place.fd)
    elif info.islnk():
        _link(top, info.linkname, place, name)
        return
    elif info.isreg():
        _unpack_file(archive, source, info, place, name)
    else:
        raise _refuse(f"{info.name!r} is neither a file nor a folder nor a link")
    os.utime(name, ns=_times(info), dir_fd=place.fd, follow_symlinks=False)


def _unpack_file(
    archive: tarfile.TarFile, source: Source, info: tarfile.TarInfo, place: _Place, name: str
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=place.fd), "wb", buffering=0) as file:
        holes: Any = info.sparse  # as the archive's map of data was read
        extents: Extents = [(0, info.size)] if holes is None else holes
        data = sum(size for _, size in extents)
        # tarfile itself goes wrong here where a sparse file has more than 8 GiB of data.
        end = info.offset_data + data + -data % tarfile.BLOCKSIZE
        archive.offset = end
        source.seek(info.offset_data)
        for at, size in extents:
            file.seek(at)
            while size:
                piece = source.read(min(size, _PIECE))
                if not piece:
                    raise _refuse("its end is missing")
                _write(file.fileno(), piece)
                size -= len(piece)
        file.truncate(info.size)
        os.fchmod(file.fileno(), info.mode & 0o777)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _link(top: Path, target: str, place: _Place, name: str) -> None:
    """Give a file that was unpacked another name; no link on the way to it is followed."""
    *above, last = _split(target)
    with contextlib.closing(_Place(top)) as other:
        for folder in above:
            other.enter(folder)
        if not stat.S_ISREG(os.lstat(last, dir_fd=other.fd).st_mode):
            raise _refuse(f"{target!r} is no file")
        os.link(last, name, src_dir_fd=other.fd, dst_dir_fd=place.fd, follow_symlinks=False)


def _split(path: str) -> list[str]:
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise _refuse(f"{path!r} is no path in it")
    return parts


def _times(info: tarfile.TarInfo) -> tuple[int, int]:
    seconds, _, rest = info.pax_headers.get("mtime", str(int(info.mtime))).partition(".")
    moment = int(seconds) * 1_000_000_000 + int(rest.ljust(9, "0")[:9] or 0)
    return moment, moment


def _chmod(name: str, folder: int, mode: int) -> None:
    """Change a mode of what is no link: the call that follows none is not in every Python."""
    descriptor = os.open(name, _O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.chmod(f"/proc/self/fd/{descriptor}", mode)  # noqa: PTH101
    finally:
        os.close(descriptor)


def _identity(descriptor: int) -> tuple[int, int]:
    facts = os.fstat(descriptor)
    return facts.st_dev, facts.st_ino


def _refuse(what: str) -> Problem:
    return Problem(
        f"this is no disk of a session that can be unpacked: {what}",
        where="archive",
        fix="remove the session: bailee cloud rm",
    )

"""A machine of namespaces: bubblewrap, with a root of its own that has the programs and nothing of anybody's.

It stands inside the boundary, which has the network. What of the system is shown is read-only; a session has
its own folder to write to, and no home, no mail, no spool, no other session.
"""

import os
import shutil
import socket
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bailee.boundary.means import Means, find_means, tell_step
from bailee.policy.problems import Problem
from bailee.sandbox.machines import WORK, Begin, Kind, Machine, Spec

# Programs and what they are made of.
_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt")
# Of the settings of the machine what a program needs to run at all, and nothing that opens anything.
SETTINGS = (
    *(
        "alternatives",
        "ca-certificates",
        "ca-certificates.conf",
        "group",
        "hosts",
        "ld.so.cache",
        "ld.so.conf",
    ),
    *("ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "passwd", "pki", "profile", "protocols"),
    *("services", "shells", "ssl", "terminfo", "timezone", "debian_version", "os-release", "bash.bashrc"),
)
MEMORY_FOLDERS = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # noqa: S108 - they are made empty
_ENDINGS = ("key", "private")
GUEST = Path(__file__).with_name("guest.py")


class Namespaces:
    """Makes machines of namespaces."""

    kind = Kind.NAMESPACE
    address = "127.0.0.1"
    answers_itself = False

    def check(self) -> None:
        """Raise Problem where no such machine can be made here."""
        if not find_means().bwrap:
            raise tell_step("bubblewrap", "bwrap is not installed")

    def create(self, spec: Spec, begin: Begin) -> Machine:
        """Make a machine; its disk is a folder."""
        command = [sys.executable, "-I", "-S", str(GUEST), "0"]
        words = write_machine(
            find_means(),
            command,
            spec.folder,
            tools=list_tools(spec.program),
            memory_bytes=spec.limits.memory_mb * 1_000_000,
        )
        ours, theirs = socket.socketpair()
        with theirs:
            enclosure = begin(words, theirs)
        return Machine(enclosure, ours, copy_disk=lambda target: copy_folder(spec.folder, target))


def copy_folder(folder: Path, target: Path) -> None:
    """Copy what somebody else wrote, links as links."""
    shutil.copytree(folder, target, symlinks=True, ignore=_ignore_special)


def _ignore_special(folder: str, names: list[str]) -> list[str]:
    modes = {name: os.lstat(f"{folder}/{name}").st_mode for name in names}
    kept = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
    return [name for name, mode in modes.items() if not any(is_one(mode) for is_one in kept)]


def list_tools(command: str) -> list[Path]:
    """Return the folders that Bailee's own programs and a command need, outside the system's."""
    found = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parents[2]]
    program = shutil.which(command) or (command if os.sep in command else None)
    if program:
        real = Path(program).resolve()
        found += [Path(program).absolute().parent, _package_of(real)]
    return list(dict.fromkeys(one for one in found if one.is_dir() and not _is_shown(one)))


def check_home(home: Path, program: str) -> None:
    """Raise Problem where a home lies below what machines show: all that is in it could be read there.

    Args:
        program: the agent's.
    """
    shown = [*map(Path, _PROGRAMS), *(Path("/etc", name) for name in SETTINGS), *list_tools(program)]
    real = home.resolve()
    for place in (real, *real.parents):
        for one in shown:
            # By what they are and not by name, as a folder may be mounted in two places.
            if place.exists() and one.exists() and place.samefile(one):
                raise Problem(
                    f"the home lies below {one}, which every session is shown",
                    where=str(home),
                    fix="move the home elsewhere, such as below /var/lib, and name it with --home",
                )


def write_machine(
    means: Means,
    command: Sequence[str],
    folder: Path,
    *,
    readable: Iterable[str] = (),
    tools: Iterable[Path] = (),
    placed: Mapping[str, str] = {},
    devices: Iterable[str] = (),
    memory_bytes: int = 2_000_000_000,
    is_root: bool = False,
) -> list[str]:
    """Return the command that runs a command in a machine.

    Args:
        folder: the session's own, there as `/session`.
        readable: folders that are shown as they lie.
        tools: see `list_tools`.
        placed: folders that are shown elsewhere, and where.
        devices: besides those that every program needs.
        is_root: whether the command is to make namespaces of its own in there: root of that machine, with
            processes of its own, and with no right over anything outside.
        memory_bytes: what may lie in its four folders of memory together.

    Raises:
        Problem: bubblewrap is missing.
    """
    if not means.bwrap:
        raise tell_step("bubblewrap", "bwrap is not installed")
    words = [means.bwrap, "--unshare-user", "--unshare-ipc", "--unshare-uts"]
    if is_root:
        words += ["--unshare-pid", "--uid", "0", "--gid", "0", "--cap-add", "ALL"]
    else:
        words += ["--cap-drop", "ALL"]
    words += ["--hostname", "session", "--tmpfs", "/", "--dev", "/dev", "--proc", "/proc"]
    for name in _PROGRAMS:
        path = Path(name)
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            words += ["--ro-bind", name, name]
    for name in SETTINGS:
        if (Path("/etc") / name).exists():
            words += ["--ro-bind", f"/etc/{name}", f"/etc/{name}"]
    for name in _ENDINGS:
        if Path(f"/etc/ssl/{name}").is_dir():
            words += ["--tmpfs", f"/etc/ssl/{name}", "--remount-ro", f"/etc/ssl/{name}"]
    words += ["--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf"]
    for name in MEMORY_FOLDERS:
        words += ["--size", str(memory_bytes // len(MEMORY_FOLDERS)), "--tmpfs", name]
    for device in devices:
        words += ["--dev-bind", device, device]
    for one in tools:
        words += ["--ro-bind", str(one), str(one)]
    for source, place in {**{one: one for one in readable}, **placed}.items():
        words += ["--ro-bind", source, place]
    words += ["--bind", str(folder), WORK, "--chdir", WORK]
    # The folders of memory that bubblewrap makes for these two have no size that could be set.
    words += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [*words, "--die-with-parent", "--", *command]


def _package_of(program: Path) -> Path:
    """Return the folder of the package that a program is part of, as npm lays them out; else its own."""
    parts = program.parts
    if "node_modules" in parts:
        return Path(*parts[: parts.index("node_modules") + 1])
    return program.parent


def _is_shown(path: Path) -> bool:
    return any(path == Path(one) or path.is_relative_to(one) for one in _PROGRAMS)

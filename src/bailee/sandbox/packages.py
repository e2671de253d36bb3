"""What the root of a virtual machine is made of: Debian packages that are installed here, and what they need.

Only what their makers packaged goes in, and of `/etc` what the machine of namespaces is shown as well: the
host's own settings, and whatever else lies in its file system, stay out.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from bailee.policy.problems import Problem

# What people expect where programs are built and tested; those that are not installed here are left out.
PACKAGES = (
    *(
        "base-files",
        "bash",
        "dash",
        "perl-base",
        "coreutils",
        "findutils",
        "grep",
        "sed",
        "gawk",
        "mawk",
        "tar",
        "gzip",
        "xz-utils",
    ),
    *("bzip2", "zstd", "unzip", "diffutils", "patch", "file", "less", "procps", "util-linux", "hostname"),
    *(
        "ca-certificates",
        "openssl",
        "curl",
        "git",
        "git-lfs",
        "openssh-client",
        "ripgrep",
        "jq",
        "libc-bin",
        "debianutils",
    ),
    *("python3", "python3-venv", "python3-pip", "nodejs", "npm", "make", "gcc", "g++", "libc6-dev"),
    *("pkg-config", "ncurses-base", "passwd", "tzdata", "media-types", "netbase"),
)
DATABASE = Path("/var/lib/dpkg/status")
# Not read by programs at work, and a third of what is in a package.
_LEFT_OUT = (
    "/usr/share/doc/",
    "/usr/share/man/",
    "/usr/share/locale/",
    "/usr/share/info/",
    "/usr/share/lintian/",
)
_ALTERNATIVES = Path("/etc/alternatives")
_COMMANDS = ("/usr/bin", "/usr/sbin")


class Package(msgspec.Struct, frozen=True):
    """An installed package: what it needs, each as a list of alternatives, and what it stands for."""

    name: str
    needs: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]


def read_packages() -> list[Package]:
    """Return the packages that are installed.

    Raises:
        Problem: this is no Debian.
    """
    program = shutil.which("dpkg-query")
    if program is None:
        raise Problem(
            "the root of a virtual machine is made of Debian packages, and dpkg is not installed",
            where="--isolation vm",
            fix="use a Debian or Ubuntu, or: --isolation namespace",
        )
    form = r"${Package}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    told = subprocess.run([program, "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    found = []
    for line in told.splitlines():
        name, status, needs, provides = line.split("\t")
        if status == "installed":
            found.append(Package(name, tuple(_read_needs(needs)), tuple(_read_names(provides))))
    return found


def choose_packages(installed: Iterable[Package], wanted: Sequence[str]) -> list[str]:
    """Return what is wanted and installed, and all that it needs, in order."""
    known = {one.name: one for one in installed}
    stand_ins: dict[str, str] = {}
    for one in known.values():
        for name in one.provides:
            stand_ins.setdefault(name, one.name)
    chosen: set[str] = set()
    waiting = [name for name in wanted if name in known]
    while waiting:
        name = waiting.pop()
        if name in chosen:
            continue
        chosen.add(name)
        for alternatives in known[name].needs:
            there = [one if one in known else stand_ins.get(one) for one in alternatives]
            waiting += [one for one in there if one][:1]
    return sorted(chosen)


def list_files(packages: Sequence[str]) -> Iterator[str]:
    """Return the files and links of packages, and the commands that alternatives make of them."""
    told = subprocess.run(["dpkg-query", "-L", *packages], capture_output=True, text=True, check=True).stdout
    listed = {_canonical(line) for line in told.splitlines() if line.startswith("/")}
    for path in sorted(listed):
        if path.startswith(("/etc/", *_LEFT_OUT)):
            continue
        if os.path.islink(path) or os.path.isfile(path):  # noqa: PTH114, PTH113 - thousands of them
            yield path
    yield from _list_bytecode(listed)
    for folder in _COMMANDS:
        for entry in os.scandir(folder):
            is_one = entry.is_symlink() and Path(entry.path).readlink().parent == _ALTERNATIVES
            if is_one and os.path.realpath(entry.path) in listed:
                yield entry.path


def _list_bytecode(listed: Iterable[str]) -> Iterator[str]:
    """Return what Python compiled of modules when they were installed; a machine would at each start."""
    modules: dict[str, set[str]] = {}
    for path in listed:
        if path.endswith(".py"):
            folder, _, name = path.rpartition("/")
            modules.setdefault(folder, set()).add(name[:-3])
    for folder, names in modules.items():
        below = f"{folder}/__pycache__"
        if os.path.isdir(below):  # noqa: PTH112
            yield from (one.path for one in os.scandir(below) if one.name.partition(".")[0] in names)


def _canonical(path: str) -> str:
    """Return a path as it lies on a system whose /bin and /lib are links into /usr."""
    first = path.split("/", 2)[1]
    return f"/usr{path}" if first in _merged() else path


def _merged() -> frozenset[str]:
    return frozenset(
        name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32") if Path("/", name).is_symlink()
    )


def _read_needs(text: str) -> Iterator[tuple[str, ...]]:
    for one in text.split(","):
        if names := tuple(_read_names(one.replace("|", ","))):
            yield names


def _read_names(text: str) -> Iterator[str]:
    for one in text.split(","):
        if name := one.partition("(")[0].strip().partition(":")[0]:
            yield name


def copy_files(paths: Iterable[str], folder: Path) -> None:
    """Let files and links lie below a folder as they lie here, without another copy where that can be."""
    made: set[str] = set()
    for path in paths:
        parent, target = os.path.dirname(path), f"{folder}{path}"  # noqa: PTH120
        if parent not in made:
            os.makedirs(f"{folder}{parent}", exist_ok=True)  # noqa: PTH103
            made.add(parent)
        copy_file(path, target)


def copy_file(path: str, target: str) -> None:
    """Let one file or link lie elsewhere as well."""
    try:
        os.link(path, target, follow_symlinks=False)
    except FileExistsError:
        return
    except OSError:  # another file system, or another user's file
        shutil.copy2(path, target, follow_symlinks=False)


def copy_tree(source: Path, folder: Path, left_out: Mapping[str, frozenset[str]]) -> None:
    """Let a tree lie below a folder under its own path.

    Args:
        left_out: names that are left out, by the folder that they lie in; "*" for any.
    """
    for below, folders, files in os.walk(source):
        out = left_out.get("*", frozenset()) | left_out.get(below, frozenset())
        folders[:] = [name for name in folders if name not in out]
        target = f"{folder}{below}"
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
        for name in [one for one in folders if os.path.islink(f"{below}/{one}")]:  # noqa: PTH114
            copy_file(f"{below}/{name}", f"{target}/{name}")
        for name in files:
            if name not in out:
                copy_file(f"{below}/{name}", f"{target}/{name}")

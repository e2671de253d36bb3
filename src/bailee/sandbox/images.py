"""What a virtual machine starts from: kernel, first program, root, and a machine that has started.

All of it is programs and nothing of anybody's, made once and kept in the user's cache. It is named after
what it was made of, so that a part whose making has changed is made anew. A machine is started once,
stopped in the moment when it waits for its first order, and written down; a session goes on from there.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from bailee.policy.problems import Problem
from bailee.sandbox.machines import Limits
from bailee.sandbox.namespaces import SETTINGS, list_tools
from bailee.sandbox.packages import (
    DATABASE,
    PACKAGES,
    choose_packages,
    copy_files,
    copy_tree,
    list_files,
    read_packages,
)

KERNEL = "linux-image-cloud-amd64"
# In the order in which they are loaded. The kernel has ext4 itself, and neither 9p nor squashfs.
MODULES = (
    *("lib/libcrc32c", "fs/erofs/erofs", "fs/overlayfs/overlay", "drivers/virtio/virtio_ring"),
    *("drivers/virtio/virtio", "drivers/virtio/virtio_mmio", "drivers/block/virtio_blk", "net/core/failover"),
    *("drivers/net/net_failover", "drivers/net/virtio_net", "drivers/char/virtio_console"),
    "drivers/char/hw_random/virtio-rng",
)
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mkfs.erofs": "erofs-utils",
    "busybox": "busybox-static",
    "mke2fs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
}
_HERE = Path(__file__).parent
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_UNUSED_DAYS = 14
_KERNEL, _KERNEL_DAYS = "kernel-", 7
_DEPTH = 3  # site-packages of an environment
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
Tell = Callable[[str], None]


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """The files that a machine starts from."""

    folder: Path
    kernel: Path
    initrd: Path
    system: Path
    tools: Path


def cache_folder() -> Path:
    """Return where images lie."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "bailee" / "machines"


def check_programs() -> dict[str, str]:
    """Return the paths of the programs that images and machines are made with.

    Raises:
        Problem: one is missing; it names the package that has it.
    """
    if os.uname().machine != "x86_64":
        raise _missing(f"virtual machines are made for x86_64, and this is {os.uname().machine}", "")
    found = {name: shutil.which(name, path=_PATH) or "" for name in PROGRAMS}
    missing = [PROGRAMS[name] for name, path in found.items() if not path]
    if missing:
        raise _missing(
            f"what a virtual machine needs is not installed: {', '.join(missing)}", " ".join(missing)
        )
    return found


def _missing(what: str, packages: str) -> Problem:
    fix = f"install it (Debian: apt install {packages}), or: --isolation namespace"
    return Problem(what, where="--isolation vm", fix=fix if packages else "use: --isolation namespace")


@contextlib.contextmanager
def building() -> Iterator[Path]:
    """Hold the cache while something is built, so that two sessions do not build the same."""
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)


def make_image(program: str, tell: Tell = lambda what: None) -> Image:
    """Return the image of an agent, and make what of it is missing.

    Args:
        program: the agent's; empty for Bailee's own.
        tell: is told what is being made, as it takes half a minute.

    Raises:
        Problem: something is missing here, or cannot be had.
    """
    programs = check_programs()
    with building() as folder:
        kernel = _make_kernel(folder, programs, tell)
        image = Image(
            folder=folder,
            kernel=kernel / "vmlinuz",
            initrd=_make_initrd(folder, kernel, programs, tell),
            system=_make_system(folder, programs, tell),
            tools=_make_tools(folder, programs, program, tell),
        )
        for path in (kernel, image.initrd, image.system, image.tools):
            os.utime(path)
        _sweep(folder)
    return image


def find_kernel(tell: Tell = lambda what: None) -> Path:
    """Return the folder of the kernel, taken from Debian's package when there is none or a newer one.

    Raises:
        Problem: there is none, and it cannot be had.
    """
    programs = check_programs()
    with building() as folder:
        return _make_kernel(folder, programs, tell)


def _make_kernel(folder: Path, programs: dict[str, str], tell: Tell) -> Path:
    """Take the kernel out of Debian's package, which apt checked; nothing is installed.

    The time of a kernel's file is when apt was last asked whether it is still the newest.
    """
    known = sorted(folder.glob(f"{_KERNEL}*/vmlinuz"), key=lambda one: one.stat().st_mtime)
    newest = known[-1] if known else None
    if newest and newest.stat().st_mtime > time.time() - _KERNEL_DAYS * 86_400:
        return newest.parent
    try:
        package = _name_package()
        target = folder / f"{_KERNEL}{package}"
        if not (target / "vmlinuz").exists():
            tell("taking a kernel from its package")
            _take_kernel(package, folder, programs, target)
        newest = target / "vmlinuz"
    except Problem:
        if newest is None:
            raise
    os.utime(newest)
    return newest.parent


def _name_package() -> str:
    told = _run(["apt-cache", "show", "--no-all-versions", KERNEL])
    for line in told.splitlines():
        if line.startswith("Depends:"):
            return line.partition(":")[2].split("(")[0].strip()
    raise Problem(
        f"apt knows no {KERNEL}",
        where="--isolation vm",
        fix="as root: apt update; or: --isolation namespace",
    )


def _take_kernel(package: str, folder: Path, programs: dict[str, str], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        below = Path(scratch)
        if os.geteuid() == 0:
            below.chmod(0o755)  # apt downloads as a user of its own
        _run([programs["apt-get"], "download", "-qq", package], folder=below)
        (file,) = below.glob("*.deb")
        _run([programs["dpkg-deb"], "-x", str(file), str(below / "x")])
        (boot,) = (below / "x" / "boot").glob("vmlinuz-*")
        release = boot.name.partition("-")[2]
        made = below / "kernel"
        (made / "modules").mkdir(parents=True)
        shutil.copy(boot, made / "vmlinuz")
        for name in MODULES:
            found = below / "x" / "lib" / "modules" / release / "kernel" / f"{name}.ko"
            shutil.copy2(found, made / "modules" / found.name)
        made.chmod(0o700)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)


def _make_initrd(folder: Path, kernel: Path, programs: dict[str, str], tell: Tell) -> Path:
    parts = [(_HERE / name).read_bytes() for name in ("init.sh", "guest.py")]
    target = folder / f"initrd-{_name(kernel.name, sys.executable, *parts)}"
    if target.exists():
        return target
    tell("making the first program")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root = Path(scratch) / "root"
        for name in ("bin", "guest", "modules"):
            (root / name).mkdir(parents=True)
        shutil.copy2(programs["busybox"], root / "bin" / "busybox")
        (root / "init").write_bytes(parts[0])
        (root / "init").chmod(0o755)
        (root / "guest" / "guest.py").write_bytes(parts[1])
        (root / "guest" / "python").write_text(f"{sys.executable}\n")
        for module in (kernel / "modules").iterdir():
            shutil.copy2(module, root / "modules" / module.name)
        order = [f"{name.rpartition('/')[2]}.ko" for name in MODULES]
        (root / "modules" / "order").write_text("\n".join(order) + "\n")
        listed = b"".join(bytes(one.relative_to(root)) + b"\0" for one in sorted(root.rglob("*")))
        words = [programs["busybox"], "cpio", "-o", "-0", "-H", "newc"]
        packed = subprocess.run(words, input=listed, cwd=root, capture_output=True, check=True).stdout
        _place(packed, target)
    return target


def _make_system(folder: Path, programs: dict[str, str], tell: Tell) -> Path:
    known = DATABASE.stat()
    target = folder / f"system-{_name(known.st_mtime_ns, known.st_size, PACKAGES)}.erofs"
    if target.exists():
        return target
    tell("making the root from the packages that are installed")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        copy_files(list_files(choose_packages(read_packages(), PACKAGES)), root)
        for name in _MERGED:
            if Path("/", name).is_symlink() and not (root / name).exists():
                (root / name).symlink_to(Path("/", name).readlink())
        (root / "etc").mkdir(exist_ok=True)
        for name in SETTINGS:
            _copy_setting(Path("/etc", name), root / "etc" / name)
        _make_erofs(programs, root, target)
    return target


def _copy_setting(source: Path, target: Path) -> None:
    if source.is_dir():
        out = shutil.ignore_patterns("private", "key")
        shutil.copytree(source, target, symlinks=True, ignore=out, dirs_exist_ok=True)
    elif source.exists():
        shutil.copy2(source, target)


def _make_tools(folder: Path, programs: dict[str, str], program: str, tell: Tell) -> Path:
    trees = list_tools(program)
    target = folder / f"tools-{_name(*(_stamp(one) for one in trees))}.erofs"
    if target.exists():
        return target
    tell(f"adding Bailee and {program or 'its agent'}")
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    out = {"*": frozenset({".git"}), str(base / "lib" / version): frozenset({"test", "idlelib"})}
    if sys.prefix != sys.base_prefix:  # what is installed there is not ours
        out[str(base / "lib" / version)] |= {"site-packages"}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        for tree in trees:
            copy_tree(tree, root, out)
        _make_erofs(programs, root, target)
    return target


def _make_erofs(programs: dict[str, str], root: Path, target: Path) -> None:
    making = target.with_suffix(".making")
    making.unlink(missing_ok=True)
    # With the times of the files: Python compiles anew what is younger than its bytecode, or older.
    _run([programs["mkfs.erofs"], "--all-root", "-Eforce-inode-extended", str(making), str(root)])
    making.rename(target)


def _place(data: bytes, target: Path) -> None:
    making = target.with_suffix(".making")
    making.write_bytes(data)
    making.rename(target)


def name_state(image: Image, limits: Limits, acceleration: str, qemu: str) -> Path:
    """Return where a machine that has started lies: it goes on with the same parts, sizes and QEMU alone."""
    parts = [one.name for one in (image.kernel.parent, image.initrd, image.system, image.tools)]
    known = Path(qemu).stat()
    facts = (limits.memory_mb, limits.processors, limits.disk_mb, acceleration, known.st_mtime_ns)
    return image.folder / f"state-{_name(*parts, *facts)}-{acceleration}"


def _stamp(tree: Path) -> str:
    """Return what changes when programs are installed, updated or removed: the times of the upper folders.

    Every session asks; the files of an environment, all looked at, took 0.3 s. Bailee's own are looked at, as
    they may be changed in place.
    """
    ours = str(_HERE.parent)
    newest = 0
    for below, folders, files in os.walk(tree):
        depth = below[len(str(tree)) :].count("/")
        is_ours = below.startswith(ours)
        out = depth >= _DEPTH and not is_ours and not ours.startswith(below)
        folders[:] = [] if out else [name for name in folders if name != "__pycache__"]
        newest = max(newest, os.stat(below).st_mtime_ns)  # noqa: PTH116
        for name in files if is_ours else ():
            newest = max(newest, os.stat(f"{below}/{name}").st_mtime_ns)  # noqa: PTH116
    return f"{tree}:{newest}"


def _name(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _sweep(folder: Path) -> None:
    """Take away what no session used for two weeks, and what a killed making left."""
    past = time.time() - _UNUSED_DAYS * 86_400
    for one in folder.iterdir():
        if one.name == "lock" or (one.stat().st_mtime > past and not one.name.startswith("tmp")):
            continue
        shutil.rmtree(one) if one.is_dir() else one.unlink()


def _run(words: list[str], *, folder: Path | None = None) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise Problem(
            f"{Path(words[0]).name} failed: {said[0][:300]}",
            where="the image of virtual machines",
            fix="mend what it says, or: --isolation namespace",
        )
    return done.stdout

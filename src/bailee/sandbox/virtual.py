"""A virtual machine: QEMU's microvm, inside a machine of namespaces, inside the boundary.

Its one network device is QEMU's own stack, which opens ordinary sockets, and these are opened in the
boundary: TCP is led to the security proxy, names are answered by it, all else is refused. So a program that
breaks out of the kernel stands in a process that may start nothing, and around that in a machine of
namespaces.
"""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bailee.boundary.means import find_means
from bailee.policy.problems import Problem
from bailee.sandbox import guest
from bailee.sandbox.images import (
    Image,
    Tell,
    building,
    cache_folder,
    check_programs,
    find_kernel,
    make_image,
    name_state,
)
from bailee.sandbox.machines import WORK, Begin, Kind, Limits, Machine, NotAnswered, Spec
from bailee.sandbox.namespaces import write_machine

GATEWAY, NAMES = "10.0.2.2", "10.0.2.3"  # QEMU's user network (its documentation, "Network options")
USER = 1000
DISK = "disk.img"
_DEVICE = "/dev/vdc"
_BOOT_SECONDS = 60.0
# A kernel that KVM runs is ready within one second. Where KVM is there and does not work, guests hang.
_TRY_SECONDS = 8.0
# At 2 GHz: without, 3 of 8 emulated starts hung as the kernel measured its clock; with it none of 16. What a
# kernel does against its processor's faults costs emulation much, and the emulated one does not have them.
_EMULATED = "tsc_early_khz=2000000 mitigations=off"
_CHANNEL, _STATE = 3, 4  # descriptors of QEMU


class VirtualMachines:
    """Makes virtual machines.

    Args:
        tell: is told what is being made.
    """

    kind = Kind.VM
    address = GATEWAY
    answers_itself = False

    def __init__(self, tell: Tell = lambda what: None) -> None:
        self._tell = tell

    def check(self) -> None:
        """Raise Problem where no such machine can be made here."""
        find_kernel(self._tell)
        find_means()

    def prepare(self, program: str, limits: Limits) -> tuple[Image, Path]:
        """Return the image of an agent, and a machine that has started from it; both are made if missing."""
        qemu = check_programs()["qemu-system-x86_64"]
        image = make_image(program, self._tell)
        for acceleration in _list_accelerations(image.folder):
            state = name_state(image, limits, acceleration, qemu)
            if state.exists():
                os.utime(state)
                return image, state
        with building():
            for acceleration in _list_accelerations(image.folder):
                state = name_state(image, limits, acceleration, qemu)
                if state.exists():
                    return image, state
                self._tell(f"starting a machine once ({acceleration})")
                seconds = _BOOT_SECONDS if acceleration == "tcg" else _TRY_SECONDS
                if _write_state(qemu, image, limits, acceleration, state, seconds):
                    return image, state
                if acceleration == "kvm":
                    _refusal(image.folder).touch(mode=0o600)
        raise Problem(
            "a virtual machine does not start here",
            where="--isolation vm",
            fix="look for what else takes this machine's processors, or: --isolation namespace",
        )

    def create(self, spec: Spec, begin: Begin) -> Machine:
        """Make a machine; its disk is a file with a file system in it."""
        programs = check_programs()
        image, state = self.prepare(spec.program, spec.limits)
        disk = spec.folder / DISK
        if not disk.exists():
            make_disk(disk, spec.limits, programs["mke2fs"])
        acceleration = "kvm" if state.name.endswith("kvm") else "tcg"
        qemu = write_command(
            programs["qemu-system-x86_64"],
            image,
            spec.limits,
            acceleration,
            disk=f"{WORK}/{DISK}",
            incoming=f"fd:{_STATE}",
        )
        shell = f'exec {_CHANNEL}<&0 {_STATE}<"$0" 0</dev/null; exec "$@"'
        words = write_machine(
            find_means(),
            ["sh", "-c", shell, str(state), *qemu],
            spec.folder,
            readable=[str(image.folder)],
            devices=["/dev/kvm"] if acceleration == "kvm" else [],
        )
        ours, theirs = socket.socketpair()
        with theirs:
            enclosure = begin(words, theirs)
        return Machine(
            enclosure, ours, opening=write_opening, copy_disk=lambda target: copy_disk(disk, target)
        )


def is_emulated() -> bool:
    """Tell whether machines are known to be emulated here; where KVM was not tried yet it may still fail."""
    return "kvm" not in _list_accelerations(cache_folder())


def write_opening() -> Mapping[str, object]:
    """Return what a machine is told first: all that it must not have in common with others."""
    return {
        "entropy": os.urandom(64).hex(),
        "disk": {"device": _DEVICE, "folder": WORK, "kind": "ext4", "home": f"{WORK}/home"},
        "files": {
            "/etc/resolv.conf": f"nameserver {NAMES}\n",
            "/etc/hosts": "127.0.0.1 localhost session\n::1 localhost\n",
            "/etc/passwd": f"root:x:0:0::/root:/bin/bash\nsession:x:{USER}:{USER}::{WORK}/home:/bin/bash\n",
            "/etc/group": f"root:x:0:\nsession:x:{USER}:\n",
        },
        "user": USER,
    }


def write_command(
    qemu: str,
    image: Image,
    limits: Limits,
    acceleration: str,
    *,
    disk: str,
    incoming: str = "",
    control: int | None = None,
) -> list[str]:
    """Return the command of a machine, whose channel is descriptor 3.

    Args:
        incoming: where it goes on from; it starts if empty.
        control: a descriptor by which it takes orders itself.
    """
    told = "console=ttyS0 quiet loglevel=3 panic=-1"
    words = [qemu, "-M", "microvm,acpi=on,pit=on,pic=on,rtc=on", "-accel", acceleration]
    words += ["-global", "virtio-mmio.force-legacy=false", "-cpu", "max" if acceleration == "tcg" else "host"]
    words += ["-m", f"{limits.memory_mb}M", "-smp", str(limits.processors)]
    words += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    words += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    # Appended: what it is may be a file that others write to as well.
    words += ["-chardev", "file,id=console,path=/dev/stderr,append=on", "-serial", "chardev:console"]
    words += ["-append", f"{told} {_EMULATED}" if acceleration == "tcg" else told]
    for name, path, kept in (
        ("system", image.system, "on"),
        ("tools", image.tools, "on"),
        ("disk", disk, "off"),
    ):
        file = str(path).replace(",", ",,")  # QEMU's way of a comma in a value
        words += ["-drive", f"if=none,id={name},file={file},format=raw,readonly={kept}"]
        words += ["-device", f"virtio-blk-device,drive={name}"]
    words += ["-netdev", "user,id=network,ipv6=off", "-device", "virtio-net-device,netdev=network"]
    words += ["-device", "virtio-rng-device", "-device", "virtio-serial-device"]
    words += ["-chardev", f"socket,id=channel,fd={_CHANNEL}"]
    words += ["-device", f"virtserialport,chardev=channel,name={guest.PORT}"]
    if control is not None:
        words += ["-chardev", f"socket,id=control,fd={control}", "-mon", "chardev=control,mode=control"]
    else:
        words += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    return [*words, "-incoming", incoming] if incoming else words


def make_disk(path: Path, limits: Limits, mke2fs: str) -> None:
    """Make an empty disk, which takes room as it is filled."""
    making = path.with_suffix(".making")
    with making.open("wb") as file:
        file.truncate(limits.disk_mb * 1_000_000 // 4096 * 4096)
    options = f"root_owner={USER}:{USER},lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    words = [mke2fs, "-q", "-F", "-t", "ext4", "-m", "0", "-J", "size=16", "-E", options, str(making)]
    subprocess.run(words, check=True, capture_output=True)
    making.rename(path)


def copy_disk(disk: Path, target: Path) -> None:
    """Copy a disk, what was never written to left out."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(disk), str(target)], check=True)


def _list_accelerations(folder: Path) -> Sequence[str]:
    is_kvm = os.access("/dev/kvm", os.R_OK | os.W_OK) and not _refusal(folder).exists()
    return ("kvm", "tcg") if is_kvm else ("tcg",)


def _refusal(folder: Path) -> Path:
    """Return what says that KVM was tried on this kernel and did not work."""
    return folder / f"kvm-does-not-work-{os.uname().release}"


def _write_state(
    qemu: str, image: Image, limits: Limits, acceleration: str, target: Path, seconds: float
) -> bool:
    """Start a machine without a network that leads anywhere, and write it down when it waits for orders."""
    making = target.with_suffix(".making")
    disk = target.with_suffix(".disk")
    make_disk(disk, limits, check_programs()["mke2fs"])
    ours, theirs = socket.socketpair()
    control, controlled = socket.socketpair()
    words = write_command(qemu, image, limits, acceleration, disk=str(disk), control=controlled.fileno())
    shell = f'exec {_CHANNEL}<&0 0</dev/null; exec "$@"'
    network = [find_means().bwrap, "--unshare-net", "--dev-bind", "/", "/", "--die-with-parent", "--"]
    process = subprocess.Popen(
        [*network, "sh", "-c", shell, "sh", *words],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[controlled.fileno()],
    )
    theirs.close()
    controlled.close()
    try:
        _await_ready(ours, seconds)
        # Still running as it is written: one that was stopped before would be stopped when it goes on.
        _order(control, "migrate", uri=f"exec:cat > {shlex.quote(str(making))}")
        making.rename(target)
    except (NotAnswered, OSError):
        return False
    finally:
        process.kill()
        process.wait()
        ours.close()
        control.close()
        for path in (making, disk):
            path.unlink(missing_ok=True)
    return True


def _await_ready(channel: socket.socket, seconds: float) -> None:
    held = bytearray()
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        channel.settimeout(left)
        with contextlib.suppress(TimeoutError):
            if not (piece := channel.recv(4096)):
                break
            held += piece
        if any(kind == guest.READY for kind, _, _ in guest.read_frames(held)):
            return
    raise NotAnswered("the machine does not start")


def _order(control: socket.socket, command: str, **arguments: str) -> None:
    """Give QEMU an order by its machine protocol, and wait until the machine is written."""
    control.settimeout(_BOOT_SECONDS)
    answers = _read_answers(control)
    for order in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
        control.sendall(json.dumps(order).encode())
        next(answers)
    while True:
        control.sendall(b'{"execute": "query-migrate"}')
        status = next(answers).get("status")
        if status == "completed":
            return
        if status in ("failed", "cancelled"):
            raise NotAnswered("the machine cannot be written down")
        time.sleep(0.05)


def _read_answers(control: socket.socket) -> Iterator[dict[str, str]]:
    with control.makefile("rb") as lines:
        for line in lines:
            told = json.loads(line)
            if "error" in told:
                raise NotAnswered(str(told["error"].get("desc")))
            if "return" in told:
                yield told["return"]
    raise NotAnswered("QEMU ended")

"""A container of gVisor: `runsc` answers the system calls of what runs in it, inside a machine of namespaces.

Nothing that runs in it reaches the host's kernel but by what gVisor itself asks of it. Its network is the
boundary's.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bailee.boundary.means import find_means
from bailee.policy.problems import Problem
from bailee.sandbox.machines import WORK, Begin, Kind, Limits, Machine, Spec
from bailee.sandbox.namespaces import (
    GUEST,
    MEMORY_FOLDERS,
    Namespaces,
    copy_folder,
    list_tools,
    write_machine,
)

_BUNDLE = "container"
_INSIDE = "/run/bundle"  # of the machine of namespaces around it
_PROBE_SECONDS = 20
_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Lists a folder as coreutils do, by statx(2) with AT_NO_AUTOMOUNT: gVisor of 2022, which is Debian 12's,
# cannot.
_PROBE = ["ls", "/"]


class Containers:
    """Makes containers of gVisor."""

    kind = Kind.CONTAINER
    address = "127.0.0.1"
    answers_itself = True

    def check(self) -> None:
        """Raise Problem where no such machine can be made here, or programs would fail in it."""
        Namespaces().check()
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            (folder / "work").mkdir()
            words = self.write(Spec(folder=folder / "work"), _PROBE)
            words[1:1] = ["--unshare-net"]
            try:
                done = subprocess.run(
                    words, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
                )
            except subprocess.TimeoutExpired:
                raise _refuse("gVisor does not answer") from None
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
            raise _refuse(f"this gVisor cannot run `{' '.join(_PROBE)}`: {said[0][:200]}")

    def create(self, spec: Spec, begin: Begin) -> Machine:
        """Make a machine; its disk is a folder."""
        words = self.write(spec, [sys.executable, "-I", "-S", str(GUEST), "0"])
        ours, theirs = socket.socketpair()
        with theirs:
            enclosure = begin(words, theirs)
        return Machine(enclosure, ours, copy_disk=lambda target: copy_folder(spec.folder, target))

    def write(self, spec: Spec, command: Sequence[str]) -> list[str]:
        """Return the command that runs a command in a container.

        Raises:
            Problem: gVisor is missing.
        """
        program = shutil.which("runsc", path=_PATH)
        if program is None:
            raise _refuse("gVisor's runsc is not installed")
        tools = list_tools(spec.program)
        bundle = spec.folder.parent / _BUNDLE
        bundle.mkdir(mode=0o700, exist_ok=True)
        (bundle / "config.json").write_text(json.dumps(write_configuration(command, tools, spec.limits)))
        # Without a group of processes: rootless, and none asked for.
        words = [program, "--rootless", "--ignore-cgroups", "--network=host", "--platform=ptrace"]
        words += ["--root=/run/runsc", "run", "--bundle", _INSIDE, "session"]
        return write_machine(
            find_means(),
            words,
            spec.folder,
            is_root=True,
            tools=tools,
            placed={str(bundle): _INSIDE},
            memory_bytes=spec.limits.memory_mb * 1_000_000,
        )


def write_configuration(command: Sequence[str], tools: Sequence[Path], limits: Limits) -> dict[str, Any]:
    """Return a container's configuration (OCI runtime specification, config.md)."""
    none: dict[str, list[str]] = {
        kind: [] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    memory = f"size={limits.memory_mb * 1_000_000 // len(MEMORY_FOLDERS)}"
    folders = [(path, "755" if path == "/run" else "1777") for path in MEMORY_FOLDERS]
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "dev", "source": "dev"},
    ]
    mounts += [
        {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": [memory, f"mode={mode}"]}
        for path, mode in folders
    ]
    # What lies below a folder of memory has to be shown once more.
    mounts += [_bind(str(one), "ro") for one in tools]
    mounts.append(_bind(WORK, "rw"))
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(command),
            "env": [f"PATH={os.defpath}"],
            "cwd": WORK,
            "noNewPrivileges": True,
            "capabilities": none,
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
        },
        "root": {"path": "/", "readonly": True},
        "hostname": "session",
        "mounts": mounts,
        "linux": {"namespaces": [{"type": one} for one in ("pid", "mount", "ipc", "uts")]},
    }


def _bind(path: str, access: str) -> dict[str, Any]:
    return {"destination": path, "type": "bind", "source": path, "options": ["rbind", access]}


def _refuse(what: str) -> Problem:
    fix = "install a newer one (gvisor.dev/docs/user_guide/install), or: --isolation namespace"
    return Problem(what, where="--isolation container", fix=fix)

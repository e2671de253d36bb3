"""A command inside its boundary, as whoever starts it sees it."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from bailee.boundary.firewall import KernelCount, read_count, write_firewall
from bailee.boundary.means import Means, tell_step
from bailee.policy.problems import Problem

INIT = Path(__file__).with_name("init.py")
SECONDS = 20.0


class Listener(msgspec.Struct, frozen=True):
    """A socket that is opened inside and served from outside; kind is "tcp" or "udp"."""

    name: str
    address: str
    port: int
    kind: str = "tcp"


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How a boundary is made.

    Attributes:
        listeners: what is served from outside.
        firewall: the rules, as `nft -f` reads them.
        filter: the filter of system calls; empty for none (a negative control's only).
        hidden: folders and files of which the command sees nothing.
        processes: how many there may be at once, where the kernel counts them for each namespace; 0 for no
        limit.
        nests: whether the command makes namespaces of processes, with a view of them, inside.
        all_users: whether root keeps what it may do to other users' files.
        gives_up_rights: whether the command has fewer rights than what makes its boundary (off in a negative
            control only).
    """

    listeners: tuple[Listener, ...]
    firewall: str
    filter: bytes
    hidden: tuple[str, ...] = ()
    processes: int = 0
    nests: bool = False
    all_users: bool = True
    gives_up_rights: bool = True


class Ended(msgspec.Struct, frozen=True):
    """How a command ended.

    Attributes:
        status: as a shell tells it.
        count: the kernel's; None where it was lost with the boundary.
        fault: why the command did not start, if it did not.
    """

    status: int
    count: KernelCount | None
    fault: str = ""


class Enclosure:
    """One boundary. It ends with this process, however that ends.

    Must be made in the main thread: the kernel ends it with the thread that made it.
    """

    def __init__(self, means: Means, layout: Layout) -> None:
        self._means = means
        self._layout = layout
        self._control: socket.socket
        self._process: subprocess.Popen[bytes]

    def prepare(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        *,
        output: IO[bytes] | None = None,
        channel: socket.socket | None = None,
    ) -> dict[str, socket.socket]:
        """Make everything but the command, and return the listeners by name.

        Args:
            output: where the command's output goes, standard error included; by default where ours goes.
            channel: what the command has as its standard input, to be asked by it.

        Raises:
            Problem: a step failed; nothing of it is left then, and the command has not begun.
        """
        check_descriptors()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(INIT), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=_choose_input(output, channel),
                stdout=output,
                stderr=output,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
            )
        self._control = ours
        asked = {
            "parent": os.getpid(),
            "nft": self._means.nft,
            "ip": self._means.ip,
            "firewall": self._layout.firewall,
            "filter": self._layout.filter.hex(),
            "hidden": list(self._layout.hidden),
            "processes": self._layout.processes,
            "nests": self._layout.nests,
            "all_users": self._layout.all_users,
            "gives_up_rights": self._layout.gives_up_rights,
            "listeners": [msgspec.to_builtins(one) for one in self._layout.listeners],
            "command": list(command),
            "environment": dict(environment),
            "folder": str(folder),
        }
        ours.settimeout(SECONDS)
        try:
            ours.sendall(json.dumps(asked).encode() + b"\n")
            told, descriptors, _, _ = socket.recv_fds(ours, 65536, 32)
        except OSError as error:
            told, descriptors = b"", []
            self.abandon()
            raise tell_step("set-up", f"it does not answer ({error.strerror or 'time'})") from None
        message: dict[str, Any] = json.loads(told) if told else {"fault": "it ended", "step": "set-up"}
        if "fault" in message:
            for descriptor in descriptors:
                os.close(descriptor)
            self.abandon()
            raise tell_step(message["step"], message["fault"])
        ours.settimeout(None)
        return dict(zip(message["ready"], (socket.socket(fileno=one) for one in descriptors), strict=True))

    @property
    def process_id(self) -> int:
        """The outer process, whose child is the first inside."""
        return self._process.pid

    def go(self) -> None:
        """Start the command."""
        self._control.sendall(b"go\n")

    def send_signal(self, number: int, /) -> None:
        """Pass a signal on to the command."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self) -> Ended:
        """Wait for the end of the command, and of all that it left running."""
        faults: list[str] = []
        for message in self._read():
            if "status" in message:
                status = os.waitstatus_to_exitcode(message["status"])
                counted = read_count(message["firewall"], message["interfaces"], message["protocols"])
                self._process.wait()
                self._control.close()
                return Ended(128 - status if status < 0 else status, counted, "".join(faults))
            if message.get("not_found"):
                faults.append("not found")
            elif "not_executable" in message:
                faults.append(message["not_executable"])
            else:
                faults.append(f"the boundary's {message.get('step')} failed: {message.get('fault')}")
        # Killed, by somebody who may: what it counted is gone with it.
        status = self._process.wait()
        self._control.close()
        return Ended(128 - status if status < 0 else status or 1, None, "".join(faults))

    def abandon(self) -> None:
        """End everything at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._control.close()

    def _read(self) -> Iterator[dict[str, Any]]:
        data = bytearray()
        while True:
            try:
                piece = self._control.recv(65536)
            except InterruptedError:
                continue
            if not piece:
                return
            data += piece
            while (end := data.find(b"\n")) >= 0:
                line, data = bytes(data[:end]), data[end + 1 :]
                yield json.loads(line)


def _choose_input(output: IO[bytes] | None, channel: socket.socket | None) -> int | None:
    if channel is not None:
        return channel.fileno()
    return None if output is None else subprocess.DEVNULL


def check_descriptors() -> None:
    """Refuse to hand on a network as standard input or output: an open connection knows no boundary.

    Raises:
        Problem: one of them is a socket that is not one end of a pair of this machine.
    """
    for descriptor, name in enumerate(("standard input", "standard output", "standard error")):
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
        except OSError:
            continue
        with socket.socket(fileno=os.dup(descriptor)) as held:
            if held.family == socket.AF_UNIX and held.type == socket.SOCK_STREAM and not held.getpeername():
                continue  # a pair, as programs make it for their children
        raise Problem(
            f"{name} is a socket, through which the command could send past the boundary",
            where=name,
            fix="give it a pipe, a file or a terminal",
        )


def make_layout(
    means: Means,
    *,
    service_port: int | None,
    hidden: Sequence[str] = (),
    processes: int = 0,
    ports: tuple[int, int, int],
) -> Layout:
    """Return the layout of every boundary.

    Args:
        service_port: where the service is reached inside, on 127.0.0.1.
        ports: the proxy's, the one where TCP is led, and the one for names.
    """
    proxy, redirect, names = ports
    listeners = [Listener("proxy", "127.0.0.1", proxy), Listener("redirect", "127.0.0.1", redirect)]
    listeners.append(Listener("names", "127.0.0.1", names, "udp"))
    if Path("/proc/net/if_inet6").exists():
        listeners += [Listener("redirect6", "::1", redirect), Listener("names6", "::1", names, "udp")]
    watched = [proxy, redirect]
    if service_port is not None:
        listeners.append(Listener("service", "127.0.0.1", service_port))
        watched.append(service_port)
    return Layout(
        listeners=tuple(listeners),
        firewall=write_firewall(tuple(watched), led_to=redirect, names_to=names),
        filter=means.filter,
        hidden=tuple(hidden),
        processes=processes,
    )

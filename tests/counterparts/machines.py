"""Machines of each kind, in a boundary of their own whose ports one serves."""

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bailee.boundary.enclosure import Enclosure, make_layout
from bailee.boundary.filters import write_filter
from bailee.boundary.means import find_means
from bailee.sandbox.containers import Containers
from bailee.sandbox.machines import Isolation, Kind, Limits, Machine, Spec
from bailee.sandbox.namespaces import Namespaces
from bailee.sandbox.virtual import VirtualMachines
from counterparts.clouds import CACHE

KINDS: dict[Kind, type[Isolation]] = {
    Kind.NAMESPACE: Namespaces,
    Kind.CONTAINER: Containers,
    Kind.VM: VirtualMachines,
}
os.environ["XDG_CACHE_HOME"] = str(CACHE)
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/session"}
SERVICE = 18999
NORMAL = Limits()


@dataclass
class Made:
    """A machine, and what was said in it."""

    machine: Machine
    isolation: Isolation
    folder: Path
    said: bytearray = field(default_factory=bytearray)

    def run(self, script: str, **more: object) -> int | None:
        """Run a script to its end, and return its status."""
        self.said.clear()
        return self.machine.exec(["sh", "-c", script], ENVIRONMENT, say=self.said.extend, **more)  # type: ignore[arg-type]

    @property
    def text(self) -> str:
        """What was said."""
        return self.said.decode("utf-8", "replace")


@contextmanager
def making(
    kind: Kind,
    folder: Path,
    limits: Limits = NORMAL,
    *,
    isolation: Isolation | None = None,
    has_firewall: bool = True,
) -> Iterator[Made]:
    """Give a machine of a kind, in a boundary whose ports one serves that answers with its name.

    Args:
        isolation: another than that of the kind.
        has_firewall: whether TCP is led to the boundary's proxy.
    """
    isolation = isolation or KINDS[kind]()
    means = find_means()
    layout = make_layout(means, service_port=SERVICE, ports=(18997, 18998, 18996), processes=limits.processes)
    if not has_firewall:
        layout = msgspec.structs.replace(layout, firewall="")
    if isolation.answers_itself:
        written = write_filter(os.uname().machine, unix_sockets=True)
        layout = msgspec.structs.replace(layout, filter=written, nests=True)
    enclosure = Enclosure(means, layout)
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    served: list[socket.socket] = []

    def begin(words: Sequence[str], channel: socket.socket) -> Enclosure:
        for name, listener in enclosure.prepare(words, {"PATH": os.defpath}, folder, channel=channel).items():
            served.append(listener)
            if listener.type == socket.SOCK_STREAM:
                threading.Thread(target=answer, args=(listener, name), daemon=True).start()
        enclosure.go()
        return enclosure

    machine = isolation.create(Spec(folder=disk, limits=limits), begin)
    try:
        machine.wait_ready()
        yield Made(machine, isolation, disk)
    finally:
        machine.destroy()
        for listener in served:
            listener.close()


def answer(listener: socket.socket, name: str) -> None:
    """Tell everybody who connects which port it was."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)
            connection.sendall(f"HTTP/1.0 200 OK\r\n\r\nthis is {name}\n".encode())

"""Holds probes in machines of cloud sessions: `python -m attacks.machines`, orders on standard input.

Many in one machine, as one of another kernel takes seconds to begin and a probe much less.
"""

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from attacks.holding import PORTS, SECRET, make_rules
from attacks.internet import HOST_PORT
from bailee.boundary.enclosure import Enclosure, make_layout
from bailee.boundary.exits import Exit
from bailee.boundary.filters import write_filter
from bailee.boundary.means import find_means
from bailee.boundary.reconciliation import reconcile
from bailee.flows.web.authorities import Authority
from bailee.flows.web.log import ConnectionLog, read_log
from bailee.flows.web.placeholders import Secrets, make_secret
from bailee.sandbox.machines import Kind, Limits, Spec
from bailee.service.isolations import make_isolation

HERE = Path(__file__).parent
INSIDE = "/session/attacks"
WITHOUT_A_LOG, AFTER_THE_END = "lifetime.without_a_log", "lifetime.after_the_end"
LIMITS = Limits(memory_mb=1000)


class Order(msgspec.Struct):
    """Probes to be held in one machine.

    Attributes:
        probes: with their canaries.
        environment: what they are told.
    """

    kind: Kind
    probes: dict[str, str]
    environment: dict[str, str]


def hold(order: Order) -> dict[str, object]:
    """Run probes in one machine, and return what each said, and how the two counts compare."""
    means = find_means()
    isolation = make_isolation(order.kind)
    secret = make_secret("ATTACK_TOKEN", SECRET, ["opened.example"])
    layout = make_layout(means, service_port=HOST_PORT, ports=PORTS, processes=LIMITS.processes)
    if isolation.answers_itself:
        written = write_filter(os.uname().machine, unix_sockets=True)
        layout = msgspec.structs.replace(layout, filter=written, nests=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "disk").mkdir()
        key = os.urandom(32)
        log = ConnectionLog(folder / "log", key, "attack")
        if WITHOUT_A_LOG in order.probes:
            log._fault = "no space left on device"
        way_out = Exit(
            make_rules(),
            log,
            secrets=Secrets([secret]),
            authority=Authority(),
            service=("127.0.0.1", HOST_PORT),
        )
        enclosure = Enclosure(means, layout)

        def begin(words: Sequence[str], channel: socket.socket) -> Enclosure:
            way_out.start(enclosure.prepare(words, {"PATH": os.defpath}, folder, channel=channel))
            enclosure.go()
            return enclosure

        machine = isolation.create(Spec(folder=folder / "disk", limits=LIMITS), begin)
        said = bytearray()
        try:
            machine.wait_ready()
            for path in (*HERE.glob("*.py"), *HERE.glob("probes/*.py")):
                machine.put(f"{INSIDE}/{path.relative_to(HERE)}", path.read_bytes(), mode=0o644)
            environment = {
                **order.environment,
                "ATTACK_TOKEN": secret.placeholder,
                "PROBE_PROXY": f"http://{isolation.address}:{PORTS[0]}",
                "PROBES": json.dumps(order.probes),
            }
            command = [sys.executable, "-I", f"{INSIDE}/runner.py"]
            status = machine.exec(command, environment, say=said.extend)
            if AFTER_THE_END not in order.probes:
                time.sleep(1)  # what was left running has a while to go on
        finally:
            ended = machine.destroy()
            way_out.end()
        rows = list(read_log((folder / "log").read_bytes(), key, "attack"))
        counts = reconcile(rows, ended.count)
    return {
        "status": status,
        "said": said.decode(errors="replace"),
        "verdict": counts.verdict,
        "differences": counts.differences,
    }


def main() -> None:
    """Hold until there are no more orders."""
    for line in sys.stdin:
        try:
            told = hold(msgspec.json.decode(line, type=Order))
        except Exception as fault:
            told = {"status": -1, "said": "", "fault": f"{type(fault).__name__}: {fault}"}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

"""A program that runs a command in a boundary with a way out, and tells who does what: for who kills them.

`python -m counterparts.enclosed FOLDER COMMAND...` runs until the command ends. The process ids are told
on the first line of standard output: this one, the outer process of the boundary, and the first one inside.
"""

import os
import sys
from pathlib import Path

from bailee.boundary.enclosure import Enclosure, make_layout
from bailee.boundary.exits import Exit
from bailee.boundary.means import find_means
from bailee.boundary.reconciliation import reconcile
from bailee.flows.web.log import ConnectionLog, read_log
from bailee.flows.web.rules import Rules


def main(folder: Path, command: list[str]) -> None:
    """Run the command."""
    means = find_means()
    layout = make_layout(means, service_port=None, ports=(3128, 15001, 15053))
    key = os.urandom(32)
    log = ConnectionLog(folder / f"{os.getpid()}.log", key, "enclosed")
    enclosure = Enclosure(means, layout)
    environment = {"PATH": os.environ["PATH"], "http_proxy": "http://127.0.0.1:3128"}
    listeners = enclosure.prepare(command, environment, folder)
    way_out = Exit(Rules(), log)
    way_out.start(listeners)
    outer = enclosure.process_id
    (first,) = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
    sys.stdout.write(f"{os.getpid()} {outer} {first}\n")
    sys.stdout.flush()
    enclosure.go()
    ended = enclosure.wait()
    way_out.end()
    rows = list(read_log((folder / f"{os.getpid()}.log").read_bytes(), key, "enclosed"))
    sys.stdout.write(f"{ended.status} {reconcile(rows, ended.count).verdict}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

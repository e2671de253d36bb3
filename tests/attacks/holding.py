"""Holds probes one after the other: `python -m attacks.holding`, orders on standard input.

In the boundary of `bailee run`, or where an order says so with one protection of it switched off, or without
a boundary at all.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import msgspec

from attacks import naive
from attacks.internet import FORBIDDEN, HOST_PORT
from bailee.boundary import exits
from bailee.boundary.confinement import write_confinement
from bailee.boundary.enclosure import Enclosure, Layout, make_layout
from bailee.boundary.exits import Exit
from bailee.boundary.means import find_means
from bailee.boundary.reconciliation import reconcile
from bailee.flows.web import proxy as proxies
from bailee.flows.web import sessions
from bailee.flows.web.authorities import Authority
from bailee.flows.web.hello import Hello
from bailee.flows.web.log import ConnectionLog, read_log
from bailee.flows.web.placeholders import Secrets, TakingOut, make_secret
from bailee.flows.web.rules import Rule, Rules, Wire, check_rule
from bailee.sandbox.namespaces import write_machine

RUN = Path(__file__).with_name("probes") / "__main__.py"
SANDBOX_RUNTIME = "sandbox-runtime"
MACHINE = "machine"  # that of a cloud session, inside the boundary
RUNTIME = Path(__file__).parents[2] / "node_modules/@anthropic-ai/sandbox-runtime/dist/cli.js"
PORTS = (3128, 15001, 15053)
SECRET = "the-real-secret-of-this-account"
OWN_KEY = "key-of-this-account"
LED = [
    "private",
    "loopback",
    "metadata",
    "nat64",
    "sixtofour",
    "teredo",
    "mapped",
    "ula",
    "mixed",
    "own",
]  # names that lead to where nobody may go


class Order(msgspec.Struct):
    """A probe to be held.

    Attributes:
        off: the protection that is switched off; empty for none.
        environment: what the probe is told.
    """

    probe: str
    off: str
    environment: dict[str, str]
    folder: str


def make_rules() -> Rules:
    """Return what the probes may reach."""
    allowed = [
        Rule(host="allowed.example", origin="test"),
        Rule(host="*.wild.example", origin="test"),
        Rule(host="plain.example", ports=(80,), wire=Wire.HTTP, origin="test"),
        Rule(host="opened.example", methods=("GET",), paths=("/repos/acme/*",), origin="test"),
        Rule(host="bound.example", headers={"x-api-key": OWN_KEY}, origin="test"),
        Rule(host="limited.example", bytes=20_000, origin="test"),
        *(Rule(host=f"{name}.example", origin="test") for name in LED),
    ]
    denied = Rule(host="denied.wild.example", ports=(80, 443), origin="test")
    return Rules(allowed=tuple(map(check_rule, allowed)), forbidden=(denied,))


def hold(order: Order) -> dict[str, object]:
    """Run a probe and return what it said, and how the two counts compare."""
    with socket.create_connection((FORBIDDEN, 80)) as held:
        held.set_inheritable(True)
        other = subprocess.Popen(["sleep", "60"], env={"PROBE_OUTSIDE": "1", "PATH": os.environ["PATH"]})
        try:
            order.environment |= {"PROBE_OPEN": str(held.fileno()), "PROBE_PROCESS": str(other.pid)}
            return _hold(order)
        finally:
            other.kill()
            other.wait()


def _hold(order: Order) -> dict[str, object]:
    command = [sys.executable, "-I", str(RUN), order.probe]
    folder = Path(order.folder)
    if order.off == "boundary":
        return _run_free(command, order.environment, folder)
    if order.off == SANDBOX_RUNTIME:
        return _run_in_sandbox_runtime(command, order.environment, folder)
    means = find_means()
    secret = make_secret("ATTACK_TOKEN", SECRET, ["opened.example"])
    environment = {**order.environment, "ATTACK_TOKEN": secret.placeholder}
    authority = Authority()
    (folder / "authority.pem").write_bytes(authority.certificate)
    rules = make_rules()
    with ExitStack() as stack:
        layout = make_layout(means, service_port=HOST_PORT, hidden=[str(folder / "home")], ports=PORTS)
        layout, rules = _switch_off(order.off, layout, rules, stack)
        held = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "log"
        key = os.urandom(32)
        log = ConnectionLog(held, key, "attack")
        if order.off == "log":
            log.append = lambda row: None  # type: ignore[method-assign]
        elif order.probe == "lifetime.without_a_log":
            log._fault = "no space left on device"
        enclosure = Enclosure(means, layout)
        words = command
        if order.off == MACHINE:
            shown = [str(path) for path in folder.glob("*.pem")]
            tools = [Path(sys.prefix), Path(sys.base_prefix), RUN.parent]
            words = write_machine(means, command, folder / "project", readable=shown, tools=tools)
        elif order.probe.startswith("files.") and order.off != "confine":
            words = write_confinement(
                means, command, folder / "project", readable=[str(folder)], environment=environment
            )
        output = folder / "output"
        with output.open("wb") as file, _output_to(file.fileno()):
            listeners = enclosure.prepare(words, environment, folder / "project")
        way_out = Exit(
            rules,
            log,
            secrets=Secrets([secret]),
            authority=authority,
            service=("127.0.0.1", HOST_PORT),
        )
        way_out.start(listeners)
        enclosure.go()
        ended = enclosure.wait()
        way_out.end()
        rows = list(read_log(held.read_bytes(), key, "attack"))
        counts = reconcile(rows, ended.count)
        said = output.read_text(errors="replace")
    return {
        "status": ended.status,
        "said": said + ended.fault,
        "verdict": counts.verdict,
        "differences": counts.differences,
        "refused": [row.rule for row in rows if type(row).__name__ == "Refused"],  # type: ignore[union-attr]
    }


def _run_free(command: list[str], environment: dict[str, str], folder: Path) -> dict[str, object]:
    free = {name: value for name, value in environment.items() if name != "PROBE_PROXY"}
    done = subprocess.run(
        command,
        env=free,
        cwd=folder / "project",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        pass_fds=[int(environment["PROBE_OPEN"])],
    )
    return {"status": done.returncode, "said": done.stdout + done.stderr}


def _run_in_sandbox_runtime(
    command: list[str], environment: dict[str, str], folder: Path
) -> dict[str, object]:
    """Run a probe in Anthropic's sandbox-runtime, with the same hosts allowed as far as it has such rules."""
    settings = {
        "network": {
            "allowedDomains": [rule.host for rule in make_rules().allowed],
            "deniedDomains": ["denied.wild.example"],
        },
        "filesystem": {
            "denyRead": [str(folder / name) for name in (".ssh", ".netrc", "home")],
            "allowWrite": ["."],
            "denyWrite": [],
        },
    }
    path = folder / "srt.json"
    path.write_text(json.dumps(settings))
    given = {name: value for name, value in environment.items() if name != "PROBE_PROXY"}
    done = subprocess.run(
        ["node", str(RUNTIME), "--settings", str(path), "-c", shlex.join(command)],
        env={**given, "PROBE_PROXY_OF": "HTTP_PROXY", "ATTACK_TOKEN": "none"},
        cwd=folder / "project",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        pass_fds=[int(environment["PROBE_OPEN"])],
    )
    return {"status": done.returncode, "said": done.stdout + done.stderr}


class _output_to:  # noqa: N801 - used as a function
    """Let what is started meanwhile write there."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        self._kept = [(number, os.dup(number)) for number in (1, 2)]
        for number, _ in self._kept:
            os.dup2(self._descriptor, number)

    def __exit__(self, *_: object) -> None:
        for number, kept in self._kept:
            os.dup2(kept, number)
            os.close(kept)


Off = Callable[[Layout, Rules, ExitStack], tuple[Layout, Rules]]


def _switch_off(name: str, layout: Layout, rules: Rules, stack: ExitStack) -> tuple[Layout, Rules]:
    def patch(where: object, what: str, new: object) -> None:
        stack.enter_context(mock.patch.object(where, what, new))

    if name == "filter":
        return msgspec.structs.replace(layout, filter=b""), rules
    if name == "hidden":
        return msgspec.structs.replace(layout, hidden=()), rules
    if name == "rules":
        return layout, msgspec.structs.replace(rules, is_observing=True)
    if name == "addresses":
        patch(sessions, "tell_forbidden", lambda address, own: "")
    elif name == "hello":
        patch(proxies, "check_hello", lambda *_: None)
        patch(proxies, "read_hello", lambda data: Hello("any", is_encrypted=False))
    elif name == "requests":
        patch(Rule, "tell_refused", lambda *_: "")
    elif name == "bytes":
        patch(sessions.Session, "may_send", lambda *_: True)
    elif name == "taking out":
        patch(Secrets, "take_out", lambda self, text: text)
        patch(TakingOut, "feed", lambda self, piece: piece)
        patch(TakingOut, "finish", lambda self: b"")
    elif name == "bound secrets":
        patch(Secrets, "for_host", lambda self, target: self)
    elif name == "capabilities":
        return msgspec.structs.replace(layout, gives_up_rights=False), rules
    elif name == "strict":
        patch(proxies, "read_head", naive.read_head)
        patch(proxies, "read_target", naive.read_target)
        patch(Rules, "decide", naive.decide)
        patch(sessions, "tell_forbidden", lambda address, own: "")
        patch(exits, "resolve", naive.resolve)
        patch(proxies, "read_hello", lambda data: Hello("any", is_encrypted=False))
        patch(proxies, "check_hello", lambda *_: None)
    return layout, rules


def main() -> None:
    """Hold until there are no more orders."""
    for line in sys.stdin:
        order = msgspec.json.decode(line, type=Order)
        try:
            told = hold(order)
        except Exception as fault:
            told = {"status": -1, "said": "", "fault": f"{type(fault).__name__}: {fault}"}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

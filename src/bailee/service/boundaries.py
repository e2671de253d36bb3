"""A run inside its boundary: what it may reach, its way out, and what both counts say when it has ended."""

import contextlib
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import msgspec

from bailee.boundary.enclosure import Enclosure, Ended, make_layout
from bailee.boundary.exits import Exit
from bailee.boundary.filters import write_filter
from bailee.boundary.firewall import NAMES_PORT, PROXY_PORT, REDIRECT_PORT
from bailee.boundary.means import Means
from bailee.boundary.reconciliation import reconcile
from bailee.flows.web.files import NAME, RulesFile, find_secrets, read_rules_file
from bailee.flows.web.log import LogBroken
from bailee.flows.web.placeholders import Secret, Secrets
from bailee.flows.web.receiver import begin_log, end_log, read_rows
from bailee.flows.web.rules import Rules
from bailee.policy.problems import Problem
from bailee.sandbox.machines import Isolation, Machine, Spec
from bailee.sandbox.namespaces import check_home
from bailee.sealing.wrapping import KeyWrapper
from bailee.service.boundary_receipts import BoundaryReceipt, summarize
from bailee.service.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable

    from bailee.flows.web.authorities import Authority

WATCH_SECONDS = 0.5
# How long a command that abuse stopped has to end by itself.
STOP_SECONDS = 5.0
SERVICE_RULE = "the service"
PROXY_URL = "http://{address}:{port}"
AUTHORITIES = "/run/authorities.pem"  # in a machine
LOOPBACK = "localhost,127.0.0.1,::1"
# What programs and libraries read for the proxy, and for authorities; Node's adds to its own.
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
AUTHORITY_VARIABLES = (
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
)


class _Signalled(Protocol):
    def send_signal(self, sig: int, /) -> None: ...


class Surroundings:
    """The boundary of one run.

    Args:
        run: its name.
        service_url: where the service is.
        make_rules: makes the rules, with what a file says.
        means: None for a run that nothing holds.
        secrets: besides those of the file.
        stops: whether abuse ends it, where the file does not say.
    """

    def __init__(
        self,
        home: Path,
        run: str,
        *,
        service_url: str,
        make_rules: "Callable[[RulesFile], Rules]",
        means: Means | None,
        is_confined: bool = False,
        account: str,
        key_id: str,
        wrapper: KeyWrapper,
        environment: Mapping[str, str],
        secrets: Sequence[Secret] = (),
        stops: bool = False,
    ) -> None:
        self.stopped_for = ""  # the abuse that ended it
        self._stops = stops
        self._killing: threading.Timer | None = None
        self._home = home
        self._run = run
        self._make_rules = make_rules
        self._means = means
        self._is_confined = is_confined
        self._file = _read_file(home)
        self._rules = make_rules(self._file)
        self._secrets = (*find_secrets(self._file, environment), *secrets)
        self._log, self._secret = begin_log(home, run, account=account, key=key_id, wrapper=wrapper)
        self._folder = Scratch()
        self._authority = _make_authority(self._secrets, self._rules)
        parts = urlsplit(service_url)
        self._service = (
            parts.hostname or "127.0.0.1",
            parts.port or (443 if parts.scheme == "https" else 80),
        )

    @property
    def rules(self) -> Rules:
        """The rules as they are now."""
        return self._rules

    def run(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Ended:
        """Run a command to its end; it does not begin where anything of the boundary cannot be made.

        Raises:
            Problem: the boundary cannot be made.
        """
        assert self._means is not None
        ports = free_ports(self._service[1])
        layout = make_layout(
            self._means, service_port=self._service[1], hidden=[str(self._home)], ports=ports
        )
        enclosure = Enclosure(self._means, layout)
        inside = self._lead(environment, PROXY_URL.format(address="127.0.0.1", port=ports[0]))
        words = self._confine(command, folder) if self._is_confined else command
        listeners = enclosure.prepare(words, inside, folder)
        way_out = self._make_exit(lambda: enclosure)
        try:
            way_out.start(listeners)
            with self._watching(way_out):
                enclosure.go()
                with _forwarding(enclosure):
                    return enclosure.wait()
        except BaseException:
            enclosure.abandon()
            raise
        finally:
            self._end(way_out)

    @contextlib.contextmanager
    def holding(self, isolation: Isolation, spec: Spec) -> Iterator[Machine]:
        """Give a machine inside the boundary, and destroy it at the end.

        Raises:
            Problem: the machine or its boundary cannot be made, or the home would be shown in it.
        """
        assert self._means is not None
        # The home is not hidden here: nothing of it is in a machine but the disk, which lies in it.
        check_home(self._home, spec.program)
        layout = make_layout(
            self._means,
            service_port=self._service[1],
            ports=free_ports(self._service[1]),
            processes=spec.limits.processes,
        )
        if isolation.answers_itself:
            written = write_filter(os.uname().machine, unix_sockets=True)
            layout = msgspec.structs.replace(layout, filter=written, nests=True)
        enclosure = Enclosure(self._means, layout)
        # Whoever drives the machine looks at `stopped_for`, and ends it so that what it was asked is told.
        way_out = self._make_exit(lambda: None)

        def begin(words: Sequence[str], channel: socket.socket) -> Enclosure:
            least = {"PATH": os.defpath, "LANG": "C.UTF-8"}
            way_out.start(enclosure.prepare(words, least, self._folder.path, channel=channel))
            enclosure.go()
            return enclosure

        machine = None
        try:
            machine = isolation.create(spec, begin)
            with self._watching(way_out):
                machine.wait_ready()
                if self._authority is not None:
                    machine.put(AUTHORITIES, self._read_authorities({}), mode=0o644)
                yield machine
        finally:
            if machine is not None:
                machine.destroy()
            self._end(way_out)

    def run_unenforced(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Ended:
        """Run a command that is only led to the proxy, and may go past it."""
        import secrets
        import subprocess

        credential = f"run:{secrets.token_urlsafe(24)}"
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        url = f"http://{credential}@127.0.0.1:{listener.getsockname()[1]}"
        process: subprocess.Popen[bytes] | None = None
        way_out = self._make_exit(lambda: process, credential)
        way_out.start({"proxy": listener})
        try:
            with self._watching(way_out):
                try:
                    process = subprocess.Popen(command, env=self._lead(environment, url), cwd=folder)
                except FileNotFoundError:
                    return Ended(127, None, "not found")
                except OSError as error:
                    return Ended(126, None, error.strerror or "not executable")
                with _forwarding(process):
                    status = process.wait()
                return Ended(128 - status if status < 0 else status, None)
        finally:
            self._end(way_out)

    def tell(self, ended: Ended, isolation: str = "") -> BoundaryReceipt:
        """Return what the boundary saw, once its command has ended.

        Args:
            isolation: the kind of machine that it was.

        Raises:
            Problem: the log was changed.
        """
        try:
            rows = read_rows(self._home, self._run, self._secret)
        except (LogBroken, OSError) as fault:
            raise Problem(
                f"the log of connections cannot be read: {fault}",
                where=str(self._home / "boundary"),
                fix="do not trust this run: somebody changed what lies in the home",
            ) from None
        finally:
            self._folder.cleanup()
        end_log(self._home, self._run)
        return summarize(
            rows,
            self._rules,
            reconcile(rows, ended.count),
            enforcement="none" if self._means is None else "namespaces",
            confined=self._is_confined,
            digest=self._log.last.hex(),
            isolation=isolation,
        )

    # --- Parts ---

    def _make_exit(
        self, find_process: "Callable[[], _Signalled | None]", credential: str | None = None
    ) -> Exit:
        def stop(reason: str) -> None:
            self.stopped_for = reason
            if (process := find_process()) is not None:
                process.send_signal(signal.SIGTERM)
                self._killing = threading.Timer(STOP_SECONDS, process.send_signal, [signal.SIGKILL])
                self._killing.daemon = True
                self._killing.start()

        return Exit(
            self._rules,
            self._log,
            secrets=Secrets(self._secrets),
            authority=self._authority,
            service=self._service,
            credential=credential,
            limits=self._file.abuse,
            stops=self._stops,
            on_stop=stop,
        )

    def _end(self, way_out: Exit) -> None:
        way_out.end()
        if self._killing is not None:
            self._killing.cancel()

    def lead_machine(self, environment: Mapping[str, str], address: str) -> dict[str, str]:
        """Return an environment for a machine that leads to the proxy and has placeholders where secrets are.

        Args:
            address: where the machine finds the boundary's loopback.
        """
        url = PROXY_URL.format(address=address, port=free_ports(self._service[1])[0])
        inside = self._lead(environment, url, AUTHORITIES)
        inside["NO_PROXY"] = inside["no_proxy"] = ",".join(dict.fromkeys((*LOOPBACK.split(","), address)))
        return inside

    def _lead(
        self, environment: Mapping[str, str], url: str, authorities: str | None = None
    ) -> dict[str, str]:
        inside = dict(environment)
        inside |= dict.fromkeys(PROXY_VARIABLES, url)
        inside["NO_PROXY"] = inside["no_proxy"] = LOOPBACK
        # Node looks at the variables above since version 24, if it is told to.
        inside["NODE_USE_ENV_PROXY"] = "1"
        for secret in self._secrets:
            inside[secret.name] = secret.placeholder
        if self._authority is not None:
            if authorities is None:
                path = self._folder.path / "authorities.pem"
                path.write_bytes(self._read_authorities(environment))
                authorities = str(path)
            inside |= dict.fromkeys(AUTHORITY_VARIABLES, authorities)
        return inside

    def _read_authorities(self, environment: Mapping[str, str]) -> bytes:
        assert self._authority is not None
        return _read_authorities(environment) + self._authority.certificate

    def _confine(self, command: Sequence[str], folder: Path) -> list[str]:
        from bailee.boundary.confinement import write_confinement

        assert self._means is not None
        return write_confinement(self._means, command, folder, readable=(str(self._folder.path),))

    @contextlib.contextmanager
    def _watching(self, way_out: Exit) -> Iterator[None]:
        """Put changes of the rules in force as they are made. A file that cannot be read allows nothing."""
        done = threading.Event()
        known = _stamp(self._home)

        def watch() -> None:
            nonlocal known
            while not done.wait(WATCH_SECONDS):
                if (stamp := _stamp(self._home)) != known:
                    known = stamp
                    try:
                        self._file = _read_file(self._home)
                    except Problem:
                        self._file = RulesFile(abuse=self._file.abuse)
                    self._rules = self._make_rules(self._file)
                    with contextlib.suppress(TimeoutError, RuntimeError):
                        way_out.change(self._rules, self._file.abuse)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()


def _make_authority(secrets: Sequence[Secret], rules: Rules) -> "Authority | None":
    """Return an authority where TLS is to be opened for anything."""
    if not secrets and not rules.is_opening:
        return None
    from bailee.flows.web.authorities import Authority

    return Authority()


def _read_file(home: Path) -> RulesFile:
    path = home / NAME
    return read_rules_file(path) if path.exists() else RulesFile()


def _stamp(home: Path) -> tuple[int, int, int] | None:
    try:
        found = (home / NAME).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def free_ports(taken: int) -> tuple[int, int, int]:
    """Return the boundary's own ports; nothing else listens there as it begins but the service's."""
    shift = 1 if taken in (PROXY_PORT, REDIRECT_PORT, NAMES_PORT) else 0
    return PROXY_PORT + shift, REDIRECT_PORT + shift, NAMES_PORT + shift


def _read_authorities(environment: Mapping[str, str]) -> bytes:
    """Return the authorities that this machine trusts, so that a bundle of ours leaves none out."""
    places = [environment.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile]
    places += ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"]
    for place in places:
        if place and os.path.exists(place):  # noqa: PTH110 - may be any string
            return Path(place).read_bytes().rstrip() + b"\n"
    return b""


@contextlib.contextmanager
def _forwarding(process: _Signalled) -> Iterator[None]:
    """Pass signals on; a terminal's Ctrl-C and Ctrl-\\ have reached the command already."""

    def forward(number: int, frame: object) -> None:
        process.send_signal(number)

    passed = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.signal(number, forward) for number in passed}
    shared = signal.SIG_IGN if os.isatty(0) else forward
    before |= {number: signal.signal(number, shared) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

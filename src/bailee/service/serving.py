"""Runs the service: listeners, recorder, gateway and application, started and ended in order."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy.exc
import uvicorn
import uvloop
from starlette.applications import Starlette

from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.holders import user_name
from bailee.accounts.keys import open_key_ring
from bailee.accounts.operators import find_account_of_user
from bailee.accounts.sign_ins import make_link
from bailee.dumps import forbid_dumps
from bailee.flows.errors.receiver import ErrorsReceiver
from bailee.flows.feedback.github import find_tracker
from bailee.flows.feedback.queue import IssueQueue, enqueue
from bailee.flows.feedback.receiver import FeedbackReceiver
from bailee.flows.feedback.storage import erase_report, find_sent
from bailee.flows.forwarding.hops import read_hops
from bailee.flows.messages.connections import ConnectionPool
from bailee.flows.messages.gateway import Gateway
from bailee.flows.messages.models import make_routes
from bailee.flows.messages.receiver import MessagesProtocol
from bailee.flows.messages.upstreams import Origin
from bailee.flows.metrics.receiver import MetricsReceiver
from bailee.flows.survey.receiver import SurveyReceiver
from bailee.flows.web.receiver import ConnectionsReceiver
from bailee.manifests import load_manifest
from bailee.policy.contexts import Context
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.rates import Rates
from bailee.service.application import create_application
from bailee.service.cloud_api import CloudApi
from bailee.service.cloud_disks import sweep_disks, sweep_grants
from bailee.service.configuration import Configuration, check, find_proxy, make_tls, make_upstream
from bailee.service.console import ConsoleRoutes, describe_installation, make_link_url
from bailee.service.forwarding import decide_forwarding, make_forwarder
from bailee.service.logins import Logins
from bailee.service.repositories import make_git
from bailee.service.running import FILE_NAME, Running, lock_home
from bailee.service.runs import list_running, sweep, withdraw
from bailee.service.sweeping import Sweeping
from bailee.service.sweeping import make_routes as make_monitoring_routes
from bailee.vault.health import check_retention, has_due_work, watch_work
from bailee.vault.intake import Intake
from bailee.vault.reader import read_session
from bailee.vault.recording import Recording
from bailee.vault.store import open_keys, open_vault

GRACE_SECONDS = 10
# What a key may send at once of metrics or errors, in seconds of its rate.
BURST_SECONDS = 20
# Of reports and of ratings, which people make by hand: how many a second, and at once.
REPORTS, RATINGS = (20 / 3600, 20), (60 / 3600, 60)
# How long the key of a `bailee run` that was killed stays in force, and its service up.
SWEEP_SECONDS = 1.0
# A run waits for its log to be taken before it tells its receipt.
COLLECT_SECONDS = 0.05
# How long the disk of a cloud session may be there after its day has begun.
DISK_SECONDS = 30.0


def run(
    configuration: Configuration, announce: Callable[[str, str], None], tell: Callable[[str], None]
) -> None:
    """Serve until interrupted.

    Args:
        announce: called once with the URL, when requests are answered, and with the one that signs whoever
            runs this in to the console once; empty for a service that is there for runs alone.
        tell: called with what else is worth knowing, before that.

    Raises:
        Problem: the configuration, the home or the address cannot be used.
    """
    check(configuration)
    forbid_dumps()  # conversations pass through this process
    try:
        configuration.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise Problem(
            "the home is no folder", where=f"--home {configuration.home}", fix="name a folder"
        ) from None
    with lock_home(configuration.home):
        uvloop.run(_serve(configuration, os.environ, announce, tell))


async def _serve(
    configuration: Configuration,
    environment: Mapping[str, str],
    announce: Callable[[str, str], None],
    tell: Callable[[str], None],
) -> None:
    tracker = find_tracker(environment)
    read_hops(configuration.forward, environment)  # what cannot be used is told before anything starts
    listener = listen(configuration.host, configuration.port)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(listener.close)
        rehearsal = None
        if configuration.upstream == "rehearsal":
            rehearsal = await stack.enter_async_context(_rehearse())
        upstream = make_upstream(configuration, environment, rehearsal)
        tls = make_tls(configuration, upstream.origin)
        pool = ConnectionPool(upstream.origin, tls=tls, proxy=find_proxy(upstream.origin, environment))
        stack.callback(pool.close)
        keys = open_key_ring(configuration.home)
        stack.callback(keys.close)
        recording = Recording(configuration.home, secrets.randbits)
        await recording.start()
        stack.push_async_callback(recording.close)
        manifest = load_manifest("bailee")
        gateway = Gateway(
            flow=manifest.flow("messages"),
            keys=keys,
            upstream=upstream,
            pool=pool,
            recording=recording,
        )
        watch = asyncio.create_task(gateway.watch())
        stack.callback(watch.cancel)
        intake = partial(Intake, keys=keys, provider=upstream.provider, recording=recording)
        often = partial(Rates, configuration.intake_rate, configuration.intake_rate * BURST_SECONDS)
        intakes = [intake(flow=manifest.flow(name), rates=often()) for name in ("metrics", "errors")]
        metrics, errors = MetricsReceiver(intakes[0]), ErrorsReceiver(intakes[1])
        survey = SurveyReceiver(
            flow=manifest.flow("survey"),
            keys=keys,
            provider=upstream.provider,
            recording=recording,
            rates=Rates(*RATINGS),
        )
        vault, keystore = open_vault(configuration.home), open_keys(configuration.home)
        stack.callback(vault.dispose)
        stack.callback(keystore.close)
        feedback = FeedbackReceiver(
            flow=manifest.flow("feedback"),
            keys=keys,
            provider=upstream.provider,
            recording=recording,
            rates=Rates(*REPORTS),
            find_sent=partial(find_sent, vault),
            erase=partial(erase_report, configuration.home),
            enqueue=partial(enqueue, vault),
            tracker=tracker,
        )
        if tracker is not None:

            def read(account: str, report: str, exchange: int) -> bytes | None:
                today = datetime.now(UTC).date()
                held = read_session(vault, keystore, account, report, today=today)
                return next((one.request.reveal() for one in held if one.exchange == exchange), None)

            issues = asyncio.create_task(IssueQueue(tracker, vault, read).run())
            stack.push_async_callback(_cancel, issues)
        directory = open_directory(configuration.home)
        stack.callback(directory.close)
        has_due, has_work = partial(has_due_work, vault), watch_work(vault, keystore, directory.engine)
        sweeping = asyncio.create_task(Sweeping(configuration.home, has_due, has_work).run())
        stack.push_async_callback(_cancel, sweeping)
        if hops := read_hops(configuration.forward, environment):

            def open_segment(account: str, session: str, segment: int) -> Iterator[tuple[int, bytes]]:
                today = datetime.now(UTC).date()
                held = read_session(vault, keystore, account, session, today=today, segment=segment)
                return ((one.exchange, one.request.reveal()) for one in held)

            forwarder = make_forwarder(
                hops, vault, open_segment, directory, provider=upstream.provider, environment=environment
            )
            general = decide_forwarding(Context(provider=upstream.provider), environment)
            told = "on" if general.allowed else f"switched off by {general.decided_by}"
            tell(f"Forwarding to {', '.join(hop.target for hop in hops)} is {told}.")
            forwarder.begin()
            stack.push_async_callback(_cancel, asyncio.create_task(forwarder.run()))
        connections = ConnectionsReceiver(
            configuration.home,
            flow=manifest.flow("web"),
            wrapper=keystore.wrapper,
            recording=recording,
            find_context=partial(_find_context, directory, upstream.provider),
        )
        collecting = asyncio.create_task(_collect(connections, configuration.home))
        stack.push_async_callback(_collect_last, connections, configuration.home)
        stack.push_async_callback(_cancel, collecting)
        git, git_recorder = make_git(
            configuration.home,
            flow=manifest.flow("git"),
            keys=keys,
            recording=recording,
            directory=directory,
            wrapper=keystore.wrapper,
            find_context=partial(_find_context, directory, upstream.provider),
            abuse=connections.abuse,
        )
        stack.push_async_callback(git_recorder.finish)
        stack.push_async_callback(git.close)
        disks = asyncio.create_task(_sweep_disks(configuration.home, directory))
        stack.push_async_callback(_cancel, disks)
        console = ConsoleRoutes(
            describe_installation(
                configuration,
                upstream,
                hops=hops,
                tracker=tracker,
                environment=environment,
            )
        )
        stack.callback(console.close)
        cloud = CloudApi(configuration.home, keys, is_kept=not configuration.while_used)
        stack.callback(cloud.close)
        logins = Logins(directory, keys, is_first_party=upstream.is_first_party)
        stack.push_async_callback(_cancel, asyncio.create_task(logins.watch()))
        application = create_application(
            [
                *make_routes(gateway),
                *metrics.make_routes(),
                *errors.make_routes(),
                *survey.make_routes(),
                *logins.make_routes(),
                *feedback.make_routes(),
                *git.make_routes(),
                *cloud.make_routes(),
                *console.make_routes(),
                *make_monitoring_routes(
                    partial(check_retention, vault, keystore), intakes, connections.abuse
                ),
            ]
        )
        if configuration.otlp_grpc is not None:
            await stack.enter_async_context(_receive_by_grpc(metrics, configuration, tell))
        is_behind_proxy = environment.get("BAILEE_CONSOLE_URL", "").startswith("https://")
        server = _Server(_settings(configuration, application, gateway, is_behind_proxy=is_behind_proxy))
        url = _url(configuration, listener)
        # What is left behind by a kill is told from a running service by its lock, not by this file.
        state = configuration.home / FILE_NAME
        running = Running(
            url, os.getpid(), upstream.name, configuration.upstream_url, configuration.while_used
        )
        link = "" if configuration.while_used else make_link_url(url, _make_link(directory))
        server.on_ready = partial(_publish, state, running, link, announce)
        stack.callback(state.unlink, missing_ok=True)
        sweeping = asyncio.create_task(_sweep(configuration, state, server))
        stack.callback(sweeping.cancel)
        await server.serve(sockets=[listener])


@contextlib.asynccontextmanager
async def _receive_by_grpc(
    metrics: MetricsReceiver, configuration: Configuration, tell: Callable[[str], None]
) -> AsyncIterator[None]:
    try:
        from bailee.flows.metrics.procedures import open_server  # 40 ms and 20 MB, for who asks for it
    except ModuleNotFoundError:
        raise Problem(
            "grpcio is not installed", where="--otlp-grpc", fix="install it: pip install 'bailee[grpc]'"
        ) from None
    certificate, key = configuration.tls_certificate, configuration.tls_key
    tls = (certificate, key) if certificate and key else None
    assert configuration.otlp_grpc is not None
    server, port = await open_server(metrics, configuration.host, configuration.otlp_grpc, tls=tls)
    tell(f"OTLP over gRPC is taken on port {port}.")
    try:
        yield
    finally:
        await server.stop(GRACE_SECONDS)


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class _Server(uvicorn.Server):
    """Calls `on_ready` once connections are accepted."""

    on_ready: Callable[[], None] = staticmethod(lambda: None)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        # uvicorn would raise the signal again once it has shut down, and the process would end by it before
        # the recorder had been waited for.
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _publish(state: Path, running: Running, link: str, announce: Callable[[str, str], None]) -> None:
    temporary = state.with_suffix(".new")
    with open(temporary, "wb", opener=_open_private) as file:
        file.write(msgspec.json.encode(running))
    temporary.replace(state)
    announce(running.url, link)


def _make_link(directory: Directory) -> str:
    """Return what signs the user who runs this in to the console once: as operator, and to their account."""
    account = find_account_of_user(directory, os.getuid())
    return make_link(directory, account=account, user=user_name())


def _find_context(directory: Directory, provider: Provider, account: str) -> Context | None:
    found = next((one for one in directory.all() if one.id == account), None)
    return found.to_context(provider) if found else None


async def _sweep_disks(home: Path, directory: Directory) -> None:
    """Seal what killed cloud sessions left, and remove those whose day has come; faults are tried again."""
    while True:
        with contextlib.suppress(Problem, OSError, sqlalchemy.exc.SQLAlchemyError):
            await asyncio.to_thread(sweep_disks, home)
            await asyncio.to_thread(sweep_grants, home, directory)
        await asyncio.sleep(DISK_SECONDS)


async def _collect(connections: ConnectionsReceiver, home: Path) -> None:
    """Take the logs of connections as their runs end, and those of runs that were killed."""
    while True:
        await connections.collect(list_running(home))
        for _ in range(int(SWEEP_SECONDS / COLLECT_SECONDS)):
            await asyncio.sleep(COLLECT_SECONDS)
            await connections.collect()


async def _collect_last(connections: ConnectionsReceiver, home: Path) -> None:
    """Take what runs left that ended or were killed just now: the service may have been up for them alone."""
    await connections.collect(list_running(home))


async def _sweep(configuration: Configuration, state: Path, server: uvicorn.Server) -> None:
    """Revoke the keys of killed runs while serving; end a private service when none is left."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        if not configuration.while_used:
            await asyncio.to_thread(sweep, configuration.home)
        elif await asyncio.to_thread(withdraw, configuration.home, state):
            server.should_exit = True
            return


def _settings(
    configuration: Configuration, application: Starlette, gateway: Gateway, *, is_behind_proxy: bool
) -> uvicorn.Config:
    certificate, key = configuration.tls_certificate, configuration.tls_key
    return uvicorn.Config(
        application,
        http=partial(MessagesProtocol, gateway),  # type: ignore[arg-type]
        loop="none",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        # What a request says of where it came from counts where a proxy is declared: any program on this
        # machine could say so, and try passwords from as many addresses as it likes.
        proxy_headers=is_behind_proxy and certificate is None,
        forwarded_allow_ips="127.0.0.1",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening socket; port 0 takes a free one.

    Raises:
        Problem: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise Problem(
            f"cannot listen on {host} port {port}: {error.strerror}",
            where="--host, --port",
            fix="choose another port, or 0 for a free one",
        ) from None
    listener.setblocking(False)
    return listener


def _url(configuration: Configuration, listener: socket.socket) -> str:
    scheme = "http" if configuration.tls_certificate is None else "https"
    host = f"[{configuration.host}]" if ":" in configuration.host else configuration.host
    return f"{scheme}://{host}:{listener.getsockname()[1]}"


@contextlib.asynccontextmanager
async def _rehearse() -> AsyncIterator[Origin]:
    """Serve the rehearsal model on a loopback port of its own, so that it is reached like any upstream."""
    from bailee.flows.messages.rehearsal.application import create_application

    listener = listen("127.0.0.1", 0)
    settings = uvicorn.Config(
        create_application(), loop="none", log_config=None, access_log=False, lifespan="off"
    )
    server = _Quiet(settings)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield Origin("http", "127.0.0.1", listener.getsockname()[1])
    finally:
        server.should_exit = server.force_exit = True
        await task
        listener.close()


class _Quiet(uvicorn.Server):
    """A second server in the process, which leaves the signals to the first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield

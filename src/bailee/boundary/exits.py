"""The way out of a boundary: the security proxy in a thread of its own, and its log."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from ipaddress import ip_address

import uvloop

from bailee.flows.web.abuse import Limits, Watch
from bailee.flows.web.addresses import list_own
from bailee.flows.web.authorities import Authority
from bailee.flows.web.log import ConnectionLog, Way
from bailee.flows.web.placeholders import Secrets
from bailee.flows.web.proxy import Proxy
from bailee.flows.web.rules import Rules
from bailee.flows.web.sessions import Session
from bailee.flows.web.targets import Address, Target

# What each listener's connections are.
WAYS = {
    "proxy": Way.CONNECT,
    "redirect": Way.TRANSPARENT,
    "redirect6": Way.TRANSPARENT,
    "service": Way.SERVICE,
}
END_SECONDS = 5.0


class Exit:
    """Serves the listeners of a boundary until it is ended.

    Args:
        log: where every connection is written; closed at the end.
        service: where the service of this installation listens.
        credential: see `Proxy`.
        dial_instead: see `Session`.
        limits: against abuse; None for none.
        stops: see `Watch`.
        on_stop: see `Session`; called in the thread of the way out.
    """

    def __init__(
        self,
        rules: Rules,
        log: ConnectionLog,
        *,
        secrets: Secrets | None = None,
        authority: Authority | None = None,
        service: tuple[str, int] | None = None,
        credential: str | None = None,
        dial_instead: Callable[[Target], tuple[str, int]] | None = None,
        limits: Limits | None = None,
        stops: bool = False,
        on_stop: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._watch = None if limits is None else Watch(limits, stops=stops, clock=time.monotonic)
        self._on_stop = on_stop
        self._rules = rules
        self._log = log
        self._secrets = secrets
        self._authority = authority
        self._service = service
        self._credential = credential
        self._dial_instead = dial_instead
        self._loop: asyncio.AbstractEventLoop
        self._done: asyncio.Event
        self._session: Session
        self._ready: Future[None] = Future()
        self._thread: threading.Thread
        self._endpoints: list[asyncio.BaseTransport] = []

    def start(self, listeners: Mapping[str, socket.socket]) -> None:
        """Serve; raises what keeps it from that."""
        self._thread = threading.Thread(target=self._run, args=(listeners,), daemon=True)
        self._thread.start()
        self._ready.result()

    def change(self, rules: Rules, limits: Limits | None = None) -> int:
        """Put other rules in force, end what they do not allow, and return how much that was."""

        async def change() -> int:
            return self._session.change(rules, limits)

        return asyncio.run_coroutine_threadsafe(change(), self._loop).result(END_SECONDS)

    def end(self) -> None:
        """End everything that goes through, and close the log."""
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()
        self._log.close()

    def _run(self, listeners: Mapping[str, socket.socket]) -> None:
        uvloop.run(self._serve(listeners))

    async def _serve(self, listeners: Mapping[str, socket.socket]) -> None:
        try:
            self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
            self._session = Session(
                self._rules,
                self._log,
                resolve=resolve,
                own=list_own(),
                secrets=self._secrets,
                dial_instead=self._dial_instead,
                watch=self._watch,
                on_stop=self._stop,
            )
            proxy = Proxy(
                self._session,
                authority=self._authority,
                service=self._service,
                credential=self._credential,
                find_name=await self._serve_names(listeners),
            )
            for name, listener in listeners.items():
                if name in WAYS:
                    await proxy.serve(listener, WAYS[name])
        except BaseException as fault:
            self._ready.set_exception(fault)
            raise
        self._ready.set_result(None)
        await self._done.wait()
        with contextlib.suppress(TimeoutError):
            await proxy.end()
        for endpoint in self._endpoints:
            endpoint.close()
        # uvloop does not come to an end while something it holds is still to be closed.
        await asyncio.sleep(0.01)

    def _stop(self, reason: str) -> None:
        # Not here and now: whatever found it is in the middle of a connection.
        self._loop.call_soon(self._session.end)
        self._on_stop(reason)

    async def _serve_names(self, listeners: Mapping[str, socket.socket]) -> Callable[[str], str | None]:
        served = [listener for name, listener in listeners.items() if name.startswith("names")]
        if not served:
            return lambda address: None
        from bailee.flows.web.names import Names, NamesEndpoint

        names = Names(self._session)
        for listener in served:
            transport, _ = await self._loop.create_datagram_endpoint(
                lambda: NamesEndpoint(names), sock=listener
            )
            self._endpoints.append(transport)
        return names.find


async def resolve(name: str, port: int) -> list[Address]:
    """Look a name up as this machine does; see `Session`."""
    infos = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(info[4][0]).partition("%")[0]) for info in infos))

"""What every exchange shares: who may, under which terms, to which upstream, recorded by whom."""

import asyncio
import re
import time
from collections.abc import Callable
from typing import Protocol

from bailee.accounts.keys import Principal
from bailee.flows.messages.connections import ConnectionPool
from bailee.flows.messages.headers import find
from bailee.flows.messages.refusals import Refusal, RefusalKind
from bailee.flows.messages.upstreams import Headers, Upstream
from bailee.flows.messages.wires import Wire
from bailee.policy.contexts import Context
from bailee.policy.decisions import Decision, decide
from bailee.policy.flows import Flow
from bailee.vault.frames import Decided
from bailee.vault.recording import Recording, decided_of

# The Messages API takes 32 MB; Bedrock 20 MB. What is larger would be refused there anyway.
MAX_BODY_BYTES = 40 * 1024 * 1024
# Agents send 2 KB of headers; whoever has no key may make us hold this much.
MAX_HEAD_BYTES = 64 * 1024
SILENCE_SECONDS = 600.0
# Agents give up after 300 s without a byte; the Messages API pings, Bedrock does not.
PING_SECONDS = 15.0
TICK_SECONDS = 5.0

_SESSION = re.compile(rb"[A-Za-z0-9._:@-]{1,128}")
_SESSION_HEADERS = (b"x-bailee-session", b"x-claude-code-session-id")


class Authenticator(Protocol):
    """Tells whose key it is; see `accounts.keys.KeyRing`."""

    def authenticate(self, token: bytes) -> Principal | None:
        """Return whose key this is, or None."""
        ...


class Ticking(Protocol):
    """An exchange that wants to know that time passes."""

    def tick(self, now: float) -> None:
        """Look at the clock, in seconds of the monotonic one."""
        ...

    def stop(self, reason: str) -> None:
        """End at once: it can no longer be recorded."""
        ...


class Gateway:
    """Shared by all exchanges of a service.

    Args:
        flow: the declared `messages` flow.
        wall_clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        *,
        flow: Flow,
        keys: Authenticator,
        upstream: Upstream,
        pool: ConnectionPool,
        recording: Recording,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.flow = flow
        self.keys = keys
        self.upstream = upstream
        self.pool = pool
        self.recording = recording
        self.active: set[Ticking] = set()
        self._wall_clock = wall_clock
        self._decided: dict[Context, tuple[Decision, Decided]] = {}
        recording.on_gone = self._stop_all

    def now_ms(self) -> int:
        """Return milliseconds since 1970 UTC."""
        return int(self._wall_clock() * 1000)

    def new_exchange(self, started_ms: int) -> int:
        """Return the id of an exchange that starts now."""
        return self.recording.new_exchange(started_ms)

    def decide(self, principal: Principal) -> tuple[Decision, Decided]:
        """Return the decision on this principal's traffic, and its form for the record."""
        upstream = self.upstream
        context = principal.to_context(upstream.provider, is_first_party=upstream.is_first_party)
        known = self._decided.get(context)
        if known is None:
            if len(self._decided) > 1024:
                self._decided.clear()
            decision = decide(self.flow, context)
            known = decision, decided_of(decision)
            self._decided[context] = known
        return known

    def refuse(self, principal: Principal, decision: Decision, wire: Wire) -> Refusal | None:
        """Return why a request may not go upstream, or None if it may. Content never decides."""
        upstream = self.upstream
        if not decision.allowed:
            return Refusal(RefusalKind.FORBIDDEN, f"refused by {decision.decided_by}.")
        if principal.zdr and not upstream.zero_data_retention:
            return Refusal(
                RefusalKind.FORBIDDEN,
                f"zero data retention is on for {principal.account_name}, but the upstream"
                f" {upstream.name!r} is not declared to retain nothing. Start the service with"
                " --upstream-zero-data-retention once your agreement with it says so, or switch zero data"
                " retention off: bailee org zdr off.",
            )
        if wire not in upstream.wires:
            known = ", ".join(sorted(upstream.wires))
            return Refusal(
                RefusalKind.MALFORMED,
                f"the upstream {upstream.name!r} speaks {known}, and this request is {wire}. The gateway"
                " forwards requests as they are: set the agent to that provider (bailee run does).",
            )
        if not self.recording.is_ready:
            fault = self.recording.fault or "the recorder is starting"
            return Refusal(RefusalKind.UNAVAILABLE, f"nothing is forwarded that cannot be recorded: {fault}.")
        if not self.recording.has_room:
            return Refusal(RefusalKind.OVERLOADED, "more is arriving than can be recorded; try again.")
        return None

    async def watch(self) -> None:
        """Tell active exchanges the time, for ever."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for exchange in list(self.active):
                exchange.tick(now)

    def _stop_all(self) -> None:
        for exchange in list(self.active):
            exchange.stop("the recorder ended")


def read_session(headers: Headers, key_id: str) -> str:
    """Return the session an agent names, or one that stands for its key.

    Source of `x-claude-code-session-id`: Gateway protocol reference of Claude Code. The other is ours.
    """
    for name in _SESSION_HEADERS:
        session = find(headers, name)
        if _SESSION.fullmatch(session):
            return session.decode()
    return f"key-{key_id}"

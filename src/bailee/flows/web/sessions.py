"""One agent's way out: its rules as they are now, its log, what it has open, and how much it may do."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from typing import Protocol

from bailee.flows.web.abuse import Action, Finding, Limits, Watch
from bailee.flows.web.addresses import Resolve, tell_forbidden
from bailee.flows.web.log import (
    Abused,
    Closed,
    ConnectionLog,
    LogFailed,
    Opened,
    Refused,
    Requested,
    Row,
    Way,
)
from bailee.flows.web.placeholders import Secrets
from bailee.flows.web.rules import Refusal, Rule, Rules
from bailee.flows.web.targets import Address, Target
from bailee.rates import Rates

CONNECT_SECONDS = 10.0
MOST_ADDRESSES = 4
# Of one agent at a time; a browser has some hundred.
MOST_CONNECTIONS = 1000
# Refused ones in a row fill the log with rows: after these a session waits before it is answered.
REFUSALS_PER_SECOND, REFUSALS_AT_ONCE = 50.0, 1000.0


# How a connection ends whose host has got as much as its rule allows.
TOO_MUCH = "more bytes than its rule allows"


class Unreachable(Exception):
    """A host that may be reached is not: its name leads nowhere, nowhere allowed, or nobody answers."""

    def __init__(self, refusal: Refusal, status: int = 502) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal
        self.status = status


class Stoppable(Protocol):
    """Something that goes on, and can be made to end."""

    @property
    def target(self) -> Target | None:
        """Where it leads."""

    def stop(self, outcome: str) -> None:
        """End it at once."""


class Session:
    """What the proxy knows of one agent.

    Args:
        resolve: looks a name up; only names that are allowed already.
        own: addresses of this machine, which nobody is led to by a name.
        secrets: what the agent sees placeholders of.
        dial_instead: where everything is dialled instead of its address (a stand-in internet only).
        clock: seconds since 1970 UTC.
        watch: looks out for abuse; None for nobody who does.
        on_stop: called once with the reason, when abuse stops it. Nothing is let through any more by then.
    """

    def __init__(
        self,
        rules: Rules,
        log: ConnectionLog,
        *,
        resolve: Resolve,
        own: Collection[Address] = (),
        secrets: Secrets | None = None,
        dial_instead: Callable[[Target], tuple[str, int]] | None = None,
        clock: Callable[[], float] = time.time,
        watch: Watch | None = None,
        on_stop: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.rules = rules
        self.stopped_for = ""
        self._watch = watch
        self._on_stop = on_stop
        self.secrets = secrets or Secrets(())
        self.connections: set[Stoppable] = set()
        self._log = log
        self._resolve = resolve
        self._own = own
        self._dial_instead = dial_instead
        self._clock = clock
        self._number = 0
        self._names: set[str] = set()
        self._sent: dict[str, int] = {}
        self._rates: dict[str, Rates] = {}
        self._refusals = Rates(REFUSALS_PER_SECOND, REFUSALS_AT_ONCE)

    # --- What is decided ---

    def decide(self, target: Target) -> tuple[Rule, ...] | Refusal:
        """Return the rules that allow a target now, or the refusal."""
        if self.stopped_for:
            return self.tell_stopped()
        if self._log.is_failed:
            return Refusal("no_log", "the log of connections cannot be written, so that nothing may pass")
        if len(self.connections) > MOST_CONNECTIONS:
            return Refusal("too_many", f"there are {MOST_CONNECTIONS} connections already")
        found = self.rules.decide(target)
        if isinstance(found, Refusal):
            return found
        for rule in found:
            if rule.per_second is not None:
                rates = self._rates.setdefault(
                    rule.label, Rates(rule.per_second, max(1.0, rule.per_second * 10))
                )
                if rates.take(""):
                    return Refusal("too_often", f"more than {rule.per_second:g} a second ({rule.label})")
        return found

    def may_send(self, rules: tuple[Rule, ...], count: int, way: Way) -> bool:
        """Count bytes that are about to be sent, and tell whether they may be."""
        if self._watch is not None and way is not Way.SERVICE:
            self._act(self._watch.note_sent(count))
        if self.stopped_for:
            return False
        for rule in rules:
            if rule.bytes is not None:
                self._sent[rule.label] = self._sent.get(rule.label, 0) + count
                if self._sent[rule.label] > rule.bytes:
                    return False
        return True

    def change(self, rules: Rules, limits: Limits | None = None) -> int:
        """Put other rules in force, end what they do not allow, and return how much that was."""
        self.rules = rules
        if self._watch is not None and limits is not None:
            self._watch.change(limits)
        ended = 0
        for connection in list(self.connections):
            target = connection.target
            if target is not None and isinstance(rules.decide(target), Refusal):
                connection.stop("no longer allowed")
                ended += 1
        return ended

    def end(self) -> None:
        """End everything."""
        for connection in list(self.connections):
            connection.stop("session ended")

    # --- What is too much ---

    def admit(self) -> float:
        """Count a new connection, and return for how many seconds it is to wait."""
        if self._watch is None:
            return 0.0
        self._act(self._watch.note_connection())
        return self._watch.delay

    @property
    def delay(self) -> float:
        """For how many seconds something new is to wait."""
        return 0.0 if self._watch is None else self._watch.delay

    def tell_stopped(self) -> Refusal:
        """Return the refusal of all that a stopped session still tries."""
        return Refusal("abuse", f"this session was {self.stopped_for}")

    def _act(self, *findings: Finding | None) -> None:
        for found in findings:
            if found is None:
                continue
            row = Abused(
                at_ms=self._now_ms(),
                kind=found.kind,
                action=found.action,
                count=found.count,
                seconds=found.seconds,
                reason=found.reason,
            )
            with contextlib.suppress(LogFailed):  # then nothing passes in any case
                self._append(row)
            if found.action is Action.STOPPED:
                self.stopped_for = found.reason
                self._on_stop(found.reason)

    # --- What is noted ---

    def note_opened(self, number: int, way: Way, target: Target, rules: tuple[Rule, ...]) -> None:
        """Write that something is about to be dialled; raises LogFailed."""
        rule = rules[0]
        self._append(
            Opened(
                number=number,
                at_ms=self._now_ms(),
                way=way,
                host=target.host,
                port=target.port,
                flow=rule.flow,
                rule=rule.label,
            )
        )

    def note_requested(self, number: int, method: str, path: str) -> None:
        """Write that a request is about to be passed on, without its query; raises LogFailed."""
        plain = path.partition("?")[0][:1000]
        self._append(Requested(number=number, at_ms=self._now_ms(), method=method[:20], path=plain))

    def note_name(self, name: str) -> None:
        """Write that a name was asked for, the first time; raises LogFailed."""
        if name not in self._names:
            self._names.add(name)
            row = Opened(
                number=0, at_ms=self._now_ms(), way=Way.NAME, host=name, port=53, flow="", rule="declared"
            )
            self._append(row)

    def note_refused(
        self, number: int, way: Way, host: str, port: int, refusal: Refusal, *, is_plain: bool = False
    ) -> float:
        """Write that something was refused, and return for how many seconds its answer is held back."""
        row = Refused(
            number=number,
            at_ms=self._now_ms(),
            way=way,
            host=host[:300],
            port=port,
            rule=refusal.rule,
            reason=refusal.reason[:500],
            is_plain=is_plain,
        )
        with contextlib.suppress(LogFailed):  # it is refused in any case
            self._append(row)
        if self._watch is not None:
            self._act(*self._watch.note_refused(row.host, port, refusal.rule))
        return min(self._refusals.take(""), 1.0)

    def note_closed(
        self,
        number: int,
        *,
        sent: int,
        received: int,
        kernel: tuple[int, int] | None = None,
        address: str = "",
        outcome: str = "done",
    ) -> None:
        """Write that a connection ended; where that cannot be written, everything ends."""
        kernel_sent, kernel_received = kernel or (None, None)
        try:
            self._append(
                Closed(
                    number=number,
                    at_ms=self._now_ms(),
                    sent=sent,
                    received=received,
                    kernel_sent=kernel_sent,
                    kernel_received=kernel_received,
                    address=address,
                    outcome=outcome,
                )
            )
        except LogFailed:
            self.end()

    def draw(self) -> int:
        """Return the next number of a connection."""
        self._number += 1
        return self._number

    def _append(self, row: Row) -> None:
        self._log.append(row)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    # --- Where it goes ---

    async def find_addresses(self, target: Target, rules: tuple[Rule, ...]) -> list[tuple[str, int]]:
        """Return the addresses to dial, each of them checked.

        Raises:
            Unreachable: there is none.
        """
        if self._dial_instead is not None:
            return [self._dial_instead(target)]
        is_private = any(rule.is_private for rule in rules)
        if target.address is not None:
            addresses = [target.address]
        else:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    addresses = await self._resolve(target.host, target.port)
            except (OSError, TimeoutError, UnicodeError):
                raise Unreachable(Refusal("no_address", f"the name {target.host} leads nowhere")) from None
        reasons = {address: "" if is_private else tell_forbidden(address, self._own) for address in addresses}
        # One bad address among good ones is how a name is turned over to another machine between two looks.
        if bad := next(((address, why) for address, why in reasons.items() if why), None):
            reason = f"{target.host} leads to {bad[0]}: {bad[1]}"
            fix = "allow it in a rules file with `private = true`"
            raise Unreachable(Refusal("forbidden_address", reason, fix), 403)
        if not addresses:
            raise Unreachable(Refusal("no_address", f"the name {target.host} leads nowhere"))
        return [(str(address), target.port) for address in addresses[:MOST_ADDRESSES]]

"""Counts what the catalogue names, and sends it when the agent ends.

Counting never holds up the work, and never fails it: what cannot be counted or sent is not.
"""

import contextlib
import platform
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from bailee.agent.events import Answered, Ended, Result
from bailee.agent.events import Event as Happened
from bailee.agent.telemetry import KEPT_MS, MOST_IN_A_REQUEST, Store, Upload
from bailee.policy.contexts import Context
from bailee.policy.decisions import decide
from bailee.policy.flows import Flow
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.flows.metrics.sender import Event, Wire

SETTING = "telemetry"
# Path and body in JSON in, status out; OSError where nobody is there.
Post = Callable[[str, bytes], int]


def is_counted(flow: Flow, context: Context, setting: str) -> bool:
    """Tell whether the flow's events are counted on this machine: also where `local` alone stops sending."""
    if setting == "local":
        kept = {
            layer.name: {id: why for id, why in layer.off.items() if why != SETTING}
            for layer in context.layers
        }
        layers = tuple(msgspec.structs.replace(layer, off=kept[layer.name]) for layer in context.layers)
        context = msgspec.structs.replace(context, layers=layers)
    return decide(flow, context).allowed


class Metrics:
    """Counts for one run of the agent.

    Args:
        store: where it is kept until it is sent; None where nothing is counted.
        post: sends; None where there is nowhere to.
        is_local: nothing may be sent, so that what is counted never is.
        facts: fields of every event: version and provider.
    """

    def __init__(
        self,
        store: Store | None,
        post: Post | None,
        wire: "Wire",
        *,
        facts: dict[str, object],
        is_local: bool = False,
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._post = post
        self._wire = wire
        self._facts = facts
        self._is_local = is_local
        self._clock = clock
        self._stopwatch = stopwatch
        self._events: list[Event] = []
        self._turns = 0
        self._began = stopwatch()
        self._start = "new"

    def hold_back(self) -> None:
        """Send nothing in this run: its user is only just told that something would be."""
        self._post = None

    def stop(self) -> None:
        """Count nothing, and forget what was counted: it turned out that the account refuses it."""
        self._store = None
        self._events = []

    def begin_session(self, *, is_resumed: bool) -> None:
        """Count another session from here on."""
        self._turns, self._began = 0, self._stopwatch()
        self._start = "resumed" if is_resumed else "new"

    def end_session(self, *, surface: str) -> None:
        """Count the session that ends; one in which nothing was said is none."""
        if self._turns:
            seconds = self._stopwatch() - self._began
            self._note(
                "bailee.session",
                system=platform.system().lower(),
                start=self._start,
                surface=surface,
                turns=self._turns,
                seconds=seconds,
            )
        self._turns = 0

    def observe(self, events: Generator[Happened]) -> Generator[Happened]:
        """Give a turn's events on, interrupts into it, and count what is among them."""
        began, outcome, rounds = self._stopwatch(), "failed", 0
        try:
            event = next(events)
            while True:
                match event:
                    case Answered():
                        self._note_answer(event)
                    case Result():
                        outcome_of_tool = "failed" if event.is_error else "done"
                        self._note("bailee.tool", tool=event.tool, outcome=outcome_of_tool)
                    case Ended():
                        outcome, rounds = event.reason, event.rounds
                try:
                    yield event
                except GeneratorExit:
                    events.close()
                    raise
                except BaseException as error:
                    event = events.throw(error)
                else:
                    event = next(events)
        except StopIteration:
            return
        finally:
            self._turns += 1
            milliseconds = (self._stopwatch() - began) * 1000
            self._note("bailee.turn", outcome=outcome, rounds=rounds, milliseconds=milliseconds)

    def _note_answer(self, event: Answered) -> None:
        self._note(
            "bailee.answer",
            model=event.model,
            stop_reason=event.stop_reason,
            milliseconds=event.milliseconds,
            input_tokens=event.usage.input_tokens,
            output_tokens=event.usage.output_tokens,
            cache_read_tokens=event.usage.cache_read_tokens,
        )

    def _note(self, name: str, **fields: object) -> None:
        if self._store is None:
            return
        from bailee.flows.metrics.sender import make_event

        now = self._clock()
        today = datetime.fromtimestamp(now, UTC).date()
        event = make_event(name, {**self._facts, **fields}, now_ms=int(now * 1000), today=today)
        if event is not None:
            self._events.append(event)

    def close(self) -> None:
        """Keep what was counted, and send it where it may be sent."""
        if self._store is None:
            return
        # A full disk, a folder of somebody else's, another agent that is sending just now.
        with contextlib.suppress(OSError, Problem):
            if self._events:
                self._store.add(self._events, is_local=self._is_local)
                self._events = []
            self._store.sweep(int(self._clock() * 1000))
            if self._post is not None and not self._is_local:
                send_pending(self._store, self._post, self._wire, clock=self._clock)


def send_pending(
    store: Store, post: Post, wire: "Wire", *, clock: Callable[[], float] = time.time
) -> Upload | None:
    """Send what is pending in one request, and keep an exact copy; None where nothing is.

    What cannot be sent now stays pending.

    Raises:
        OSError: see `Store.taking`.
    """
    from bailee.flows.metrics.sender import is_taken, write_request

    with store.taking() as events:
        oldest = int(clock() * 1000) - KEPT_MS
        sent = [event for event in events if event.hour_ms >= oldest][:MOST_IN_A_REQUEST]
        if not sent:
            return None
        request = write_request(sent, wire)
        try:
            status = post(request.path, request.body)
        except OSError:
            return Upload(int(clock() * 1000), request.path, 0, len(request.body))
        upload = Upload(int(clock() * 1000), request.path, status, len(request.body))
        store.keep(upload, request.body)
        if is_taken(status):
            del events[: len(sent)]
        return upload

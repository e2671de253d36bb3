"""Counts what the catalogue names, and sends it when the agent ends.

Counting never holds up the work, and never fails it: what cannot be counted or sent is not.
"""

import contextlib
import platform
import time
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bailee.agent.events import Answered, Ended, Result
from bailee.agent.events import Event as Happened
from bailee.agent.telemetry import MOST_IN_A_REQUEST, Counted, Store, Upload, is_late
from bailee.policy.contexts import Context
from bailee.policy.decisions import decide
from bailee.policy.flows import Flow
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.flows.metrics.sender import Event, Wire

SETTING = "telemetry"
# Path and body in JSON in, status out; OSError where nobody is there.
Post = Callable[[str, bytes], int]


class Line(NamedTuple):
    """A way to a service, and what it is known by: what was counted for one recipient goes to no other."""

    recipient: str
    place: str
    post: Post


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
        line: where it is sent; None where nothing may be sent or there is nowhere to, so that what is counted
            never is.
        facts: fields of every event: version and provider.
    """

    def __init__(
        self,
        store: Store | None,
        line: Line | None,
        wire: "Wire",
        *,
        facts: dict[str, object],
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._line = line
        self._wire = wire
        self._facts = facts
        self._is_held_back = False
        self._clock = clock
        self._stopwatch = stopwatch
        self._events: list[Event] = []
        self._turns = 0
        self._began = stopwatch()
        self._start = "new"

    def hold_back(self) -> None:
        """Send nothing in this run: its user is only just told that something would be."""
        self._is_held_back = True

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
                self._store.add(self._events, self._line.recipient if self._line else "")
                self._events = []
            self._store.sweep(int(self._clock() * 1000))
            if self._line is not None and not self._is_held_back:
                send_pending(self._store, self._line, self._wire, clock=self._clock)


def send_pending(
    store: Store, line: Line, wire: "Wire", *, clock: Callable[[], float] = time.time
) -> Upload | None:
    """Send what is pending for a recipient in one request, and keep an exact copy; None where nothing is.

    What cannot be sent now stays pending.

    Raises:
        OSError: see `Store.taking`.
    """
    from bailee.flows.metrics.sender import is_taken, write_request

    with store.taking() as events:
        now_ms = int(clock() * 1000)
        sent = next_request(events, line.recipient, now_ms)
        if not sent:
            return None
        request = write_request(sent, wire)
        try:
            status = line.post(request.path, request.body)
        except OSError:
            return Upload(now_ms, request.path, 0, len(request.body), line.place)
        upload = Upload(now_ms, request.path, status, len(request.body), line.place)
        store.keep(upload, request.body)
        if is_taken(status):
            gone = set(map(id, sent))
            events[:] = [event for event in events if id(event) not in gone]
        return upload


def next_request(events: Sequence[Counted], recipient: str, now_ms: int) -> list[Counted]:
    """Return which of the pending events the next request to a recipient takes."""
    meant = (event for event in events if event.recipient == recipient and not is_late(event, now_ms))
    return list(islice(meant, MOST_IN_A_REQUEST))

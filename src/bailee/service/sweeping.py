"""Has a sweeper run whenever there is something to sweep, and tells how retention stands."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import sqlalchemy.exc
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bailee.vault.health import RetentionHealth
from bailee.vault.intake import Dropped, Intake

# A key is destroyed within 60 s of its deadline, and a million keys take most of that; a look takes 0.3 ms.
LOOK_SECONDS = 5.0
# Also where nothing is to be done: that sweeping works is to be seen before it is needed.
REST_SECONDS = 300.0
END_SECONDS = 5.0


class Sweeping:
    """Looks for work, and runs a sweeper where there is some.

    Args:
        has_due: tells whether something is to go, within a millisecond.
        has_work: tells besides whether anything else waits for a sweep.
    """

    def __init__(self, home: Path, has_due: Callable[[], bool], has_work: Callable[[], bool]) -> None:
        self._home = home
        self._has_due = has_due
        self._has_work = has_work

    async def run(self) -> None:
        """Go on until cancelled; a sweeper that is at work then is given a moment, and killed.

        Being killed is nothing to a sweep: the next one goes on.
        """
        # In its first seconds somebody waits for what the service was started for, and a sweeper takes 0.3 s
        # of a core: then only what is due is a reason. Many services of a run last no longer than that.
        if self._look(self._has_due):
            await self._sweep()
        await asyncio.sleep(LOOK_SECONDS)
        swept = 0.0
        while True:
            if time.monotonic() - swept > REST_SECONDS or self._look(self._has_work):
                swept = time.monotonic()
                await self._sweep()
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self, has_any: Callable[[], bool]) -> bool:
        try:
            return has_any()
        except sqlalchemy.exc.SQLAlchemyError:
            return True  # the sweeper says what is wrong

    async def _sweep(self) -> None:
        command = ["-m", "bailee.vault.sweeper", "--home", str(self._home)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            await process.wait()
        except asyncio.CancelledError:
            try:
                async with asyncio.timeout(END_SECONDS):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            raise


def make_routes(
    check: Callable[[int], RetentionHealth],
    intakes: Sequence[Intake],
    abuse: Mapping[tuple[str, str], int],
) -> list[Route]:
    """Return the route of the service's own metrics: numbers about retention and drops, none about anybody.

    Args:
        check: tells how retention stands at a moment, in milliseconds since 1970 UTC.
        intakes: they count what was dropped.
        abuse: how often sessions did something too often, by kind and by what was done about it.
    """

    async def tell_metrics(request: Request) -> Response:
        try:
            health = await run_in_threadpool(check, int(time.time() * 1000))
        except sqlalchemy.exc.SQLAlchemyError:
            return Response("the vault cannot be read\n", 503, media_type="text/plain")
        # Source of the format: Prometheus, "Exposition formats", text format 0.0.4.
        return Response(render(health, intakes, abuse), media_type="text/plain; version=0.0.4")

    return [Route("/metrics", tell_metrics, methods=["GET"])]


class _Drops:
    """What was dropped since the service began, as Prometheus' library asks for it."""

    def __init__(self, intakes: Sequence[Intake]) -> None:
        self._intakes = intakes

    def collect(self) -> Iterator[Metric]:
        """Give the counter."""
        text = "What no entry of a catalogue names, since the service began."
        counter = CounterMetricFamily("bailee_dropped", text, labels=Dropped._fields)
        for intake in self._intakes:
            for dropped, count in intake.dropped.items():
                counter.add_metric(dropped, count)
        yield counter


class _Abuse:
    """What the logs of sessions that ended since the service began tell of abuse."""

    def __init__(self, abuse: Mapping[tuple[str, str], int]) -> None:
        self._abuse = abuse

    def collect(self) -> Iterator[Metric]:
        """Give the counter."""
        text = "What sessions did too often, since the service began."
        counter = CounterMetricFamily("bailee_abuse", text, labels=("kind", "action"))
        for labels, count in self._abuse.items():
            counter.add_metric(labels, count)
        yield counter


def render(health: RetentionHealth, intakes: Sequence[Intake], abuse: Mapping[tuple[str, str], int]) -> bytes:
    """Write how retention stands, how much was dropped and what was abused, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Drops(intakes))
    registry.register(_Abuse(abuse))

    def gauge(name: str, text: str, value: float) -> None:
        Gauge(f"bailee_retention_{name}", text, registry=registry).set(value)

    gauge(
        "lag_seconds", "How long the key that is due longest waits for its destruction.", health.lag_seconds
    )
    if health.silence_seconds is not None:
        gauge("last_success_age_seconds", "How long ago a sweep last succeeded.", health.silence_seconds)
    destroyed = sum(one.keys_destroyed for one in health.sweepers)
    gauge("keys_destroyed", "Keys destroyed by all sweeps.", destroyed)
    gauge("copies_pending", "Copies outside the vault that still hold what is to go.", health.copies_pending)
    gauge("copies_lag_seconds", "How long the one that waits longest does.", health.copies_lag_seconds)
    gauge("alarms", "Reasons for somebody to look.", len(health.alarms))
    return generate_latest(registry)

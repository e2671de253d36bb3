"""Receives ratings and holds them apart from whoever gave them.

What is held is the rating and the version, sealed, under the UTC day. Account, key, session and time of day
are looked at to let the request in, and are in no column of what is written: all ratings of a day stand in
one segment that is nobody's, under the terms that hold for everybody; ids are drawn from the whole day.
"""

import math
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bailee.accounts.credentials import read_key
from bailee.accounts.keys import KeyRing
from bailee.bodies import TooLong, TooSlow, read_body
from bailee.flows.survey.ratings import PATH, Answer
from bailee.moments import begin_of
from bailee.policy.contexts import Context
from bailee.policy.decisions import decide
from bailee.policy.flows import Flow
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.rates import Rates
from bailee.vault.frames import Begin, Finish
from bailee.vault.recording import RecorderGone, Recording, decided_of
from bailee.vault.tables import State

LARGEST = 1000  # bytes
DAY_MS = 86_400_000
# Nobody's account, and the session that all ratings are of.
NOBODY, SESSION = "", "survey"


class SurveyReceiver:
    """The `survey` flow of a service.

    Args:
        provider: where model traffic of this service goes; surveys are off by default for some.
        rates: how often a key may come.
        wall_clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        *,
        flow: Flow,
        keys: KeyRing,
        provider: Provider,
        recording: Recording,
        rates: Rates,
        wall_clock: Callable[[], float] = time.time,
        random_below: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        self._flow = flow
        self._keys = keys
        self._provider = provider
        self._recording = recording
        self._rates = rates
        self._wall_clock = wall_clock
        self._random_below = random_below

    def make_routes(self) -> list[Route]:
        """Return the route that takes ratings."""
        return [Route(PATH, self._receive, methods=["POST"])]

    async def _receive(self, request: Request) -> Response:
        try:
            principal = self._keys.authenticate(read_key(request.headers.raw))
        except Problem as problem:
            return _refuse(503, problem.what)
        if principal is None:
            return _refuse(401, "no valid key: send one as Authorization: Bearer")
        if wait := self._rates.take(principal.key_id):
            return _refuse(429, "this key comes too often", {"Retry-After": str(math.ceil(wait))})
        decision = decide(self._flow, principal.to_context(self._provider))
        if not decision.allowed:
            return _refuse(403, f"refused by {decision.decided_by}")
        try:
            body = await read_body(request.stream(), "", most=LARGEST, most_decoded=LARGEST)
        except TooLong:
            return _refuse(413, f"a rating has at most {LARGEST} bytes")
        except (TooSlow, ClientDisconnect):
            return _refuse(408, "the rating did not come in time")
        try:
            answer = msgspec.json.decode(body, type=Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
            return _refuse(400, f"this is no rating: {fault}")
        return await self._keep(answer)

    async def _keep(self, answer: Answer) -> Response:
        day_ms = begin_of(datetime.fromtimestamp(self._wall_clock(), UTC).date())
        # Whoever asked for a shorter time would be known by it: the decision is of a context without anybody.
        decided = decided_of(decide(self._flow, Context(provider=self._provider)))
        # An id of `Recording.new_exchange` tells when it was drawn.
        exchange = (day_ms + self._random_below(DAY_MS)) << 21 | self._random_below(1 << 21)
        begin = Begin(
            exchange=exchange,
            account=NOBODY,
            session=SESSION,
            key="",
            decision=decided.digest,
            flow=self._flow.id.value,
            keep=True,
            started_ms=day_ms,
            upstream="bailee",
            path=PATH,
            request_bytes=0,
            headers=b"",
            body=msgspec.json.encode(answer),
        )
        nothing = (None, None, None, None, None, None, b"", b"")
        try:
            self._recording.begin(begin, decided)
            await self._recording.finish(
                Finish(exchange, State.COMPLETE.value, None, 204, None, 0, 0, *nothing)
            )
        except RecorderGone:
            return _refuse(503, "the rating cannot be kept now")
        return Response(status_code=204)


def _refuse(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": f"Bailee: {message}."}, status, headers)

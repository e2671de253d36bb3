"""Clients that write all the time, and note what they were acknowledged."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from soak.clocks import SharedClock
from soak.journals import Journal, Said, digest

TIMEOUT_SECONDS = 40.0
PAUSE_SECONDS = 0.03
SESSIONS_AT_ONCE = 3
TURNS_IN_A_SESSION = 12
# One request in so many is large, so that answers and requests are written in stretches.
LARGE_ONE_IN = 25


@dataclass(frozen=True)
class Holder:
    """An account, by what its client needs."""

    name: str
    key: str
    days: int


@dataclass
class _Session:
    id: str
    messages: list[dict[str, str]] = field(default_factory=list)


class Client:
    """One account's agent: several sessions in turn, each request with all that was said before.

    Args:
        find_address: where the service listens now; None while there is none.
    """

    def __init__(
        self,
        holder: Holder,
        journal: Journal,
        clock: SharedClock,
        random: Random,
        find_address: Callable[[], tuple[str, int] | None],
    ) -> None:
        self._holder = holder
        self._journal = journal
        self._clock = clock
        self._random = random
        self._find_address = find_address
        self._sessions: list[_Session] = []
        self._may_run = threading.Event()
        self._is_idle = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def resume(self) -> None:
        """Write from now on."""
        self._is_idle.clear()
        self._may_run.set()

    def pause(self) -> None:
        """Write no more, once the request in hand has come to its end."""
        self._may_run.clear()
        if not self._is_idle.wait(TIMEOUT_SECONDS + 5):
            raise RuntimeError("a client did not come to rest")

    def close(self) -> None:
        """End the thread."""
        self._is_over = True
        self._may_run.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._is_over:
            if not self._may_run.is_set():
                self._is_idle.set()
                self._may_run.wait()
                continue
            address = self._find_address()
            if address is not None:
                # Whatever breaks in between: no whole answer, no acknowledgement.
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self._ask(address)
            time.sleep(PAUSE_SECONDS)

    def _ask(self, address: tuple[str, int]) -> None:
        session = self._choose()
        size = 300_000 if self._random.randrange(LARGE_ONE_IN) == 0 else self._random.randint(20, 4000)
        asked = {"role": "user", "content": self._random.randbytes(size // 2).hex()}
        stream = self._random.random() < 0.7
        body = {"model": "claude-rehearsal-1", "max_tokens": 200, "stream": stream}
        request = json.dumps({**body, "messages": [*session.messages, asked]}).encode()
        begun, day = time.monotonic(), self._clock.today()
        connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_SECONDS)
        try:
            headers = {"x-api-key": self._holder.key, "x-claude-code-session-id": session.id}
            connection.request("POST", "/v1/messages", request, headers)
            answer = connection.getresponse()
            response = answer.read()  # raises if the answer is not whole
            exchange = answer.headers.get("x-bailee-exchange")
        finally:
            connection.close()
        if answer.status != 200 or exchange is None:
            return
        ended = time.monotonic()
        content = digest(request, response)
        said = Said(int(exchange, 16), session.id, day, self._holder.days, content, begun, ended)
        self._journal.note(said)
        session.messages += [asked, {"role": "assistant", "content": "so be it"}]

    def _choose(self) -> _Session:
        if len(self._sessions) < SESSIONS_AT_ONCE:
            self._sessions.append(_Session(f"{self._holder.name}-{self._random.getrandbits(48):012x}"))
        session = self._random.choice(self._sessions)
        if len(session.messages) >= 2 * TURNS_IN_A_SESSION:
            self._sessions.remove(session)
        return session

"""What is asked of every gateway alike."""

import json
from dataclasses import dataclass

from bench.gateway.answers import write_answer, write_deltas
from bench.gateway.corpus import Corpus, Turn

SESSION_HEADER = "x-claude-code-session-id"
TURNS_PER_SESSION = 12
PACE_SECONDS = 0.005


@dataclass(frozen=True)
class Workload:
    """Requests and their answers.

    Attributes:
        turns: the requests of one session, in order; a single one is repeated.
        repeat: how often the turns are sent before the next session begins.
        answers: for each turn the events of its answer.
        pace: seconds between the events of an answer; 0 sends all of it in one write.
    """

    name: str
    about: str
    turns: tuple[Turn, ...]
    repeat: int
    answers: tuple[tuple[bytes, ...], ...]
    pace: float = 0.0

    @property
    def request_bytes(self) -> int:
        """Bytes of body of the longest turn."""
        return max(len(turn.body) for turn in self.turns)

    def write_answers(self) -> list[bytes]:
        """Write the whole answer of each turn as it stands on the wire."""
        return [write_answer(b"".join(events)) for events in self.answers]


def make_workloads(corpus: Corpus) -> dict[str, Workload]:
    """Return the workloads by name."""
    agent = corpus.first_main_loop
    short = Turn(agent.headers, _small_body(), b"")
    few, many = tuple(write_deltas(20, 25)), tuple(write_deltas(200, 24))
    timed = tuple(write_deltas(200, 11, timed=True))
    played = tuple((turn.answer,) if turn.answer else few for turn in corpus.turns)
    total = sum(len(turn.body) for turn in corpus.turns)
    made = [
        Workload(
            "small",
            f"{len(short.body)} B request, 20 deltas ({_size(few)}) in one write,"
            f" {TURNS_PER_SESSION} to a session",
            (short,),
            TURNS_PER_SESSION,
            (few,),
        ),
        Workload(
            "agent",
            f"first main-loop request of the agent ({len(agent.body):,} B), 200 deltas ({_size(many)})"
            f" in one write, sent {TURNS_PER_SESSION} times to a session",
            (agent,),
            TURNS_PER_SESSION,
            (many,),
        ),
        Workload(
            "fresh",
            "the same request, each in a session of its own: nothing to recognise from before",
            (agent,),
            1,
            (many,),
        ),
        Workload(
            "session",
            f"the agent's whole session turn by turn ({len(corpus.turns)} requests, {total:,} B),"
            " then a new session",
            corpus.turns,
            1,
            played,
        ),
        Workload(
            "paced",
            f"agent request, 200 deltas {PACE_SECONDS * 1000:g} ms apart, one write each",
            (agent,),
            TURNS_PER_SESSION,
            (timed,),
            PACE_SECONDS,
        ),
    ]
    return {workload.name: workload for workload in made}


def _small_body() -> bytes:
    document = {
        "model": "claude-opus-4-8",
        "max_tokens": 1024,
        "stream": True,
        "messages": [
            {
                "role": "user",
                "content": "Say in two sentences what this function does, and whether it can fail:"
                " def limit(value, most=100): return min(max(value, 0), most). Be brief.",
            }
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _size(events: tuple[bytes, ...]) -> str:
    return f"{sum(map(len, events)):,} B"

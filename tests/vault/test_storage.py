"""A session of an agent is stored in a small part of what it sent: each thing once, compressed."""

import json
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from bailee.vault.store import KEYSTORE, VAULT

# The sizes are those of SQLite's files.
pytestmark = pytest.mark.sqlite

if TYPE_CHECKING:
    from vault.conftest import Vault

TURNS = 12
TOOLS = 27
TARGET = 0.08
MARKER = {"type": "ephemeral"}


class Writing:
    """Text that compresses about as prose and code do: a few thousand words, some of them far more often."""

    def __init__(self, random: Random) -> None:
        self._random = random
        starts = [
            "b",
            "c",
            "d",
            "f",
            "g",
            "h",
            "k",
            "l",
            "m",
            "n",
            "p",
            "r",
            "s",
            "st",
            "t",
            "tr",
            "v",
            "w",
            "y",
        ]
        ends = [
            "a",
            "e",
            "i",
            "o",
            "u",
            "an",
            "el",
            "er",
            "ing",
            "on",
            "ore",
            "us",
            "ate",
            "ect",
            "ize",
            "th",
        ]
        self._words = sorted(
            {
                "".join(
                    random.choice(starts) + random.choice(ends) for _ in range(random.choice([1, 2, 2, 3]))
                )
                for _ in range(3000)
            }
        )
        random.shuffle(self._words)
        # As in any language the n-th word comes about 1/n as often as the first.
        self._weights = [1 / (rank + 2) for rank in range(len(self._words))]

    def prose(self, size: int) -> str:
        """Write about that many characters of text."""
        words, length = [], 0
        while length < size:
            word = self._random.choices(self._words, self._weights)[0]
            words.append(word)
            length += len(word) + 1
        return " ".join(words)

    def output(self, size: int) -> str:
        """Write about that many characters of a tool's output: lines with paths, numbers and hashes."""
        lines, length = [], 0
        while length < size:
            path = "/".join(self._random.choices(self._words, self._weights, k=3))
            number, name = self._random.randrange(9999), self._random.randbytes(4).hex()
            lines.append(f'{path}.py:{number}: {name} = "{self.prose(60)}"')
            length += len(lines[-1]) + 1
        return "\n".join(lines)


def make_session() -> tuple[list[bytes], list[bytes]]:
    """Return the requests of an agent that works for twelve turns, and the answers to them."""
    random = Random(20260504)
    writing = Writing(random)
    tools = [
        {
            "name": f"Tool{number}",
            "description": writing.prose(2600),
            "input_schema": {
                "type": "object",
                "properties": {
                    f"{writing.prose(5).split()[0]}_{which}": {
                        "type": "string",
                        "description": writing.prose(60),
                    }
                    for which in range(3)
                },
                "required": [],
                "additionalProperties": False,
            },
        }
        for number in range(TOOLS)
    ]
    system = [{"type": "text", "text": writing.prose(9000), "cache_control": MARKER}]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": writing.prose(400)}]},
    ]
    requests, answers = [], []
    for turn in range(TURNS):
        sent = json.loads(json.dumps(messages))
        sent[-1]["content"][-1]["cache_control"] = MARKER
        request = {
            "model": "claude-sonnet-4-5",
            "messages": sent,
            "system": system,
            "tools": tools,
            "metadata": {"user_id": f"user_{'0' * 64}"},
            "max_tokens": 32000,
            "stream": True,
        }
        requests.append(json.dumps(request, separators=(",", ":"), ensure_ascii=False).encode())
        said = writing.prose(200)
        call = f"toolu_{random.randbytes(12).hex()}"
        events = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word + " "}}
            for word in said.split()
        ]
        answers.append(
            b"".join(
                b"event: content_block_delta\ndata: %s\n\n" % json.dumps(event).encode() for event in events
            )
        )
        messages += [
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": said},
                    {"type": "tool_use", "id": call, "name": "Tool3", "input": {"path": writing.prose(30)}},
                ],
            },
            {
                "role": "user",
                "content": [
                    # What a tool gives back grows as the agent comes to read larger files.
                    {
                        "tool_use_id": call,
                        "type": "tool_result",
                        "content": [{"type": "text", "text": writing.output(4000 + 600 * turn)}],
                    },
                    {"type": "text", "text": f"<reminder>{writing.prose(100)}</reminder>"},
                ],
            },
        ]
    return requests, answers


@pytest.fixture(scope="module")
def session() -> tuple[list[bytes], list[bytes]]:
    return make_session()


def stored_bytes(vault: "Vault") -> int:
    """Return the size of the vault and the keystore on disk, their logs emptied as in an idle moment."""
    vault.truncate_logs()
    folders = [(vault.home / VAULT).parent, vault.home / KEYSTORE]
    logs = [path.stat().st_size for folder in folders for path in folder.glob("*-wal")]
    assert logs == [0, 0]
    return sum(
        (folder / name).stat().st_size for folder, name in zip(folders, ("vault.db", "keys.db"), strict=True)
    )


def test_the_session_is_like_an_agents(session: tuple[list[bytes], list[bytes]]) -> None:
    """Control: about 60 KB of tools and system, a conversation that grows, no text that is easy to pack."""
    requests, _ = session
    first = json.loads(requests[0])
    head = len(json.dumps([first["system"], first["tools"]], separators=(",", ":")))
    assert len(first["tools"]) == TOOLS
    assert 80_000 < head < 95_000  # the real agent: 91,352 bytes
    assert [len(json.loads(request)["messages"]) for request in requests] == [
        1 + 2 * turn for turn in range(TURNS)
    ]
    assert all(request.count(b'"cache_control"') == 2 for request in requests)
    # English prose and code come to about a third at this level.
    assert 0.28 < len(zstandard.ZstdCompressor(level=3).compress(requests[-1])) / len(requests[-1]) < 0.5


@pytest.mark.parametrize("restart_after", [None, 5])
def test_a_session_is_stored_in_a_small_part_of_what_it_sent(
    vault: "Vault", session: tuple[list[bytes], list[bytes]], restart_after: int | None
) -> None:
    """Vault and keystore together, answers included, take 8% of the request bytes, also over a restart."""
    said = {}
    for turn, (request, answer) in enumerate(zip(*session, strict=True)):
        said[turn] = vault.record(turn, request, answer)
        if turn == restart_after:
            vault.restart()
    raw = sum(map(len, session[0]))
    stored = stored_bytes(vault)
    assert stored <= TARGET * raw, f"{stored} of {raw} bytes: {stored / raw:.1%}"
    assert vault.read() == said


def test_a_session_stored_whole_would_exceed_it(
    vault: "Vault", session: tuple[list[bytes], list[bytes]]
) -> None:
    """Control: each body whole, under the same or a stronger compression, takes twice the target."""
    raw = sum(map(len, session[0]))
    for level in (3, 19):
        compressor = zstandard.ZstdCompressor(level=level)
        whole = sum(len(compressor.compress(request)) for request in session[0])
        assert whole > 2 * TARGET * raw


def test_a_session_stored_in_a_segment_for_each_turn_would_exceed_it(
    vault: "Vault", session: tuple[list[bytes], list[bytes]]
) -> None:
    """Control, on the same files: with nothing to refer to, the same writer stores more than the target."""
    for turn, (request, answer) in enumerate(zip(*session, strict=True)):
        vault.record(turn, request, answer, decision=f"decision {turn}")
    assert stored_bytes(vault) > 2 * TARGET * sum(map(len, session[0]))

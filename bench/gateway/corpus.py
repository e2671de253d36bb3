"""What agents send: recorded from a real agent, read from a recording, or made up in the same sizes.

A recording is JSON lines, gzip-compressed if the name ends in `.gz`, one object per exchange in order:
`method, path, headers, body, status, response` (the last two may be missing). It is never checked in: the
prompts in it are its vendor's text.
"""

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.gateway.answers import write_deltas

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bench"
RECORDED = CACHE / "corpus.jsonl.gz"
AGENT = ROOT / "node_modules" / "@anthropic-ai" / "claude-code-linux-x64" / "claude"
AGENT_SECONDS = 240
# Below this a request is a side task of the agent (a title, a token count), not its main loop.
MAIN_LOOP_BYTES = 40_000
# Set anew for every request, or a matter of the connection.
_NOT_REPLAYED = {
    "host", "content-length", "connection", "transfer-encoding", "authorization", "x-api-key",
    "x-claude-code-session-id", "x-bailee-key", "x-bailee-session",
}  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """One request of a session and the body of its answer (empty if it was not recorded)."""

    headers: tuple[tuple[str, str], ...]
    body: bytes
    answer: bytes


@dataclass(frozen=True)
class Corpus:
    """The requests of one session of an agent, in order; `origin` says where they come from."""

    origin: str
    turns: tuple[Turn, ...]

    @property
    def first_main_loop(self) -> Turn:
        """The first request that carries the whole prompt and all tools."""
        return next((turn for turn in self.turns if len(turn.body) >= MAIN_LOOP_BYTES), self.turns[0])


def load(path: Path | None, agent: Path | None) -> Corpus:
    """Return the corpus: the file given, else a recording of before or of now, else a synthetic one."""
    if path is not None:
        return Corpus(f"recording {path.name}", tuple(read(path)))
    if not RECORDED.exists():
        binary = agent or AGENT
        try:
            record(binary, RECORDED)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            print(f"bench: no recording of a real agent ({error}); requests are synthetic", file=sys.stderr)
            return synthesize()
    return Corpus("recorded here from the real agent", tuple(read(RECORDED)))


def read(path: Path) -> Iterator[Turn]:
    """Yield the Messages requests of a recording; token counts and unsuccessful answers are left out."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            exchange = json.loads(line)
            route = exchange["path"].partition("?")[0]
            if exchange["method"] != "POST" or route != "/v1/messages" or exchange.get("status", 200) != 200:
                continue
            headers = exchange["headers"]
            pairs = headers.items() if isinstance(headers, dict) else headers
            kept = tuple((name, value) for name, value in pairs if name.lower() not in _NOT_REPLAYED)
            answer = exchange.get("response") or ""
            is_stream = answer.rstrip().endswith('data: {"type":"message_stop"}')
            yield Turn(kept, exchange["body"].encode(), answer.encode() if is_stream else b"")


def record(agent: Path, destination: Path) -> None:
    """Run the real agent with the rehearsal model and write what it sent as a recording.

    The agent gets an empty home, a made-up key and a small made-up repository; nothing leaves the machine.

    Raises:
        ValueError: it sent no request of its main loop, or is not there.
    """
    if not agent.exists():
        raise ValueError(f"no agent at {agent}")
    with tempfile.TemporaryDirectory(prefix="bailee-bench-") as name:
        place = Path(name)
        project, home, seen = place / "project", place / "home", place / "seen"
        home.mkdir()
        make_project(project)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "HOME": str(home)}
        command = [sys.executable, "-m", "bailee", "rehearse", "--record", str(seen)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as model:
            try:
                assert model.stdout is not None
                url = model.stdout.readline().strip()
                _run_agent(agent, project, home, url)
            finally:
                model.terminate()
        exchanges = [_describe(path) for path in sorted(seen.glob("*.json"))]
    if not any(len(str(exchange["body"])) >= MAIN_LOOP_BYTES for exchange in exchanges):
        raise ValueError(f"the agent sent {len(exchanges)} requests, none of its main loop")
    destination.parent.mkdir(parents=True, exist_ok=True)
    unfinished = destination.with_suffix(".part")
    with gzip.open(unfinished, "wt") as lines:
        lines.writelines(json.dumps(exchange) + "\n" for exchange in exchanges)
    unfinished.replace(destination)


def _run_agent(agent: Path, project: Path, home: Path, url: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "sk-bench-not-a-key",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    tools = "Bash,Read,Edit,Write,Glob,Grep"
    # One session of several prompts, each continued from the last, until it has a dozen turns.
    for number in range(3):
        prompt = (
            "mend the failing test" if number == 0 else f"a failing test again, round {number}: fix the test"
        )
        command = [str(agent), "-p", prompt, "--allowedTools", tools] + (["--continue"] if number else [])
        subprocess.run(
            command,
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=AGENT_SECONDS,
            check=True,
        )
        shutil.copy(project / "broken.py", project / "calculator.py")


def make_project(project: Path) -> None:
    """Make a small git repository with a failing test and some larger files to read."""
    project.mkdir()
    # As long as files are that agents read, so that the conversation grows as it does at work.
    scales = [
        f'def scale_by_{n}(value: float) -> float:\n    """Return the value times {n}, unrounded."""\n'
        f"    factor = float({n})\n    return factor * value\n"
        for n in range(2, 90)
    ]
    broken = "\n\n".join(["def add(a, b):\n    return a - b\n", *scales])
    (project / "calculator.py").write_text(broken)
    (project / "broken.py").write_text(broken)
    (project / "test_calculator.py").write_text(
        "import unittest\n\nfrom calculator import add\n\n\n"
        "class TestAdd(unittest.TestCase):\n"
        "    def test_adds(self):\n        self.assertEqual(add(2, 3), 5)\n\n\n"
        'if __name__ == "__main__":\n    unittest.main()\n'
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(project), "GIT_CONFIG_GLOBAL": os.devnull}
    identity = ["-c", "user.name=Bench", "-c", "user.email=bench@example.invalid"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Add a calculator"]):
        subprocess.run(["git", *identity, *arguments], cwd=project, env=environment, check=True)


def _describe(path: Path) -> dict[str, object]:
    """Turn what the rehearsal model wrote of one request into a line of a recording."""
    described = json.loads(path.read_bytes())
    body = path.with_suffix(".body").read_bytes().decode("utf-8", "surrogateescape")
    return {
        "method": described["method"],
        "path": described["target"],
        "headers": described["headers"],
        "body": body,
        "status": 200,
    }


def synthesize(turns: int = 13, seed: int = 7) -> Corpus:
    """Make up a session of a real agent's sizes: 27 tools, 90 KB at first, about 9 KB more every turn."""
    chance = random.Random(seed)
    words = [
        "".join(chance.choices("abcdefghijklmnopqrstuvwxyz_", k=chance.randint(2, 11))) for _ in range(3000)
    ]

    def prose(size: int) -> str:
        text = ""
        while len(text) < size:
            text += " ".join(chance.choices(words, k=12)) + chance.choice(
                [".\n", ";\n    ", ", ", "():\n        "]
            )
        return text[:size]

    def schema(number: int) -> dict[str, object]:
        properties = {
            f"field_{n}": {"type": "string", "description": prose(90)} for n in range(number % 5 + 1)
        }
        return {"type": "object", "properties": properties, "additionalProperties": False}

    tools = [
        {"name": f"Tool{number}", "description": prose(1900), "input_schema": schema(number)}
        for number in range(27)
    ]
    system = [
        {"type": "text", "text": prose(size), "cache_control": {"type": "ephemeral"}} for size in (60, 14_000)
    ]
    messages: list[dict[str, object]] = [
        {"role": "user", "content": [{"type": "text", "text": prose(13_000)}]}
    ]
    headers = (
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("user-agent", "bench/1"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "interleaved-thinking-2025-05-14"),
    )
    made = []
    for number in range(turns):
        document = {
            "model": "claude-opus-4-8",
            "messages": messages,
            "system": system,
            "tools": tools,
            "max_tokens": 32_000,
            "stream": True,
        }
        body = json.dumps(document, separators=(",", ":")).encode()
        made.append(Turn(headers, body, b"".join(write_deltas(40, 14))))
        use = {
            "type": "tool_use",
            "id": f"toolu_{number:04}",
            "name": "Tool3",
            "input": {"field_0": prose(160)},
        }
        result = {"type": "tool_result", "tool_use_id": f"toolu_{number:04}", "content": prose(8_300)}
        messages = [
            *messages,
            {"role": "assistant", "content": [{"type": "text", "text": prose(200)}, use]},
            {"role": "user", "content": [result]},
        ]
    return Corpus("SYNTHETIC (no real agent here)", tuple(made))

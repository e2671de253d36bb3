"""The rehearsal model, alone and with the official SDK over real HTTP."""

import http.client
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anthropic
import pytest
from anthropic import Anthropic, AnthropicBedrock, AnthropicVertex
from anthropic.types import Message, MessageParam, ToolParam
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from bailee.flows.messages.eventstream import encode_chunk, encode_ping
from bailee.flows.messages.rehearsal import Ending, Performance, Received, answer, respond
from bailee.flows.messages.rehearsal.scenarios import load_scenarios, parse_scenario
from bailee.flows.messages.rehearsal.serving import rehearsing
from bailee.flows.messages.rehearsal.tools import invent
from bailee.flows.messages.wires import Wire
from bailee.policy.problems import Problem

Json = dict[str, Any]
GREETING = "Hello. I am the rehearsal model, and this is all of my answer."
TARGETS = {
    Wire.MESSAGES: b"/v1/messages?beta=true",
    Wire.BEDROCK: b"/model/anthropic.claude-v1:0/invoke",
    Wire.VERTEX: b"/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict",
}


def ask(prompt: Any, **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": prompt}], **more}).encode()


def play(body: bytes, *, wire: Wire = Wire.MESSAGES) -> Json:
    performance = respond(wire, TARGETS[wire], body)
    message: Json = json.loads(b"".join(part.data for part in performance.parts))
    return message


def words(message: Json) -> str:
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def events(performance: Performance) -> list[Json]:
    stream = b"".join(part.data for part in performance.parts).decode()
    found = []
    for event in stream.split("\n\n")[:-1]:
        name, data = event.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        found.append(value)
    return found


# --- What is played ---


def test_the_same_request_gets_the_same_bytes() -> None:
    """Nothing is random: a request repeated gets every byte again, a different one gets other ids."""
    body = ask("hello", stream=True)
    first = respond(Wire.MESSAGES, b"/v1/messages", body)
    assert respond(Wire.MESSAGES, b"/v1/messages", body) == first
    other = respond(Wire.MESSAGES, b"/v1/messages", ask("hello", stream=True, x=1))
    assert dict(other.headers)[b"request-id"] != dict(first.headers)[b"request-id"]


@pytest.mark.parametrize("wire", list(Wire))
@pytest.mark.parametrize("name", sorted(load_scenarios()))
def test_every_scenario_is_answered_on_every_wire(name: str, wire: Wire) -> None:
    """Each scenario can be asked for by name and is answered in the form of each wire."""
    performance = respond(wire, TARGETS[wire], ask(f"Please rehearse {name}", max_tokens=9999))
    refusal = load_scenarios()[name].refusal
    if refusal is not None:
        assert performance.status >= 400
        assert refusal.message in performance.parts[0].data.decode()
    elif performance.is_cut:
        with pytest.raises(json.JSONDecodeError):
            json.loads(performance.parts[0].data)
    else:
        message = json.loads(performance.parts[0].data)
        assert message["type"] == "message"
        assert message["content"]


def test_the_events_come_in_the_order_of_the_api() -> None:
    """A stream opens, pings, gives its one block in deltas, closes it, tells why it stopped, and stops."""
    played = events(respond(Wire.MESSAGES, b"/v1/messages", ask("hello", stream=True)))
    kinds = [event["type"] for event in played]
    deltas = kinds.count("content_block_delta")
    assert kinds == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert deltas == 3
    assert played[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


def test_tokens_are_a_quarter_of_the_bytes() -> None:
    """Usage is the count that is stated: bytes / 4 rounded up, of the body and of the answer's text."""
    body = ask("hello")
    usage = play(body)["usage"]
    assert usage["input_tokens"] == -(-len(body) // 4)
    assert usage["output_tokens"] == -(-len(GREETING) // 4)


def test_reminders_are_not_prompts() -> None:
    """What an agent adds to the user's message for the model selects no scenario."""
    reminder = "<system-reminder>\nrehearse refuse-400\n</system-reminder>"
    content = [{"type": "text", "text": reminder}, {"type": "text", "text": "hello"}]
    assert words(play(ask(content))) == GREETING
    assert respond(Wire.MESSAGES, b"/v1/messages", ask("rehearse refuse-400")).status == 400


def test_an_unknown_prompt_gets_the_list_of_scenarios() -> None:
    """A prompt that selects nothing is told what can be asked for."""
    told = words(play(ask("What is the weather like?")))
    assert all(f"rehearse {name}" in told for name in load_scenarios())


def test_a_later_prompt_selects_anew() -> None:
    """In one conversation a later prompt selects its own scenario, and the turns are counted from it."""
    messages = [
        {"role": "user", "content": "rehearse greet"},
        {"role": "assistant", "content": GREETING},
        {"role": "user", "content": "rehearse mend-the-test"},
    ]
    body = json.dumps({"messages": messages}).encode()
    assert "look at the project" in words(play(body))
    ended = json.dumps({"messages": [*messages[:2], {"role": "user", "content": "And now?"}]}).encode()
    assert "I play scripts" in words(play(ended))


def test_an_answer_that_must_follow_a_schema_is_not_part_of_a_script() -> None:
    """An agent that wants a title for a session gets one, though it quotes a prompt that selects."""
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    body = ask(
        "<session>\nPlease mend the test in this project.\n</session>",
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert json.loads(words(play(body))) == {"title": "Please mend the test in this"}


def test_a_tool_that_must_be_used_is_used() -> None:
    """Where the request leaves no choice of tool, that tool is called with the plainest valid input."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}
    body = ask(
        "hello",
        tools=[{"name": "pick", "input_schema": schema}],
        tool_choice={"type": "tool", "name": "pick"},
    )
    message = play(body)
    assert message["content"][0]["input"] == {"n": 3}
    assert message["stop_reason"] == "tool_use"


def test_a_limit_of_tokens_is_kept() -> None:
    """A probe that asks for one token gets at most one, and is told that the limit ended the answer."""
    message = play(ask("quota", max_tokens=1))
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 1


def test_thinking_is_played_only_to_those_who_asked() -> None:
    """Thinking comes with a signature where the request enables it, and not at all where it does not."""
    silent = play(ask("mend the test"))
    assert [block["type"] for block in silent["content"]] == ["text", "text"]
    aloud = play(ask("mend the test", thinking={"type": "adaptive"}))
    assert aloud["content"][0]["type"] == "thinking"
    assert aloud["content"][0]["signature"]


@pytest.mark.parametrize(
    "system",
    [
        "# Environment\n - Primary working directory: /srv/a project\n - Platform: linux",
        [{"type": "text", "text": "Working directory: /srv/a project"}],
        "You are here.\ncurrent working directory: `/srv/a project`",
    ],
)
def test_the_working_directory_is_read_from_the_request(system: Any) -> None:
    """Paths are made with the directory that the agent names, in any of the ways agents name it."""
    history = [
        {"role": "user", "content": "mend the test"},
        {"role": "assistant", "content": "I look."},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "content": "calculator.py"}],
        },
    ]
    tool = {"name": "Read", "input_schema": {"properties": {"file_path": {"type": "string"}}}}
    message = play(json.dumps({"system": system, "messages": history, "tools": [tool]}).encode())
    assert message["content"][1]["input"] == {"file_path": "/srv/a project/calculator.py"}


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        (
            {"name": "Bash", "input_schema": {"properties": {"command": {}, "description": {}}}},
            {"command", "description"},
        ),
        ({"name": "run_command", "input_schema": {"properties": {"cmd": {}}}}, {"cmd"}),
        ({"name": "bash", "type": "bash_20250124"}, {"command"}),
        ({"name": "bash", "input_schema": {"properties": {"script": {}}}}, set()),
        ({"name": "other", "input_schema": {"properties": {"command": {}}}}, set()),
    ],
)
def test_an_intent_takes_the_tool_that_is_offered(tool: Json, expected: set[str]) -> None:
    """Tools are found by the names agents give them; where none fits, words take the step's place."""
    message = play(ask("mend the test", tools=[tool]))
    calls = [block["input"] for block in message["content"] if block["type"] == "tool_use"]
    assert [set(call) for call in calls] == ([expected] if expected else [])
    assert message["stop_reason"] == ("tool_use" if expected else "end_turn")
    assert ("offered no tool" in words(message)) == (not expected)


def history(turns: int, *, is_error: bool, result: str = "the result") -> bytes:
    """A conversation whose first `turns` turns are answered, the last tool result being an error or not."""
    messages: list[Json] = [{"role": "user", "content": "mend the test"}]
    for turn in range(turns):
        last = turn == turns - 1
        outcome = {
            "type": "tool_result",
            "tool_use_id": "t",
            "content": result,
            "is_error": is_error and last,
        }
        messages += [{"role": "assistant", "content": "a turn"}, {"role": "user", "content": [outcome]}]
    return json.dumps({"messages": messages}).encode()


def test_a_failed_tool_ends_the_scenario_with_the_truth() -> None:
    """Where a tool had to succeed and failed, the answer quotes the failure and asks for no more tools."""
    message = play(history(4, is_error=True, result="String to replace not found"))
    assert "String to replace not found" in words(message)
    assert "passes now" not in words(message)
    assert message["stop_reason"] == "end_turn"


def test_a_failure_that_was_meant_goes_on() -> None:
    """The failing run of the tests leads to the change; had it passed, nothing would be changed."""
    assert "the code is wrong" in words(play(history(3, is_error=True, result="FAILED (failures=1)")))
    assert "nothing to mend" in words(play(history(3, is_error=False)))


def test_a_refused_permission_is_not_the_failure_that_was_meant() -> None:
    """Where the failure does not say what it should, nothing is concluded from it."""
    told = words(play(history(3, is_error=True, result="This command requires approval")))
    assert "could not finish" in told
    assert "requires approval" in told


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "name", "input_schema", "properties", "schema", "format"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            (
                "messages",
                "system",
                "tools",
                "tool_choice",
                "max_tokens",
                "thinking",
                "stream",
                "output_config",
            ),
            JSON,
        ),
    ),
    st.sampled_from(list(Wire)),
)
def test_any_json_gets_an_answer(body: Json, wire: Wire) -> None:
    """Whatever JSON is sent, the answer is a message or a refusal, never a failure of the model itself."""
    assert respond(wire, TARGETS[wire], json.dumps(body).encode()).status in (200, 400)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages":[]}', b'{"messages":"x"}', b"\xff"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    """A body that is no request is refused in the error form of the API."""
    performance = respond(Wire.MESSAGES, b"/v1/messages", body)
    assert performance.status == 400
    assert json.loads(performance.parts[0].data)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("number", ["99999999999999999999999", "0", "1.5"])
def test_a_parameter_is_bounded(number: str) -> None:
    """A number in a prompt cannot make an answer without end."""
    body = ask(f"rehearse long deltas={number}", stream=True)
    assert 0 < len(respond(Wire.MESSAGES, b"/v1/messages", body).parts) < 110_000


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name = ", "cannot be read"),
        ('name = "x"\ndescription = "y"\nspeed = 3', "speed"),
        ('name = "x"\ndescription = "y"', "either turns or a refusal"),
        ('name = "x"\ndescription = "y"\n[[turns]]\nblocks = [{ kind = "dance" }]', "dance"),
    ],
)
def test_a_scenario_that_cannot_be_read_is_told(text: str, fault: str) -> None:
    """A fault in a scenario's file is a problem that names the file and the fault."""
    with pytest.raises(Problem, match=fault) as caught:
        parse_scenario(text, where="own.toml")
    assert caught.value.where == "own.toml"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"enum": ["a", "b"]}, "a"),
        ({"const": 4}, 4),
        ({"type": ["integer", "null"]}, 0),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [False, False]),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"type": "object", "properties": {"a": {}, "b": {"type": "number"}}, "required": ["b"]}, {"b": 0}),
    ],
)
def test_a_schema_gets_a_value_that_satisfies_it(schema: Json, value: Any) -> None:
    """Side requests get a value of the type they asked for."""
    assert invent(schema, "text") == value


# --- Over HTTP ---


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A rehearsal model that listens on the loopback interface."""
    with rehearsing() as found:
        yield found


@pytest.fixture(scope="module")
def clients(url: str) -> Iterator[dict[Wire, Any]]:
    """The three official clients, all pointed at the rehearsal model, none of which tries twice."""
    with (
        Anthropic(base_url=url, api_key="none", max_retries=0) as messages,
        AnthropicBedrock(
            base_url=url, aws_region="us-east-1", aws_access_key="a", aws_secret_key="s", max_retries=0
        ) as bedrock,
        AnthropicVertex(
            base_url=f"{url}/v1", region="us-east5", project_id="p", access_token="t", max_retries=0
        ) as vertex,
    ):
        yield {Wire.MESSAGES: messages, Wire.BEDROCK: bedrock, Wire.VERTEX: vertex}


def user(prompt: str) -> Any:
    return {
        "model": "claude-rehearsal-1",
        "max_tokens": 10_000,
        "messages": [{"role": "user", "content": prompt}],
    }


@pytest.mark.parametrize("wire", list(Wire))
def test_the_official_clients_read_message_and_stream_alike(clients: dict[Wire, Any], wire: Wire) -> None:
    """On each wire, what the SDK assembles from the stream is what it reads from the whole message."""
    whole: Message = clients[wire].messages.create(**user("hello"))
    with clients[wire].messages.stream(**user("hello")) as stream:
        streamed: Message = stream.get_final_message()
    assert whole.content[0].type == "text"
    assert whole.content[0].text == GREETING
    assert [block.text for block in streamed.content if block.type == "text"] == [GREETING]
    assert streamed.stop_reason == whole.stop_reason == "end_turn"
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert whole.model == "claude-rehearsal-1"


@pytest.mark.parametrize("wire", [Wire.MESSAGES, Wire.VERTEX])
def test_the_official_clients_count_tokens(clients: dict[Wire, Any], wire: Wire) -> None:
    """The count of tokens is that of the request's bytes."""
    asked = {name: value for name, value in user("hello").items() if name != "max_tokens"}
    assert clients[wire].messages.count_tokens(**asked).input_tokens > 10


def test_bedrock_counts_the_request_inside_the_request() -> None:
    """Bedrock's count is of the body that travels inside in base64, and an unreadable one is refused."""
    inner = b'{"messages":[]}'
    body = json.dumps({"input": {"invokeModel": {"body": b64encode(inner).decode()}}}).encode()
    counted = respond(Wire.BEDROCK, b"/model/m/count-tokens", body)
    assert json.loads(counted.parts[0].data) == {"inputTokens": 4}
    assert respond(Wire.BEDROCK, b"/model/m/count-tokens", b"{}").status == 400


def test_bedrock_streams_chunks_without_pings() -> None:
    """Bedrock's stream holds the same events in its own framing, except pings, which Bedrock never sends."""
    body = ask("hello")
    plain = events(respond(Wire.MESSAGES, b"/v1/messages", ask("hello", stream=True)))
    target = b"/model/m/invoke-with-response-stream"
    framed = respond(Wire.BEDROCK, target, body)
    buffer = EventStreamBuffer()
    buffer.add_data(b"".join(part.data for part in framed.parts))
    kinds = [json.loads(b64decode(json.loads(message.payload)["bytes"]))["type"] for message in buffer]
    assert kinds == [event["type"] for event in plain if event["type"] != "ping"]
    assert dict(framed.headers)[b"content-type"] == b"application/vnd.amazon.eventstream"


def test_the_official_bedrock_client_bears_a_ping() -> None:
    """A ping put between the chunks of a Bedrock stream changes nothing of what the SDK assembles."""
    body = ask("hello")
    parts = respond(Wire.BEDROCK, b"/model/m/invoke-with-response-stream", body).parts
    stream = b"".join(part.data + encode_ping() for part in parts)
    assert stream.count(encode_ping()) == len(parts)
    with serve_bytes(stream) as address:
        client = AnthropicBedrock(
            base_url=address, aws_region="us-east-1", aws_access_key="a", aws_secret_key="s", max_retries=0
        )
        with client, client.messages.stream(**user("hello")) as read:
            message = read.get_final_message()
    assert message.content[0].type == "text"
    assert message.content[0].text == GREETING


@contextmanager
def serve_bytes(stream: bytes) -> Iterator[str]:
    """Run a server that gives one and the same Bedrock stream to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "application/vnd.amazon.eventstream")
            self.send_header("content-length", str(len(stream)))
            self.end_headers()
            self.wfile.write(stream)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


CALCULATOR = '"""Sums."""\n\n\ndef add(a, b):\n    return a - b\n'
TEST = """import unittest

from calculator import add


class AddTest(unittest.TestCase):
    def test_add(self):
        self.assertEqual(add(2, 3), 5)
"""
STRING = {"type": "string"}
TOOLS: list[ToolParam] = [
    {"name": name, "input_schema": {"type": "object", "properties": dict.fromkeys(parts, STRING)}}
    for name, parts in (
        ("bash", ["command"]),
        ("read_file", ["path"]),
        ("edit_file", ["path", "old_text", "new_text"]),
    )
]


def use_tool(name: str, given: Json, directory: Path) -> tuple[str, bool]:
    """Do what a tool call asks, for real."""
    if name == "bash":
        done = subprocess.run(
            ["/bin/sh", "-c", given["command"]], cwd=directory, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr, done.returncode != 0
    path = Path(given["path"])
    if name == "read_file":
        return path.read_text(), False
    text = path.read_text()
    if given["old_text"] not in text:
        return "the text to replace was not found", True
    path.write_text(text.replace(given["old_text"], given["new_text"]))
    return "replaced", False


def work(client: Anthropic, directory: Path) -> tuple[list[str], str]:
    """A small agent, which does all it is asked to; returns the tools it used and the last words."""
    messages: list[MessageParam] = [{"role": "user", "content": "Please fix the failing test."}]
    used = []
    for _ in range(12):
        with client.messages.stream(
            model="claude-rehearsal-1",
            max_tokens=4096,
            system=f"Working directory: {directory}",
            tools=TOOLS,
            messages=messages,
        ) as stream:
            message = stream.get_final_message()
        messages.append({"role": "assistant", "content": message.content})
        results: list[Any] = []
        for block in message.content:
            if block.type == "tool_use":
                used.append(block.name)
                told, failed = use_tool(block.name, dict(block.input), directory)
                results.append(
                    {"type": "tool_result", "tool_use_id": block.id, "content": told, "is_error": failed}
                )
        if message.stop_reason != "tool_use":
            return used, "".join(block.text for block in message.content if block.type == "text")
        messages.append({"role": "user", "content": results})
    raise AssertionError("the scenario has no end")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git repository with a bug and the test that shows it."""
    (tmp_path / "calculator.py").write_text(CALCULATOR)
    (tmp_path / "test_calculator.py").write_text(TEST)
    for command in (
        ["init", "--quiet"],
        ["config", "user.name", "A. Person"],
        ["config", "user.email", "person@example.invalid"],
        ["add", "--all"],
        ["commit", "--quiet", "--message", "A calculator"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_the_scenario_mends_the_test_for_real(clients: dict[Wire, Any], project: Path) -> None:
    """An agent that does what it is asked ends with mended code, passing tests and one more commit."""
    used, last = work(clients[Wire.MESSAGES], project)
    assert used == ["bash", "read_file", "read_file", "bash", "edit_file", "bash", "bash"]
    assert "passes now" in last
    assert "return a + b" in (project / "calculator.py").read_text()
    assert (
        subprocess.run(["python3", "-B", "-m", "unittest"], cwd=project, capture_output=True).returncode == 0
    )
    log = subprocess.run(["git", "log", "--format=%s"], cwd=project, capture_output=True, text=True).stdout
    assert log.splitlines() == ["Make add add", "A calculator"]


def test_the_scenario_claims_nothing_that_was_not_done(clients: dict[Wire, Any], project: Path) -> None:
    """With a bug other than the expected one, it tells that it could not finish and commits nothing."""
    (project / "calculator.py").write_text(CALCULATOR.replace("a - b", "a * b"))
    used, last = work(clients[Wire.MESSAGES], project)
    assert used[-1] == "edit_file"
    assert "could not finish" in last
    assert "was not found" in last


@pytest.mark.parametrize(
    ("scenario", "error"),
    [
        ("refuse-400", anthropic.BadRequestError),
        ("refuse-429", anthropic.RateLimitError),
        ("refuse-529", anthropic.InternalServerError),
    ],
)
def test_the_official_client_knows_the_refusals(
    clients: dict[Wire, Any], scenario: str, error: type[anthropic.APIStatusError]
) -> None:
    """Each refusal is what the SDK takes for that error; only the rate limit says how long to wait."""
    with pytest.raises(error) as caught:
        clients[Wire.MESSAGES].messages.create(**user(f"rehearse {scenario}"))
    assert caught.value.response.headers.get("retry-after") == ("7" if scenario == "refuse-429" else None)
    assert caught.value.body["type"] == "error"  # type: ignore[index]


@pytest.mark.parametrize("wire", list(Wire))
def test_a_break_is_seen_as_one(clients: dict[Wire, Any], wire: Wire) -> None:
    """The connection ends in the middle: some text came, and the SDK does not take it for a whole answer."""
    said: list[str] = []

    def listen() -> None:
        with clients[wire].messages.stream(**user("rehearse break")) as stream:
            said.extend(stream.text_stream)

    with pytest.raises(Exception, match=r"incomplete chunked read|peer closed"):
        listen()
    assert "".join(said).startswith("I begin to answer")


def stream_lines(url: str, prompt: str) -> Iterator[tuple[float, bytes]]:
    """The lines of a stream with the moments they came at."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("POST", "/v1/messages", ask(prompt, stream=True))
        response = connection.getresponse()
        for line in response:
            yield time.monotonic(), line
    finally:
        connection.close()


def test_a_stall_sends_pings_and_then_goes_on(url: str) -> None:
    """During the silence only pings come, about a second apart; then the answer is finished."""
    begin = time.monotonic()
    pings = [
        moment for moment, line in stream_lines(url, "rehearse stall seconds=2") if line == b"event: ping\n"
    ]
    assert time.monotonic() - begin > 2
    assert len(pings) == 3
    assert 0.8 < pings[2] - pings[1] < 1.8


def test_a_long_answer_comes_as_it_is_produced(url: str) -> None:
    """Two hundred deltas 5 ms apart arrive over a second or more, not together at its end."""
    moments = [
        moment for moment, line in stream_lines(url, "rehearse long") if b"content_block_delta" in line[:30]
    ]
    assert len(moments) == 200
    assert moments[-1] - moments[0] > 0.9
    assert moments[50] - moments[0] < (moments[-1] - moments[0]) / 2


def test_a_client_that_hangs_up_is_noticed() -> None:
    """A client that leaves during a silence ends its answer at once; one that stays is told apart."""
    endings: queue.Queue[Ending] = queue.Queue()
    with rehearsing(observer=lambda _, ending: endings.put(ending)) as url:
        lines = stream_lines(url, "rehearse stall seconds=60")
        while next(lines)[1] != b"event: ping\n":
            pass
        lines.close()  # type: ignore[attr-defined]
        assert endings.get(timeout=5) is Ending.HUNG_UP
        assert list(stream_lines(url, "hello"))
        assert endings.get(timeout=5) is Ending.COMPLETE


def test_agents_find_the_signs_of_life(url: str, clients: dict[Wire, Any]) -> None:
    """The list of models honours its limit, and HEAD and GET answer where agents knock."""
    assert [model.id for model in clients[Wire.MESSAGES].models.list(limit=1)] == [
        "claude-rehearsal-1",
        "claude-rehearsal-1-small",
    ]
    assert clients[Wire.MESSAGES].models.retrieve("claude-rehearsal-1").id == "claude-rehearsal-1"
    for method, path, status in (
        ("HEAD", "/", 200),
        ("HEAD", "/api/hello", 200),
        ("GET", "/api/hello", 200),
        ("GET", "/v1/models?limit=1000", 200),
        ("GET", "/v1/messages", 405),
        ("GET", "/v1/models/other", 404),
        ("POST", "/other", 404),
    ):
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        assert (method, path, response.status) == (method, path, status)
        assert bool(body) == (method != "HEAD")


def test_the_limit_of_the_list_of_models_is_kept() -> None:
    """A list shorter than what there is says so."""
    received = Received(b"GET", b"/v1/models?limit=1", [], b"")
    page = json.loads(answer(received).parts[0].data)
    assert (len(page["data"]), page["has_more"]) == (1, True)
    received = Received(b"GET", b"/v1/models?limit=none", [], b"")
    assert json.loads(answer(received).parts[0].data)["has_more"] is False


def test_the_command_serves_and_records(tmp_path: Path) -> None:
    """`bailee rehearse` prints its URL alone, records the exact bytes, and ends quietly on Ctrl-C."""
    record = tmp_path / "record"
    process = subprocess.Popen(
        [sys.executable, "-m", "bailee", "rehearse", "--record", str(record)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().decode().strip()
        body = ask("hello", spaces="  kept  ")
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        connection.request("POST", "/v1/messages?beta=true&x=%3A", body, {"X-Two": "2", "X-One": "1"})
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (out, err, process.returncode) == (b"", b"", 0)
    assert (record / "0001.body").read_bytes() == body
    told = json.loads((record / "0001.json").read_text())
    assert (told["method"], told["target"]) == ("POST", "/v1/messages?beta=true&x=%3A")
    assert [name for name, _ in told["headers"] if name.startswith("x-")] == ["x-two", "x-one"]


def test_the_command_tells_when_its_port_is_taken(url: str) -> None:
    """A port in use is told in words and with exit code 2, not as a traceback."""
    port = str(urlsplit(url).port)
    done = subprocess.run(
        [sys.executable, "-m", "bailee", "rehearse", "--port", port],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_chunk_of_a_stream_is_framed_alone() -> None:
    """Each event of a Bedrock stream is a message of its own, so that pings can be put between any two."""
    parts = respond(Wire.BEDROCK, b"/model/m/invoke-with-response-stream", ask("hello")).parts
    assert parts[-1].data == encode_chunk(b'{"type":"message_stop"}')

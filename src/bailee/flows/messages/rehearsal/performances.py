"""The rehearsal model itself: from one request to everything that is sent back, as a pure function."""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import unquote

import msgspec

from bailee.flows.messages.rehearsal.conversations import Conversation, read_conversation
from bailee.flows.messages.rehearsal.replies import (
    Call,
    Delta,
    Part,
    Pause,
    Reply,
    count_tokens,
    render_message,
    render_stream,
)
from bailee.flows.messages.rehearsal.scenarios import (
    Edit,
    Outcome,
    Read,
    Refusal,
    Run,
    Scenario,
    Silence,
    Text,
    Thought,
    Turn,
    Write,
    load_scenarios,
)
from bailee.flows.messages.rehearsal.tools import choose_tool, describe, invent
from bailee.flows.messages.wires import Wire

Json = Mapping[str, Any]
Headers = list[tuple[bytes, bytes]]

_EXPLICIT = re.compile(r"\brehearse[ \t]+([a-z0-9-]+)((?:[ \t]+[a-z]+=[0-9.]+)*)", re.I)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_BEDROCK_ERRORS = {
    400: b"ValidationException",
    429: b"ThrottlingException",
    529: b"ServiceUnavailableException",
}
# Nobody waits longer for a rehearsal, and a number out of a prompt must not hold a connection for a year.
LONGEST_SILENCE = 3600.0
MOST_REPETITIONS = 100_000


class Performance(msgspec.Struct, frozen=True):
    """An answer, ready to be sent.

    Attributes:
        parts: what to send, each after its pause in seconds.
        is_cut: the connection breaks off after the last part.
    """

    status: int
    headers: Headers
    parts: tuple[Part, ...]
    is_cut: bool = False


def respond(wire: Wire, target: bytes, body: bytes) -> Performance:
    """Answer a request for a message or a count of tokens.

    The same request always gets the same answer, ids included. Tokens are counted as bytes / 4, rounded up:
    of the request's body for the input, of the answer's text for the output.
    """
    path = target.partition(b"?")[0].rstrip(b"/")
    digest = sha256(b"\n".join((wire.encode(), path, body))).hexdigest()
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        request = None
    if not isinstance(request, dict):
        return refuse(wire, digest, _invalid("the body is not a JSON object"))
    if _is_count(wire, path):
        return _count(wire, digest, request, body)
    if not isinstance(request.get("messages"), list) or not request["messages"]:
        return refuse(wire, digest, _invalid("messages: a list of at least one message is required"))
    conversation = read_conversation(request)
    scenario, turn, parameters = choose_turn(conversation)
    if scenario is not None and scenario.refusal is not None:
        return refuse(wire, digest, scenario.refusal)
    reply = compose(conversation, turn, parameters)
    model = _find_model(wire, path, request)
    tokens = count_tokens(body)
    if not _is_stream(wire, path, request):
        return _whole(
            wire, digest, render_message(reply, digest=digest, model=model, input_tokens=tokens), reply
        )
    parts = render_stream(
        reply,
        wire=wire,
        digest=digest,
        model=model,
        input_tokens=tokens,
        turn=turn,
    )
    kind = (
        b"application/vnd.amazon.eventstream" if wire is Wire.BEDROCK else b"text/event-stream; charset=utf-8"
    )
    headers = [(b"content-type", kind), (b"cache-control", b"no-cache"), *_identify(wire, digest)]
    return Performance(200, headers, parts, reply.is_cut)


def refuse(wire: Wire, digest: str, refusal: Refusal) -> Performance:
    """An error in the form of the wire: Bedrock has its own, Vertex passes that of the Messages API on."""
    request_id = f"req_{digest[:24]}"
    headers = [(b"content-type", b"application/json"), *_identify(wire, digest)]
    status = refusal.status
    if refusal.retry_after:
        headers.append((b"retry-after", str(refusal.retry_after).encode()))
    fault: Json
    if wire is Wire.BEDROCK:
        headers.append((b"x-amzn-errortype", _BEDROCK_ERRORS.get(status, b"ModelErrorException")))
        status = 503 if status == 529 else status
        fault = {"message": refusal.message}
    else:
        error = {"type": refusal.type, "message": refusal.message}
        fault = {"type": "error", "error": error, "request_id": request_id}
    return Performance(status, headers, (Part(0.0, msgspec.json.encode(fault)),))


def choose_turn(conversation: Conversation) -> tuple[Scenario | None, Turn, Mapping[str, float]]:
    """Choose what is played: the newest prompt that selects a scenario, past the turns already answered.

    An answer that has to follow a schema or to use one tool is a side request of the agent (a title, a label)
    and never part of a script, though it may quote the prompt.
    """
    if conversation.answer_schema is not None or conversation.forced_tool:
        return None, Turn(blocks=()), {}
    for prompt in conversation.prompts:
        if (found := select_scenario(prompt.text)) is None:
            continue
        scenario, parameters = found
        if scenario.refusal is not None:
            # The error never became a message, so only the newest prompt can still be waiting for it.
            if prompt is conversation.prompts[0]:
                return scenario, Turn(blocks=()), parameters
            continue
        if prompt.answered < len(scenario.turns):
            return scenario, _follow(scenario, prompt.answered, conversation), parameters
        break
    return None, Turn(blocks=(Text(_introduce()),)), {}


def select_scenario(prompt: str) -> tuple[Scenario, Mapping[str, float]] | None:
    """Find the scenario a prompt asks for: `rehearse NAME key=number ...` before any other phrase."""
    scenarios = load_scenarios()
    for found in _EXPLICIT.finditer(prompt):
        if (scenario := scenarios.get(found[1].lower())) is not None:
            given = dict(pair.split("=", 1) for pair in found[2].split())
            return scenario, {
                name: _number(given.get(name), usual) for name, usual in scenario.parameters.items()
            }
    lowered = prompt.lower()
    for scenario in scenarios.values():
        if any(phrase.lower() in lowered for phrase in scenario.when):
            return scenario, scenario.parameters
    return None


def compose(conversation: Conversation, turn: Turn, parameters: Mapping[str, float]) -> Reply:
    """Make a turn concrete: names filled in, intents turned into calls of the tools that are offered."""
    if conversation.forced_tool:
        schema = conversation.tools.get(conversation.forced_tool, {})
        return Reply((Call(conversation.forced_tool, invent(schema, _title(conversation))),))
    if conversation.answer_schema is not None:
        answer = msgspec.json.encode(invent(conversation.answer_schema, _title(conversation))).decode()
        return Reply((Delta("text", (answer,)),))
    values = {"cwd": conversation.directory, "failure": _tell_failure(conversation)}
    values |= {name: f"{value:g}" for name, value in parameters.items()}
    acts: list[Delta | Call | Pause] = []
    is_cut = False
    for block in turn.blocks:
        match block:
            case Text(text=text, repeat=repeat, cut=cut):
                acts.append(Delta("text", _pieces(text, repeat, values, turn.chunk)))
                is_cut = is_cut or cut
            case Thought(text=text) if conversation.thinks:
                acts.append(Delta("thinking", _pieces(text, "", values, turn.chunk)))
            case Thought():
                pass
            case Silence(seconds=seconds, ping_every=every):
                acts.append(Pause(min(float(_insert(seconds, values)), LONGEST_SILENCE), every))
            case Run() | Read() | Write() | Edit():
                intent = msgspec.structs.replace(
                    block,
                    **{name: _insert(value, values) for name, value in msgspec.structs.asdict(block).items()},
                )
                if (chosen := choose_tool(intent, conversation.tools)) is None:
                    acts.append(Delta("text", _pieces(describe(intent), "", {}, turn.chunk)))
                else:
                    acts.append(Call(*chosen))
    return Reply(tuple(acts), is_cut).limit(conversation.longest_answer)


def _follow(scenario: Scenario, index: int, conversation: Conversation) -> Turn:
    if not index or not conversation.results:
        return scenario.turns[index]
    before = scenario.turns[index - 1]
    failures = [text for is_error, text in conversation.results if is_error]
    is_meant = before.needs is not Outcome.SUCCESS and any(before.shows in text for text in failures)
    if failures and not is_meant:
        return Turn(blocks=(Text(scenario.on_failure.strip()),))
    if before.needs is Outcome.FAILURE and not failures:
        return Turn(blocks=(Text(scenario.on_success.strip()),))
    return scenario.turns[index]


def _tell_failure(conversation: Conversation) -> str:
    failures = [text.strip() for is_error, text in conversation.results if is_error]
    return "\n\n".join(failures)[:2000] or "(it gave no reason)"


def _introduce() -> str:
    lines = [
        f"- `rehearse {scenario.name}`: {scenario.description}" for scenario in load_scenarios().values()
    ]
    return "\n".join(
        (
            "I am the rehearsal model: I play scripts and understand nothing. Ask me for one of these:",
            "",
            *lines,
        )
    )


def _title(conversation: Conversation) -> str:
    words = re.findall(r"\w[\w'-]*", conversation.prompts[0].text if conversation.prompts else "")
    words = words[1:] if words[:1] == ["session"] else words
    return " ".join(words[:6]).capitalize() or "Rehearsal"


def _pieces(text: str, repeat: str, values: Mapping[str, str], chunk: int) -> tuple[str, ...]:
    if repeat:
        count = int(min(float(_insert(repeat, values)), MOST_REPETITIONS))
        return tuple(_insert(text, {**values, "n": str(number)}) for number in range(1, count + 1))
    whole = _insert(text, values)
    return tuple(whole[start : start + chunk] for start in range(0, len(whole), chunk))


def _insert(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)


def _number(text: str | None, usual: float) -> float:
    try:
        return usual if text is None else float(text)
    except ValueError:
        return usual


def _invalid(message: str) -> Refusal:
    return Refusal(400, "invalid_request_error", message)


def _is_stream(wire: Wire, path: bytes, request: Json) -> bool:
    match wire:
        case Wire.MESSAGES:
            return request.get("stream") is True
        case Wire.BEDROCK:
            return path.endswith(b"/invoke-with-response-stream")
        case Wire.VERTEX:
            return path.endswith(b":streamRawPredict")


def _is_count(wire: Wire, path: bytes) -> bool:
    # Vertex counts through a model of that name: .../models/count-tokens:rawPredict.
    ending = {
        Wire.MESSAGES: b"/count_tokens",
        Wire.BEDROCK: b"/count-tokens",
        Wire.VERTEX: b"/count-tokens:rawPredict",
    }
    return path.endswith(ending[wire])


def _find_model(wire: Wire, path: bytes, request: Json) -> str:
    match wire:
        case Wire.MESSAGES:
            return str(request.get("model", "rehearsal"))
        case Wire.BEDROCK:
            return unquote(path.split(b"/")[2].decode("ascii", "replace"))
        case Wire.VERTEX:
            return path.rpartition(b"/")[2].rpartition(b":")[0].decode("ascii", "replace")


def _identify(wire: Wire, digest: str) -> Headers:
    identity = f"req_{digest[:24]}".encode()
    if wire is Wire.BEDROCK:
        return [(b"x-amzn-requestid", identity)]
    return [(b"request-id", identity)]


def _count(wire: Wire, digest: str, request: Json, body: bytes) -> Performance:
    if wire is Wire.BEDROCK:
        # The request to be counted travels inside: {"input": {"invokeModel": {"body": base64}}}.
        try:
            counted = {"inputTokens": count_tokens(b64decode(request["input"]["invokeModel"]["body"]))}
        except (KeyError, TypeError, Base64Error):
            return refuse(wire, digest, _invalid("input.invokeModel.body: base64 is required"))
    else:
        counted = {"input_tokens": count_tokens(body)}
    headers = [(b"content-type", b"application/json"), *_identify(wire, digest)]
    return Performance(200, headers, (Part(0.0, msgspec.json.encode(counted)),))


def _whole(wire: Wire, digest: str, message: Json, reply: Reply) -> Performance:
    data = msgspec.json.encode(message)
    headers = [(b"content-type", b"application/json"), *_identify(wire, digest)]
    if not reply.is_cut:
        return Performance(200, headers, (Part(reply.silence, data),))
    headers.append((b"content-length", str(len(data)).encode()))
    return Performance(200, headers, (Part(reply.silence, data[: len(data) // 2]),), is_cut=True)

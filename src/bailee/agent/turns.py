"""A turn: from what the user says to the point where the model has nothing more to do.

A turn is a generator of events. Whatever ends it, an interrupt included, the conversation is left in a state
in which it can go on, and every message of it was recorded as soon as it was whole.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from bailee.agent.conversations import INTERRUPTED, Block, Message, calls, repaired, result, say
from bailee.agent.events import Answered, Called, Compacted, Ended, Event, Result, Text, Thinking, Usage
from bailee.agent.permissions import Answer, Call, Rule, Verdict, judge
from bailee.agent.settings import Mode
from bailee.agent.tools import TOOLS, Failed, Preview, Tool, Workspace
from bailee.agent.tools.protocol import shorten

if TYPE_CHECKING:
    from anthropic import Anthropic

MOST_ROUNDS = 200
# Compaction begins before the conversation is full: the summary needs room as well.
FULL = 0.8
SUMMARY_TOKENS = 4000
_SUMMARIZE = (
    "Summarize our conversation so far for yourself, so that you can go on without it: what the user wants, "
    "what was found out, which files were changed and how, what was decided, what is still to do. "
    "Name files and commands exactly. Answer with the summary alone."
)
_GO_ON = "This is a summary of our conversation so far; the conversation itself is no longer here.\n\n"


class Approval(msgspec.Struct, frozen=True):
    """What a person says to a call.

    Attributes:
        is_given: whether it may go ahead.
        rule: what need not be asked again in this session.
        note: what the model is told where it may not.
    """

    is_given: bool
    rule: Rule | None = None
    note: str = ""


class Asks(Protocol):
    """Asks a person about a call."""

    def __call__(self, call: Call, preview: Preview, verdict: Verdict) -> Approval: ...


def refuse_unasked(call: Call, preview: Preview, verdict: Verdict) -> Approval:
    """Answer for a person who is not there: no."""
    note = "nobody is there to ask; allow it beforehand with --allow or --mode"
    return Approval(False, note=note)


class Gate:
    """Lets calls through, asks, or refuses; it remembers what need not be asked again.

    Attributes:
        mode: what is done without asking; may be changed between calls.
    """

    def __init__(
        self, mode: Mode, *, allow: Sequence[Rule] = (), deny: Sequence[Rule] = (), ask: Asks = refuse_unasked
    ) -> None:
        self.mode = mode
        self._allow = list(allow)
        self._deny = tuple(deny)
        self._ask = ask

    def admit(self, call: Call, preview: Preview) -> str | None:
        """Return None if a call may go ahead, else what the model is told."""
        verdict = judge(call, self.mode, allow=self._allow, deny=self._deny)
        if verdict.answer is Answer.GO:
            return None
        if verdict.answer is Answer.REFUSE:
            return f"This is not allowed: {verdict.reason}."
        approval = self._ask(call, preview, verdict)
        if approval.rule is not None:
            self._allow.append(approval.rule)
        if approval.is_given:
            return None
        return f"The user did not allow this{f': {approval.note}' if approval.note else ''}."


class Conversation:
    """A conversation that goes on.

    Args:
        record: told of each message as soon as it is whole, and of each summary that replaced the messages.

    Attributes:
        messages: what was said, in order; `repaired` makes of it what the model is sent.
        usage: all tokens of the conversation.
        context_tokens: how many tokens the last answer took, everything before it included.
    """

    def __init__(
        self,
        messages: Sequence[Message] = (),
        *,
        record: Callable[[Message], None] = lambda message: None,
        record_summary: Callable[[str], None] = lambda summary: None,
    ) -> None:
        self.messages = list(messages)
        self.usage = Usage()
        self.context_tokens = 0
        self._record = record
        self._record_summary = record_summary

    def add(self, message: Message) -> None:
        """Add a message and record it."""
        self._record(message)
        self.messages.append(message)

    def replace(self, summary: str) -> None:
        """Let the messages go and keep their summary."""
        self._record_summary(summary)
        self.messages = summarized(summary)
        self.context_tokens = 0


def summarized(summary: str) -> list[Message]:
    """Return the conversation that a summary stands for."""
    return [{"role": "user", "content": [{"type": "text", "text": _GO_ON + summary}]}]


class Model(msgspec.Struct, frozen=True):
    """What answers, and how it is asked.

    Attributes:
        client: of the official SDK, for whichever provider.
        headers: sent with each request, such as the session's id.
    """

    client: "Anthropic"
    name: str
    system: str
    max_tokens: int
    context_tokens: int
    headers: Mapping[str, str] = {}


def run_turn(
    conversation: Conversation,
    model: Model,
    gate: Gate,
    workspace: Workspace,
    prompt: Message,
    *,
    tools: Mapping[str, Tool] = TOOLS,
    most_rounds: int = MOST_ROUNDS,
) -> Generator[Event]:
    """Answer a prompt: ask the model, do what it calls for, until it has nothing more to do.

    Raises:
        anthropic.APIError: the model could not be reached or refused the request; what was said so far stays.
    """
    conversation.add(prompt)
    spent = Usage()
    rounds = 0
    reason = "done"
    try:
        while True:
            if conversation.context_tokens > FULL * model.context_tokens:
                yield from compact(conversation, model)
            rounds += 1
            answer, answered = yield from _ask_model(conversation, model, tools)
            spent += answered.usage
            yield answered
            wanted = calls(answer)
            if not wanted:
                reason = {"max_tokens": "limit", "refusal": "refused"}.get(answered.stop_reason, "done")
                break
            yield from _do(conversation, wanted, gate, workspace, tools)
            if rounds >= most_rounds:
                reason = "limit"
                break
    except KeyboardInterrupt:
        reason = "interrupted"
    yield Ended(reason, rounds, spent)


def _ask_model(
    conversation: Conversation, model: Model, tools: Mapping[str, Tool]
) -> Generator[Event, None, tuple[Message, Answered]]:
    """Ask for one answer, give its pieces as they come, and return it whole; a part of one is kept too."""
    started = time.monotonic()
    with model.client.messages.stream(**_request(conversation.messages, model, tools)) as stream:
        is_whole = False
        try:
            for event in stream:
                if event.type == "text":
                    yield Text(event.text)
                elif event.type == "thinking":
                    yield Thinking(event.thinking)
            is_whole = True
        finally:
            if not is_whole and (snapshot := _snapshot(stream)) is not None:
                said = [block for block in map(_plain, snapshot.content) if block.get("text")]
                if said:
                    conversation.add({"role": "assistant", "content": said})
        message = stream.get_final_message()
    content = [block for block in map(_plain, message.content) if block != {"type": "text", "text": ""}]
    usage = message.usage
    spent = Usage(
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens or 0,
        usage.cache_creation_input_tokens or 0,
    )
    conversation.usage += spent
    conversation.context_tokens = spent.context_tokens
    answer: Message = {"role": "assistant", "content": content}
    conversation.add(answer)
    took = round((time.monotonic() - started) * 1000)
    return answer, Answered(message.model, spent, message.stop_reason or "", took)


def _request(messages: Sequence[Message], model: Model, tools: Mapping[str, Tool]) -> dict[str, Any]:
    marked = repaired(messages)
    # What is the same in the next round is not paid for twice: the prompt up to here, and the instructions.
    last = [dict(block) for block in marked[-1]["content"]]
    last[-1]["cache_control"] = {"type": "ephemeral"}
    marked[-1] = {"role": marked[-1]["role"], "content": last}
    return {
        "model": model.name,
        "max_tokens": model.max_tokens,
        "system": [{"type": "text", "text": model.system, "cache_control": {"type": "ephemeral"}}],
        "messages": marked,
        "tools": _offers(tools),
        "extra_headers": dict(model.headers),
    }


def _offers(tools: Mapping[str, Tool]) -> list[dict[str, Any]]:
    return [
        {"name": tool.name, "description": tool.description, "input_schema": dict(tool.schema)}
        for tool in tools.values()
    ]


def _snapshot(stream: Any) -> Any:
    try:
        return stream.current_message_snapshot
    except AssertionError:  # nothing has come yet
        return None


# What of a block the API takes back (Messages API reference, "content"); the SDK adds fields of its own.
_FIELDS = {
    "text": ("type", "text"),
    "tool_use": ("type", "id", "name", "input"),
    "thinking": ("type", "thinking", "signature"),
    "redacted_thinking": ("type", "data"),
}


def _plain(block: Any) -> Block:
    dumped: Block = block.model_dump(mode="json", exclude_none=True)
    fields = _FIELDS.get(dumped["type"])
    return dumped if fields is None else {name: dumped[name] for name in fields if name in dumped}


def _do(
    conversation: Conversation,
    wanted: Sequence[Block],
    gate: Gate,
    workspace: Workspace,
    tools: Mapping[str, Tool],
) -> Iterator[Event]:
    """Do what an answer calls for, one after the other; what is left undone by an interrupt says so."""
    results: list[Block] = []
    try:
        for block in wanted:
            done: Result | None = None
            for event in _call(block, gate, workspace, tools):
                if isinstance(event, Result):
                    done = event
                    results.append(result(event.id, event.text, is_error=event.is_error))
                yield event
            assert done is not None
    finally:
        undone = [result(block["id"], INTERRUPTED, is_error=True) for block in wanted[len(results) :]]
        conversation.add({"role": "user", "content": [*results, *undone]})


def _call(block: Block, gate: Gate, workspace: Workspace, tools: Mapping[str, Tool]) -> Iterator[Event]:
    name, arguments, id = block["name"], block.get("input"), block["id"]
    tool = tools.get(name)
    if tool is None or not isinstance(arguments, Mapping):
        yield Called(id, name, "")
        why = "its input is no object" if tool else f"there is no tool {name}; there are {', '.join(tools)}"
        yield Result(id, name, why, is_error=True)
        return
    try:
        preview = tool.preview(arguments, workspace)
    except Failed as failure:
        yield Called(id, name, "")
        yield Result(id, name, str(failure), is_error=True)
        return
    yield Called(id, name, preview.subject, preview.detail)
    call = Call(name, tool.reach, preview.subject, preview.is_sensitive)
    if (refusal := gate.admit(call, preview)) is not None:
        yield Result(id, name, refusal, is_error=True)
        return
    try:
        if preview != tool.preview(arguments, workspace):
            # While somebody thought about it, a folder became a link or a file another one.
            raise Failed("what it leads to changed while the user was asked; nothing was done")
        text, is_error = tool.run(arguments, workspace), False
    except Failed as failure:
        text, is_error = str(failure), True
    except (OSError, ValueError) as fault:  # a disk that is full; a path with a character no path has
        text, is_error = f"{type(fault).__name__}: {fault}", True
    yield Result(id, name, shorten(text), is_error)


def compact(conversation: Conversation, model: Model, tools: Mapping[str, Tool] = TOOLS) -> Generator[Event]:
    """Replace the conversation by a summary that the model writes of it.

    Raises:
        anthropic.APIError: the model could not be reached; the conversation stays as it is.
    """
    before = conversation.context_tokens
    asked = [*conversation.messages, say(_SUMMARIZE)]
    request = _request(asked, model, tools) | {"max_tokens": SUMMARY_TOKENS, "tool_choice": {"type": "none"}}
    answer = model.client.messages.create(**request)
    summary = "".join(block.text for block in answer.content if block.type == "text").strip()
    conversation.context_tokens = 0
    if summary:
        conversation.replace(summary)
        yield Compacted(before, summary)

"""A turn with the rehearsal model and the official SDK: calls, refusals, interrupts, limits."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.agent.clients import rehearsing
from bailee.agent.conversations import INTERRUPTED, calls, repaired, say, texts
from bailee.agent.events import Answered, Called, Compacted, Ended, Event, Result, Text
from bailee.agent.faults import told_as_problem
from bailee.agent.permissions import Call, Rule, Verdict
from bailee.agent.settings import Mode
from bailee.agent.terminal.dialogue import interruptible
from bailee.agent.tools import Preview, Workspace
from bailee.agent.tools.paths import Project
from bailee.agent.turns import Approval, Conversation, Gate, Model, compact, run_turn
from bailee.policy.problems import Problem
from counterparts.projects import make_project


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with rehearsing() as client:
        yield client


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    make_project(folder)
    return folder


def make_model(client: Any, project: Path, **changes: Any) -> Model:
    options = {"name": "claude-rehearsal-1", "max_tokens": 8000, "context_tokens": 200_000} | changes
    return Model(client=client, system=f"Working directory: {project}", **options)


def make_workspace(project: Path) -> Workspace:
    environment = {"PATH": os.environ["PATH"], "HOME": str(project.parent)}
    return Workspace(Project.at(project), environment=environment, command_seconds=60)


def test_a_turn_goes_on_until_there_is_nothing_to_do(client: Any, project: Path) -> None:
    """The model reads, runs, edits and commits; each message is recorded once, in order."""
    recorded: list[Any] = []
    conversation = Conversation(record=recorded.append)
    turn = run_turn(
        conversation,
        make_model(client, project),
        Gate(Mode.ALL),
        make_workspace(project),
        say("Fix the failing test"),
    )
    events = list(turn)
    assert (project / "calculator.py").read_text().count("return a + b") == 1
    assert [event.tool for event in events if isinstance(event, Called)] == [
        *("bash", "read", "read", "bash", "edit", "bash", "bash")
    ]
    assert events[-1] == Ended("done", 7, conversation.usage)
    assert recorded == conversation.messages
    assert repaired(recorded) == recorded
    assert conversation.usage.input_tokens > 0


def test_what_is_not_allowed_does_not_happen(client: Any, project: Path) -> None:
    """In plan the project stays as it is, and the model is told why."""
    turn = run_turn(
        Conversation(),
        make_model(client, project),
        Gate(Mode.PLAN),
        make_workspace(project),
        say("fix the test"),
    )
    results = [event for event in turn if isinstance(event, Result)]
    assert results[0].is_error
    assert "plan" in results[0].text
    assert "return a - b" in (project / "calculator.py").read_text()


def test_always_is_asked_once(client: Any, project: Path) -> None:
    """After `always` the calls that its rule covers are not asked about again; others are."""
    asked: list[str] = []

    def ask(call: Call, preview: Preview, verdict: Verdict) -> Approval:
        asked.append(call.subject)
        return Approval(True, Rule("bash", "python3 *") if "python3" in call.subject else None)

    gate = Gate(Mode.ASK, ask=ask)
    list(
        run_turn(
            Conversation(), make_model(client, project), gate, make_workspace(project), say("fix the test")
        )
    )
    assert sum("unittest" in subject for subject in asked) == 1
    assert any(subject.startswith("git commit") for subject in asked)


@pytest.mark.parametrize("stop", range(1, 30, 3))
def test_an_interrupt_anywhere_leaves_a_conversation_that_goes_on(
    client: Any, project: Path, stop: int
) -> None:
    """Ctrl-C at any event ends the turn; what was said is kept, and the next turn answers."""
    conversation = Conversation()
    model, workspace = make_model(client, project), make_workspace(project)
    turn = run_turn(conversation, model, Gate(Mode.ALL), workspace, say("Fix the failing test"))
    count = 0

    def show(event: Event) -> None:
        nonlocal count
        count += 1
        if count == stop:
            raise KeyboardInterrupt

    events = list(interruptible(turn, show))
    assert isinstance(events[-1], Ended)
    assert events[-1].reason in ("interrupted", "done")
    if stop < 20:
        assert events[-1].reason == "interrupted"
    assert is_valid(repaired(conversation.messages))
    events = list(run_turn(conversation, model, Gate(Mode.ALL), workspace, say("rehearse greet")))
    assert events[-1].reason == "done"  # type: ignore[attr-defined]
    assert any(isinstance(event, Text) for event in events)


def test_an_interrupted_answer_is_kept_as_far_as_it_came(client: Any, project: Path) -> None:
    """The part of an answer that was shown is in the conversation."""
    conversation = Conversation()
    turn = run_turn(
        conversation,
        make_model(client, project),
        Gate(Mode.ALL),
        make_workspace(project),
        say("rehearse long deltas=50"),
    )
    shown: list[str] = []

    def show(event: Event) -> None:
        if isinstance(event, Text):
            shown.append(event.text)
            if len(shown) == 10:
                raise KeyboardInterrupt

    list(interruptible(turn, show))
    assert "".join(texts(conversation.messages[-1])).startswith("".join(shown))


def test_an_interrupted_command_is_ended_and_told(client: Any, project: Path) -> None:
    """Calls that were not done have results that say so."""
    conversation = Conversation()

    def ask(call: Call, preview: Preview, verdict: Verdict) -> Approval:
        raise KeyboardInterrupt

    turn = run_turn(
        conversation,
        make_model(client, project),
        Gate(Mode.ASK, ask=ask),
        make_workspace(project),
        say("fix the test"),
    )
    assert list(turn)[-1].reason == "interrupted"  # type: ignore[attr-defined]
    assert conversation.messages[-1]["content"][0]["content"] == INTERRUPTED


@pytest.mark.parametrize(
    ("scenario", "status"), [("refuse-400", 400), ("refuse-429", 429), ("refuse-529", 529)]
)
def test_a_refusal_of_the_model_is_told_as_it_is(
    client: Any, project: Path, scenario: str, status: int
) -> None:
    """What the API refuses becomes one readable error with its own words, and the prompt is not lost."""
    conversation = Conversation()
    model = make_model(client.with_options(max_retries=0), project)
    prompt = say(f"rehearse {scenario}")
    turn = run_turn(conversation, model, Gate(Mode.ASK), make_workspace(project), prompt)
    with pytest.raises(Problem, match=str(status)):
        list(told(turn))
    assert len(conversation.messages) == 1


def test_a_full_conversation_is_summarized(client: Any, project: Path) -> None:
    """Where little room is left the conversation is replaced by its summary, and the turn goes on."""
    summaries: list[str] = []
    conversation = Conversation(record_summary=summaries.append)
    model = make_model(client, project, context_tokens=2500)
    turn = run_turn(conversation, model, Gate(Mode.ALL), make_workspace(project), say("rehearse greet"))
    assert not any(isinstance(event, Compacted) for event in turn)
    conversation.context_tokens = 2400
    events = list(
        run_turn(conversation, model, Gate(Mode.ALL), make_workspace(project), say("rehearse greet"))
    )
    assert isinstance(events[0], Compacted)
    assert summaries[-1] in conversation.messages[0]["content"][0]["text"]
    assert events[-1].reason == "done"  # type: ignore[attr-defined]


def test_summarizing_by_hand(client: Any, project: Path) -> None:
    """`/compact` leaves one message that holds the summary."""
    conversation = Conversation([say("rehearse greet")])
    list(compact(conversation, make_model(client, project)))
    assert len(conversation.messages) == 1


def test_rounds_have_a_limit(client: Any, project: Path) -> None:
    """A model that never stops calling is stopped."""
    turn = run_turn(
        Conversation(),
        make_model(client, project),
        Gate(Mode.ALL),
        make_workspace(project),
        say("Fix the failing test"),
        most_rounds=2,
    )
    ended = list(turn)[-1]
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.rounds) == ("limit", 2)


def told(turn: Iterator[Event]) -> Iterator[Event]:
    with told_as_problem():
        yield from turn


BLOCKS = st.sampled_from(["text", "call", "result"])


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A conversation cut off and stitched together anyhow."""
    messages = []
    number = 0
    for _ in range(draw(st.integers(0, 8))):
        role = draw(st.sampled_from(["user", "assistant"]))
        content: list[dict[str, Any]] = []
        for kind in draw(st.lists(BLOCKS, max_size=3)):
            number += 1
            if kind == "text":
                content.append({"type": "text", "text": f"t{number}"})
            elif kind == "call" and role == "assistant":
                content.append({"type": "tool_use", "id": f"c{number}", "name": "read", "input": {}})
        messages.append({"role": role, "content": content})
    return messages


def is_valid(messages: list[dict[str, Any]]) -> bool:
    """Tell whether the API takes a conversation: roles alternate, and every call is answered next."""
    for place, message in enumerate(messages):
        if place and messages[place - 1]["role"] == message["role"]:
            return False
        if not message["content"]:
            return False
        wanted = {block["id"] for block in calls(message)}
        following = messages[place + 1]["content"] if place + 1 < len(messages) else []
        answered = [block["tool_use_id"] for block in following if block["type"] == "tool_result"]
        if message["role"] == "assistant" and (set(answered) != wanted or len(answered) != len(wanted)):
            return False
    return True


@given(conversations())
def test_any_conversation_is_repaired(messages: list[dict[str, Any]]) -> None:
    """Whatever was cut off where: what is sent is a conversation the API takes, with all texts in order."""
    whole = repaired(messages)
    assert is_valid(whole)
    assert [text for message in whole for text in texts(message)] == [
        text for message in messages for text in texts(message)
    ]
    assert repaired(whole) == whole


def test_answers_tell_their_tokens(client: Any, project: Path) -> None:
    """Each answer says its model and tokens; together they are the turn's."""
    conversation = Conversation()
    turn = run_turn(
        conversation,
        make_model(client, project),
        Gate(Mode.ALL),
        make_workspace(project),
        say("rehearse greet"),
    )
    events = list(turn)
    answered = [event for event in events if isinstance(event, Answered)]
    assert len(answered) == 1
    assert answered[0].model == "claude-rehearsal-1"
    assert events[-1].usage == answered[0].usage  # type: ignore[attr-defined]

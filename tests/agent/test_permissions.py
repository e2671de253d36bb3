"""What a tool call may do in each mode, and what rules cover."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.agent.permissions import Answer, Call, Reach, Rule, is_compound, judge, propose_rule, read_rule
from bailee.agent.settings import Mode
from bailee.policy.problems import Problem

TOOLS = ("read", "edit", "bash")
LOOK = Call("read", Reach.LOOK, "a.py")
CHANGE = Call("edit", Reach.CHANGE, "src/a.py")
HOOK = Call("edit", Reach.CHANGE, ".git/hooks/pre-commit", is_sensitive=True)
RUN = Call("bash", Reach.RUN, "pytest -q tests")
EXPECTED = {
    Mode.PLAN: (Answer.GO, Answer.REFUSE, Answer.REFUSE, Answer.REFUSE),
    Mode.ASK: (Answer.GO, Answer.ASK, Answer.ASK, Answer.ASK),
    Mode.EDITS: (Answer.GO, Answer.GO, Answer.ASK, Answer.ASK),
    Mode.ALL: (Answer.GO, Answer.GO, Answer.GO, Answer.GO),
}


@pytest.mark.parametrize("mode", list(Mode))
def test_modes(mode: Mode) -> None:
    """Each mode lets through, asks about and refuses what it says; hooks are asked about even in edits."""
    answers = tuple(judge(call, mode, allow=(), deny=()).answer for call in (LOOK, CHANGE, HOOK, RUN))
    assert answers == EXPECTED[mode]


@pytest.mark.parametrize("mode", list(Mode))
def test_a_refusal_stands_above_every_mode_and_permission(mode: Mode) -> None:
    """What a deny rule touches is refused, also where an allow rule covers it and in the mode all."""
    rule = read_rule("bash(pytest *)", TOOLS)
    assert judge(RUN, mode, allow=[rule], deny=[rule]).answer is Answer.REFUSE


def test_an_allowed_call_is_not_asked_about() -> None:
    """An allow rule lets through what it covers, never in plan, and never what governs the agent."""
    rule = read_rule("bash(pytest *)", TOOLS)
    assert judge(RUN, Mode.ASK, allow=[rule], deny=()).answer is Answer.GO
    assert judge(RUN, Mode.PLAN, allow=[rule], deny=()).answer is Answer.REFUSE
    assert judge(HOOK, Mode.ASK, allow=[Rule("edit", "**")], deny=()).answer is Answer.ASK


@pytest.mark.parametrize(
    "command",
    [
        "git status; rm -rf .",
        "git status && rm x",
        "git status | sh",
        "git $(rm x)",
        "git `rm x`",
        "git status\nrm x",
        "git status > /etc/x",
        "git diff <(rm x)",
        "git status &",
        "git $X",
        "git ${X}",
    ],
)
def test_a_pattern_covers_no_compound_command(command: str) -> None:
    """`bash(git *)` does not let a second command through behind the first; the same words alone it does."""
    rule = read_rule("bash(git *)", TOOLS)
    assert not rule.covers(Call("bash", Reach.RUN, command))
    assert rule.covers(Call("bash", Reach.RUN, "git status --short"))
    assert Rule("bash", "rm *").touches(Call("bash", Reach.RUN, command)) == ("rm " in command)


@given(st.text(max_size=60))
def test_what_always_allows_covers_what_it_was_asked_for(command: str) -> None:
    """The rule that `always` makes covers the call it was made of, and no compound command besides."""
    call = Call("bash", Reach.RUN, command)
    rule = propose_rule(call)
    assert rule.covers(call)
    if not is_compound(command):
        assert not rule.covers(Call("bash", Reach.RUN, f"{command}; rm -rf ."))


@pytest.mark.parametrize("text", ["", "sh", "bash(", "Bash(ls)", "bash()", "bash(ls) x"])
def test_a_rule_that_says_nothing_is_an_error(text: str) -> None:
    """What is no rule is refused, with what could be written."""
    with pytest.raises(Problem, match="no rule"):
        read_rule(text, TOOLS)


@pytest.mark.parametrize(
    "command",
    [
        *("touch x", "X=1 touch x", "! touch x", "/usr/bin/touch x", "touch\tx"),
        "if true; then touch x; fi",
        *("sh -c 'touch x'", "sudo touch x", "env A=b touch x", 'bash -lc "touch x"', "true && touch x"),
    ],
)
def test_a_refusal_is_not_passed_by_another_spelling(command: str) -> None:
    """What a rule refuses is refused under a path, after assignments and words, and in another shell."""
    call = Call("bash", Reach.RUN, command)
    assert Rule("bash", "touch *").touches(call)
    assert not Rule("bash", "rm *").touches(call)


def test_what_may_not_be_read_may_not_be_searched() -> None:
    """A rule against reading a file is one against searching in it; other files are searched (control)."""
    rule = Rule("read", ".env")
    assert rule.touches(Call("search", Reach.LOOK, ".env"))
    assert not rule.touches(Call("search", Reach.LOOK, "."))
    assert not rule.touches(Call("list", Reach.LOOK, ".env"))
    assert not Rule("read", "").touches(Call("search", Reach.LOOK, ".env"))

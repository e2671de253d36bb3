"""What becomes of a group of errors that somebody resolved or muted."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bailee.flows.errors.faults import Fault, Raised
from bailee.flows.errors.results import Held, group
from bailee.flows.errors.triage import State, decide, find, identify, triage
from bailee.policy.problems import Problem
from bailee.vault.store import open_vault
from counterparts.holdings import make_key
from counterparts.programs import run_program
from counterparts.services import Service, clean_environment, serving

FRAME: dict[str, str | float] = {"module": "bailee.agent.work", "function": "answer", "line": 3.0}


def make(at_ms: int, name: str = "ValueError") -> Held:
    return Held(at_ms, Fault({"version": "1.2.3"}, [Raised({"class": name}, [dict(FRAME)])]))


def states(folder: Path, held: list[Held]) -> dict[str, State]:
    vault = open_vault(folder)
    try:
        return {one.group.name: one.state for one in triage(vault, group(held))}
    finally:
        vault.dispose()


def set_state(folder: Path, name: str, state: State, now_ms: int) -> None:
    vault = open_vault(folder)
    decide(vault, identify(group([make(0, name)])[0]), state, by="olga", now_ms=now_ms)
    vault.dispose()


def test_a_resolved_group_comes_back(tmp_path: Path) -> None:
    """With an error that came after it was resolved, and not by one that came before; others stay open."""
    held = [make(1000), make(2000, "OSError")]
    assert states(tmp_path, held) == {"ValueError": State.OPEN, "OSError": State.OPEN}
    set_state(tmp_path, "ValueError", State.RESOLVED, 1500)
    assert states(tmp_path, held) == {"ValueError": State.RESOLVED, "OSError": State.OPEN}
    assert states(tmp_path, [*held, make(1501)])["ValueError"] is State.CAME_BACK
    set_state(tmp_path, "ValueError", State.RESOLVED, 1600)
    assert states(tmp_path, [*held, make(1501)])["ValueError"] is State.RESOLVED


def test_a_muted_group_stays_muted(tmp_path: Path) -> None:
    """Whatever comes, until it is reopened."""
    set_state(tmp_path, "ValueError", State.MUTED, 1500)
    assert states(tmp_path, [make(9000)]) == {"ValueError": State.MUTED}
    set_state(tmp_path, "ValueError", State.OPEN, 1600)
    assert states(tmp_path, [make(9000)]) == {"ValueError": State.OPEN}


def test_a_group_is_named_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    """By one that fits one group alone; nothing, and what fits none, is refused."""
    vault = open_vault(tmp_path)
    found = triage(vault, group([make(1), make(2, "OSError")]))
    vault.dispose()
    assert find(found, found[0].id[:6]) == found[0]
    for wrong in ("", "zz", found[0].id + "0"):
        with pytest.raises(Problem):
            find(found, wrong)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal") as running:
        yield running


def test_a_person_resolves_and_mutes(service: Service, tmp_path: Path) -> None:
    """From the list to the frames, out of the list, and back."""
    import urllib.request

    frame = {"module": "bailee.agent.work", "function": "answer", "lineno": 3}
    event = {"exception": {"values": [{"type": "ValueError", "stacktrace": {"frames": [frame]}}]}}
    headers = {"Authorization": f"Bearer {make_key(service.home)}"}
    url = f"{service.url}/api/1/store/"

    def send() -> None:
        request = urllib.request.Request(url, json.dumps(event).encode(), headers)
        urllib.request.urlopen(request, timeout=10).close()

    def bailee(*words: str, code: int = 0) -> str:
        environment = clean_environment(tmp_path, BAILEE_HOME=str(service.home))
        done = run_program("errors", *words, environment=environment, folder=tmp_path)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return str(done.stdout)

    send()
    (one,) = json.loads(bailee("list", "--json"))
    assert (one["name"], one["state"], one["count"]) == ("ValueError", "open", 1)
    assert "bailee.agent.work.answer:3" in bailee("show", one["id"][:5])
    bailee("resolve", one["id"])
    assert json.loads(bailee("list", "--json")) == []
    assert one["id"] in bailee("list", "--all")
    send()
    assert "came back" in bailee("list")
    bailee("mute", one["id"])
    send()
    assert one["id"] not in bailee("list")
    bailee("reopen", one["id"])
    assert json.loads(bailee("list", "--json"))[0]["count"] == 3
    bailee("resolve", "0000nothing", code=2)

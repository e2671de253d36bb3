"""Manifests are read strictly, and those of the two agents say what the specification says."""

from pathlib import Path

import pytest

from bailee.manifests import agents, load_manifest, read_manifest
from bailee.manifests.loading import FOLDER
from bailee.policy.contexts import Context
from bailee.policy.decisions import decide
from bailee.policy.periods import UNLIMITED
from bailee.policy.plans import Location, Provider
from bailee.policy.problems import Problem

FLOWS = ["messages", "metrics", "errors", "feedback", "survey", "update", "local_cache", "git", "web"]

# Specification, "Default behaviors by API provider", and the survey, which is non-essential too.
DEFAULTS = {
    ("metrics", "anthropic"): True,
    ("metrics", "bedrock"): False,
    ("metrics", "vertex"): False,
    ("errors", "anthropic"): True,
    ("errors", "bedrock"): False,
    ("errors", "vertex"): False,
    ("feedback", "anthropic"): True,
    ("feedback", "bedrock"): False,
    ("feedback", "vertex"): False,
    ("survey", "anthropic"): True,
    ("survey", "bedrock"): False,
    ("survey", "vertex"): False,
}
DISABLED_BY = {
    "metrics": "DISABLE_TELEMETRY",
    "errors": "DISABLE_ERROR_REPORTING",
    "feedback": "DISABLE_BUG_COMMAND",
}


OTHERS = ("aider", "codex", "gemini-cli", "opencode")


def test_the_agents() -> None:
    """Our own agent, Claude Code and those of other makers have a manifest; two keep to the specification."""
    assert agents() == tuple(sorted(("bailee", "claude-code", *OTHERS)))
    assert [name for name in agents() if load_manifest(name).is_specified] == ["bailee", "claude-code"]


@pytest.mark.parametrize("agent", agents())
def test_every_flow_is_declared_in_order(agent: str) -> None:
    """A manifest declares the nine flows, each once; ours also what leaves the service."""
    own = ["forwarding"] if agent == "bailee" else []
    assert [flow.id for flow in load_manifest(agent).flows] == FLOWS + own


@pytest.mark.parametrize(("cell", "is_on"), DEFAULTS.items())
@pytest.mark.parametrize("agent", ["bailee", "claude-code"])
def test_default_by_provider(agent: str, cell: tuple[str, str], is_on: bool) -> None:
    """Each of the twelve cells of the provider table is the specification's."""
    name, provider = cell
    decision = decide(load_manifest(agent).flow(name), Context(provider=Provider(provider)))
    assert decision.allowed is is_on
    assert decision.decided_by == f"provider/default.{provider}"


@pytest.mark.parametrize(("name", "variable"), DISABLED_BY.items())
@pytest.mark.parametrize("agent", ["bailee", "claude-code"])
def test_the_switch_of_the_specification(agent: str, name: str, variable: str) -> None:
    """Metrics, errors and bug reports have the switch the specification names, and the one for all."""
    switches = [switch.name for switch in load_manifest(agent).flow(name).switches]
    assert switches[0] == variable
    assert "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC" in switches


@pytest.mark.parametrize("agent", ["bailee", "claude-code"])
def test_what_is_required(agent: str) -> None:
    """Model traffic is required everywhere, git in the cloud, where it clones; nothing else."""
    required = {
        (flow.id, location)
        for flow in load_manifest(agent).flows
        for location in Location
        if flow.is_required(location)
    }
    assert required == {("messages", "local"), ("messages", "cloud"), ("git", "cloud")}


@pytest.mark.parametrize("agent", OTHERS)
def test_agents_of_other_makers_claim_nothing_for_them(agent: str) -> None:
    """What they send past the service is held as a log of connections, and what they keep is theirs."""
    manifest = load_manifest(agent)
    for flow in manifest.flows:
        holding = "conversation" if flow.id == "messages" and manifest.is_led else "audit"
        allowed = {holding, "agent" if flow.id == "local_cache" else "nothing"}
        assert flow.holding in allowed, flow.id
        assert flow.default["anthropic"] == bool(flow.hosts) or flow.essential or flow.id == "metrics"
    assert decide(manifest.flow("local_cache"), Context()).terms.retention == UNLIMITED


def test_encryption_at_rest_of_the_specification() -> None:
    """Claude Code's traffic is not encrypted at rest, its metrics and errors are (AES-256); ours all is."""
    theirs, ours = load_manifest("claude-code"), load_manifest("bailee")
    assert theirs.flow("messages").at_rest == "none"
    assert theirs.flow("metrics").at_rest == theirs.flow("errors").at_rest == "aes-256"
    held = ("messages", "metrics", "errors", "feedback", "survey", "local_cache")
    assert {ours.flow(name).at_rest for name in held} == {"aes-256-gcm"}


@pytest.mark.parametrize("name", ["unknown", "../policy", "", "Bailee"])
def test_unknown_agents_and_flows_are_refused(name: str) -> None:
    """A name that is not known is an error that lists those that are."""
    with pytest.raises(Problem, match="aider, bailee, claude-code"):
        load_manifest(name)
    with pytest.raises(Problem, match="messages, metrics"):
        load_manifest("bailee").flow(name)


TEXT = (FOLDER / "bailee.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('title = "Metrics"', 'title = "Metrics"\ncolour = "red"', "flows[1]"),
        ('agent = "bailee"', 'agent = "bailee"\nkind = 1', "top level"),
        ('title = "Metrics"\n', "", "flows[1]"),
        ('id = "metrics"', 'id = "messages"', "flows"),
        ('id = "metrics"', 'id = "analytics"', "flows[1].id"),
        ('title = "Metrics"', "title = 7", "flows[1].title"),
        ('title = "Metrics"', 'title = " "', "flows[1].title"),
        ('required = ["local", "cloud"]\n', 'required = ["moon"]\n', "flows[0].required"),
        ("bedrock = false", "bedrock = true", "flows[1].default"),
        ("vertex = false\n", "", "flows[1].default"),
        ('  { name = "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC" },\n', "", "flows[1].switches"),
        ('reading = "boolean"', 'reading = "maybe"', "flows[1].switches"),
        ('holding = "operational"', 'holding = "for ever"', "flows[1].holding"),
        ("essential = false", 'required = ["local"]\nessential = false', "flows[1].required"),
        ('folder = "~/.config"', 'folder = "/elsewhere"', "settings_files[4].folder"),
        ("[[flows]]", "[[flows", "bailee.toml"),
        ("everything_off =", "# everything_off =", "everything_off"),
        (
            'path = "/etc/bailee/settings.json"',
            'path = "/etc/bailee/s"\nformat = "ini"',
            "settings_files[0].format",
        ),
    ],
)
def test_faulty_manifests_are_refused(tmp_path: Path, old: str, new: str, key: str) -> None:
    """An unknown or missing key, a wrong value or a contradiction names the file, the key and the fix."""
    assert old in TEXT
    path = tmp_path / "bailee.toml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(Problem) as refused:
        read_manifest(path)
    assert str(path) in refused.value.where
    assert key in refused.value.where
    assert refused.value.fix


def test_the_unchanged_manifest_is_accepted(tmp_path: Path) -> None:
    """Control: the text that the faults above are made from is accepted."""
    path = tmp_path / "bailee.toml"
    path.write_text(TEXT, encoding="utf-8")
    assert read_manifest(path) == load_manifest("bailee")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """A manifest that is not UTF-8, or is a folder, is an error and no traceback."""
    path = tmp_path / "one.toml"
    path.write_bytes(b"\xff\xfe")
    for place in (path, tmp_path):
        with pytest.raises(Problem) as refused:
            read_manifest(place)
        assert str(place) in refused.value.where

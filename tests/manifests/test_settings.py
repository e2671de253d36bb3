"""The settings files of an agent, as layers."""

import json
import os
from pathlib import Path

import pytest

from bailee.manifests import load_manifest
from bailee.manifests.settings import LARGEST, notices, read_layers, undone
from bailee.policy.contexts import Context, choose_provider
from bailee.policy.decisions import Decision, decide
from bailee.policy.layers import Layer
from bailee.policy.problems import Problem

MANIFEST = load_manifest("claude-code")
MANAGED = "etc/claude-code/managed-settings.json"
DROPPED_IN = "etc/claude-code/managed-settings.d/10-privacy.json"
USER = "home/.claude/settings.json"
PROJECT = "work/.claude/settings.json"
LOCAL = "work/.claude/settings.local.json"
EVERY = {MANAGED: "managed", DROPPED_IN: "managed", USER: "user", PROJECT: "project", LOCAL: "local"}


def write(root: Path, name: str, settings: object) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings), encoding="utf-8")
    return path


def read(root: Path, **environment: str) -> tuple[Layer, ...]:
    variables = {"HOME": str(root / "home"), **environment}
    return read_layers(MANIFEST, environment=variables, directory=root / "work", root=root)


def answer(flow: str, root: Path, **environment: str) -> Decision:
    layers = read(root, **environment)
    return decide(MANIFEST.flow(flow), Context(provider=choose_provider(layers), layers=layers))


def test_nothing_there_says_nothing(tmp_path: Path) -> None:
    """Without files and variables there is no layer, and the defaults hold."""
    assert read(tmp_path) == ()
    assert answer("metrics", tmp_path).allowed


@pytest.mark.parametrize(("name", "layer"), EVERY.items())
def test_each_file_can_switch_off(tmp_path: Path, name: str, layer: str) -> None:
    """A switch under `env` in any of the settings files stops its flow, and the layer is named."""
    path = write(tmp_path, name, {"env": {"DISABLE_TELEMETRY": "0"}, "model": "opus"})
    decision = answer("metrics", tmp_path)
    assert not decision.allowed
    assert decision.decided_by == f"{layer}/switch.DISABLE_TELEMETRY"
    assert str(path) in decision.rules[0].text


@pytest.mark.parametrize("value", [1, 0, True, False, "false"])
def test_values_that_are_not_text_still_switch_off(tmp_path: Path, value: object) -> None:
    """A switch given as a number or a boolean counts as set: it was meant to stop something."""
    write(tmp_path, PROJECT, {"env": {"DISABLE_TELEMETRY": value}})
    assert not answer("metrics", tmp_path).allowed


@pytest.mark.parametrize("name", EVERY)
def test_no_file_can_switch_on_again(tmp_path: Path, name: str) -> None:
    """What the environment switched off stays off, whatever a file says."""
    write(tmp_path, name, {"env": {"DISABLE_TELEMETRY": ""}, "feedbackSurveyRate": 1})
    assert not answer("metrics", tmp_path, DISABLE_TELEMETRY="1").allowed


@pytest.mark.parametrize("name", [PROJECT, LOCAL])
@pytest.mark.parametrize(
    "variable", ["CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "ANTHROPIC_BASE_URL"]
)
def test_a_repository_cannot_choose_a_destination(tmp_path: Path, name: str, variable: str) -> None:
    """A repository's file that selects a provider or a base URL is ignored, and that is told."""
    path = write(tmp_path, name, {"env": {variable: "1"}})
    layers = read(tmp_path)
    assert choose_provider(layers) == "anthropic"
    assert [str(path) in notice and variable in notice for notice in notices(MANIFEST, layers)] == [True]


def test_a_repository_cannot_bring_traffic_back_to_the_claude_api(tmp_path: Path) -> None:
    """Where the user chose Bedrock, a repository that unsets the choice does not switch collection on."""
    write(tmp_path, PROJECT, {"env": {"CLAUDE_CODE_USE_BEDROCK": "0"}})
    assert not answer("metrics", tmp_path, CLAUDE_CODE_USE_BEDROCK="1").allowed


@pytest.mark.parametrize("name", [MANAGED, USER])
def test_the_owner_can_choose_a_provider(tmp_path: Path, name: str) -> None:
    """Control: the user's and the managed file do select the provider."""
    write(tmp_path, name, {"env": {"CLAUDE_CODE_USE_VERTEX": "1"}})
    assert choose_provider(read(tmp_path)) == "vertex"


def test_the_configuration_folder_can_be_moved(tmp_path: Path) -> None:
    """CLAUDE_CONFIG_DIR replaces ~/.claude, and the file left in the old place is not read."""
    write(tmp_path, "elsewhere/settings.json", {"cleanupPeriodDays": 3})
    write(tmp_path, USER, {"cleanupPeriodDays": 9})
    kept = answer("local_cache", tmp_path, CLAUDE_CONFIG_DIR=str(tmp_path / "elsewhere")).terms.retention
    assert str(kept) == "3d"


@pytest.mark.parametrize(
    ("value", "kept"),
    [(1, "1d"), (30, "30d"), (99999, "99999d"), ("unlimited", "unlimited"), ("none", "none")],
)
def test_cleanup_period(tmp_path: Path, value: object, kept: str) -> None:
    """The user's cleanupPeriodDays is kept to, in days or as one of the two words."""
    write(tmp_path, USER, {"cleanupPeriodDays": value})
    decision = answer("local_cache", tmp_path)
    assert str(decision.terms.retention) == kept
    assert decision.allowed is (kept != "none")


@pytest.mark.parametrize(
    "value", [0, -1, -30, 1.5, 30.0, "", " ", "30", "0", "forever", None, True, False, [], {}, 1000000]
)
@pytest.mark.parametrize("name", EVERY)
def test_unclear_cleanup_periods_are_refused(tmp_path: Path, name: str, value: object) -> None:
    """Nought, negative, blank neither delete nor keep: they name the file, the key and the fix."""
    path = write(tmp_path, name, {"cleanupPeriodDays": value})
    with pytest.raises(Problem) as refused:
        read(tmp_path)
    assert refused.value.where == f"{path}: cleanupPeriodDays"
    assert "unlimited" in refused.value.fix


def test_survey_rate(tmp_path: Path) -> None:
    """A survey rate of 0 stops the survey; another rate stops nothing; nonsense is an error."""
    write(tmp_path, USER, {"feedbackSurveyRate": 0})
    assert answer("survey", tmp_path).decided_by == "user/setting.feedbackSurveyRate"
    write(tmp_path, USER, {"feedbackSurveyRate": 0.5})
    assert answer("survey", tmp_path).allowed
    for nonsense in (-1, 2, "0", True, None):
        write(tmp_path, USER, {"feedbackSurveyRate": nonsense})
        with pytest.raises(Problem) as refused:
            read(tmp_path)
        assert refused.value.where.endswith("settings.json: feedbackSurveyRate")


BROKEN = {
    "not JSON": "{",
    "blank": "",
    "a list": "[]",
    "null": "null",
    "a comment": "{} // telemetry off",
    "a key twice": '{"env": {"DISABLE_TELEMETRY": "1"}, "env": {}}',
    "env is a list": '{"env": []}',
    "env is null": '{"env": null}',
    "a switch is a list": '{"env": {"DISABLE_TELEMETRY": ["1"]}}',
    "a switch is null": '{"env": {"DISABLE_TELEMETRY": null}}',
    "nested without end": "[" * 100_000,
    "a number of thousands of digits": '{"n": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("name", EVERY)
def test_files_that_cannot_be_understood_are_refused(tmp_path: Path, name: str, text: str) -> None:
    """A broken settings file of any layer is an error that names it; it is never read as empty."""
    path = write(tmp_path, name, text)
    with pytest.raises(Problem) as refused:
        read(tmp_path)
    assert str(path) in refused.value.where
    assert refused.value.fix


@pytest.mark.parametrize("name", EVERY)
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, name: str) -> None:
    """A folder in a file's place and bytes that are no text are errors too."""
    path = tmp_path / name
    path.mkdir(parents=True)
    with pytest.raises(Problem) as refused:
        read(tmp_path)
    assert str(path) in refused.value.where
    path.rmdir()
    path.write_bytes(b'{"env": {"DISABLE_TELEMETRY": "\xff"}}')
    with pytest.raises(Problem, match="UTF-8"):
        read(tmp_path)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    """A file saved with a byte order mark is read like any other."""
    path = write(tmp_path, USER, {})
    path.write_bytes(b'\xef\xbb\xbf{"env": {"DISABLE_TELEMETRY": "1"}}')
    assert not answer("metrics", tmp_path).allowed


def test_secrets_do_not_enter_layers(tmp_path: Path) -> None:
    """Of the environment and of `env` only the variables that the policy looks at are taken."""
    write(tmp_path, USER, {"env": {"AWS_SECRET_ACCESS_KEY": "hidden", "DISABLE_TELEMETRY": "1"}})
    layers = read(tmp_path, ANTHROPIC_API_KEY="hidden", DO_NOT_TRACK="1")
    assert {name for layer in layers for name in layer.variables} == {"DISABLE_TELEMETRY", "DO_NOT_TRACK"}


def test_the_agent_of_ours_has_its_own_files(tmp_path: Path) -> None:
    """Bailee's agent reads its managed, user, project and local files the same way."""
    manifest = load_manifest("bailee")
    for name in ("etc/bailee/settings.json", "etc/bailee/settings.d/a.json", "config/bailee/settings.json"):
        write(tmp_path, name, {"cleanupPeriodDays": 5})
    write(tmp_path, "work/.bailee/settings.json", {"cleanupPeriodDays": 5})
    write(tmp_path, "work/.bailee/settings.local.json", {"cleanupPeriodDays": 5})
    layers = read_layers(
        manifest,
        environment={"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path / "config")},
        directory=tmp_path / "work",
        root=tmp_path,
    )
    assert sorted(layer.name for layer in layers) == ["local", "managed", "managed", "project", "user"]


def test_in_the_home_folder_the_users_file_stays_the_users(tmp_path: Path) -> None:
    """Started in the home folder, the user's own file is not taken for a repository's."""
    write(tmp_path, USER, {"cleanupPeriodDays": 90, "env": {"CLAUDE_CODE_USE_BEDROCK": "1"}})
    home = tmp_path / "home"
    layers = read_layers(MANIFEST, environment={"HOME": str(home)}, directory=home, root=tmp_path)
    assert [layer.name for layer in layers] == ["user"]
    assert notices(MANIFEST, layers) == ()


LEADING = [
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_FOUNDRY_BASE_URL",
    "ANTHROPIC_FOUNDRY_RESOURCE",
    "ANTHROPIC_CUSTOM_HEADERS",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_UNIX_SOCKET",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    "HTTP_PROXY",
    "https_proxy",
    "NO_PROXY",
    "NODE_EXTRA_CA_CERTS",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
]


@pytest.mark.parametrize("variable", LEADING)
@pytest.mark.parametrize("name", EVERY)
def test_every_leading_variable_is_found(tmp_path: Path, name: str, variable: str) -> None:
    """Whatever leads elsewhere is named, never its value, unless the environment says the same."""
    write(tmp_path, name, {"env": {variable: "1"}})
    (layer,) = read(tmp_path)
    assert layer.leading == (variable,)
    assert [one for one in read(tmp_path, **{variable: "1"}) if one.leading] == []


@pytest.mark.parametrize("key", ["apiKeyHelper", "awsAuthRefresh", "otelHeadersHelper", "proxyAuthHelper"])
def test_programs_that_give_credentials_are_found(tmp_path: Path, key: str) -> None:
    """A key that names a program for credentials or headers leads too, and a repository's is told."""
    path = write(tmp_path, PROJECT, {key: "./mine.sh"})
    layers = read(tmp_path)
    assert [layer.leading for layer in layers] == [(key,)]
    (notice,) = notices(MANIFEST, layers)
    assert notice.startswith(f"{path}: {key} leads Claude Code elsewhere")


@pytest.mark.parametrize(
    "settings",
    [
        {"env": {"CLAUDE_CODE_USE_BEDROCK": "0", "ANTHROPIC_MODEL": "opus", "AWS_REGION": "eu-central-1"}},
        {"env": {"DISABLE_TELEMETRY": "1", "FOO": None}, "apiKeyHelper": ""},
    ],
)
def test_what_leads_nowhere_is_not_told(tmp_path: Path, settings: object) -> None:
    """Control: other variables, a selector that selects nothing and an empty key lead nowhere."""
    write(tmp_path, PROJECT, settings)
    layers = read(tmp_path)
    assert [layer.leading for layer in layers] == [()]
    assert notices(MANIFEST, layers) == ()


@pytest.mark.parametrize("value", [["http://elsewhere.test"], None, {}])
def test_a_leading_variable_that_is_no_text_is_refused(tmp_path: Path, value: object) -> None:
    """The agent makes text of a list (tried with 2.1.197); here it is an error before anything starts."""
    path = write(tmp_path, PROJECT, {"env": {"HTTPS_PROXY": value}})
    with pytest.raises(Problem) as refused:
        read(tmp_path)
    assert refused.value.where == f"{path}: env.HTTPS_PROXY"


def test_a_switch_set_back_is_told(tmp_path: Path) -> None:
    """A file that blanks a switch which is on elsewhere is found; alone, or with a value, it is not."""
    path = write(tmp_path, PROJECT, {"env": {"DISABLE_TELEMETRY": ""}})
    assert undone(MANIFEST, read(tmp_path)) == ()
    found = read(tmp_path, DISABLE_TELEMETRY="1")
    assert [(layer.origin, name) for layer, name in undone(MANIFEST, found)] == [
        (str(path), "DISABLE_TELEMETRY")
    ]
    assert "sets back" in notices(MANIFEST, found)[0]
    write(tmp_path, PROJECT, {"env": {"DISABLE_TELEMETRY": "0"}})
    assert undone(MANIFEST, read(tmp_path, DISABLE_TELEMETRY="1")) == ()


@pytest.mark.parametrize(
    "form", [["--settings", "{}"], ["--settings={}"], ["-p", "x", "--settings", "one.json"]]
)
def test_settings_on_the_command_line_are_a_layer(tmp_path: Path, form: list[str]) -> None:
    """The agent's own --settings, JSON or a file, is read like a file; one that is not there says nothing."""
    settings = '{"env": {"HTTPS_PROXY": "http://elsewhere.test"}}'
    write(tmp_path, "work/one.json", settings)
    arguments = [word.replace("{}", settings) for word in form]
    environment = {"HOME": str(tmp_path / "home")}
    place = {"environment": environment, "directory": tmp_path / "work", "root": tmp_path}
    (layer,) = read_layers(MANIFEST, arguments=arguments, **place)  # type: ignore[arg-type]
    assert (layer.name, layer.leading) == ("command_line", ("HTTPS_PROXY",))
    assert read_layers(MANIFEST, arguments=["--settings", "none.json"], **place) == ()  # type: ignore[arg-type]
    with pytest.raises(Problem, match="not JSON"):
        read_layers(MANIFEST, arguments=["--settings", "{"], **place)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EVERY)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """A pipe nobody writes to, a device without end and a file of gigabytes are errors, and hold nobody."""
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(Problem, match="no regular file"):
        read(tmp_path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(Problem, match="no regular file"):
        read(tmp_path)
    path.unlink()
    path.touch()
    os.truncate(path, 8_000_000_000)
    with pytest.raises(Problem, match="larger than 16 MB"):
        read(tmp_path)
    path.write_text("{}" + " " * (LARGEST - 2))
    assert [layer.leading for layer in read(tmp_path)] == [()]

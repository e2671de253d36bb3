"""Settings of the agent: read from every layer, checked, composed by tightening."""

import itertools
import json
from pathlib import Path

import pytest

from bailee.agent.settings import Effective, Mode, Permissions, Settings, make_schema, read_settings
from bailee.policy.decisions import decide
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "managed": "etc/bailee/settings.json",
    "user": "user/.config/bailee/settings.json",
    "project": "project/.bailee/settings.json",
    "local": "project/.bailee/settings.local.json",
}


def write(folder: Path, layer: str, **settings: object) -> Path:
    path = folder / FILES[layer]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings))
    return path


def read(folder: Path, given: Settings | None = None, **environment: str) -> Effective:
    (folder / "project").mkdir(exist_ok=True)
    return read_settings(
        directory=folder / "project",
        environment={"HOME": str(folder / "user"), **environment},
        given=given,
        root=folder,
    )


def is_allowed(settings: Effective, flow: str) -> bool:
    from bailee.manifests import load_manifest

    return decide(load_manifest("bailee").flow(flow), settings.context()).allowed


def test_nothing_set_gives_the_defaults(tmp_path: Path) -> None:
    """Without a file and a variable everything is as documented, and says that it is the default."""
    settings = read(tmp_path)
    assert settings["permissions.mode"] is Mode.ASK
    assert settings["cleanupPeriodDays"] == 30
    assert {value.origin.layer for value in settings.values.values()} == {"default"}


@pytest.mark.parametrize("layer", list(FILES))
def test_any_layer_switches_collection_off(tmp_path: Path, layer: str) -> None:
    """A switch stops its flow from whichever file it stands in, whatever its value."""
    assert is_allowed(read(tmp_path), "metrics")
    write(tmp_path, layer, env={"DISABLE_TELEMETRY": "0"}, feedbackSurveyRate=0)
    settings = read(tmp_path)
    assert not is_allowed(settings, "metrics")
    assert not is_allowed(settings, "survey")
    assert is_allowed(settings, "errors")


@pytest.mark.parametrize("layer", ["project", "local"])
def test_a_repository_switches_nothing_on(tmp_path: Path, layer: str) -> None:
    """What a repository's file would loosen or choose has no effect, and is told."""
    write(tmp_path, "user", telemetry="off", env={"DISABLE_ERROR_REPORTING": "1"}, feedbackSurveyRate=0.01)
    write(
        tmp_path,
        layer,
        telemetry="on",
        feedbackSurveyRate=1,
        cleanupPeriodDays="unlimited",
        permissions={"mode": "all", "allow": ["bash"]},
        env={"ANTHROPIC_BASE_URL": "http://elsewhere", "HTTPS_PROXY": "http://elsewhere", "X": "1"},
    )
    settings = read(tmp_path)
    assert settings["telemetry"] == "off"
    assert settings["feedbackSurveyRate"] == 0.01
    assert settings["permissions.mode"] is Mode.ASK
    assert settings["permissions.allow"] == ()
    assert settings.environment.keys() == {"DISABLE_ERROR_REPORTING"}
    assert not is_allowed(settings, "metrics")
    told = "\n".join(settings.notices)
    for name in ("bash", "HTTPS_PROXY", "X "):
        assert name in told


def test_the_owner_may_do_what_a_repository_may_not(tmp_path: Path) -> None:
    """Control: the same keys in the user's own file count."""
    write(
        tmp_path,
        "user",
        permissions={"mode": "all", "allow": ["bash"]},
        env={"HTTPS_PROXY": "http://elsewhere"},
    )
    settings = read(tmp_path)
    assert settings["permissions.mode"] is Mode.ALL
    assert settings["permissions.allow"] == ("bash",)
    assert settings.environment == {"HTTPS_PROXY": "http://elsewhere"}


@pytest.mark.parametrize("chosen", list(Mode))
@pytest.mark.parametrize("limit", list(Mode))
def test_a_managed_mode_is_a_limit(tmp_path: Path, chosen: Mode, limit: Mode) -> None:
    """The mode in force is never looser than what a managed file or the repository says."""
    write(tmp_path, "managed", permissions={"mode": limit})
    settings = read(tmp_path, Settings(permissions=Permissions(mode=chosen)))
    strict = list(Mode)
    assert strict.index(settings["permissions.mode"]) == min(strict.index(chosen), strict.index(limit))


def test_more_layers_never_loosen(tmp_path: Path) -> None:
    """Of every set of files, what is allowed and kept is within what each subset of them allows and keeps."""
    layers = {
        "managed": {"telemetry": "local", "permissions": {"mode": "edits", "deny": ["bash(rm *)"]}},
        "user": {"telemetry": "on", "feedbackSurveyRate": 0.5, "permissions": {"mode": "all"}},
        "project": {"env": {"DO_NOT_TRACK": "1"}, "permissions": {"mode": "plan"}},
        "local": {"feedbackSurveyRate": 0, "permissions": {"deny": ["edit"]}},
    }
    seen: dict[frozenset[str], Effective] = {}
    for count in range(len(layers) + 1):
        for chosen in itertools.combinations(layers, count):
            folder = tmp_path / ("-".join(chosen) or "none")
            folder.mkdir()
            for name in chosen:
                write(folder, name, **layers[name])
            seen[frozenset(chosen)] = read(folder)
    for larger, one in seen.items():
        for name in larger:
            other = seen[larger - {name}]
            for flow in FlowId:
                assert is_allowed(one, flow) <= is_allowed(other, flow)
            assert set(one["permissions.deny"]) >= set(other["permissions.deny"])


@pytest.mark.parametrize(
    ("settings", "where", "fix"),
    [
        ({"telemtry": "off"}, "telemtry", "write telemetry"),
        ({"permissions": {"modus": "ask"}}, "permissions.modus", "mode"),
        ({"cleanupPeriodDays": 0}, "cleanupPeriodDays", '"none"'),
        ({"cleanupPeriodDays": -3}, "cleanupPeriodDays", '"none"'),
        ({"feedbackSurveyRate": "often"}, "feedbackSurveyRate", "number"),
        ({"telemetry": False}, "telemetry", '"off"'),
        ({"permissions": {"mode": "yolo"}}, "permissions.mode", "docs/settings.md"),
        ({"env": ["X"]}, "env", '"env"'),
        ({"maxTokens": "many"}, "maxTokens", "docs/settings.md"),
    ],
)
@pytest.mark.parametrize("layer", ["managed", "project"])
def test_what_cannot_be_understood_is_an_error(
    tmp_path: Path, layer: str, settings: dict[str, object], where: str, fix: str
) -> None:
    """A wrong key or value stops the agent, naming file, key and fix: it may be a refusal misspelled."""
    path = write(tmp_path, layer, **settings)
    with pytest.raises(Problem) as caught:
        read(tmp_path)
    assert str(path) in caught.value.where
    assert where in caught.value.where
    assert fix in caught.value.fix


def test_the_published_schema_is_the_settings(tmp_path: Path) -> None:
    """`docs/settings.schema.json` is what the program checks, and `docs/settings.md` tells every key."""
    assert json.loads((ROOT / "docs" / "settings.schema.json").read_text()) == make_schema()
    told = (ROOT / "docs" / "settings.md").read_text()
    for key in read(tmp_path).values:
        assert f"`{key}`" in told

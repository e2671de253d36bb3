"""Settings files in the formats of the agents that are known, and what they switch off."""

from pathlib import Path

import pytest

from bailee.manifests import load_manifest
from bailee.manifests.formats import Format, find_key, understand, write_key
from bailee.manifests.settings import read_layers
from bailee.policy.contexts import Context
from bailee.policy.decisions import decide
from bailee.policy.problems import Problem


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Format.JSON, '{"privacy": {"on": false}}'),
        (Format.JSONC, '// first\n{"privacy": {"on": false,}, /* last */}'),
        (Format.JSONC, '{"privacy": {"on": false}}'),
        (Format.TOML, "[privacy]\non = false\n"),
        (Format.TOML, "privacy.on = false\n"),
        (Format.YAML, "privacy:\n  on: false\n"),
        *((form, write_key("privacy.on", False, form)) for form in (Format.JSON, Format.JSONC, Format.TOML)),
    ],
)
def test_each_format_says_the_same(form: Format, text: str) -> None:
    """A key with dots is found in each; a part that is not there is none."""
    # YAML 1.1 takes the word `on` for true: that is how the agents read it, too.
    key = "privacy.on" if form is not Format.YAML else "privacy"
    found = find_key(understand(text, "file", form), key)
    assert found is False or found == {True: False}
    assert find_key(understand(text, "file", form), "privacy.off") is None
    assert find_key(understand(text, "file", form), "on") is None


def test_variables_alone() -> None:
    """A `.env` file is what stands under `env`; nothing in it is put together from the environment."""
    text = "# why\nexport A=1\nB='two words'\nC=${HOME}\nD\n"
    assert understand(text, ".env", Format.DOTENV) == {
        "env": {"A": "1", "B": "two words", "C": "${HOME}", "D": ""}
    }


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Format.JSONC, "{ // never ends"),
        (Format.JSONC, '{"a": 1, "a": 2}'),
        (Format.JSONC, "[1]"),
        (Format.TOML, "a = "),
        (Format.TOML, "a = 1\na = 2"),
        (Format.YAML, "a: [1"),
        (Format.YAML, "- a"),
        (Format.YAML, "!!python/object/apply:os.system [id]"),
        (Format.JSON, "{} // no comments here"),
    ],
)
def test_what_cannot_be_understood_is_refused(form: Format, text: str) -> None:
    """The problem names the file and the fix, whatever the format."""
    with pytest.raises(Problem) as refused:
        understand(text, "the file", form)
    assert "the file" in refused.value.where
    assert refused.value.fix


def test_comments_alone_say_nothing() -> None:
    """A YAML file in which all is commented out is no fault."""
    assert understand("# analytics: false\n", "file", Format.YAML) == {}


@pytest.mark.parametrize(
    ("agent", "place", "text", "flow"),
    [
        ("codex", "home/.codex/config.toml", "[analytics]\nenabled = false\n", "metrics"),
        ("codex", "work/.codex/config.toml", "check_for_update_on_startup = false\n", "update"),
        (
            "gemini-cli",
            "home/.gemini/settings.json",
            '{"privacy": {"usageStatisticsEnabled": false} /* */}',
            "metrics",
        ),
        ("opencode", "work/opencode.jsonc", '{"share": "disabled", // mine\n}', "feedback"),
        ("aider", "work/.aider.conf.yml", "check-update: false\n", "update"),
        ("aider", "work/.env", "AIDER_CHECK_UPDATE=no\n", "update"),
    ],
)
def test_a_file_of_the_agent_switches_off(
    tmp_path: Path, agent: str, place: str, text: str, flow: str
) -> None:
    """Each agent's own file stops its flow; without it, and with another value, the flow is on (control)."""
    manifest = load_manifest(agent)

    def is_allowed() -> bool:
        layers = read_layers(
            manifest, environment={"HOME": str(tmp_path / "home")}, directory=tmp_path / "work", root=tmp_path
        )
        return decide(manifest.flow(flow), Context(layers=layers)).allowed

    assert is_allowed()
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert not is_allowed()
    path.write_text(text.replace("false", "true").replace("disabled", "manual").replace("=no", "=yes"))
    assert is_allowed()

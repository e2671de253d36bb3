"""What an organization manages reaches its agents: fetched at the start, kept, and only ever tightening."""

import json
import stat
from pathlib import Path

import msgspec
import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.managed import save_managed
from bailee.agent.managed import FOLDER, LOGIN_SETTINGS, Managed
from bailee.agent.settings import Effective, Mode, Telemetry, read_settings
from bailee.policy.problems import Problem
from counterparts.logins import Place
from counterparts.services import Service

STRICT = {
    "telemetry": "off",
    "cleanupPeriodDays": "none",
    "permissions": {"mode": "plan", "deny": ["bash(git push*)"]},
}


@pytest.fixture
def place(tmp_path: Path, scanner_rules: Path) -> Place:
    """Give a machine and a home."""
    return Place(tmp_path, scanner_rules)


def save(place: Place, body: str) -> None:
    """Save what bob's organization manages, as the console does once it has checked it."""
    directory = open_directory(place.home)
    save_managed(directory, "bob", body, account=directory.get("bob").id, by="bob")
    directory.close()


def kept(place: Place) -> Path:
    return place.state / FOLDER / LOGIN_SETTINGS


def in_force(place: Place, **more: str) -> Effective:
    return read_settings(directory=place.project, environment=place.environment(**more))


def is_session_kept(place: Place) -> bool:
    """Start the agent, and tell whether its session was written."""
    done = place.code("--json")
    assert done.returncode == 0, done.stderr
    return bool(json.loads(done.stdout)["is_kept"])


def named(place: Place, service: Service) -> dict[str, str]:
    """Return what names the service, and a key of bob's, in the environment."""
    return {"ANTHROPIC_BASE_URL": service.url, "ANTHROPIC_AUTH_TOKEN": place.proofs["bob"]}


def test_what_an_admin_saves_is_obeyed_at_the_next_start(place: Place) -> None:
    """By that very start, and without the service by the last known, until a logout; shown with its place."""
    with place.serve() as service:
        place.log_in(service, "bob")
        assert is_session_kept(place)  # control: nothing is managed
        assert in_force(place)["telemetry"] is Telemetry.ON
        save(place, json.dumps(STRICT))
        assert not is_session_kept(place)
        where = f"the organization's settings at {service.url.removeprefix('http://')}"
        shown = json.loads(place.run("config", "list", "--json").stdout)
        facts = {fact["key"]: (fact["value"], fact["layer"], fact["origin"]) for fact in shown}
        assert facts["telemetry"] == ("off", "organization", where)
        assert facts["permissions.deny"] == (["bash(git push*)"], "organization", where)
        assert facts["permissions.mode"] == ("plan", "organization", where)
        assert where in place.run("explain", "metrics").stdout
    assert stat.S_IMODE(kept(place).stat().st_mode) == 0o600
    away = place.code("--mode", "all")
    assert "stay in force" in away.stderr
    assert in_force(place)["permissions.mode"] is Mode.PLAN
    assert where in place.run("explain", "metrics").stdout
    place.run("logout")
    assert not kept(place).exists()
    assert in_force(place)["telemetry"] is Telemetry.ON


def test_what_is_known_is_not_sent_again(place: Place) -> None:
    """304 keeps what is kept, to the letter; control: with another tag it is sent anew."""
    with place.serve() as service:
        place.log_in(service, "bob")
        save(place, json.dumps(STRICT))
        place.code()
        known = msgspec.json.decode(kept(place).read_bytes(), type=Managed)
        marked = msgspec.structs.replace(known, body='{"telemetry": "local"}', as_of=0)
        kept(place).write_bytes(msgspec.json.encode(marked))
        place.code()
        after = msgspec.json.decode(kept(place).read_bytes(), type=Managed)
        assert after.as_of > 0
        assert (after.tag, after.body) == (known.tag, marked.body)
        kept(place).write_bytes(msgspec.json.encode(msgspec.structs.replace(marked, tag='"other"')))
        place.code()
        assert msgspec.json.decode(kept(place).read_bytes(), type=Managed).body == known.body


@pytest.mark.parametrize(
    "body", ["{broken", '{"telemetri": "on"}', '{"permissions": {"deny": ["fly(*)"]}}', "[]"]
)
def test_an_answer_that_cannot_be_understood_loosens_nothing(place: Place, body: str) -> None:
    """The last known settings stay, and the user is told; control: one that can be understood replaces them."""
    with place.serve() as service:
        place.log_in(service, "bob")
        save(place, json.dumps(STRICT))
        place.code()
        save(place, body)
        told = place.code().stderr
        assert "the organization's settings could not be fetched" in told
        assert "stay in force" in told
        assert in_force(place)["telemetry"] is Telemetry.OFF
        save(place, "{}")
        assert "could not be fetched" not in place.code().stderr
        assert in_force(place)["telemetry"] is Telemetry.ON


def test_another_login_has_other_settings(place: Place) -> None:
    """Of an account without an organization nothing is managed, and a key of the environment has its own."""
    with place.serve() as service:
        save(place, json.dumps(STRICT))
        place.log_in(service, "bob")
        place.code()
        assert in_force(place)["telemetry"] is Telemetry.OFF
        place.log_in(service, "ada")
        assert in_force(place)["telemetry"] is Telemetry.ON
        assert is_session_kept(place)
        key = named(place, service)
        assert in_force(place, **key)["telemetry"] is Telemetry.ON  # nobody asked with it yet
        place.code(**key)
        assert in_force(place, **key)["telemetry"] is Telemetry.OFF
        assert in_force(place)["telemetry"] is Telemetry.ON
        other = {**key, "ANTHROPIC_AUTH_TOKEN": place.proofs["ada"]}
        assert in_force(place, **other)["telemetry"] is Telemetry.ON


def test_incognito_obeys_and_writes_nothing(place: Place) -> None:
    """What is told counts for the run; control: without the option it is written."""
    with place.serve() as service:
        save(place, json.dumps(STRICT | {"model": "claude-of-the-admin"}))
        place.log_in(service, "bob")
        place.code("--incognito")
        assert not kept(place).exists()
        place.code()
        assert kept(place).exists()


def test_it_only_tightens(place: Place) -> None:
    """It allows no call, leads nowhere, lengthens nothing and sets switches only; what is ignored is told."""
    loose = {
        "permissions": {"mode": "all", "allow": ["bash(*)"]},
        "cleanupPeriodDays": 365,
        "feedbackSurveyRate": 1,
        "env": {
            "ANTHROPIC_BASE_URL": "https://elsewhere.example",
            "CLAUDE_CODE_USE_BEDROCK": "1",
            "PATH": "/elsewhere",
            "DISABLE_TELEMETRY": "1",
        },
    }
    with place.serve() as service:
        place.log_in(service, "bob")
        before = in_force(place)
        save(place, json.dumps(loose))
        assert place.code().returncode == 0
        settings = in_force(place)
        assert settings["permissions.mode"] is Mode.ASK
        assert settings["permissions.allow"] == ()
        assert settings["feedbackSurveyRate"] == before["feedbackSurveyRate"]
        assert settings.environment == before.environment
        assert settings.context().provider is before.context().provider
        (layer,) = settings.layers
        assert layer.variables == {"DISABLE_TELEMETRY": "1"}
        assert layer.leading == ()
        told = "\n".join(settings.notices)
        assert "permissions.allow bash(*) is ignored: they only tighten" in told
        assert "env.PATH is ignored: they set switches only" in told
        with place.open_work() as work:
            assert str(work.limits.everywhere.period) == "30d"


def test_what_is_kept_and_cannot_be_read_stops_the_agent(place: Place) -> None:
    """Nobody can know what it forbade; control: without the file it starts."""
    with place.serve() as service:
        place.log_in(service, "bob")
        place.code()
        kept(place).write_text("{")
        with pytest.raises(Problem, match="cannot be read"):
            in_force(place)
        assert place.code().returncode == 2
        kept(place).unlink()
        assert place.code().returncode == 0

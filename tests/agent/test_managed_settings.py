"""What an organization manages reaches its agents: fetched at the start, kept, and only ever tightening."""

import json
import stat
from pathlib import Path

import msgspec
import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.managed import save_managed
from bailee.agent import settings as agent_settings
from bailee.agent.fetches import fetch_managed
from bailee.agent.managed import FOLDER, LOGIN_SETTINGS, Managed
from bailee.agent.settings import Effective, Mode, Settings, Telemetry, read_settings
from bailee.policy.layers import REPOSITORY
from bailee.policy.problems import Problem
from counterparts.logins import Place
from counterparts.services import Service

NOW = 1_790_000_000_000
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


def test_it_is_told_from_the_login_on(place: Place) -> None:
    """Before the agent's first start `telemetry status` says already what the organization switched off."""
    with place.serve() as service:
        save(place, json.dumps(STRICT))
        assert "on, decided by" in place.run("telemetry", "status").stdout  # control: nobody is logged in
        place.log_in(service, "bob")
        assert "off, decided by organization" in place.run("telemetry", "status").stdout
        assert in_force(place)["permissions.mode"] is Mode.PLAN


def start(place: Place, service: Service, *, is_kept: bool = True) -> str:
    """Do what a start does with the key of bob's in the environment, and return what the user is told."""
    environment = place.environment(**named(place, service))
    settings = read_settings(directory=place.project, environment=environment)
    return fetch_managed(settings, environment, now=NOW, is_kept=is_kept)[1]


def kept_for_key(place: Place) -> Path:
    (path,) = (place.state / FOLDER).iterdir()
    return path


def read_kept(place: Place) -> Managed:
    return msgspec.json.decode(kept_for_key(place).read_bytes(), type=Managed)


def test_what_is_known_is_not_sent_again(place: Place) -> None:
    """304 keeps what is kept, to the letter; control: with another tag it is sent anew."""
    with place.serve() as service:
        save(place, json.dumps(STRICT))
        assert start(place, service) == ""
        known = read_kept(place)
        marked = msgspec.structs.replace(known, body='{"telemetry": "local"}', as_of=0)
        kept_for_key(place).write_bytes(msgspec.json.encode(marked))
        start(place, service)
        assert read_kept(place) == msgspec.structs.replace(marked, as_of=NOW)
        other = msgspec.structs.replace(marked, tag='"other"')
        kept_for_key(place).write_bytes(msgspec.json.encode(other))
        start(place, service)
        assert read_kept(place) == known


def test_the_rehearsal_model_asks_nobody(place: Place) -> None:
    """Unless the organization itself chose it: it could never say anything else."""
    with place.serve() as service:
        save(place, json.dumps({"model": "rehearsal"}))
        assert fetch_for(place, service, Settings(model="rehearsal")) is None
        start(place, service)
        assert in_force(place, **named(place, service))["model"] == "rehearsal"
        save(place, "{}")
        assert fetch_for(place, service, None) is not None


def fetch_for(place: Place, service: Service, given: Settings | None) -> Managed | None:
    environment = place.environment(**named(place, service))
    settings = read_settings(directory=place.project, environment=environment, given=given)
    return fetch_managed(settings, environment, now=NOW, is_kept=False)[0]


BROKEN = ("{broken", '{"telemetri": "on"}', '{"permissions": {"deny": ["fly(*)"]}}', "[]")


def test_an_answer_that_cannot_be_understood_loosens_nothing(place: Place) -> None:
    """The last known settings stay, and the user is told; control: `{}` is understood and replaces them."""
    with place.serve() as service:
        key = named(place, service)
        save(place, json.dumps(STRICT))
        start(place, service)
        for body in BROKEN:
            save(place, body)
            told = start(place, service)
            assert "the organization's settings could not be fetched" in told
            assert "stay in force" in told
            assert in_force(place, **key)["telemetry"] is Telemetry.OFF
        assert "stay in force" in place.code(**key).stderr
        save(place, "{}")
        assert start(place, service) == ""
        assert in_force(place, **key)["telemetry"] is Telemetry.ON


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
        save(place, json.dumps({"model": "claude-of-the-admin"}))
        environment = place.environment(**named(place, service))
        settings = read_settings(directory=place.project, environment=environment)
        managed, _ = fetch_managed(settings, environment, now=NOW, is_kept=False)
        assert not (place.state / FOLDER).exists()
        told = read_settings(directory=place.project, environment=environment, managed=managed)
        assert told["model"] == "claude-of-the-admin"
        start(place, service)
        assert stat.S_IMODE(kept_for_key(place).stat().st_mode) == 0o600


def test_it_only_tightens(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It allows no call, leads nowhere, lengthens nothing and sets switches only; what is ignored is told.

    Control: bound as the machine's owner is, it would do all that.
    """
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
        key = named(place, service)
        before = in_force(place, **key)
        save(place, json.dumps(loose))
        assert start(place, service) == ""
        settings = in_force(place, **key)
        assert settings["permissions.mode"] is Mode.ASK
        assert settings["permissions.allow"] == ()
        assert settings["feedbackSurveyRate"] == before["feedbackSurveyRate"]
        assert settings.environment == before.environment
        assert settings.context().provider is before.context().provider
        (layer,) = (one for one in settings.layers if one not in before.layers)
        assert layer.variables == {"DISABLE_TELEMETRY": "1"}
        assert layer.leading == ()
        told = "\n".join(settings.notices)
        assert "permissions.allow bash(*) is ignored: they only tighten" in told
        assert "env.PATH is ignored: they set switches only" in told
        with place.open_work(**key) as work:
            assert str(work.limits.everywhere.period) == "30d"
        monkeypatch.setattr(agent_settings, "_TIGHTENING", REPOSITORY)
        loosened = in_force(place, **key)
        assert loosened["permissions.allow"] == ("bash(*)",)
        assert loosened["feedbackSurveyRate"] == 1
        assert loosened.environment["PATH"] == "/elsewhere"


def test_what_is_kept_and_cannot_be_read_stops_the_agent(place: Place) -> None:
    """Nobody can know what it forbade; control: without the file nothing is managed."""
    with place.serve() as service:
        key = named(place, service)
        start(place, service)
        kept_for_key(place).write_text("{")
        with pytest.raises(Problem, match="cannot be read"):
            in_force(place, **key)
        assert place.code(**key).returncode == 2
        kept_for_key(place).unlink()
        assert in_force(place, **key)["telemetry"] is Telemetry.ON

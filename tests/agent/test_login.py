"""`bailee login` and `logout` against a real service, and what the agent knows of its account."""

import json
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bailee.agent import account as accounts
from bailee.agent.account import find_account, is_login_used, read_account
from bailee.agent.device_codes import Codes, poll
from bailee.agent.indicator import tell_indicator
from bailee.agent.login import Login, drop_login, keep_login, read_login
from bailee.agent.privacy import tell_privacy
from bailee.agent.service import check_address
from bailee.flows.metrics.results import read_points
from bailee.policy.flows import FlowId
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from counterparts.holdings import find_bytes
from counterparts.logins import CODE, MODEL, Place
from counterparts.programs import run_program
from counterparts.services import Service, serving
from counterparts.terminals import opening


@pytest.fixture
def place(tmp_path: Path, scanner_rules: Path) -> Place:
    """Give a machine and a home."""
    return Place(tmp_path, scanner_rules)


def explain(place: Place, *words: str, **more: str) -> str:
    return place.run("explain", *words, **more).stdout


# --- The whole way ---


def test_log_in_work_log_out(place: Place) -> None:
    """In a terminal: a code, the holder's approval, a prompt through the gateway, the end of the token."""
    with place.serve() as service:
        with opening(place.folder) as terminal:
            command = [sys.executable, "-m", "bailee", "login", "--service", service.url]
            terminal.start(command, environment=place.environment(), directory=place.project)
            terminal.wait("Waiting; Ctrl-C gives up.")
            found = CODE.search(terminal.screen)
            assert found is not None
            words = ("logins", "approve", found[1], "--account", "ada", "--yes")
            place.operate(*words, proof=place.proofs["ada"])
            terminal.wait("Logged in to ada, plan pro")
            terminal.wait_until_ended()
        token = place.token()
        done = place.code()
        assert done.stdout.startswith("Hello."), done.stderr
        (session,) = json.loads(place.operate("sessions", "list", "--json").stdout)
        assert session["account"] == "ada"
        out = place.run("logout")
        assert (out.returncode, out.stdout) == (
            0,
            f"Logged out of {service.url}: the token is revoked there and forgotten here.\n",
        )
        assert place.keys() == [("ada", False)]
        after = place.code(ANTHROPIC_BASE_URL=service.url, ANTHROPIC_AUTH_TOKEN=token)
        assert after.returncode == 2
        assert "401" in after.stderr
        assert not (place.state / "login").exists()
        assert not (place.state / "account.json").exists()
        assert "bailee login" in place.code().stderr
        assert place.run("logout").stderr == "Nobody is logged in.\n"


def test_a_token_is_in_its_own_file_and_nowhere_else(place: Place) -> None:
    """In no log, no other file of machine or service, on no command line; its file is its owner's alone."""
    seen: set[bytes] = set()
    with place.serve() as service:
        place.log_in(service)
        token = place.token()
        secret = token.rpartition("_")[2]
        command = [sys.executable, "-m", "bailee", "code", "-p", "rehearse stall seconds=2", *MODEL]
        with (place.folder / "code.out").open("wb") as out:
            running = subprocess.Popen(
                command, env=place.environment(), cwd=place.project, stdout=out, stderr=out
            )
        while running.poll() is None:
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):  # it has ended meanwhile
                    seen.add(process.read_bytes())
            time.sleep(0.25)
        place.operate("ledger", "show")
    file = place.state / "login"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert find_bytes(place.folder, secret.encode(), bytes.fromhex(secret)) == [file]
    assert any(b"rehearse stall" in line for line in seen)
    assert not any(secret.encode() in line for line in seen)


def test_others_do_not_read_a_token(place: Place) -> None:
    """A file that others can read is refused and told."""
    keep_login(place.state, Login("https://service.example", "bailee_0_0"), place.environment())
    (place.state / "login").chmod(0o640)
    with pytest.raises(Problem, match="read by others"):
        read_login(place.state, place.environment())
    (place.state / "login").write_text("{")
    (place.state / "login").chmod(0o600)
    with pytest.raises(Problem, match="cannot be understood"):
        read_login(place.state, place.environment())


def test_a_login_is_kept_in_the_keyring_where_there_is_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in no file then; forgotten, it is in neither."""
    import keyring

    from agent.test_sessions import Memory

    memory, before = Memory(), keyring.get_keyring()
    environment = place.environment(DBUS_SESSION_BUS_ADDRESS="unix:path=/nowhere")
    login = Login("https://service.example", "bailee_0_0")
    keyring.set_keyring(memory)
    try:
        assert keep_login(place.state, login, {**environment, "BAILEE_KEYRING": "off"}).endswith("/login")
        assert keep_login(place.state, login, environment) == "the system's keyring"
        assert not (place.state / "login").exists()
        assert read_login(place.state, environment) == login
        drop_login(place.state, environment)
        assert read_login(place.state, environment) is None
        drop_login(place.state, environment)
    finally:
        keyring.set_keyring(before)


def test_a_keyring_that_does_not_answer_is_no_obstacle(place: Place) -> None:
    """As on a machine without a desktop: the login is in the file, and goes from there."""
    nowhere = {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={place.folder}/nowhere"}
    with place.serve() as service:
        attempt = place.begin(service, **nowhere)
        words = ("logins", "approve", attempt.code(), "--account", "ada", "--yes")
        place.operate(*words, proof=place.proofs["ada"])
        assert "The token is in /" in attempt.end().stdout
        assert place.run("logout", **nowhere).returncode == 0
        assert not (place.state / "login").exists()


# --- Ends of an attempt ---


def test_an_interrupt_gives_up(place: Place) -> None:
    """Ctrl-C ends it without a traceback; nothing is kept, and no key is made."""
    with place.serve() as service, opening(place.folder) as terminal:
        command = [sys.executable, "-m", "bailee", "login", "--service", service.url]
        terminal.start(command, environment=place.environment(), directory=place.project)
        terminal.wait("Waiting; Ctrl-C gives up.")
        terminal.press("C-c")
        terminal.wait("Given up")
        assert "Traceback" not in terminal.wait_until_ended()
        assert not (place.state / "login").exists()
        assert place.keys() == []


def test_a_denied_login_ends(place: Place) -> None:
    """It says so, with 2, and nothing is kept."""
    with place.serve() as service:
        attempt = place.begin(service)
        place.operate("logins", "deny", attempt.code())
        done = attempt.end()
        assert (done.returncode, done.stdout) == (2, "")
        assert "the login was denied" in done.stderr
        assert not (place.state / "login").exists()


def test_another_login_ends_the_one_before(place: Place) -> None:
    """Its token is revoked, and the agent works for the other account."""
    with place.serve() as service:
        place.log_in(service)
        told = json.loads(place.log_in(service, "bob", "--json", "--machine", "desk").stdout)
        assert told == {
            "service": service.url,
            "account": "bob",
            "plan": "team",
            "token_in": str(place.state / "login"),
        }
        assert place.keys() == [("bob", True), ("ada", False)]
        assert "account bob" in explain(place, "--brief")


def test_logout_says_where_the_service_was_not_reached(place: Place) -> None:
    """It is forgotten here, and how it is revoked there is said, with 1."""
    with place.serve() as service:
        place.log_in(service)
    token = place.token()
    done = place.run("logout")
    assert (done.returncode, done.stdout) == (1, "")
    assert "could not be reached" in done.stderr
    assert f"bailee keys revoke {token.split('_')[1]}" in done.stderr
    assert not (place.state / "login").exists()
    assert place.keys() == [("ada", True)]
    place.operate("keys", "revoke", token.split("_")[1])


def test_logout_revokes_whatever_is_known_beside_the_token(place: Place) -> None:
    """Facts of the account that cannot be read keep nobody from revoking: the token is there."""
    with place.serve() as service:
        place.log_in(service)
        (place.state / "account.json").write_text("{ broken")
        done = place.run("logout")
        assert done.returncode == 0, done.stderr
        assert place.keys() == [("ada", False)]
        assert not (place.state / "account.json").exists()


def test_logout_does_not_say_nobody_where_the_token_is_out_of_reach(place: Place) -> None:
    """Somebody is logged in and the token is not to be found, as in a keyring over ssh: told, each time."""
    with place.serve() as service:
        place.log_in(service)
        kept = (place.state / "login").read_bytes()
        id = place.token().split("_")[1]
        (place.state / "login").unlink()
        for _ in range(2):
            done = place.run("logout")
            assert done.returncode == 2
            assert "the token is not to be found" in done.stderr
            assert f"bailee keys revoke {id}" in done.stderr
        (place.state / "login").write_bytes(kept)
        (place.state / "login").chmod(0o600)
        assert place.run("logout").returncode == 0
        assert place.run("logout").stderr == "Nobody is logged in.\n"


# --- What is known of the account ---


@pytest.mark.parametrize("words", [("--brief",), ("messages",), ("local_cache",)])
def test_privacy_in_the_agent_is_what_explain_says(place: Place, words: tuple[str, ...]) -> None:
    """To the letter, account and consents included, before and after one changed at the service."""
    flow = words[0] if words != ("--brief",) else ""

    def both() -> str:
        with place.open_work() as work:
            work.choose_model("claude-rehearsal-1")
            work.refresh_account()
            said = "\n".join(tell_privacy(work, flow)) + "\n"
        assert explain(place, *words) == said
        return said

    with place.serve() as service:
        place.log_in(service)
        before = both()
        whose = f"account ada at {service.url}, not known to reach the Claude API, as of 20"
        assert f"plan pro ({whose}" in before
        assert "training on" not in before
        place.operate("privacy", "training", "on", "--account", "ada", proof=place.proofs["ada"])
        assert "training on" in both()
    assert "training on" in both()  # the last known, where nobody answers


def test_control_where_explain_does_not_look(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: an agent that looks elsewhere than `bailee explain` says something else."""
    with place.serve() as service:
        place.log_in(service)
    monkeypatch.setattr(accounts, "LOGIN_FILE", "elsewhere.json")
    with place.open_work() as work:
        assert "\n".join(tell_privacy(work)) + "\n" != explain(place, "--brief")


def test_the_indicator_tells_the_account(place: Place) -> None:
    """Account, plan, training, ZDR and retention, as they are at the service once it was asked."""
    with place.serve() as service:
        place.log_in(service)
        with place.open_work() as work:
            work.choose_model("claude-rehearsal-1")
            assert "| ada (pro) | anthropic | training off | ZDR off | kept 30d" in tell_indicator(work)
            place.operate("privacy", "training", "on", "--account", "ada", proof=place.proofs["ada"])
            place.operate("privacy", "retention", "90d", "--account", "ada", proof=place.proofs["ada"])
            assert "training off" in tell_indicator(work)
            work.refresh_account()
            assert "| ada (pro) | anthropic | training on | ZDR off | kept 90d" in tell_indicator(work)
            assert work.decision(FlowId.MESSAGES).terms.trainable
        place.log_in(service, "bob")
        words = ("org", "zdr", "on", "--org", "bob", "--as", "bob", "--yes")
        place.operate(*words, proof=place.proofs["bob"])
        with place.open_work() as work:
            work.choose_model("claude-rehearsal-1")
            work.refresh_account()
            assert "| bob (team) | anthropic | training off | ZDR on | kept none" in tell_indicator(work)


def test_a_consent_shows_in_a_running_session(place: Place) -> None:
    """With the next turn, in a real terminal."""
    with place.serve() as service, opening(place.folder) as terminal:
        place.log_in(service)
        command = [sys.executable, "-m", "bailee", "code", *MODEL, "rehearse greet"]
        terminal.start(command, environment=place.environment(), directory=place.project)
        terminal.wait("tokens in")
        terminal.wait("ada (pro) | anthropic | training off")
        place.operate("privacy", "training", "on", "--account", "ada", proof=place.proofs["ada"])
        terminal.type("rehearse greet")
        terminal.wait("tokens in", times=2)
        terminal.wait("ada (pro) | anthropic | training on | ZDR off | kept 5y")
        terminal.press("C-c", "C-d")
        terminal.wait_until_ended()


def test_without_the_service_the_last_known_counts(place: Place) -> None:
    """It is used and said, with its date; nothing that cannot be understood takes its place."""
    with place.serve() as service:
        place.log_in(service)
        place.operate("privacy", "retention", "7d", "--account", "ada")
        assert place.code().returncode == 0
    known = read_account(place.state / "account.json")
    assert known is not None
    assert known.account_limit == "7d"
    assert "not known to reach the Claude API" in known.told()
    assert "not known" not in msgspec.structs.replace(known, is_first_party=True).told()
    told = place.code().stderr
    assert "the service cannot be reached" in told
    assert "what is known is as of 20" in told
    with place.open_work() as work:
        work.choose_model("claude-rehearsal-1")
        work.refresh_account()
        assert work.account == known
        assert "ada (pro, as of 20" in tell_indicator(work)
        assert str(work.decision(FlowId.MESSAGES).terms.retention) == "7d"
    assert read_account(place.state / "account.json") == known
    (place.state / "account.json").write_text('{"name": "ada"}')
    with pytest.raises(Problem, match="cannot be understood"):
        place.open_work()
    assert place.run("explain").returncode == 2


def test_a_token_that_was_revoked_is_told(place: Place) -> None:
    """What was known stays, and how to log in again is said."""
    with place.serve() as service:
        place.log_in(service)
        place.operate("keys", "revoke", place.token().split("_")[1])
        done = place.code()
        assert "does not know the key any more" in done.stderr
        assert "bailee login" in done.stderr
        assert done.returncode == 2
        assert place.run("logout").returncode == 0


def test_a_run_tells_its_account(place: Place) -> None:
    """Under `bailee run` the key of the run says whose it is, whoever is logged in."""
    with place.serve() as service:
        place.log_in(service)
        program = f"{sys.executable} -m bailee"
        asked = f"{program} code -p 'rehearse greet' --model claude-rehearsal-1 && {program} explain --brief"
        environment = place.environment(BAILEE_HOME=str(place.home))
        done = run_program(
            *("run", "--account", "bob", "--", "sh", "-c", asked),
            environment=environment,
            folder=place.project,
        )
        assert done.returncode == 0, done.stderr
        assert f"plan team (account bob at {service.url}" in done.stdout
        assert "account ada" in explain(place, "--brief")


def test_incognito_writes_nothing_of_an_account(place: Place) -> None:
    """The service is asked, and what it says is held in memory."""
    with place.serve() as service:
        place.log_in(service)
        place.code()
        before = {path: path.stat().st_mtime_ns for path in place.state.rglob("*")}
        assert place.code("--incognito").returncode == 0
        assert {path: path.stat().st_mtime_ns for path in place.state.rglob("*")} == before
        place.code()  # control: else it is written down
        assert {path: path.stat().st_mtime_ns for path in place.state.rglob("*")} != before


# --- Which service gets what is counted ---


def tell_status(place: Place, **more: str) -> dict[str, Any]:
    done = place.run("telemetry", "status", "--json", **more)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_status_names_the_service_that_the_agent_sends_to(place: Place) -> None:
    """Logged in: the login's, before a run and after, by host; one that the environment names comes first."""
    with place.serve() as service:
        assert tell_status(place)["metrics"]["to"] is None
        place.log_in(service)
        told = place.run("telemetry", "status").stdout
        assert told.count(f"to {service.url} (the login)") == 2
        assert "nowhere" not in told
        place.code()  # it tells, and sends nothing
        assert f"POST {service.url}/v1/logs" in place.run("telemetry", "preview").stderr
        place.code()
        told = place.run("telemetry", "status").stdout
        assert f"to {service.url}/v1/logs, answered 200" in told
        assert f"{service.url}/v1/logs" in place.run("telemetry", "log").stdout
        there = tell_status(place, BAILEE_SERVICE="http://ada:secret@127.0.0.1:9/x?y")["metrics"]
        assert (there["to"], there["to_by"]) == ("http://127.0.0.1:9/x", "BAILEE_SERVICE")
        assert tell_status(place, ANTHROPIC_API_KEY="sk-own")["metrics"]["to"] is None
        place.run("logout")
        assert "nowhere: no service is known here" in place.run("telemetry", "status").stdout


def test_control_where_status_looks_at_the_variable_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: without the login in the function that both ask, neither agent nor status has a service."""
    with place.serve() as service:
        place.log_in(service)
    with place.open_work() as work:
        assert work.service is not None
        assert work.service.recipient == f"{service.url}, key {place.token().split('_')[1]}"
    monkeypatch.setattr(accounts, "find_login", lambda *_: None)
    with place.open_work() as work:
        assert work.service is None


def test_what_was_counted_before_a_service_was_known_goes_to_none(place: Place) -> None:
    """Neither to the first that comes, nor to another login's: each gets what was counted for it."""
    with place.serve() as service:
        for _ in range(2):
            assert place.code("--model", "rehearsal").returncode == 0
        assert (tell_status(place)["pending"], tell_status(place)["local"]) == (0, 6)
        place.log_in(service)
        place.code()
        assert turns(place) == 1
        place.operate("keys", "revoke", place.token().split("_")[1])
        place.log_in(service, "bob")
        place.code()
        assert turns(place) == 2
        assert (tell_status(place)["pending"], tell_status(place)["local"]) == (0, 6)


def turns(place: Place) -> int:
    """Return how many turns the service holds."""
    return [point.name for point in read_points(place.home)].count("bailee.turn")


@pytest.mark.parametrize(
    ("words", "more", "by"),
    [
        (("telemetry", "off"), {}, "user/setting.telemetry"),
        (("telemetry", "local"), {}, "user/setting.telemetry"),
        (("telemetry", "on"), {"DISABLE_TELEMETRY": "1"}, "environment/switch.DISABLE_TELEMETRY"),
    ],
)
def test_a_preview_after_opting_out_says_that_nothing_is_sent(
    place: Place, words: tuple[str, ...], more: dict[str, str], by: str
) -> None:
    """It prints no request, says by what it is off, and what becomes of what was counted before; so does the
    command that switches it off."""
    with place.serve() as service:
        place.log_in(service)
        place.code()
        assert "POST" in place.run("telemetry", "preview").stderr  # control: while it is on
        said = place.run(*words).stderr
        assert ("3 events counted before are kept here and not sent" in said) is (words[1] != "on")
        preview = place.run("telemetry", "preview", **more)
        assert preview.stdout == ""
        kept = "3 events counted before are kept (bailee telemetry clean)"
        assert preview.stderr == f"Nothing would be sent: off by {by}; {kept}.\n"
        place.run("telemetry", "clean")
        after = place.run("telemetry", "preview", **more).stderr
        assert after == f"Nothing would be sent: off by {by}; nothing is kept.\n"


# --- Which comes first ---

HERE = "http://127.0.0.1:8787"
FIRST: list[tuple[dict[str, str], Provider, bool]] = [
    ({}, Provider.ANTHROPIC, True),
    ({"ANTHROPIC_BASE_URL": f"{HERE}/"}, Provider.ANTHROPIC, True),
    ({"ANTHROPIC_API_KEY": "sk-own"}, Provider.ANTHROPIC, False),
    ({"ANTHROPIC_AUTH_TOKEN": "own"}, Provider.ANTHROPIC, False),
    ({"ANTHROPIC_BASE_URL": "https://elsewhere.example"}, Provider.ANTHROPIC, False),
    ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}, Provider.ANTHROPIC, False),
    ({"ANTHROPIC_BASE_URL": "https://127.0.0.1:8787"}, Provider.ANTHROPIC, False),
    ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:x"}, Provider.ANTHROPIC, False),
    ({}, Provider.BEDROCK, False),
    ({}, Provider.VERTEX, False),
]


@pytest.mark.parametrize(("environment", "provider", "is_used"), FIRST)
def test_what_comes_before_a_login(
    place: Place, environment: Mapping[str, str], provider: Provider, is_used: bool
) -> None:
    """A key in the environment, another address, another provider: then the login has no part in it."""
    assert is_login_used(environment, provider, HERE) is is_used
    facts = {
        "service": HERE,
        "key": "0",
        "name": "ada",
        "plan": "pro",
        "training": True,
        "dpp": False,
        "zdr": False,
        "organization": None,
        "organization_limit": None,
        "account_limit": None,
        "is_first_party": True,
        "as_of": 0,
    }
    (place.state / "account.json").write_text(json.dumps(facts))
    assert (find_account(place.state, environment, provider) is not None) is is_used


def test_a_token_goes_to_its_service_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another address in the environment it is not sent there. Control: without the check it is."""
    with place.serve() as service, _other(place) as other:
        place.log_in(service)
        refused = place.code(ANTHROPIC_BASE_URL=other.url)
        assert refused.returncode == 2
        assert "there is no credential for the model" in refused.stderr
        changes = place.folder / "changes"
        changes.mkdir()
        (changes / "sitecustomize.py").write_text(
            "import bailee.agent.account as account, bailee.agent.work as work\n"
            "account.is_login_used = lambda *_: True\nwork.BASE = 'UNUSED'\n"
        )
        command = [sys.executable, "-m", "bailee", "code", "-p", "rehearse greet", *MODEL]
        environment = place.environment(ANTHROPIC_BASE_URL=other.url, PYTHONPATH=str(changes))
        done = subprocess.run(
            command,
            env=environment,
            cwd=place.project,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "401" in done.stderr  # it was presented there, where nobody knows it


@contextmanager
def _other(place: Place) -> Iterator[Service]:
    folder = place.folder / "other"
    folder.mkdir()
    with serving(folder / "home", folder, "--upstream", "rehearsal") as service:
        yield service


def test_no_proxy_stands_between_on_the_machine(place: Place) -> None:
    """Plain http on loopback is not taken to a proxy, which may be elsewhere: no login, prompt or logout.

    Control: what the environment itself names is, as with any client.
    """
    with place.serve() as service, socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.2)
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = {"HTTP_PROXY": url, "http_proxy": url}
        attempt = place.begin(service, **proxies)
        words = ("logins", "approve", attempt.code(), "--account", "ada", "--yes")
        place.operate(*words, proof=place.proofs["ada"])
        assert attempt.end().returncode == 0
        token = place.token()
        assert place.code(**proxies).stdout.startswith("Hello.")
        assert place.run("logout", **proxies).returncode == 0
        with pytest.raises(TimeoutError):
            proxy.accept()
        command = [sys.executable, "-m", "bailee", "code", "-p", "rehearse greet", *MODEL]
        named = {"ANTHROPIC_BASE_URL": service.url, "ANTHROPIC_AUTH_TOKEN": token}
        running = subprocess.Popen(
            command,
            env=place.environment(**proxies, **named),
            cwd=place.project,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            proxy.settimeout(30)
            taken, _ = proxy.accept()
            with taken:
                assert taken.recv(4096).startswith(b"POST http://127.0.0.1")
        finally:
            running.kill()
            running.wait()


ADDRESSES = [
    ("http://127.0.0.1:8787", True),
    ("http://localhost:8787/", True),
    ("http://[::1]:8787", True),
    ("https://service.example", True),
    ("http://service.example", False),
    ("http://192.0.2.1", False),
    ("http://localhost.example", False),
    ("http://127.0.0.1.example:80", False),
    ("http://0.0.0.0:8787", False),
    ("https://ada:secret@service.example", False),
    ("https://service.example/?next=x", False),
    ("ftp://127.0.0.1", False),
    ("127.0.0.1:8787", False),
    ("https://", False),
    ("http://127.0.0.1:port", False),
]


@pytest.mark.parametrize(("url", "is_taken"), ADDRESSES)
def test_a_token_goes_over_tls_or_stays_on_the_machine(place: Place, url: str, is_taken: bool) -> None:
    """Plain http is for loopback; also where the file of a login was changed by hand."""
    if is_taken:
        assert check_address(url, where="--service") == url.rstrip("/")
        return
    with pytest.raises(Problem):
        check_address(url, where="--service")
    assert place.run("login", "--service", url).returncode == 2
    (place.state / "login").write_text(json.dumps({"service": url, "token": "bailee_0_0"}))
    (place.state / "login").chmod(0o600)
    with pytest.raises(Problem):
        read_login(place.state, place.environment())


# --- Polling, as RFC 8628, 3.5, has it ---

CODES = Codes("device", "BBBB-BBBB", "http://127.0.0.1/", expires_in=600, interval=5)


class Scripted:
    """A service that answers what a test says, and a clock that only waiting moves."""

    def __init__(self, *answers: tuple[int, object] | None) -> None:
        self.answers = list(answers)
        self.waited: list[float] = []
        self.told: list[str] = []

    def post(self, path: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        assert path == "/oauth/token"
        assert form["device_code"] == "device"
        answer = self.answers.pop(0)
        if answer is None:
            raise ConnectionRefusedError
        return answer[0], json.dumps(answer[1]).encode()

    def poll(self) -> str:
        return poll(
            self.post, CODES, wait=self.waited.append, clock=lambda: sum(self.waited), tell=self.told.append
        )


def error(name: str) -> tuple[int, object]:
    return 400, {"error": name}


TOKEN = (200, {"access_token": "token", "token_type": "bearer", "expires_in": 1})


def test_polling_keeps_the_interval() -> None:
    """It waits first; five seconds more for each `slow_down`, from then on."""
    pending, slower = error("authorization_pending"), error("slow_down")
    scripted = Scripted(pending, slower, pending, slower, pending, TOKEN)
    assert scripted.poll() == "token"
    assert scripted.waited == [5, 5, 10, 10, 15, 15]


def test_polling_backs_off_where_nobody_answers() -> None:
    """The wait doubles, is told once, and is the interval again once somebody answers."""
    scripted = Scripted(None, (503, {}), None, error("authorization_pending"), TOKEN)
    assert scripted.poll() == "token"
    assert scripted.waited == [5, 10, 20, 40, 5]
    assert len(scripted.told) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (error("access_denied"), "denied"),
        (error("expired_token"), "in time"),
        (error("invalid_grant"), "does not know this login"),
        (error("invalid_client"), "invalid_client"),
        ((400, ["no object"]), "cannot be understood"),
        ((404, {}), "cannot be understood"),
        ((200, {}), "cannot be understood"),
        ((200, {"access_token": "two\nlines", "token_type": "Bearer"}), "cannot be understood"),
        ((200, {"access_token": "x", "token_type": "mac"}), "cannot be understood"),
    ],
)
def test_polling_ends(answer: tuple[int, object], told: str) -> None:
    """Every other answer ends it, in words."""
    with pytest.raises(Problem, match=told):
        Scripted(error("authorization_pending"), answer).poll()


def test_polling_ends_when_the_code_expires() -> None:
    """Also where the service never says so."""
    scripted = Scripted(*[error("authorization_pending")] * 200)
    with pytest.raises(Problem, match="in time"):
        scripted.poll()
    assert sum(scripted.waited) == 600

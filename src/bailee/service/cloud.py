"""Drives cloud sessions: the machine, its boundary, its token, its turns, and what it leaves."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key, revoke_key
from bailee.accounts.people import Account
from bailee.accounts.secrets import GIT_CREDENTIAL, StoredSecret, open_secrets
from bailee.accounts.tables import KeyOrigin
from bailee.boundary.declarations import make_rules
from bailee.boundary.means import find_means
from bailee.cloud.conversations import Disk, keep_conversation
from bailee.cloud.networks import TRUSTED, Network
from bailee.cloud.records import ENDED, STAGE, WORK, CloudSession, Sessions, State
from bailee.flows.git.access import Access, Attached, place_of
from bailee.flows.git.grants import grant, withdraw_grant
from bailee.flows.git.receiver import BASE
from bailee.flows.web.files import RulesFile
from bailee.flows.web.placeholders import Secret, make_secret
from bailee.flows.web.rules import Rules
from bailee.manifests import Manifest, load_manifest
from bailee.manifests.loading import fill
from bailee.policy.contexts import Context
from bailee.policy.plans import Location, Provider
from bailee.policy.problems import Problem
from bailee.sandbox.namespaces import WORK as INSIDE
from bailee.sandbox.namespaces import list_tools, write_machine
from bailee.service.boundaries import Surroundings
from bailee.service.launching import running_service
from bailee.service.receipts import anchor, make_receipt
from bailee.service.repositories import list_owners
from bailee.service.running import Running, find_running
from bailee.vault.store import open_keys, open_vault

GUEST = Path(__file__).parents[1] / "cloud" / "guest.sh"
_STAGES = {"cloning": State.CLONING, "working": State.WORKING, "pushing": State.PUSHING}
_LOOK_SECONDS = 0.2
# What guest.sh ends with where it is not the agent's own status.
_FAULTS = {
    101: "the repository could not be cloned",
    102: "the set-up script failed",
    103: "the work could not be pushed",
}
_NOT_PUSHED, _BY_SIGNAL = 103, 128
_TOOLS = "Bash,Read,Edit,Write,Glob,Grep"
AGENTS = ("bailee", "claude-code")


def write_agent(agent: str, prompt: str, *, goes_on: bool) -> list[str]:
    """Return the command that lets an agent work on a prompt without a person.

    Args:
        agent: one of AGENTS, or a command line, which finds the prompt in BAILEE_PROMPT.
        goes_on: whether it worked in this session before.
    """
    more = ["--continue"] if goes_on else []
    if agent == "bailee":
        return [sys.executable, "-P", "-m", "bailee", "code", "--mode", "all", *more, "-p", prompt]
    if agent == "claude-code":
        allowed = ["--permission-mode", "acceptEdits", "--allowedTools", _TOOLS]
        return ["claude", "-p", prompt, *allowed, *more]
    return ["sh", "-c", agent]


class Driver:
    """Drives one session, from where it stands to where it ends.

    Args:
        inherited: this process's environment: of it a machine gets the path to programs and nothing else.
    """

    def __init__(self, home: Path, id: str, *, inherited: Mapping[str, str] = os.environ) -> None:
        self._home = home
        self._id = id
        self._inherited = inherited
        self._sessions = Sessions(home)
        self._is_late = False
        self._folder = self._sessions.folder(id)

    def run(self, *, only_saves: bool = False) -> CloudSession:
        """Work off the turns that are not answered yet, and return how the session ended.

        Args:
            only_saves: no turn: what is there is committed and pushed.

        Raises:
            Problem: another process drives it.
        """
        with self._sessions.driving(self._id):
            try:
                return self._drive(only_saves=only_saves)
            except Problem as problem:
                return self._end(State.FAILED, str(problem))
            except BaseException as fault:
                self._end(State.FAILED, f"a fault of Bailee: {type(fault).__name__}")
                raise

    def _drive(self, *, only_saves: bool) -> CloudSession:
        self._change(state=State.STARTING, reason="")
        while True:
            session = self._sessions.look(self._id)
            waiting = session.turns[session.answered :]
            if only_saves:
                status = self._turn(session, None)
                return self._end(State.STOPPED, "its work was saved" if status == 0 else _tell(status))
            if not waiting:
                return self._end(State.DONE, "")
            status = self._turn(session, waiting[0])
            self._change(answered=session.answered + 1)
            if self._is_late or self._is_stopped:
                reason = f"its {session.seconds} s were over" if self._is_late else "it was stopped"
                return self._end(State.STOPPED, reason)
            if status:
                return self._end(State.FAILED, _tell(status))

    def _turn(self, session: CloudSession, prompt: str | None) -> int:
        """Let the machine work on a prompt, or only save what is there; return its status."""
        directory = open_directory(self._home)
        holder = directory.get(session.account)
        try:
            # Whatever runs is taken; where nothing does, one like that which the session began with.
            upstream = None if find_running(self._home) else session.upstream or None
            with running_service(self._home, upstream) as (service, run):
                if not session.upstream:
                    url = service.upstream_url
                    self._change(upstream=f"{service.upstream}={url}" if url else service.upstream)
                key, token = create_key(
                    directory, holder.name, label=f"cloud {self._id}", origin=KeyOrigin.RUN, made_by="cloud"
                )
                run.note_key(key.id)
                attached = (Attached(session.repository, session.branch),)
                grant(self._home, key.id, Access(f"cloud-{self._id}", holder.id, attached, key.id))
                try:
                    return self._hold(session, prompt, holder, service, run.name, key.id, token)
                finally:
                    withdraw_grant(self._home, key.id)
                    with contextlib.suppress(Problem):  # somebody revoked it meanwhile
                        revoke_key(directory, key.id)
        finally:
            directory.close()

    def _hold(
        self,
        session: CloudSession,
        prompt: str | None,
        holder: Account,
        service: Running,
        run: str,
        key: str,
        token: str,
    ) -> int:
        provider = Provider(service.upstream) if service.upstream in set(Provider) else Provider.ANTHROPIC
        manifest = load_manifest(session.agent if session.agent in AGENTS else "bailee")
        command = (
            ["true"] if prompt is None else write_agent(session.agent, prompt, goes_on=session.answered > 0)
        )
        means = find_means()
        keys = open_keys(self._home)
        held = self._open_secrets(holder, session.repository)
        environment = self._write_environment(session, prompt or "", manifest, provider, service, token)
        # What a machine needs to work at all stands above a secret of the same name.
        exposed = {name: value for name, (known, value) in held.items() if known.is_exposed}
        environment = exposed | environment
        context = Context(plan=holder.plan, provider=provider, location=Location.CLOUD)
        surroundings = Surroundings(
            self._home,
            run,
            service_url=service.url,
            make_rules=lambda file: self._make_rules(session, manifest, context, environment, file),
            means=means,
            account=holder.id,
            key_id=key,
            wrapper=keys.wrapper,
            environment={},
            machine=lambda words, readable: write_machine(
                means, words, self._folder / WORK, readable=readable, tools=list_tools(command[0])
            ),
            secrets=_bind(held),
        )
        keys.close()
        (self._folder / WORK / "home").mkdir(exist_ok=True)
        started = datetime.now(UTC)
        self._change(has_unsaved=True)
        with self._watching(session.seconds):
            ended = surroundings.run(
                ["sh", "-c", GUEST.read_text(), "guest", *command], environment, self._folder
            )
        self._change(has_unsaved=self._is_late or self._is_stopped or _is_cut_off(ended.status))
        if session.agent == "bailee" and (why := keep_conversation(self._folder, Disk(self._folder / WORK))):
            sys.stdout.write(f"bailee: nobody can go on with the conversation elsewhere: {why}\n")
            sys.stdout.flush()
        made = make_receipt(
            open_vault(self._home),
            key_id=key,
            command=session.agent,
            manifest=manifest,
            context=context,
            account=holder.name,
            upstream=service.upstream,
            started=started,
            exit_status=ended.status,
            boundary=surroundings.tell(ended),
        )
        made = anchor(self._home, holder.id, made)
        self._change(receipt=msgspec.json.encode(made).decode())
        return ended.status

    # --- What a session has ---

    def _open_secrets(self, holder: Account, repository: str) -> dict[str, tuple[StoredSecret, str]]:
        directory, keys = open_directory(self._home), open_keys(self._home)
        try:
            owners = list_owners(directory, holder.id)
            held = open_secrets(directory, keys.wrapper, owners, place_of(repository))
        finally:
            directory.close()
            keys.close()
        held.pop(GIT_CREDENTIAL, None)  # never, not even as a placeholder
        return held

    def _write_environment(
        self,
        session: CloudSession,
        prompt: str,
        manifest: Manifest,
        provider: Provider,
        service: Running,
        token: str,
    ) -> dict[str, str]:
        """Return all that a machine has in its environment; nothing of this process's is in it but PATH."""
        import base64

        launch = manifest.launch
        set_here = {**launch.environment.get(provider, {}), **launch.telemetry, **launch.essential_only}
        parts = session.repository.partition("://")
        host = parts[2].partition("/")[0]
        inside = f"{service.url}{BASE}{host}/"
        basic = base64.b64encode(f"session:{token}".encode()).decode()
        return {
            "PATH": self._inherited.get("PATH", os.defpath),
            "HOME": f"{INSIDE}/home",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "USER": "session",
            **{
                name: fill(value, url=service.url, key=token, account=session.account)
                for name, value in set_here.items()
            },
            "BAILEE_SERVICE": service.url,
            "BAILEE_REPOSITORY": session.repository,
            "BAILEE_BASE": session.base,
            "BAILEE_BRANCH": session.branch,
            "BAILEE_SETUP": session.setup,
            "BAILEE_STAGE": f"{INSIDE}/{STAGE}",
            "BAILEE_PROMPT": prompt,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "Bailee session",
            "GIT_AUTHOR_EMAIL": f"{session.id}@session.invalid",
            "GIT_COMMITTER_NAME": "Bailee session",
            "GIT_COMMITTER_EMAIL": f"{session.id}@session.invalid",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": f"url.{inside}.insteadOf",
            "GIT_CONFIG_VALUE_0": f"{parts[0]}://{host}/",
            "GIT_CONFIG_KEY_1": f"http.{service.url}{BASE}.extraHeader",
            "GIT_CONFIG_VALUE_1": f"Authorization: Basic {basic}",
            "GH_TOKEN": "proxy-injected",
        }

    def _make_rules(
        self,
        session: CloudSession,
        manifest: Manifest,
        context: Context,
        environment: Mapping[str, str],
        file: RulesFile,
    ) -> Rules:
        asked: tuple[str, ...] = session.allow
        if session.network == Network.TRUSTED:
            asked = (*TRUSTED, *asked)
        rules = make_rules([manifest], context, environment=environment, allow=asked, file=file)
        if session.network == Network.NONE:
            rules = msgspec.structs.replace(rules, allowed=())
        limited = tuple(
            msgspec.structs.replace(rule, bytes=rule.bytes or session.traffic_bytes) for rule in rules.allowed
        )
        return msgspec.structs.replace(rules, allowed=limited)

    # --- How it goes ---

    @contextlib.contextmanager
    def _watching(self, seconds: int) -> Iterator[None]:
        """Write down the stage that the machine tells, and end it when its time is over or it is stopped."""
        done = threading.Event()
        stage = self._folder / WORK / STAGE
        stage.unlink(missing_ok=True)

        def watch() -> None:
            told = ""
            deadline = time.monotonic() + seconds
            while not done.wait(_LOOK_SECONDS):
                if time.monotonic() > deadline or self._is_stopped:
                    self._is_late = not self._is_stopped
                    os.kill(os.getpid(), signal.SIGTERM)  # passed on to the machine
                    return
                # What stands there is the machine's word, and nothing but a word is taken from it.
                with contextlib.suppress(OSError, Problem):
                    now = _read_word(stage)
                    if now != told and now in _STAGES:
                        told = now
                        self._change(state=_STAGES[now])

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()

    @property
    def _is_stopped(self) -> bool:
        return (self._folder / "stop").exists()

    def _change(self, **fields: object) -> CloudSession:
        return self._sessions.change(self._id, changed_ms=time.time_ns() // 1_000_000, **fields)

    def _end(self, state: State, reason: str) -> CloudSession:
        assert state in ENDED
        (self._folder / "stop").unlink(missing_ok=True)
        return self._change(state=state, reason=reason)


def _read_word(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(20).decode("ascii", "replace").strip()


def _bind(held: Mapping[str, tuple[StoredSecret, str]]) -> list[Secret]:
    """Return the secrets that a machine sees placeholders of."""
    return [
        make_secret(name, value, known.hosts)
        for name, (known, value) in held.items()
        if known.hosts and not known.is_exposed
    ]


def _is_cut_off(status: int) -> bool:
    """Tell whether a machine may have ended before what was done in it was pushed."""
    return status == _NOT_PUSHED or status >= _BY_SIGNAL


def _tell(status: int) -> str:
    return _FAULTS.get(status, f"the agent ended with {status}")

"""Drives cloud sessions: the machine, its boundary, its token, its turns, and what it leaves."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key, revoke_key
from bailee.accounts.people import Account
from bailee.accounts.secrets import KEPT_OUTSIDE, StoredSecret, open_secrets
from bailee.accounts.tables import KeyOrigin
from bailee.boundary.declarations import find_index, make_rules, resolve
from bailee.boundary.means import find_means
from bailee.cloud.conversations import Disk, MachineDisk, keep_conversation
from bailee.cloud.networks import TRUSTED, Network
from bailee.cloud.records import ENDED, STOP_REASON, WORK, CloudSession, Sessions, State
from bailee.flows.git.access import Access, Attached, scope_of
from bailee.flows.git.grants import grant, read_stop, withdraw_grant
from bailee.flows.git.receiver import BASE
from bailee.flows.web.files import RulesFile
from bailee.flows.web.placeholders import Secret, make_secret
from bailee.flows.web.rules import Rules
from bailee.manifests import Manifest, load_manifest
from bailee.manifests.loading import fill
from bailee.policy.contexts import Context
from bailee.policy.plans import Location, Provider
from bailee.policy.problems import Problem
from bailee.sandbox.machines import WORK as INSIDE
from bailee.sandbox.machines import Kind, Machine, NotAnswered, Spec
from bailee.service.boundaries import Surroundings
from bailee.service.cloud_limits import Watch
from bailee.service.cloud_logs import Output, room_of_turn
from bailee.service.cloud_rest import at_work
from bailee.service.cloud_scanner import give_rules
from bailee.service.cloud_snapshots import begin_from_snapshot, keep_snapshot
from bailee.service.github_api import lead_api, write_api_environment
from bailee.service.isolations import make_isolation
from bailee.service.launching import running_service
from bailee.service.receipts import anchor, make_receipt
from bailee.service.repositories import list_owners
from bailee.service.running import Running, find_running
from bailee.vault.store import open_keys, open_vault

SCRIPT = Path(__file__).parents[1] / "cloud" / "work.sh"
REPOSITORY = f"{INSIDE}/repository"
# What a machine does around the agent's own work, and what it is called where it goes wrong.
_CLONE, _PREPARE, _PUSH = "clone", "prepare", "push"
_RESUME, _CHECK, _CLEAR = "resume", "check", "clear"
_FAULTS = {
    _CLONE: "the repository could not be cloned",
    _PREPARE: "the set-up script failed",
    _PUSH: "the work could not be pushed",
}
_LEFT_OUT = 3  # what the script of a session ends with where branches of it are not pushed
_ALLOW = "bailee cloud start --network custom --allow"
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
        begin: called first, once nobody else drives the session.
        find: says from where packages come, see `make_rules`.
    """

    def __init__(
        self,
        home: Path,
        id: str,
        *,
        inherited: Mapping[str, str] = os.environ,
        begin: Callable[[], object] = lambda: None,
        find: Callable[[str, Mapping[str, str]], str] = find_index,
    ) -> None:
        self._begin = begin
        self._find = find
        self._home = home
        self._id = id
        self._inherited = inherited
        self._sessions = Sessions(home)
        self._cut = ""  # why the turn ended before its work had
        self._has_worked = False  # whether its agent was at work since this process drives it
        self._is_pushed = False  # what the last turn did
        self._is_new = False  # whether nothing was on the disk before this turn
        self._maker: CloudSession | None = None  # whose snapshot is on it
        self._values: tuple[str, ...] = ()  # tokens and secrets of this turn
        self._folder = self._sessions.folder(id)
        self._output = Output(_say, 0)  # of the machine of this turn

    def run(self, *, only_saves: bool = False, held: int | None = None) -> CloudSession:
        """Work off the turns that are not answered yet, and return how the session ended.

        Args:
            only_saves: no turn: what is there is committed and pushed.
            held: see `Sessions.driving`.

        Raises:
            Problem: another process drives it.
        """
        with self._sessions.driving(self._id, held=held), _heeding(self._stop):
            self._begin()
            try:
                with at_work(self._home, self._sessions, self._id):
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
                fault = self._turn(session, None)
                return self._end(State.STOPPED, fault or "its work was saved")
            if not waiting:
                if (ended := self._end_unless_asked()).state in ENDED:
                    return ended
                continue
            fault = self._turn(session, waiting[0])
            self._change(answered=session.answered + 1)
            if self._cut:
                return self._end(State.STOPPED, self._cut)
            if fault:
                return self._end(State.FAILED, fault)

    def _turn(self, session: CloudSession, prompt: str | None) -> str:
        """Let the machine work on a prompt, or only save what is there; return what went wrong."""
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
                self._change(keys=(*self._sessions.look(self._id).keys, key.id))
                attached = (Attached(session.repository, session.branch),)
                access = Access(f"cloud-{self._id}", holder.id, attached, key.id, session.traffic_bytes)
                grant(self._home, key.id, access)
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
    ) -> str:
        provider = Provider(service.upstream) if service.upstream in set(Provider) else Provider.ANTHROPIC
        manifest = load_manifest(session.agent if session.agent in AGENTS else "bailee")
        command = (
            ["true"] if prompt is None else write_agent(session.agent, prompt, goes_on=session.answered > 0)
        )
        means = find_means()
        keys = open_keys(self._home)
        held = self._open_secrets(holder, session.repository)
        isolation = make_isolation(Kind(session.isolation), _say_line)
        url = service.url.replace("127.0.0.1", isolation.address)
        environment = self._write_environment(session, prompt or "", manifest, provider, url, token)
        # What a machine needs to work at all stands above a secret of the same name.
        exposed = {name: value for name, (known, value) in held.items() if known.is_exposed}
        environment = exposed | environment
        context = Context(plan=holder.plan, provider=provider, location=Location.CLOUD)
        surroundings = Surroundings(
            self._home,
            run,
            service_url=service.url,
            make_rules=lambda file: msgspec.structs.replace(
                self._make_rules(session, manifest, context, environment, file),
                led=lead_api(session.repository, service.url, token, session.traffic_bytes),
            ),
            means=means,
            account=holder.id,
            key_id=key,
            wrapper=keys.wrapper,
            environment={},
            secrets=_bind(held),
            stops=True,
        )
        keys.close()
        started = datetime.now(UTC)
        self._is_pushed = False
        self._change(has_unsaved=True)
        self._take_snapshot(session)
        self._output = Output(_say, room_of_turn(self._folder, session.limits.disk_mb))
        spec = Spec(folder=self._folder / WORK, program=_find_program(session.agent), limits=session.limits)
        with surroundings.holding(isolation, spec) as machine:
            inside = surroundings.lead_machine(environment, isolation.address)
            basic = environment["GIT_CONFIG_VALUE_1"].rpartition(" ")[2]
            self._values = (token, basic, *(inside[name] for name in held if name in inside))
            deadline = time.monotonic() + session.seconds
            watch = Watch(
                machine.process_id,
                isolation.kind,
                spec,
                deadline,
                lambda: (
                    STOP_REASON
                    if self._is_stopped()
                    else surroundings.stopped_for or read_stop(self._home, key)
                ),
            )
            try:
                status, fault = self._work(
                    machine, watch, session, inside, None if prompt is None else command
                )
            except NotAnswered as problem:  # what it did until then is told all the same
                status, fault = 1, str(problem)
            if self._output.left_out:
                _say_line(f"{self._output.left_out} bytes of what the machine said were left out of the log")
            self._cut = watch.reason
            self._change(has_unsaved=not self._is_pushed)
            if session.agent == "bailee":
                self._keep_conversation(session, machine)
            ended = machine.destroy()
        made = make_receipt(
            open_vault(self._home),
            key_id=key,
            # What a command says is for its machine alone: a receipt is shown to others.
            command=session.agent if session.agent in AGENTS else "a command",
            manifest=manifest if session.agent in AGENTS else None,
            context=context,
            account=holder.name,
            upstream=service.upstream,
            started=started,
            exit_status=status,
            boundary=surroundings.tell(ended, session.isolation),
        )
        made = anchor(self._home, holder.id, made)
        self._change(receipt=msgspec.json.encode(made).decode())
        return fault

    def _work(
        self,
        machine: Machine,
        watch: Watch,
        session: CloudSession,
        environment: Mapping[str, str],
        command: list[str] | None,
    ) -> tuple[int, str]:
        """Do what a turn asks, and return the agent's status with what went wrong."""

        def do(words: list[str], folder: str = INSIDE) -> int:
            ended = machine.exec(words, environment, folder, say=self._output.say, is_over=watch.is_over)
            return 128 + signal.SIGTERM if ended is None else ended

        def run_script(*step: str) -> bool:
            return do(["sh", "-c", SCRIPT.read_text(), "sh", *step]) == 0

        if not (session.is_set_up or session.answered):
            self._change(state=State.CLONING)
            if self._maker is not None and run_script(_RESUME, self._maker.branch):
                self._change(begun_from=self._maker.id)
            else:
                if self._maker is not None and not watch.reason:
                    _say_line(
                        "the snapshot does not go together with the repository as it is; set-up runs anew"
                    )
                    run_script(_CLEAR)
                for step in (_CLONE, _PREPARE) if session.setup else (_CLONE,):
                    if not run_script(step):
                        return 1, _FAULTS[step]
                if session.setup and self._is_new and run_script(_CHECK):
                    self._keep_snapshot(machine, watch)
            if session.agent == "bailee":
                give_rules(self._home, machine, Kind(session.isolation))
            self._change(is_set_up=True)
        status = 0
        if command is not None:
            self._change(state=State.WORKING)
            self._has_worked = True
            status = do(command, REPOSITORY)
        if watch.reason:
            return status, watch.reason
        self._change(state=State.PUSHING)
        machine.clear()
        pushed = do(["sh", "-c", SCRIPT.read_text(), "sh", _PUSH])
        if pushed not in (0, _LEFT_OUT):
            return status, _FAULTS[_PUSH]
        self._is_pushed = pushed == 0
        return status, f"the agent ended with {status}" if status else ""

    def _take_snapshot(self, session: CloudSession) -> None:
        """Have what an earlier session's set-up left on the disk, if there is nothing on it yet."""
        self._is_new, self._maker = not any((self._folder / WORK).iterdir()), None
        if self._is_new and session.setup and not session.is_fresh:
            self._maker, said = begin_from_snapshot(self._home, self._sessions, session)
            if said:
                _say_line(said)

    def _keep_snapshot(self, machine: Machine, watch: Watch) -> None:
        """Keep what set-up left, for the next session that wants the same."""
        why = keep_snapshot(
            self._home, self._sessions, self._id, machine, values=self._values, is_over=watch.is_over
        )
        if why:
            _say_line(f"no snapshot of the set-up is kept: {why}")

    def _keep_conversation(self, session: CloudSession, machine: Machine) -> None:
        """Keep what was said, sealed, so that somebody may go on with it elsewhere."""
        source = MachineDisk(machine) if session.isolation == Kind.VM else Disk(self._folder / WORK)
        why = keep_conversation(self._folder, source, seal=partial(self._sessions.seal_copy, self._id))
        if why and self._has_worked:
            _say_line(f"nobody can go on with the conversation elsewhere: {why}")

    # --- What a session has ---

    def _open_secrets(self, holder: Account, repository: str) -> dict[str, tuple[StoredSecret, str]]:
        directory, keys = open_directory(self._home), open_keys(self._home)
        try:
            owners = list_owners(directory, holder.id)
            held = open_secrets(directory, keys.wrapper, owners, scope_of(repository))
        finally:
            directory.close()
            keys.close()
        return {
            name: one for name, one in held.items() if name not in KEPT_OUTSIDE
        }  # not even as placeholders

    def _write_environment(
        self,
        session: CloudSession,
        prompt: str,
        manifest: Manifest,
        provider: Provider,
        url: str,
        token: str,
    ) -> dict[str, str]:
        """Return all that a machine has in its environment; nothing of this process's is in it but PATH."""
        import base64

        launch = manifest.launch
        set_here = {**launch.environment.get(provider, {}), **launch.telemetry, **launch.essential_only}
        parts = session.repository.partition("://")
        host = parts[2].partition("/")[0]
        inside = f"{url}{BASE}{host}/"
        basic = base64.b64encode(f"session:{token}".encode()).decode()
        return {
            "PATH": self._inherited.get("PATH", os.defpath),
            "HOME": f"{INSIDE}/home",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "USER": "session",
            **{
                name: fill(value, url=url, key=token, account=session.account)
                for name, value in set_here.items()
            },
            "BAILEE_SERVICE": url,
            "BAILEE_REPOSITORY": session.repository,
            "BAILEE_BASE": session.base,
            "BAILEE_BRANCH": session.branch,
            "BAILEE_SETUP": session.setup,
            "BAILEE_PROMPT": prompt,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "Bailee session",
            "GIT_AUTHOR_EMAIL": f"{session.id}@session.invalid",
            "GIT_COMMITTER_NAME": "Bailee session",
            "GIT_COMMITTER_EMAIL": f"{session.id}@session.invalid",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": f"url.{inside}.insteadOf",
            "GIT_CONFIG_VALUE_0": f"{parts[0]}://{host}/",
            "GIT_CONFIG_KEY_1": f"http.{url}{BASE}.extraHeader",
            "GIT_CONFIG_VALUE_1": f"Authorization: Basic {basic}",
            **write_api_environment(session.repository),
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
            named = (resolve(one, environment, self._find) for one in TRUSTED)
            asked = (*(one for one in named if one), *asked)
        # To ask a package manager takes half a second, and without a network its host is refused anyway.
        find = self._find if session.network != Network.NONE else lambda name, environment: ""
        rules = make_rules([manifest], context, environment=environment, allow=asked, file=file, find=find)
        if session.network == Network.NONE:
            rules = msgspec.structs.replace(rules, allowed=())
        limited = tuple(
            msgspec.structs.replace(rule, bytes=rule.bytes or session.traffic_bytes) for rule in rules.allowed
        )
        return msgspec.structs.replace(rules, allowed=limited, command=_ALLOW)

    # --- How it goes ---

    def _stop(self) -> None:
        (self._folder / "stop").touch(mode=0o600)

    def _is_stopped(self) -> bool:
        return (self._folder / "stop").exists()

    def _change(self, **fields: object) -> CloudSession:
        return self._sessions.change(self._id, changed_ms=time.time_ns() // 1_000_000, **fields)

    def _end_unless_asked(self) -> CloudSession:
        """End the session, unless there was another prompt just now: who said it counts on this driver."""

        def end(session: CloudSession) -> dict[str, object]:
            if session.turns[session.answered :]:
                return {}
            return {"state": State.DONE, "reason": "", "changed_ms": time.time_ns() // 1_000_000}

        return self._sessions.change_by(self._id, end)

    def _end(self, state: State, reason: str) -> CloudSession:
        assert state in ENDED
        (self._folder / "stop").unlink(missing_ok=True)
        return self._change(state=state, reason=reason)


def _bind(held: Mapping[str, tuple[StoredSecret, str]]) -> list[Secret]:
    """Return the secrets that a machine sees placeholders of."""
    return [
        make_secret(name, value, known.hosts)
        for name, (known, value) in held.items()
        if known.hosts and not known.is_exposed
    ]


def _find_program(agent: str) -> str:
    """Return the program that a machine needs besides its own and Bailee's."""
    return "claude" if agent == "claude-code" else ""


def _say(data: bytes) -> None:
    """Let what a machine says go to the log."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _say_line(what: str) -> None:
    _say(f"bailee: {what}\n".encode())


@contextlib.contextmanager
def _heeding(stop: Callable[[], None]) -> Iterator[None]:
    """Let signals that ask for the end stop a session, so that its machine ends as when it is stopped."""
    asked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, frame: stop()) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""An agent at work: settings, account, session, model and tools put together for one run of `bailee code`."""

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from bailee import __version__
from bailee.agent.account import (
    GATEWAY_FILE,
    LOGIN_FILE,
    Account,
    ask_account,
    choose_service,
    find_account,
    find_login,
    write_account,
)
from bailee.agent.clients import REHEARSAL, open_client, rehearsing
from bailee.agent.conversations import Message
from bailee.agent.editing import locate_file
from bailee.agent.events import Event
from bailee.agent.login import Login
from bailee.agent.metrics import Line, Metrics, is_counted
from bailee.agent.permissions import Rule, read_rule
from bailee.agent.prompts import find_instructions, write_system_prompt
from bailee.agent.service import (
    BASE,
    KEYS,
    Service,
    find_gateway,
    is_plain_here,
    tell_fault,
)
from bailee.agent.sessions.cache import Cache, Kept
from bailee.agent.sessions.journals import Head, Journal
from bailee.agent.sessions.periods import Limits, Swept, sweep
from bailee.agent.sessions.recording import SecretMasker, SessionRecorder
from bailee.agent.settings import AGENT, Effective, Mode, is_looser
from bailee.agent.state import state_folder
from bailee.agent.survey import Survey
from bailee.agent.telemetry import Store
from bailee.agent.tools import TOOLS, Workspace
from bailee.agent.tools.paths import Project
from bailee.agent.tools.running import WITHHELD_FOR
from bailee.agent.turns import Asks, Conversation, Gate, Model, compact, refuse_unasked, run_turn
from bailee.characters import make_visible
from bailee.flows.metrics.sender import Wire
from bailee.flows.survey.ratings import Rating
from bailee.flows.survey.sender import send_rating
from bailee.manifests import load_manifest
from bailee.moments import tell_minute
from bailee.policy.contexts import Context
from bailee.policy.decisions import Decision, decide
from bailee.policy.flows import FlowId
from bailee.policy.layers import LayerName
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem

SESSION_HEADER = "x-bailee-session"
# Nobody waits longer than that at the end for what is counted to be sent.
METRICS_SECONDS = 2.0

# They open the model to whoever reads them; of the rest of the environment nobody can say what is secret.
CREDENTIALS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "BAILEE_KEY",
)


class Work:
    """One run of the agent in one project.

    Args:
        settings: what is in force.
        environment: the process's own variables.
        folder: the project's folder.
        is_incognito: nothing is written.
        surface: "terminal" or "print", for metrics.
        warn: told what a person should know and that does not stop the work.

    Attributes:
        is_first: the user is only just told what is sent, so that nothing is.
        session: the id of the present session.
        conversation: what was said in it.
        account: what is known of the account that model traffic is of; None if nothing tells.
        account_doubt: why that is not known as of now; empty if it is, or nobody was asked.
    """

    def __init__(
        self,
        settings: Effective,
        *,
        environment: Mapping[str, str],
        folder: Path,
        added: Sequence[Path] = (),
        is_incognito: bool = False,
        surface: str = "print",
        ask: Asks = refuse_unasked,
        warn: Callable[[str], None] = lambda text: None,
        show: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.settings = settings
        # What the shell says stands above the owner's files: as with any program, what is nearer is meant.
        self.environment = {**settings.environment, **environment}
        self.folder = folder
        self.is_incognito = is_incognito
        self._surface = surface
        self.is_first = False
        self.warn = warn
        self.state = state_folder(environment)
        self.account: Account | None = find_account(
            self.state, self.environment, self.settings.context().provider
        )
        self.account_doubt = ""
        self.manifest = load_manifest(AGENT)
        self.cache = Cache(self.state, environment=environment)
        self.model_name: str = settings["model"]
        rules = self._rules("permissions.allow"), self._rules("permissions.deny")
        self.gate = Gate(settings["permissions.mode"], allow=rules[0], deny=rules[1], ask=ask)
        self.workspace = Workspace(
            Project.at(folder, added),
            environment=environment,
            command_seconds=settings["commandSeconds"],
            withheld=WITHHELD_FOR.get(settings.context().provider, ()),
            show=show,
        )
        own = locate_file(LayerName.USER, directory=folder, environment=environment).parent
        self.instructions = find_instructions(folder, own)
        self._masker: SecretMasker | None = None
        self._recorder: SessionRecorder | None = None
        self._stack = contextlib.ExitStack()
        self._client: object | None = None
        self.metrics = self._make_metrics()
        self.session = ""
        self.conversation = Conversation()
        self.begin_session()

    def _rules(self, key: str) -> list[Rule]:
        where = self.settings.values[key].origin.place
        return [read_rule(text, tuple(TOOLS), where=f"{where}: {key}") for text in self.settings[key]]

    # --- what is decided -------------------------------------------------------------------------------

    @property
    def context(self) -> Context:
        """What the policy decides in."""
        return self.settings.context(self.account.context() if self.account else None)

    def decision(self, flow: FlowId) -> Decision:
        """Return what the policy says of one flow."""
        return decide(self.manifest.flow(flow), self.context)

    @property
    def limits(self) -> Limits:
        """How long sessions stay on this machine."""
        return Limits.of(self.manifest.flow(FlowId.LOCAL_CACHE), self.context, str(self.folder))

    @property
    def is_kept(self) -> bool:
        """Whether the present session is written at all."""
        return not self.is_incognito and self.decision(FlowId.LOCAL_CACHE).allowed

    @property
    def service(self) -> Service | None:
        """The Bailee service to send to; None where there is none."""
        return choose_service(self.state, self.environment, self.settings.context().provider, self.account)

    # --- whose work it is ------------------------------------------------------------------------------

    @property
    def login(self) -> Login | None:
        """The login whose token model traffic goes with; None where there is none, or something comes first.

        Raises:
            Problem: see `login.read_login`.
        """
        return find_login(self.state, self.environment, self.settings.context().provider)

    def refresh_account(self) -> None:
        """Ask the service what is in force for the account now; what is known stays where it does not say.

        Nobody is asked where nothing is sent to a service: with the rehearsal model, or without an account.
        """
        if self.model_name == REHEARSAL or self.settings.context().provider is not Provider.ANTHROPIC:
            return
        try:
            service, file = find_gateway(self.environment), GATEWAY_FILE
            if service is None and self.account is not None and (login := self.login) is not None:
                service, file = login.to_service(), LOGIN_FILE
            if service is None:
                return
            self.account = ask_account(service, self.environment, now=_now())
            self.account_doubt = ""
            if not self._is_counting:
                self.metrics.stop()
            if not self.is_incognito:
                write_account(self.state / file, self.account)
        except (OSError, Problem) as fault:
            known = f"what is known is as of {tell_minute(self.account.as_of)} UTC" if self.account else ""
            reason = (
                str(fault)
                if isinstance(fault, Problem)
                else f"the service cannot be reached: {tell_fault(fault)}"
            )
            self.account_doubt = f"{reason}; {known or 'the plan is assumed'}"

    def make_survey(self) -> Survey:
        """Return the survey of the present session: it gets a way to send a rating, and nothing else."""
        service, environment = self.service, self.environment
        is_allowed = self.decision(FlowId.SURVEY).allowed and service is not None

        def send(rating: Rating) -> bool:
            assert service is not None
            return send_rating(rating, __version__, lambda path, body: service.post(path, body, environment))

        rate = self.settings["feedbackSurveyRate"]
        return Survey(self.state, rate, send if is_allowed else None, random=random.random)

    @property
    def _is_counting(self) -> bool:
        flow = self.manifest.flow(FlowId.METRICS)
        return is_counted(flow, self.context, self.settings["telemetry"]) and not self.is_incognito

    def _make_metrics(self) -> Metrics:
        """Return what counts: nothing where metrics are off, or nothing is to be written."""
        service, environment = self.service, self.environment
        line = None
        if service is not None and self.decision(FlowId.METRICS).allowed:

            def post(path: str, body: bytes) -> int:
                return service.post(path, body, environment, seconds=METRICS_SECONDS)

            line = Line(service.recipient, service.place, post)
        return Metrics(
            Store(self.state) if self._is_counting else None,
            line,
            Wire(self.settings["telemetryWire"]),
            facts={"version": __version__, "provider": self.context.provider.value},
        )

    # --- sessions --------------------------------------------------------------------------------------

    def begin_session(self) -> None:
        """Begin a new session; nothing is written before something is said."""
        self.end_session()
        id = str(uuid.uuid4())
        head = Head(str(self.folder), self.model_name, __version__)
        self._take(id, lambda: self.cache.begin(head, now=_now(), id=id), ())
        self.metrics.begin_session(is_resumed=False)

    def resume_session(self, id: str) -> Kept:
        """Go on with a session of this machine; one of another folder is told.

        Raises:
            Problem: it is open elsewhere, or cannot be read.
        """
        kept = self.cache.read(id)
        self.end_session()
        try:
            journal = self.cache.resume(id) if self.is_kept else None
        except Problem:
            self.begin_session()
            raise
        self._take(id, lambda: self.cache.resume(id), kept.messages, journal)
        self.metrics.begin_session(is_resumed=True)
        if kept.session.folder != str(self.folder):
            place, here = make_visible(kept.session.folder), make_visible(str(self.folder))
            self.warn(f"this session is of {place}; tools work in {here}")
        return kept

    def _take(
        self,
        id: str,
        begin: Callable[[], Journal],
        messages: Sequence[Message],
        journal: Journal | None = None,
    ) -> None:
        self.session = id
        if not self.is_kept:
            self.conversation = Conversation(messages)
            return
        recorder = SessionRecorder(begin, lambda: self.masker, warn=self._warn_unkept, journal=journal)
        self._recorder = recorder
        self.conversation = Conversation(messages, record=recorder.message, record_summary=recorder.summary)

    @property
    def masker(self) -> SecretMasker:
        """The masker, which begins to load at the first look."""
        if self._masker is None:
            self._masker = SecretMasker(self.state / "cache", self._list_credentials())
        return self._masker

    def _list_credentials(self) -> list[str]:
        """Return the credentials that this agent works with, whatever they look like."""
        held = [self.environment.get(name, "") for name in CREDENTIALS]
        with contextlib.suppress(Problem):  # one that cannot be read is not used either
            # A keyring is not asked where nobody is logged in: it might ask back.
            if self.account is not None and (login := self.login) is not None:
                held.append(login.token)
        return held

    @property
    def recorder(self) -> SessionRecorder | None:
        """What writes the present session; None where it is not kept."""
        return self._recorder

    def _warn_unkept(self, problem: Problem) -> None:
        self.warn(f"this session is not kept any further: {problem}")

    def end_session(self) -> None:
        """Let the present session's file go."""
        self.metrics.end_session(surface=self._surface)
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def sweep_sessions(self, today: date | None = None) -> Swept:
        """Delete the sessions whose time is over, and tell of those that go within a week."""
        return sweep(self.cache, self.limits, today or datetime.now(UTC).date())

    # --- turns -----------------------------------------------------------------------------------------

    def answer(self, prompt: Message) -> Generator[Event]:
        """Answer a prompt; see `turns.run_turn`."""
        turn = run_turn(self.conversation, self.model(), self.gate, self.workspace, prompt)
        return self.metrics.observe(turn)

    def compact(self) -> Generator[Event]:
        """Replace the conversation by its summary; see `turns.compact`."""
        return compact(self.conversation, self.model())

    def model(self) -> Model:
        """Return what answers, as it is asked now."""
        if self._client is None:
            self._client = self._stack.enter_context(self._open_client())
        system = write_system_prompt(
            self.folder, self.instructions, mode=self.gate.mode, today=datetime.now(UTC).date()
        )
        is_rehearsal = self.model_name == REHEARSAL
        return Model(
            client=self._client,  # type: ignore[arg-type]
            name="claude-rehearsal-1" if is_rehearsal else self.model_name,
            system=system,
            max_tokens=self.settings["maxTokens"],
            context_tokens=self.settings["contextTokens"],
            headers={SESSION_HEADER: self.session},
        )

    def choose_model(self, name: str) -> None:
        """Go on with another model."""
        if REHEARSAL in (name, self.model_name) and name != self.model_name:
            self._stack.close()
            self._client = None
        self.model_name = name

    def choose_mode(self, mode: Mode) -> None:
        """Go on in another mode.

        Raises:
            Problem: it is looser than a managed file or the repository allows.
        """
        limit = self.settings.mode_limit
        if limit is not None and is_looser(mode, limit.value):
            raise Problem(
                f"the mode {mode} is looser than {limit.value}, which is the limit here",
                where=limit.origin.place,
                fix="ask whoever keeps that file",
            )
        self.gate.mode = mode

    def _open_client(self) -> contextlib.AbstractContextManager[object]:
        if self.model_name == REHEARSAL:
            return rehearsing()
        environment, is_direct = self.environment, False
        if (login := self.login) is not None:
            environment = {**environment, BASE: login.service, KEYS[0]: login.token}
            is_direct = is_plain_here(login.service)
        return open_client(self.context.provider, environment, is_direct=is_direct)

    def close(self) -> None:
        """End the session, let go of what is open, and send what was counted."""
        self.end_session()
        self._stack.close()
        self.metrics.close()

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _now() -> int:
    return time.time_ns() // 1_000_000

"""Pages of the console, as flows and the console register them: who may see one, what it shows and does.

A page is shown to whoever plays one of its parts; to everybody else it is not there. What it shows are facts
for a template of the folder it came with; how it is drawn, who is signed in, and that a form is one of ours,
is the console's to see to. Handlers run in threads: they may read databases.
"""

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bailee.accounts.holders import Operator
from bailee.accounts.people import Account
from bailee.accounts.tables import Role
from bailee.ledger.pseudonyms import OPERATOR
from bailee.policy.decisions import Decision
from bailee.policy.flows import FlowId
from bailee.policy.plans import Provider
from bailee.policy.problems import Problem
from bailee.vault.custody import Custody
from bailee.vault.kinds import Held, has_many, read_held
from bailee.vault.tightening import Preview, preview

_Value = TypeVar("_Value")
# Where the console begins.
HOME = "/console"
# How something is encrypted on the way.
TLS, LOOPBACK = "TLS", "in clear (loopback)"


class Part(StrEnum):
    """What somebody is to this service; one person may be all of it."""

    ANYBODY = "anybody"  # signed in or not
    SIGNED_IN = "signed_in"
    HOLDER = "holder"
    ADMIN = "admin"
    OPERATOR = "operator"


class Section(StrEnum):
    """Where a page stands in the navigation; pages that are reached from others stand in none."""

    YOURS = "Yours"
    ORGANIZATION = "Organization"
    SERVICE = "Service"
    NONE = ""


class Visitor(msgspec.Struct, frozen=True):
    """Who looks at a page.

    Attributes:
        account: whose holder they are; None for an operator without an account, and for who is not signed in.
        user: the user of this machine who runs the service, if it is that one.
        sign_in: the id of their sign-in; empty for who is not signed in.
        is_operator: whether they see to the service.
    """

    account: Account | None = None
    user: str | None = None
    sign_in: str = ""
    is_operator: bool = False

    @property
    def parts(self) -> frozenset[Part]:
        """What they are."""
        parts = {Part.ANYBODY}
        if self.sign_in:
            parts.add(Part.SIGNED_IN)
        if self.account is not None:
            parts.add(Part.HOLDER)
            if self.account.role is Role.ADMIN:
                parts.add(Part.ADMIN)
        if self.is_operator:
            parts.add(Part.OPERATOR)
        return frozenset(parts)

    @property
    def name(self) -> str:
        """What they are called in words, as in the ledger's `by`."""
        if self.account is not None:
            return self.account.name
        return self.user or ""

    @property
    def person(self) -> str:
        """What `ledger.pseudonyms` knows them by: an account's id goes with the account, a name would not."""
        return self.account.id if self.account is not None else f"{OPERATOR}{self.user or ''}"

    @property
    def operator(self) -> Operator:
        """Who asks, to whom `choices` looks for proof: the holder of their account, and nobody else."""
        return Operator(self.name, -1, signed_in=self.account.id if self.account else "nobody")


class Hop(msgspec.Struct, frozen=True):
    """Where metrics or errors go on to: what it speaks, and its address without a credential."""

    name: str
    url: str

    def __str__(self) -> str:
        return f"{self.name} to {self.url}"


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """What of the running service a page may tell.

    Attributes:
        upstream: its name; `provider` and `is_first_party` as the policy takes them.
        upstream_url: another address of it than its own; empty for that.
        upstream_scheme: how it is reached, `https` or `http`.
        retains_nothing: whether the upstream declares zero data retention.
        hops: what metrics and errors go on to.
        decisions: what the service decided of flows by its own environment; of all others agents decide.
        tracker: the repository that issues are opened in; empty if none is.
        tracker_url: the API that they are opened through; empty if none are.
        started_ms: milliseconds since 1970 UTC.
        console_url: the origin that browsers reach the console at; empty for this machine's own name.
        has_tls: whether the service has a certificate of its own.
    """

    home: Path
    upstream: str
    upstream_url: str
    upstream_scheme: str = "https"
    provider: Provider
    is_first_party: bool
    retains_nothing: bool
    hops: tuple[Hop, ...]
    decisions: Mapping[FlowId, Decision] = {}
    tracker: str
    tracker_url: str = ""
    started_ms: int
    console_url: str = ""
    has_tls: bool = False

    def tell_way(self, *further: str) -> str:
        """Say how what comes to the service is encrypted on the way, and from there to further URLs.

        What is not encrypted never leaves the machine: the service does not start with such an address.
        """
        steps = [TLS] if self.has_tls or self.console_url.startswith("https:") else [LOOPBACK]
        if not self.has_tls:  # a proxy on this machine has the certificate, if anything has
            steps.append(LOOPBACK)
        steps += [tell_encryption_to(url) for url in further]
        return ", then ".join(step for step, _ in groupby(steps))


# What is kept beside requests is given out no older than this.
OLDEST_SECONDS = 60.0


class Kept:
    """What takes long to add up, kept a while and renewed beside the requests that ask for it.

    Whoever asks first waits; who asks later gets what is there, and has it renewed if it is old. What is
    very old is nobody's answer: a number that somebody is about to decide by may not be of this morning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._values: dict[str, tuple[float, Any]] = {}
        self._renewing: set[str] = set()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "console")

    def get(self, name: str, make: Callable[[], _Value], *, seconds: float = 10.0) -> _Value:
        """Return a value of that name, made anew beside if it is older than some seconds."""
        found = self._values.get(name)
        if found is None or self._clock() - found[0] > OLDEST_SECONDS:
            value = make()
            self._values[name] = self._clock(), value
            return value
        at, kept = found
        with self._lock:
            is_due = self._clock() - at > seconds and name not in self._renewing
            if is_due:
                self._renewing.add(name)
        if is_due:
            self._pool.submit(self._renew, name, make)
        known: _Value = kept
        return known

    def forget(self) -> None:
        """Have everything made anew for who asks next: somebody changed something."""
        self._values.clear()

    def close(self) -> None:
        """Renew nothing any more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _renew(self, name: str, make: Callable[[], object]) -> None:
        try:
            value = make()
            self._values[name] = self._clock(), value
        except Exception:  # whoever asks next is told, as they make it themselves
            self._values.pop(name, None)
        finally:
            with self._lock:
                self._renewing.discard(name)


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody asks for a page, or sends its form.

    Attributes:
        path: what the parts in braces of the page's path are.
        query, form: what was sent; of several values the last.
        base: the URL that the service was reached at, as the request has it.
        origin: what browsers call the service, as it knows itself; empty where it does not.
        browser: what forms of this browser are bound to; empty of one that had no page yet.
        resumed: the id of the last event that it had before it lost a stream.
    """

    visitor: Visitor
    custody: Custody
    installation: Installation
    kept: Kept
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str] = {}
    base: str = ""
    origin: str = ""
    browser: str = ""
    address: str = ""
    agent: str = ""
    resumed: str = ""

    @property
    def base_of_programs(self) -> str:
        """The URL for programs: not all of them know names that end in `localhost`, as browsers do."""
        return self.base.replace("//bailee.localhost", "//127.0.0.1", 1)

    def held(self, account: str) -> Held:
        """Return what is held under an account: counted anew, or of one with much as of some seconds ago."""
        vault = self.custody.vault
        if not has_many(vault, account):
            return read_held(vault, account)
        return self.kept.get(f"held {account}", lambda: read_held(vault, account))

    def preview(self, accounts: Iterable[Account]) -> Preview:
        """Return what it would mean for what accounts hold if they were as they are given here."""
        return preview([(one, self.held(one.id)) for one in accounts], self.custody.today())

    @property
    def account(self) -> Account:
        """The visitor's own account; pages for holders have one."""
        if self.visitor.account is None:
            raise NotThere
        return self.visitor.account


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where something of accounts is held besides the vault's records; exported and erased with them.

    Attributes:
        flow: what its segments in the vault are of; its lines in an export are named so too.
        name: what one thing that is held there is called.
        path: of the page that lists them.
        count: how many there are of an account.
        tell: gives facts of an account's, a line of an export each.
        erase: ends and removes all that is of an account, and gives a receipt for each; is told who asks as
            `Custody.erase_session` is.
    """

    flow: str
    name: str
    path: str
    count: Callable[[Custody, Account], int]
    tell: Callable[[Custody, Account], Iterator[dict[str, object]]]
    erase: Callable[[Custody, Account, str, str], Iterator[bytes]]


class View(msgspec.Struct, frozen=True):
    """Facts to be drawn by a template.

    Attributes:
        heading: in place of the page's title.
    """

    template: str
    facts: dict[str, Any] = {}
    status: int = 200
    heading: str = ""


class Moved(msgspec.Struct, frozen=True):
    """Done; the answer is another page, which says so once.

    Attributes:
        cookies: to be set; an empty value takes one away.
    """

    to: str
    said: str = ""
    cookies: dict[str, tuple[str, int]] = {}


class File(msgspec.Struct, frozen=True):
    """Bytes to be saved and never shown by the browser."""

    data: bytes
    name: str
    media_type: str = "application/json"


class Download(msgspec.Struct, frozen=True):
    """A file to be saved that is sent while it is made.

    Attributes:
        pieces: makes it, in threads, from the custody that is open for looking: that of a form's request is
            closed by then. A problem breaks the download, so that no browser takes a part for all of it.
    """

    pieces: Callable[[Custody], Iterator[bytes]]
    name: str
    media_type: str


class Stream(msgspec.Struct, frozen=True):
    """Server-Sent Events, as they come; it ends where whoever asked for it may not see the page any more.

    Attributes:
        events: gives nothing, as empty bytes, every second at the latest: then too it is asked.
    """

    events: Callable[[], AsyncIterator[bytes]]


Answer = View | Moved | File | Download | Stream
Handler = Callable[[Visit], Answer]


class TooOften(Problem):
    """Somebody tries more often than they may, and is to wait for some seconds (RFC 6585, 4)."""

    def __init__(self, what: str, *, where: str, seconds: int) -> None:
        super().__init__(what, where=where, fix=f"try again in {seconds} seconds")
        self.seconds = seconds


class NotThere(Exception):
    """There is no such page for this visitor."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page.

    Attributes:
        path: from the root; parts in braces match what has no slash.
        parts: who may see it; any of them will do.
        templates: the folder that its templates lie in.
        show: answers GET; None for a form alone.
        act: answers POST.
        flow: the arrow of the diagram that leads to it.
        leads: says where that arrow leads on this installation, if not where its manifest says.
        carries: says how it is encrypted on the way there, if not as its manifest says.
        comes_again: whether it is shown once more where its form is refused; else that above it is.
        is_hourly: whether what passes of the flow can be counted by the hour: ratings are held by the day.
    """

    path: str
    title: str
    parts: frozenset[Part]
    templates: Path
    show: Handler | None = None
    act: Handler | None = None
    section: Section = Section.NONE
    flow: FlowId | None = None
    leads: Callable[[Installation], str] | None = None
    carries: Callable[[Installation], str] | None = None
    comes_again: bool = True
    is_hourly: bool = True


def tell_encryption_to(url: str) -> str:
    """Say how what goes to a URL is encrypted on the way."""
    return TLS if url.startswith("https:") else LOOPBACK


def read_number(text: str, default: int, *, least: int = 0, most: int = 1 << 40) -> int:
    """Return the number that a query names, within bounds; a default where it is none."""
    # Of more digits `int` makes none: sys.set_int_max_str_digits.
    is_number = text.isascii() and text.isdigit() and len(text) <= 40
    return min(most, max(least, int(text))) if is_number else default


def require(form: Mapping[str, str], name: str) -> str:
    """Return what a form says in one of its fields.

    Raises:
        Problem: nothing.
    """
    value = form.get(name, "").strip()
    if not value:
        raise Problem(f"{name.replace('_', ' ')} is empty", where="the form", fix="fill it in")
    return value

"""What may leave: rules by host, port, method and path, each with its flow and where it is written.

What no rule allows is refused. A rule that forbids wins over any that allows, so that the order of files
cannot open anything.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from bailee.flows.web.targets import Target, Unreadable, read_target
from bailee.policy.problems import Problem

ANY_HOST = "*"


class Wire(StrEnum):
    """What a connection must speak."""

    TLS = "tls"
    HTTP = "http"
    TCP = "tcp"


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that may leave, or may not.

    Attributes:
        host: a name, an address, `*.` before a name for all below it, or `*` for every name.
        ports: at least one.
        wire: what is spoken there; anything else is refused. `tcp` is not looked into.
        flow: the declared flow that it is part of.
        origin: where the rule is written, as told in a refusal.
        methods, paths: of HTTP, where TLS is opened; a path may hold `*`. Empty allows all.
        headers: headers that every request must have, by their names in lower case: an account's own key, so
            that the same host under somebody else's is refused.
        is_private: whether its names may lead to addresses that are not public.
        bytes: how much may be sent in all; None for no limit.
        per_second: how many connections a second, and that many times ten at once; None for no limit.
        opens: whether TLS is opened even if nothing here needs it.
    """

    host: str
    ports: tuple[int, ...] = (443,)
    wire: Wire = Wire.TLS
    flow: str = "web"
    origin: str = ""
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    headers: Mapping[str, str] = {}
    is_private: bool = msgspec.field(default=False, name="private")
    bytes: int | None = None
    per_second: float | None = None
    opens: bool = msgspec.field(default=False, name="open")

    def __repr__(self) -> str:
        return f"Rule({self.label})"

    @property
    def label(self) -> str:
        """What it is called in refusals and receipts."""
        return f"{self.origin or 'rule'}: {self.host}:{','.join(map(str, self.ports))}"

    @property
    def is_opened(self) -> bool:
        """Whether what it says can only be seen inside TLS."""
        needs = bool(self.methods or self.paths or self.headers)
        return self.wire is Wire.TLS and (needs or self.opens)

    def covers(self, target: Target) -> bool:
        """Tell whether a host and port are this rule's."""
        return target.port in self.ports and covers_host(self.host, target)

    def tell_refused(self, method: str, path: str, headers: Mapping[str, Sequence[str]]) -> str:
        """Say what of a request is not allowed; empty where all is.

        Args:
            headers: all values by name in lower case.
        """
        if self.methods and method not in self.methods:
            return f"the method {method}"
        if self.paths and not any(_matches(path, pattern) for pattern in self.paths):
            return "the path"
        for name, value in self.headers.items():
            if list(headers.get(name, ())) != [value]:
                return f"its {name}, which is not the one of this session"
        return ""


def covers_host(pattern: str, target: Target) -> bool:
    """Tell whether a pattern is of a target's host; `*` never is of an address."""
    if pattern == ANY_HOST:
        return target.address is None
    if pattern.startswith("*."):
        return target.address is None and target.host.endswith(pattern[1:])
    return pattern == target.host


def _matches(path: str, pattern: str) -> bool:
    # A server may read these as another path than the one that was compared. What the rule itself spells so
    # is meant: the names of npm's packages have a slash that is written %2f.
    plain = path.partition("?")[0]
    spelled = pattern.partition("*")[0]
    lowered = plain[len(spelled) :].lower() if plain.startswith(spelled) else plain.lower()
    if "%2e" in lowered or "%2f" in lowered or "%5c" in lowered or "\\" in plain or "//" in plain:
        return False
    if any(part in (".", "..") for part in plain.split("/")):
        return False
    return re.fullmatch(fnmatch.translate(pattern), plain) is not None


class Refusal(msgspec.Struct, frozen=True):
    """Why something is not let through.

    Attributes:
        rule: a short name for programs.
        reason: for people.
        fix: what whoever may decide that can do to allow it; empty where nobody can.
    """

    rule: str
    reason: str
    fix: str = ""


class Led(msgspec.Struct, frozen=True):
    """A host whose requests are answered by the service of this installation, which asks it with credentials.

    Attributes:
        rule: what is led there; opened, so that each request is seen. Nothing else of that host may leave.
        host, port: where the service listens, in clear.
        base: what its paths begin with there.
        authorization: what opens the service, in place of what the agent sent.
        yields: whether it is led there only as long as nothing else allows the host.
    """

    rule: Rule
    host: str
    port: int
    base: str
    authorization: str
    yields: bool = False

    def __repr__(self) -> str:
        return f"Led({self.rule.label})"


class Rules(msgspec.Struct, frozen=True):
    """All rules of a session.

    Attributes:
        allowed: the first that covers a target is the one that counts for it, unless a later one is stricter
            in what it opens: see `decide`.
        forbidden: hosts that nothing allows.
        stopped: hosts that a flow declares which is switched off, and what switched it off.
        is_observing: whether what no rule allows is let through and told apart (a stand-in internet only).
        led: what is led to the service; wins over what is allowed, unless it yields.
        command: what a host and port is allowed with, written behind it.
    """

    allowed: tuple[Rule, ...] = ()
    forbidden: tuple[Rule, ...] = ()
    stopped: tuple[tuple[Rule, str], ...] = ()
    is_observing: bool = False
    led: tuple[Led, ...] = ()
    command: str = "bailee run --allow"

    @property
    def is_opening(self) -> bool:
        """Whether TLS is opened for anything."""
        return bool(self.led) or any(rule.is_opened for rule in self.allowed)

    def find_led(self, target: Target) -> Led | None:
        """Return where a host's requests are led instead; None where they go to the host."""
        led = next((one for one in self.led if one.rule.covers(target)), None)
        if led is not None and led.yields and any(rule.covers(target) for rule in self.allowed):
            return None
        return led

    def decide(self, target: Target) -> tuple[Rule, ...] | Refusal:
        """Return the rules that allow a host and port, or the refusal."""
        for rule in self.forbidden:
            if rule.covers(target):
                return Refusal("forbidden", f"{target} is forbidden by {rule.label}")
        if led := self.find_led(target):
            return (led.rule,)
        found = tuple(rule for rule in self.allowed if rule.covers(target))
        if found:
            return found
        if self.is_observing:
            return (Rule(host=target.host, ports=(target.port,), wire=Wire.TCP, flow="", origin="observed"),)
        for rule, by in self.stopped:
            if rule.covers(target):
                reason = f"{target} is declared for {rule.flow}, which is switched off by {by}"
                return Refusal("switched_off", reason, f"switch {rule.flow} on")
        others = sorted(
            {port for rule in self.allowed if covers_host(rule.host, target) for port in rule.ports}
        )
        if others:
            reason = f"{target.host} is allowed on port {', '.join(map(str, others))} alone"
        elif target.address is not None:
            reason = f"{target} is an address and not a declared name"
        else:
            reason = f"{target} is not declared"
        return Refusal("undeclared", reason, f"{self.command} {target}")

    def decide_name(self, name: str) -> bool:
        """Tell whether any port of a name is allowed, so that an answer for it makes sense."""
        target = Target(name, 0)
        if any(covers_host(rule.host, target) and not rule.methods for rule in self.forbidden):
            return False
        passing = (*self.allowed, *(one.rule for one in self.led))
        return self.is_observing or any(covers_host(rule.host, target) for rule in passing)


def read_rule(text: str, origin: str) -> Rule:
    """Return the rule that `HOST`, `HOST:PORT` or either with `http://` or `tcp://` before it says.

    A path after it, in which `*` stands for anything, makes it a rule for such requests alone.

    Raises:
        Problem: it is none.
    """
    scheme, _, rest = text.rpartition("://")
    if scheme not in ("", "https", "http", "tcp"):
        raise _bad(text, origin, "there is no such scheme")
    wire = {"http": Wire.HTTP, "tcp": Wire.TCP}.get(scheme, Wire.TLS)
    rest, slash, path = rest.partition("/")
    default = None if wire is Wire.TCP else 80 if wire is Wire.HTTP else 443
    below = rest.startswith("*.")
    try:
        target = read_target(rest.removeprefix("*."), default)
    except Unreadable as fault:
        raise _bad(text, origin, str(fault)) from None
    if below and (target.address is not None or "." not in target.host):
        raise _bad(text, origin, "there is no name that all such hosts are below")
    host = f"*.{target.host}" if below else target.host
    private = target.address is not None  # whoever writes an address means it
    return check_rule(
        Rule(
            host=host,
            ports=(target.port,),
            wire=wire,
            origin=origin,
            is_private=private,
            paths=(f"/{path}",) if slash else (),
        )
    )


def check_rule(rule: Rule) -> Rule:
    """Return a rule whose host is spelled as targets are.

    Raises:
        Problem: it cannot be meant.
    """
    where = rule.origin or "rule"
    if not rule.ports or not all(0 < port < 65536 for port in rule.ports):
        raise Problem("a rule names no port", where=where, fix="give ports from 1 to 65535")
    host = rule.host
    if host != ANY_HOST:
        below = host.startswith("*.")
        try:
            host = ("*." if below else "") + read_target(host.removeprefix("*."), rule.ports[0]).host
        except Unreadable as fault:
            raise _bad(rule.host, where, str(fault)) from None
    if rule.wire is Wire.TCP and (rule.methods or rule.paths or rule.headers):
        raise Problem("a tcp rule has no methods, paths or headers", where=where, fix="leave them out")
    headers = {name.lower(): value for name, value in rule.headers.items()}
    methods = tuple(method.upper() for method in rule.methods)
    return msgspec.structs.replace(rule, host=host, headers=headers, methods=methods)


def _bad(text: str, origin: str, what: str) -> Problem:
    shown = text if text.isprintable() and len(text) <= 100 else "that"
    return Problem(f"{shown!r} cannot be allowed: {what}", where=origin, fix="write HOST or HOST:PORT")

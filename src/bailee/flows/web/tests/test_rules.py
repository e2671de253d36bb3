"""Rules: what a path, a port and a rate let through."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.flows.web.log import ConnectionLog
from bailee.flows.web.rules import Led, Refusal, Rule, Rules, read_rule
from bailee.flows.web.sessions import Session
from bailee.flows.web.targets import Target, read_target

PACKAGE = read_rule("registry.example/@scope%2fname*", "test")
PLAIN = read_rule("api.example/v1/*", "test")


@pytest.mark.parametrize(
    ("rule", "path", "is_allowed"),
    [
        (PLAIN, "/v1/messages", True),
        (PLAIN, "/v1/messages?x=%2e%2e", True),
        (PLAIN, "/v2/messages", False),
        (PLAIN, "/v1/../v2", False),
        (PLAIN, "/v1/%2e%2e/v2", False),
        (PLAIN, "/v1/a%2Fb", False),
        (PLAIN, "/v1//etc", False),
        (PLAIN, "//v1/x", False),
        (PLAIN, "/v1/a\\b", False),
        (PACKAGE, "/@scope%2fname", True),
        (PACKAGE, "/@scope%2fname/-/name-1.tgz", True),
        (PACKAGE, "/@scope%2fname%2f..%2fother", False),
        (PACKAGE, "/@scope/name", False),
        (PACKAGE, "/@scope%2fname/../other", False),
    ],
)
def test_paths(rule: Rule, path: str, is_allowed: bool) -> None:
    """A path that a server may read as another is not the rule's, but for what the rule spells so."""
    assert (rule.tell_refused("GET", path, {}) == "") is is_allowed


@given(host=st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8}){1,3}", fullmatch=True), port=st.integers(1, 65535))
def test_a_rule_covers_itself_alone(host: str, port: int) -> None:
    """A rule for a host covers it on its port, and no host below or beside it."""
    rule = read_rule(f"{host}:{port}", "test")
    assert rule.covers(read_target(f"{host}:{port}"))
    assert not rule.covers(read_target(f"x.{host}:{port}"))
    assert not rule.covers(read_target(f"x{host}:{port}"))
    assert not rule.covers(Target(host, port % 65535 + 1))
    below = read_rule(f"*.{host}:{port}", "test")
    assert below.covers(read_target(f"x.{host}:{port}"))
    assert not below.covers(read_target(f"{host}:{port}"))
    assert not below.covers(read_target(f"x{host}:{port}"))


def test_what_is_forbidden_is_so_whatever_allows_it() -> None:
    """A forbidden host is refused although a rule allows it, and named with the rule that forbids it."""
    rules = Rules(
        allowed=(read_rule("*.a.example", "allow"),), forbidden=(read_rule("bad.a.example", "forbid"),)
    )
    refused = rules.decide(read_target("bad.a.example:443"))
    assert isinstance(refused, Refusal)
    assert "forbid" in refused.reason
    assert not isinstance(rules.decide(read_target("good.a.example:443")), Refusal)


def test_what_is_led_is_led_whatever_allows_it() -> None:
    """A host that is led to the service is not reached past it; a forbidden one is refused all the same."""
    rule = Rule(host="api.a.example", flow="git", origin="led", opens=True)
    led = Led(rule, "127.0.0.1", 1, "/x", "Bearer secret")
    allowed = (read_rule("*.a.example", "allow"),)
    target = read_target("api.a.example:443")
    assert Rules(allowed=allowed, led=(led,)).decide(target) == (rule,)
    assert Rules(allowed=allowed).decide(target) == allowed  # Control
    assert Rules(led=(led,)).decide_name("api.a.example")
    assert Rules(led=(led,)).is_opening
    assert not Rules(allowed=allowed).is_opening
    assert isinstance(Rules(led=(led,), forbidden=allowed).decide(target), Refusal)
    assert "secret" not in repr(Rules(led=(led,)))
    yielding = Led(rule, "127.0.0.1", 1, "/x", "Bearer secret", yields=True)
    assert Rules(allowed=allowed, led=(yielding,)).decide(target) == allowed
    assert Rules(led=(yielding,)).decide(target) == (rule,)


@pytest.mark.parametrize("per_second", [None, 0.5, 2.0])
def test_a_rate_holds(tmp_path: Path, per_second: float | None) -> None:
    """Ten times as many at once as a second allows, and no more; without a rate none is refused."""
    rule = Rule(host="a.example", origin="test", per_second=per_second)
    log = ConnectionLog(tmp_path / "log", bytes(32), "test")

    async def resolve(name: str) -> list[str]:
        return []

    session = Session(Rules(allowed=(rule,)), log, resolve=resolve)  # type: ignore[arg-type]
    target = read_target("a.example:443")
    answers = [session.decide(target) for _ in range(30)]
    log.close()
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    if per_second is None:
        assert not refused
        return
    at_once = int(per_second * 10)
    assert [isinstance(answer, Refusal) for answer in answers[:at_once]] == [False] * at_once
    assert len(refused) >= 30 - at_once - 1
    assert {one.rule for one in refused} == {"too_often"}
    assert "a.example" in refused[0].reason

"""How next hops are named, and what waits too long."""

from pathlib import Path

import pytest

from bailee.flows.forwarding import progress
from bailee.flows.forwarding.hops import OTLP_HEADERS, SENTRY_DSN, STATSIG_KEY, read_hops
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.vault.store import open_vault

DSN = {SENTRY_DSN: "https://abc@errors.example:8443/path/7"}


def test_next_hops_are_read() -> None:
    """Addresses from the command line, credentials from the environment, and these are told nowhere."""
    environment = {OTLP_HEADERS: "Authorization=Bearer x=y, X-Scope=acme", STATSIG_KEY: "secret-k", **DSN}
    words = ["otlp=https://collector.example/in/", "statsig=http://localhost:9", "sentry"]
    otlp, statsig, sentry = read_hops(words, environment)
    assert (otlp.url, otlp.headers) == (
        "https://collector.example/in",
        (("Authorization", "Bearer x=y"), ("X-Scope", "acme")),
    )
    assert (statsig.flow, statsig.headers) == (FlowId.METRICS, (("statsig-api-key", "secret-k"),))
    assert (sentry.flow, sentry.url) == (FlowId.ERRORS, "https://errors.example:8443/path/api/7")
    assert sentry.target == "https://errors.example:8443"
    told = repr((otlp, statsig, sentry)) + otlp.target + sentry.target
    assert not [secret for secret in ("Bearer", "secret-k", "abc") if secret in told]
    assert read_hops([], {}) == ()


@pytest.mark.parametrize(
    ("words", "environment", "where"),
    [
        (["kafka=x"], {}, "--forward"),
        (["otlp"], {}, "--forward otlp"),
        (["otlp=collector.example"], {}, "--forward otlp"),
        (["otlp=http://collector.example"], {}, "--forward otlp"),
        (["otlp=https://key@collector.example"], {}, "--forward otlp"),
        (["otlp=https://collector.example?key=x"], {}, "--forward otlp"),
        (["otlp=https://[::1"], {}, "--forward otlp"),
        (["otlp=https://a.example", "otlp=https://b.example"], {}, "--forward"),
        (["otlp=https://a.example"], {OTLP_HEADERS: "no header"}, OTLP_HEADERS),
        (["statsig=https://a.example"], {}, STATSIG_KEY),
        (["sentry=https://abc@errors.example/7"], {}, "--forward sentry"),
        (["sentry"], {}, SENTRY_DSN),
        (["sentry"], {SENTRY_DSN: "https://errors.example/7"}, SENTRY_DSN),
        (["sentry"], {SENTRY_DSN: "https://abc@errors.example/"}, SENTRY_DSN),
        (["sentry"], {SENTRY_DSN: "http://abc@errors.example/7"}, SENTRY_DSN),
    ],
)
def test_what_cannot_be_used_is_refused(words: list[str], environment: dict[str, str], where: str) -> None:
    """With the place and the fix, and before anything starts; a key on a command line or in clear, too."""
    with pytest.raises(Problem) as refused:
        read_hops(words, environment)
    assert refused.value.where == where
    assert refused.value.fix
    assert "abc" not in str(refused.value)


def test_what_waits_for_days_is_passed_over(tmp_path: Path) -> None:
    """A next hop that was down for longer gets what came of late; the cursor says from when on."""
    vault = open_vault(tmp_path)
    progress.begin(vault, "otlp", "https://collector.example", now_ms=1_000_000)
    (begun,) = progress.list_progress(vault)
    assert progress.pass_over(vault, begun, FlowId.METRICS, now_ms=1_000_000) == begun
    later = 1_000_000 + progress.LONGEST_WAIT_MS + 3_600_000
    passed = progress.pass_over(vault, begun, FlowId.METRICS, now_ms=later)
    assert passed.cursor > begun.cursor
    assert progress.list_progress(vault) == [passed]
    # Named again it goes on where it was.
    progress.begin(vault, "otlp", "https://other.example", now_ms=later)
    assert progress.list_progress(vault)[0].cursor == passed.cursor
    vault.dispose()

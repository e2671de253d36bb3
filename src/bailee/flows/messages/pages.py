"""How model traffic does: by the hour, how long it takes, and what the upstream fails with."""

from datetime import UTC, datetime
from http import HTTPStatus

from bailee.flows.messages.data_pages import TEMPLATES
from bailee.pages import Answer, Installation, Page, Part, Section, View, Visit
from bailee.policy.flows import FlowId
from bailee.vault.traffic import Failure, Hour, list_failures, read_hours

_UPSTREAMS = {
    "anthropic": "api.anthropic.com",
    "bedrock": "Amazon Bedrock",
    "vertex": "Google Vertex AI",
    "compatible": "another upstream",
    "rehearsal": "the rehearsal model in it",
}
HOUR_MS, HOURS, FAILURES = 3_600_000, 24, 20


def make_pages() -> list[Page]:
    """Return the page."""
    return [
        Page(
            path="/console/flows/messages",
            title="Model traffic",
            parts=frozenset({Part.OPERATOR}),
            templates=TEMPLATES,
            show=_show,
            section=Section.SERVICE,
            flow=FlowId.MESSAGES,
            leads=_tell_upstream,
            carries=lambda installation: installation.tell_way(f"{installation.upstream_scheme}:"),
        )
    ]


def _tell_upstream(installation: Installation) -> str:
    place = f" at {installation.upstream_url}" if installation.upstream_url else ""
    return f"the Bailee service, then {_UPSTREAMS.get(installation.upstream, installation.upstream)}{place}"


def _show(visit: Visit) -> Answer:
    custody = visit.custody

    def read() -> tuple[list[Hour], list[Failure]]:
        since = (custody.now_ms() // HOUR_MS - HOURS + 1) * HOUR_MS
        flow = FlowId.MESSAGES.value
        hours = read_hours(custody.vault, flow, since, hours=HOURS)
        return hours, list_failures(custody.vault, flow, since, limit=FAILURES)

    hours, failures = visit.kept.get("messages", read)
    done, failed = sum(one.done for one in hours), sum(one.failed for one in hours)
    labels = [datetime.fromtimestamp(one.at_ms / 1000, UTC).strftime("%H:%M") for one in hours]
    facts = {
        "hours": list(zip(labels, hours, strict=True)),
        "counts": [
            (label, one.done + one.failed + one.refused + one.other)
            for label, one in zip(labels, hours, strict=True)
        ],
        "labels": labels,
        "first": {
            "p50": [one.quantile(0.5, first=True) for one in hours],
            "p95": [one.quantile(0.95, first=True) for one in hours],
        },
        "failures": failures,
        "tell_status": _tell_status,
        "share": done / (done + failed) if done + failed else None,
        "answered": done + failed,
    }
    return View("health.html", facts)


def _tell_status(status: int | None) -> str:
    """Return what a status means (RFC 9110; 529 is what the Claude API says when it has too much to do)."""
    if status is None:
        return "no answer came"
    if status == 529:
        return "the model has too much to do"
    return HTTPStatus(status).phrase.lower() if status in set(HTTPStatus) else "–"

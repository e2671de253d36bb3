"""What becomes of envelopes: class, number and published frames are held, and nothing else of an event."""

import gzip
import json
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.flows.errors import faults
from bailee.flows.errors import receiver as receiving
from bailee.flows.errors.envelopes import Malformed, read_envelope, read_event
from bailee.flows.errors.faults import admit_event, write_event
from bailee.flows.errors.published import is_published
from bailee.flows.errors.results import group, read_faults
from bailee.policy.flows import FlowId
from counterparts.holdings import find_bytes, make_key, read_exchanges, read_transcripts
from counterparts.keeping import FIRST_DAY
from counterparts.services import Service, serving
from counterparts.waiting import wait_for

# Paths of three systems, code, tokens, addresses, JSON in a string, base64, look-alikes, and a huge line.
HOSTILE = (
    "/home/ada/merger/plan.txt",
    "C:\\Users\\ada\\merger.txt",
    "def merger(amount): return amount * 2",
    "ghp_0123456789mergerABCDEFGHIJ0123456789",
    "ada@merger.invalid",
    '{"prompt":"the merger is on friday"}',
    "dGhlIG1lcmdlciBpcyBvbiBmcmlkYXk=",
    "\u0412aleError merger",
    "ValueError\u0000merger",
    "bailee.agent merger",
    "\U0001f600 merger",
    "merger " * 3000,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("errors")
    with serving(folder / "state", folder, "--upstream", "rehearsal") as running:
        yield running


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    return make_key(service.home)


def make_event(text: str, **more: Any) -> dict[str, Any]:
    """Return an event with a text in every place that there is for one, and a class and a frame in order."""
    frames = [
        {"module": text, "function": text, "filename": text, "context_line": text, "vars": {text: text}},
        {"module": "bailee.agent.work", "function": text, "lineno": 3},
        {"module": "bailee.agent.work", "function": "answer", "lineno": 1234, "abs_path": text, "vars": {}},
    ]
    own = {"type": "ValueError", "value": text, "stacktrace": {"frames": frames}, "mechanism": {"type": text}}
    foreign = {
        "type": text,
        "module": text,
        "value": text,
        "mechanism": {"meta": {"errno": {"number": text}}},
    }
    return {
        "event_id": "0" * 32,
        "release": f"bailee@1.2.3{text}",
        "level": text,
        "message": text,
        "logentry": {"formatted": text},
        "server_name": text,
        "user": {"email": text},
        "tags": {text: text},
        "extra": {"sys.argv": [text]},
        "modules": {text: text},
        "breadcrumbs": {"values": [{"message": text}]},
        "contexts": {"os": {"name": text}, text: {text: text}},
        "exception": {"values": [foreign, own]},
        **more,
    }


def envelope(*items: tuple[str, bytes], head: dict[str, Any] | None = None) -> bytes:
    lines = [json.dumps(head or {}).encode()]
    for kind, payload in items:
        lines += [json.dumps({"type": kind, "length": len(payload)}).encode(), payload]
    return b"\n".join(lines)


def post(
    service: Service, body: bytes, path: str = "/api/1/envelope/", **headers: str
) -> tuple[int, Any, Any]:
    given_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(service.url + path, data=body, headers=given_headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read()), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read()), error.headers


def auth(key: str) -> str:
    return f"Sentry sentry_key={key}, sentry_version=7, sentry_client=sentry.python/2.75.0"


def event_bytes(text: str = "x", **more: Any) -> bytes:
    return json.dumps(make_event(text, **more)).encode()


def send_hostile(service: Service, key: str) -> None:
    for text in HOSTILE:
        body = envelope(("event", event_bytes(text)), ("attachment", text.encode()), head={"sdk": text})
        assert post(service, body, X_Sentry_Auth=auth(key))[0] == 200


def opened(home: Path) -> bytes:
    return b"".join(one.request.reveal() for one in read_transcripts(home, FlowId.ERRORS).values())


def test_of_hostile_events_nothing_is_held(tmp_path: Path) -> None:
    """Of whatever stands in whatever place, the store has the class, the published frame, and no more."""
    home = tmp_path / "state"
    key = make_key(home)
    with serving(home, tmp_path, "--upstream", "rehearsal") as service:
        send_hostile(service, key)
    faults = [one.fault for one in read_faults(home)]
    assert len(faults) == len(HOSTILE)
    for fault in faults:
        assert fault.fields == {"agent": "bailee", "system": "other", "level": "other"}
        assert [one.name for one in fault.exceptions] in (["ValueError"], ["other", "ValueError"])
        frame = {"module": "bailee.agent.work", "function": "answer", "line": 1234.0}
        assert fault.exceptions[-1].frames == [frame]
    assert b"merger" not in opened(home)
    assert not find_bytes(home, b"merger")
    (found,) = group(read_faults(home))
    assert (found.name, found.where, found.count) == (
        "ValueError",
        "bailee.agent.work.answer:1234",
        len(HOSTILE),
    )


def test_control_without_the_catalogue(tmp_path: Path) -> None:
    """Control: where fields are let through as they come, the same search finds them."""
    home = tmp_path / "state"
    key = make_key(home)
    changes = "from bailee.manifests import catalogues\n"
    changes += "def admit(self, name, fields, *, today): return catalogues.Admitted(name, dict(fields), ())\n"
    changes += "catalogues.Catalogue.admit = admit\n"
    with serving(home, tmp_path, "--upstream", "rehearsal", changes=changes) as service:
        send_hostile(service, key)
    assert b"merger" in opened(home)


@pytest.mark.parametrize(
    ("module", "name", "is_there"),
    [
        ("bailee.agent.work", "answer", True),
        ("bailee.agent.work", "Work.answer.<locals>.<lambda>", True),
        ("bailee.agent.work", "<module>", True),
        ("json", "loads", True),
        ("os", "makedirs", True),
        ("bailee.agent.work", "ghp_0123456789", False),
        ("bailee.agent.merger", "answer", False),
        ("nowhere", "answer", False),
        ("bailee...work", "answer", False),
        ("", "answer", False),
    ],
)
def test_names_are_looked_up_in_published_code(module: str, name: str, is_there: bool) -> None:
    """A module has to be installed, and each part of a name to stand in it: a token has a name's form too."""
    assert is_published(module, name) is is_there


def test_control_without_the_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: by its form alone, a token is taken for a function."""
    monkeypatch.setattr(faults, "is_published", lambda module, name: True)
    fault = admit_event(make_event("ghp_0123456789"), today=FIRST_DAY)
    assert "ghp_0123456789" in str(fault)


@pytest.mark.parametrize("way", ["header", "query", "dsn", "bearer"])
def test_each_way_to_present_a_key(service: Service, key: str, way: str) -> None:
    """In Sentry's header, in the query, in the envelope's own address, or as everywhere else."""
    body = envelope(("event", event_bytes()), head={"event_id": "a" * 32})
    if way == "header":
        answer = post(service, body, X_Sentry_Auth=auth(key))
    elif way == "query":
        answer = post(service, body, f"/api/1/envelope/?sentry_version=7&sentry_key={key}")
    elif way == "dsn":
        head = {"event_id": "a" * 32, "dsn": f"http://{key}@127.0.0.1:1/1"}
        answer = post(service, envelope(("event", event_bytes()), head=head))
    else:
        answer = post(service, body, Authorization=f"Bearer {key}")
    assert answer[:2] == (200, {"id": "a" * 32})


def test_without_a_key_nothing_is_taken(service: Service) -> None:
    """And the SDK is told to leave it for an hour."""
    body = envelope(("event", event_bytes()))
    for headers in ({}, {"X_Sentry_Auth": auth("bailee_a_b")}):
        status, _, answered = post(service, body, **headers)
        assert status == 401
        assert answered["X-Sentry-Rate-Limits"].startswith("3600:")


@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", brotli.compress)]
)
def test_each_coding_is_read(service: Service, key: str, coding: str, pack: Any) -> None:
    """And a bomb in each is refused."""
    body = envelope(("event", event_bytes()))
    assert post(service, pack(body), X_Sentry_Auth=auth(key), Content_Encoding=coding)[0] == 200
    bomb = pack(bytes(receiving.MOST_DECODED_BYTES + 1))
    assert post(service, bomb, X_Sentry_Auth=auth(key), Content_Encoding=coding)[0] == 413
    assert post(service, b"no such thing", X_Sentry_Auth=auth(key), Content_Encoding=coding)[0] == 400


def test_items_of_every_kind_are_taken(service: Service, key: str) -> None:
    """Sessions, logs, check-ins and what nobody knows are dropped and counted, by name if that is plain."""
    kinds = ("session", "sessions", "transaction", "check_in", "client_report", "log", "profile", "a/path")
    body = envelope(*((kind, b"\x00\n\xff{") for kind in kinds))
    assert post(service, body, X_Sentry_Auth=auth(key))[0] == 200

    def counted() -> str | None:
        found = [one.reason for one in read_exchanges(service.home) if one.flow == "errors"]
        return next((reason for reason in found if reason and "check_in" in reason), None)

    told = wait_for("the count of what was dropped", counted)
    assert "1 another dropped" in told
    assert "path" not in told


def test_an_event_by_itself(service: Service, key: str) -> None:
    """The older endpoint takes an event without an envelope; scripts of pages are told that they may send."""
    assert post(service, event_bytes(), "/api/1/store/", X_Sentry_Auth=auth(key))[0] == 200
    request = urllib.request.Request(f"{service.url}/api/1/envelope/", method="OPTIONS")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, "*")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{}\n{"type":"event","length":9}\n{}', b'{}\n{"type":"event"}\n[']
)
def test_what_is_no_envelope_is_told_so(service: Service, key: str, body: bytes) -> None:
    """Broken headers, a length that is none, an event that is no object: a 400, and no fault of ours."""
    assert post(service, body, X_Sentry_Auth=auth(key))[0] == 400


def test_errors_follow_the_policy(tmp_path: Path) -> None:
    """Where the model is reached through Bedrock, errors are refused, by rule, before a byte is read."""
    home = tmp_path / "state"
    key = make_key(home)
    environment = {"AWS_REGION": "us-east-1"}
    with serving(home, tmp_path, "--upstream", "bedrock", environment=environment) as through_bedrock:
        status, told, _ = post(through_bedrock, envelope(("event", event_bytes())), X_Sentry_Auth=auth(key))
    assert status == 403
    assert "refused by provider/default.bedrock" in told["detail"]
    (noted,) = read_exchanges(home)
    assert (noted.state, noted.is_kept) == ("refused", False)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_envelope_or_none(body: bytes) -> None:
    """No bytes make reading fail in another way than by saying so."""
    with suppress(Malformed):
        for item in read_envelope(b"{}\n" + body).items:
            read_event(item.payload)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text()
            | st.sampled_from(["exception", "values", "type", "module", "stacktrace", "frames", "function"]),
            inner,
            max_size=4,
        )
    ),
)


@given(ANYTHING)
def test_any_event_becomes_what_can_be_told_again(value: Any) -> None:
    """Whatever an event is, what is left of it, written as an event, is admitted as the same."""
    event = {"exception": {"values": [{"type": "ValueError", "stacktrace": {"frames": value}}, value]}}
    fault = admit_event({**event, "contexts": value, "release": value}, today=FIRST_DAY)
    if fault is not None:
        assert admit_event(write_event(fault), today=FIRST_DAY) == fault

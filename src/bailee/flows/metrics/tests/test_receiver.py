"""What becomes of telemetry: what the catalogue names is held, sealed, and nothing else."""

import base64
import contextlib
import gzip
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from bailee.flows.metrics.exports import Malformed, Signal, read_json, read_protobuf
from bailee.flows.metrics.results import read_points
from bailee.policy.flows import FlowId
from bailee.vault.custody import open_custody
from bailee.vault.reader import list_sessions
from counterparts.holdings import find_bytes, make_key, read_exchanges, read_transcripts
from counterparts.services import Service, serving
from counterparts.waiting import wait_for

CANARY = "canary-in-an-attribute"
POINT = {"asDouble": 1.0, "attributes": [{"key": "user.email", "value": {"stringValue": CANARY}}]}
METRICS = {
    "resourceMetrics": [
        {
            "resource": {"attributes": []},
            "scopeMetrics": [
                {"metrics": [{"name": "a", "sum": {"dataPoints": [POINT, POINT]}}, {"name": "b"}]},
                {"metrics": [{"name": "c", "histogram": {"dataPoints": [POINT]}}]},
            ],
        }
    ]
}
LOGS = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": CANARY}}]}]}]}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a service with the rehearsal model."""
    folder = tmp_path_factory.mktemp("metrics")
    with serving(folder / "state", folder, "--upstream", "rehearsal") as running:
        yield running


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    """Give a key."""
    return make_key(service.home)


def export(service: Service, signal: str, body: bytes, **headers: str) -> tuple[int, dict[str, object]]:
    """Send an export; return status and answer."""
    told = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    request = urllib.request.Request(f"{service.url}/v1/{signal}", data=body, headers=told, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_an_export_is_counted_and_dropped(service: Service, key: str) -> None:
    """Metrics and logs are counted, told to be dropped, and leave a fact without content."""
    bearer = f"Bearer {key}"
    status, told = export(service, "metrics", json.dumps(METRICS).encode(), Authorization=bearer)
    assert (status, told["partialSuccess"]["rejectedDataPoints"]) == (200, "3")  # type: ignore[index]
    packed = gzip.compress(json.dumps(LOGS).encode())
    status, told = export(service, "logs", packed, Authorization=bearer, Content_Encoding="gzip")
    assert (status, told["partialSuccess"]["rejectedLogRecords"]) == (200, "1")  # type: ignore[index]
    assert export(service, "metrics", b"{}", Authorization=bearer) == (200, {})  # which leaves no fact

    def recorded() -> bool:
        return [one.flow for one in read_exchanges(service.home)].count("metrics") >= 2

    wait_for("the exports in the record", recorded)
    held = [one for one in read_exchanges(service.home) if one.flow == "metrics"]
    assert not any(one.is_kept for one in held[:2])
    assert held[0].path == "/v1/metrics"
    assert held[0].request_bytes > 0
    assert not find_bytes(service.home, CANARY.encode())
    (service.home / "leak").write_text(f"x{CANARY}x")  # the search finds what is there
    assert find_bytes(service.home, CANARY.encode())
    (service.home / "leak").unlink()


# Paths of three systems, code, tokens, addresses, JSON in a string, base64, look-alikes, and a huge line.
HOSTILE = (
    "/home/ada/secret/plan.txt",
    "C:\\Users\\ada\\plan.txt",
    "/Users/ada/Documents/plan.txt",
    "def transfer(amount): return amount * 2",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "ada@example.invalid",
    '{"prompt":"the merger is on friday"}',
    "dGhlIG1lcmdlciBpcyBvbiBmcmlkYXk=",
    "\u0441laude-opus",  # the first letter is Cyrillic
    "claude-opus the merger",
    "done\u0000the merger",
    "\U0001f600 the merger",
    "the merger " * 2000,
)
NAMES = ("user.email", "workspace.host_paths", "prompt", "tool_input", "error", "model", "outcome", "version")


def hostile_events(text: str) -> dict[str, object]:
    """Return an export with a text in every place that there is for one, beside what is in order."""

    def attributes(**more: str) -> list[dict[str, object]]:
        fields = {**dict.fromkeys(NAMES, text), text: text, **more}
        return [{"key": key, "value": {"stringValue": value}} for key, value in fields.items()]

    whole = attributes(version="1.2.3", outcome="done")
    records = [
        {"body": {"stringValue": "bailee.turn"}, "attributes": whole},
        {"eventName": "bailee.turn", "body": {"stringValue": text}, "attributes": whole},
        {"body": {"stringValue": "claude_code.api_error"}, "attributes": attributes()},
        {"body": {"stringValue": text}, "attributes": whole},
    ]
    scope = {"scope": {"name": text, "attributes": attributes()}, "logRecords": records}
    return {"resourceLogs": [{"resource": {"attributes": attributes()}, "scopeLogs": [scope]}]}


def opened(home: Path) -> bytes:
    """Return all that the vault holds of metrics, opened."""
    return b"".join(one.request.reveal() for one in read_transcripts(home, FlowId.METRICS).values())


def hostile_points(text: str) -> dict[str, object]:
    """Return an export of points with a text in every place that there is for one."""
    attributes = [{"key": key, "value": {"stringValue": text}} for key in (*NAMES, text)]
    exemplar = {"filteredAttributes": attributes, "asDouble": 1.0}
    point = {"attributes": attributes, "asDouble": 5.0, "exemplars": [exemplar]}
    of_name = [
        {
            "name": name,
            "description": text,
            "unit": text,
            "sum": {"aggregationTemporality": 1, "dataPoints": [point]},
        }
        for name in ("claude_code.commit.count", text)
    ]
    scope = {"scope": {"name": text, "version": text, "attributes": attributes}, "metrics": of_name}
    resource = {"attributes": attributes}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [scope], "schemaUrl": text}]}


def hostile_statsig(text: str) -> dict[str, object]:
    """Return events of Statsig's wire with a text in every place that there is for one."""
    user = {
        "userID": text,
        "email": text,
        "ip": text,
        "custom": {text: text},
        "privateAttributes": {text: text},
    }
    fields = {**dict.fromkeys(NAMES, text), text: text, "version": "1.2.3", "outcome": "done"}
    events = [
        {
            "eventName": name,
            "value": text,
            "metadata": fields,
            "user": user,
            "secondaryExposures": [{"gate": text}],
        }
        for name in ("bailee.turn", text)
    ]
    return {"events": events, "statsigMetadata": {"sdkType": text, "stableID": text}}


def send_hostile(service: Service, bearer: str) -> None:
    """Send each text in every place, over each wire."""
    for text in HOSTILE:
        logs, points = hostile_events(text), hostile_points(text)
        for signal, told, kind in (
            ("logs", logs, ExportLogsServiceRequest),
            ("metrics", points, ExportMetricsServiceRequest),
        ):
            assert export(service, signal, json.dumps(told).encode(), Authorization=bearer)[0] == 200
            body = ParseDict(told, kind()).SerializeToString()
            headers = {"Authorization": bearer, "Content-Type": "application/x-protobuf"}
            request = urllib.request.Request(f"{service.url}/v1/{signal}", body, headers)
            urllib.request.urlopen(request, timeout=10).close()
        body = json.dumps(hostile_statsig(text)).encode()
        headers = {"Authorization": bearer, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{service.url}/v1/log_event", body, headers)
        urllib.request.urlopen(request, timeout=10).close()


def test_of_hostile_events_nothing_is_held(tmp_path: Path) -> None:
    """Of whatever stands in whatever place, the store has catalogued words and versions and nothing else."""
    home = tmp_path / "state"
    bearer = f"Bearer {make_key(home)}"
    with serving(home, tmp_path, "--upstream", "rehearsal") as service:
        send_hostile(service, bearer)
    points = [(one.name, one.fields) for one in read_points(home)]
    # Two by each form of OpenTelemetry's, and one by Statsig's.
    assert points.count(("bailee.turn", {"version": "1.2.3", "outcome": "done"})) == 5 * len(HOSTILE)
    assert points.count(("claude_code.commit.count", {"value": 5.0})) == 2 * len(HOSTILE)
    rest = [fields for name, fields in points if name not in ("bailee.turn", "claude_code.commit.count")]
    assert all(fields in ({"model": "other"}, {"model": "claude-opus"}) for fields in rest)
    assert b"merger" not in opened(home)
    assert not find_bytes(home, b"merger", b"ada@example", b"plan.txt")


def test_control_without_the_catalogue(tmp_path: Path) -> None:
    """Control: where fields are let through as they come, the same search finds them."""
    home = tmp_path / "state"
    bearer = f"Bearer {make_key(home)}"
    changes = "from bailee.manifests import catalogues\n"
    changes += "def admit(self, name, fields, *, today):\n"
    changes += "    return catalogues.Admitted(name, dict(fields), frozenset())\n"
    changes += "catalogues.Catalogue.admit = admit\n"
    with serving(home, tmp_path, "--upstream", "rehearsal", changes=changes) as service:
        send_hostile(service, bearer)
    assert b"merger" in opened(home)
    assert b"ada@example" in opened(home)


def test_what_was_dropped_is_told(service: Service, key: str) -> None:
    """By plain name, in the answer's own type; other names are not repeated."""
    body = json.dumps(hostile_events("/home/ada")).encode()
    status, told = export(service, "logs", body, Authorization=f"Bearer {key}")
    partial = told["partialSuccess"]
    assert isinstance(partial, dict)
    assert (status, partial["rejectedLogRecords"]) == (200, "1")
    assert "user.email" in partial["errorMessage"]
    assert "/home/ada" not in partial["errorMessage"]


def test_what_is_answered_is_durable(tmp_path: Path) -> None:
    """An export that was answered is there after the service was killed at once."""
    home = tmp_path / "state"
    bearer = f"Bearer {make_key(home)}"
    with serving(home, tmp_path, "--upstream", "rehearsal") as service:
        body = json.dumps(hostile_events("x")).encode()
        assert export(service, "logs", body, Authorization=bearer)[0] == 200
        service.kill()
    assert len(read_points(home)) == 3


def test_metrics_go_like_everything_else(tmp_path: Path) -> None:
    """They expire on their day, and go with the account: by the same code as conversations."""
    home = tmp_path / "state"
    bearer = f"Bearer {make_key(home)}"
    body = json.dumps(hostile_events("x")).encode()
    with serving(home, tmp_path, "--upstream", "rehearsal") as service:
        assert export(service, "logs", body, Authorization=bearer)[0] == 200
    with closing(open_custody(home)) as custody:
        (terms,) = {one.retention for one in list_sessions(custody.vault, flow=FlowId.METRICS)}
        assert terms == "30d"
        custody.erase_account(custody.directory.get("me"), by="op")
    assert read_points(home) == []


@pytest.mark.parametrize("path", ["/v1/log_event", "/v1/rgstr", "/v1/initialize"])
def test_statsig_without_a_key(service: Service, path: str) -> None:
    """Statsig's endpoints take nothing without a key, and say so in Statsig's shape."""
    request = urllib.request.Request(service.url + path, data=b'{"events":[]}', method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    with refused.value as answer:
        assert answer.code == 401
        assert json.loads(answer.read())["success"] is False


def test_statsig_bodies_in_disguise(service: Service, key: str) -> None:
    """Reversed base64 and gzip without a header, as the JavaScript client may send them, are read."""
    event = {
        "eventName": "bailee.tool",
        "metadata": {"version": "9.9.9", "tool": "bash", "outcome": "failed"},
    }
    plain = json.dumps({"events": [event]}).encode()
    bodies = {
        "": plain,
        "&gz=1": gzip.compress(plain),
        "&se=1": base64.b64encode(plain)[::-1],
        "&se=1&gz=1": base64.b64encode(gzip.compress(plain))[::-1],
    }
    for query, body in bodies.items():
        url = f"{service.url}/v1/rgstr?k=client-{key}{query}"
        with urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST")) as answer:
            assert (answer.status, json.loads(answer.read())) == (202, {"success": True})
    found = [one for one in read_points(service.home) if one.fields.get("version") == "9.9.9"]
    assert len(found) == len(bodies)


def test_nobody_exports_without_a_key(service: Service) -> None:
    """Without a key, or with a wrong one, an export is a 401 in OTLP's own shape."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"x_api_key": "wrong"}):
        status, told = export(service, "metrics", b"{}", **headers)
        assert status == 401
        assert told.keys() == {"code", "message"}


def test_what_is_no_export_is_told_so(service: Service, key: str) -> None:
    """Another type, broken JSON, broken gzip and a bomb are refused with the fix, not with a fault."""
    bearer = f"Bearer {key}"
    status, told = export(service, "metrics", b"{}", Authorization=bearer, Content_Type="text/plain")
    assert status == 415
    assert "application/x-protobuf or application/json" in str(told["message"])
    assert export(service, "metrics", b"{", Authorization=bearer)[0] == 400
    assert export(service, "logs", b"x", Authorization=bearer, Content_Encoding="gzip")[0] == 400
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    assert export(service, "logs", bomb, Authorization=bearer, Content_Encoding="gzip")[0] == 413


def test_telemetry_follows_the_policy(tmp_path: Path) -> None:
    """Where the model is reached through Bedrock, telemetry is off, and the answer names the rule."""
    environment = {"AWS_REGION": "us-east-1"}
    home = tmp_path / "state"
    bearer = f"Bearer {make_key(home)}"
    with serving(home, tmp_path, "--upstream", "bedrock", environment=environment) as through_bedrock:
        status, told = export(through_bedrock, "metrics", json.dumps(METRICS).encode(), Authorization=bearer)
    assert status == 403
    assert "refused by provider/default.bedrock" in str(told["message"])
    (held,) = read_exchanges(home)
    assert (held.state, held.request_bytes, held.is_kept) == ("refused", 0, False)


JSON = st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())


@given(st.binary(max_size=200) | JSON)
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No body whatever makes reading fail in another way than by saying so."""
    for signal in Signal:
        for read in (read_json, read_protobuf):
            with contextlib.suppress(Malformed):
                assert len(read(body, signal)) >= 0

"""What becomes of telemetry: what the catalogue names is held, sealed, and nothing else."""

import contextlib
import gzip
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bailee.flows.metrics.exports import Malformed, Signal, read_json, read_protobuf
from bailee.flows.metrics.results import read_points
from counterparts.holdings import find_bytes, make_key, read_exchanges
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
    assert export(service, "metrics", b"{}", Authorization=bearer) == (200, {})

    def recorded() -> bool:
        return [one.flow for one in read_exchanges(service.home)].count("metrics") >= 3

    wait_for("the exports in the record", recorded)
    held = read_exchanges(service.home)
    assert not any(one.is_kept for one in held)
    assert held[0].path == "/v1/metrics"
    assert held[0].request_bytes > 0
    assert not find_bytes(service.home, CANARY.encode())
    (service.home / "leak").write_text(f"x{CANARY}x")  # the search finds what is there
    assert find_bytes(service.home, CANARY.encode())
    (service.home / "leak").unlink()


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

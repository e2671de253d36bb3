"""A key that floods is told so in the words of its protocol, and nobody else notices."""

import http.client
import json
import re
from collections.abc import Iterator, Mapping

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from bailee.policy.flows import FlowId
from bailee.service.serving import BURST_SECONDS, REPORTS
from counterparts.holdings import make_key, read_exchanges
from counterparts.reports import REPORT
from counterparts.services import Service, serving

FRAME = {"module": "bailee.agent.work", "function": "answer", "lineno": 3}
ERROR = {"exception": {"values": [{"type": "ValueError", "stacktrace": {"frames": [FRAME]}}]}}
POINTS = {"aggregationTemporality": 1, "dataPoints": [{"asInt": "1", "attributes": []}]}
COUNT = {"scopeMetrics": [{"metrics": [{"name": "claude_code.commit.count", "sum": POINTS}]}]}
TURN = {"version": "1.2.3", "outcome": "done"}
EVENT = {"eventName": "bailee.turn", "value": None, "metadata": TURN}
# Of each wire: where, what, how often at once, and the status of what is taken.
WIRES = {
    "otlp": ("/v1/metrics", json.dumps({"resourceMetrics": [COUNT]}).encode(), BURST_SECONDS, 200),
    "statsig": ("/v1/log_event", json.dumps({"events": [EVENT]}).encode(), BURST_SECONDS, 202),
    "sentry": ("/api/1/store/", json.dumps(ERROR).encode(), BURST_SECONDS, 200),
    "report": ("/api/sessions/one/feedback", REPORT, REPORTS[1], 201),
}
FLOWS = {"sentry": FlowId.ERRORS, "report": FlowId.FEEDBACK}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a service that takes one request a second of a key, and as many more at once."""
    folder = tmp_path_factory.mktemp("floods")
    # A pace that no test waits for.
    options = ("--upstream", "rehearsal", "--intake-rate", "1", "--otlp-grpc", "0")
    with serving(folder / "state", folder, *options) as running:
        yield running


def post(service: Service, path: str, body: bytes, key: str) -> tuple[int, Mapping[str, str], str]:
    connection = http.client.HTTPConnection(*service.address, timeout=20)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read().decode()
    connection.close()
    return answer


@pytest.mark.parametrize("wire", WIRES)
def test_a_flood_is_told_and_nothing_that_was_taken_is_lost(service: Service, wire: str) -> None:
    """429 and when to come again; what was answered before is held; another key goes on."""
    path, body, burst, taken = WIRES[wire]
    key, other = make_key(service.home), make_key(service.home)
    before = {one.id for one in read_exchanges(service.home)}
    for _ in range(burst + 200):
        status, headers, told = post(service, path, body, key)
        if status != taken:
            break
        burst -= 1
    assert status == 429
    assert burst <= 0
    headers = {name.lower(): value for name, value in headers.items()}
    seconds = int(headers["retry-after"])
    assert seconds >= 1
    assert key not in told
    if wire == "sentry":
        # Seconds, all categories, this key (Sentry developer documentation, "Rate Limiting").
        assert headers["x-sentry-rate-limits"] == f"{seconds}::key:flood"
    assert post(service, path, body, other)[0] == taken
    held = [one for one in read_exchanges(service.home) if one.id not in before]
    assert {one.flow for one in held} == {FLOWS.get(wire, FlowId.METRICS)}
    # As many as were taken, one of the other key, and none of those that were refused.
    assert len(held) == WIRES[wire][2] - burst + 1
    assert {one.state for one in held} == {"complete"}


def test_grpc_says_when_to_come_again(service: Service) -> None:
    """RESOURCE_EXHAUSTED, which an exporter tries again only with RetryInfo (OTLP/gRPC, "Throttling")."""
    found = re.search(r"gRPC is taken on port (\d+)", service.errors)
    assert found
    export = ExportLogsServiceRequest().SerializeToString()
    metadata = (("authorization", f"Bearer {make_key(service.home)}"),)
    with grpc.insecure_channel(f"127.0.0.1:{found[1]}") as channel:
        call = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")

        def flood() -> None:
            for _ in range(BURST_SECONDS + 200):
                call(export, metadata=metadata, timeout=20)

        with pytest.raises(grpc.RpcError) as failed:
            flood()
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    details = dict(failed.value.trailing_metadata())["grpc-status-details-bin"]
    info = RetryInfo()
    assert Status.FromString(details).details[0].Unpack(info)
    assert info.retry_delay.seconds >= 1

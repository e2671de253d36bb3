"""OTLP over gRPC: who is refused and how, what is too long, and the same allow-list as over HTTP."""

import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from bailee.accounts.directory import open_directory
from bailee.flows.metrics.receiver import MOST_BYTES
from bailee.flows.metrics.results import read_points
from bailee.policy.flows import FlowId
from counterparts.holdings import find_bytes, make_key
from counterparts.services import Service, serving

LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
CANARY = "canary-of-the-grpc"


def find_port(service: Service) -> int:
    found = re.search(r"gRPC is taken on port (\d+)", service.errors)
    assert found, service.errors
    return int(found[1])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("procedures")
    with serving(folder / "state", folder, "--upstream", "rehearsal", "--otlp-grpc", "0") as running:
        yield running


@pytest.fixture(scope="module")
def channel(service: Service) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{find_port(service)}") as channel:
        yield channel


def call(
    channel: grpc.Channel,
    body: bytes,
    key: str,
    path: str = LOGS,
    compression: "grpc.Compression | None" = None,
) -> bytes:
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    answer: bytes = channel.unary_unary(path)(body, metadata=metadata, timeout=20, compression=compression)
    return answer


def refused(channel: grpc.Channel, body: bytes, key: str) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as failed:
        call(channel, body, key)
    assert "Traceback" not in failed.value.details()
    return failed.value.code(), failed.value.details()


def write_logs(*names: str) -> bytes:
    export = ExportLogsServiceRequest()
    scope = export.resource_logs.add().scope_logs.add()
    scope.scope.name = CANARY
    for name in names:
        record = scope.log_records.add()
        record.body.string_value = name
        for key, value in (
            ("version", "1.2.3"),
            ("outcome", "done"),
            ("user.email", CANARY),
            (CANARY, CANARY),
        ):
            attribute = record.attributes.add()
            attribute.key, attribute.value.string_value = key, value
    written: bytes = export.SerializeToString()
    return written


def test_what_the_catalogue_names_is_held_and_the_rest_is_told(
    channel: grpc.Channel, service: Service
) -> None:
    """As over HTTP: of two records one is rejected, and the fields that were dropped are named if plain."""
    key = make_key(service.home)
    answer = ExportLogsServiceResponse.FromString(call(channel, write_logs("bailee.turn", CANARY), key))
    assert answer.partial_success.rejected_log_records == 1
    assert "user.email" in answer.partial_success.error_message
    assert CANARY not in answer.partial_success.error_message
    (point,) = read_points(service.home)
    assert (point.name, dict(point.fields)) == ("bailee.turn", {"version": "1.2.3", "outcome": "done"})
    assert not find_bytes(service.home, CANARY.encode())


def test_traces_are_rejected_by_number(channel: grpc.Channel, service: Service) -> None:
    """There is no catalogue of spans: an exporter is told how many were dropped, and goes on."""
    export = ExportTraceServiceRequest()
    export.resource_spans.add().scope_spans.add().spans.add().name = CANARY
    answer = call(channel, export.SerializeToString(), make_key(service.home), TRACES)
    assert ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans == 1


def test_who_is_refused_is_told_by_grpcs_own_codes(channel: grpc.Channel, service: Service) -> None:
    """No key, a wrong one, one whose account refuses metrics, and what is no export at all."""
    for key in ("", "bailee_" + "0" * 16 + "_" + "0" * 64):
        code, told = refused(channel, write_logs("bailee.turn"), key)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "bailee keys create" in told
    key = make_key(service.home)
    assert refused(channel, b"\xff" * 100, key)[0] is grpc.StatusCode.INVALID_ARGUMENT
    directory = open_directory(service.home)
    directory.refuse("me", FlowId.METRICS, given=True)
    try:
        code, told = refused(channel, write_logs("bailee.turn"), key)
        assert (code, "account/refused.metrics" in told) == (grpc.StatusCode.PERMISSION_DENIED, True)
    finally:
        directory.refuse("me", FlowId.METRICS, given=False)
        directory.close()
    call(channel, write_logs("bailee.turn"), key)  # control


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_what_is_too_long_is_refused(
    channel: grpc.Channel, service: Service, compression: "grpc.Compression"
) -> None:
    """Before and after its coding is off: a bomb is no way around the limit."""
    key = make_key(service.home)
    with pytest.raises(grpc.RpcError) as failed:
        call(channel, bytes(MOST_BYTES + 1), key, compression=compression)
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    many = write_logs(*["bailee.turn"] * 1000)
    assert len(many) < MOST_BYTES
    call(channel, many, key, compression=compression)


def test_tls_is_that_of_the_service(tmp_path: Path) -> None:
    """With the service's certificate it is served by TLS, and not in clear beside it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    chain, key_file = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key_file)
    options = ("--upstream", "rehearsal", "--otlp-grpc", "0")
    tls = ("--tls-certificate", str(chain), "--tls-key", str(key_file))
    with serving(tmp_path / "state", tmp_path, *options, *tls) as service:
        key, port = make_key(service.home), find_port(service)
        trust = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(f"localhost:{port}", trust) as channel:
            call(channel, write_logs("bailee.turn"), key)
        with grpc.insecure_channel(f"localhost:{port}") as channel:
            with pytest.raises(grpc.RpcError) as failed:
                call(channel, write_logs("bailee.turn"), key)
            assert failed.value.code() is grpc.StatusCode.UNAVAILABLE

"""OTLP over gRPC: the same exports, taken by the same receiver.

Source: OpenTelemetry Protocol 1.x (docs/specification.md), "OTLP/gRPC"; 4317 is its usual port.
"""

from collections.abc import Iterable
from pathlib import Path

import grpc
import grpc.aio

from bailee.accounts.credentials import read_key
from bailee.flows.metrics.exports import Signal
from bailee.flows.metrics.receiver import CODES, MOST_BYTES, MetricsReceiver
from bailee.policy.problems import Problem
from bailee.vault.intake import Refused

USUAL_PORT = 4317
_SERVICES = {
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
}
_STATUSES = {code.value[0]: code for code in grpc.StatusCode}
_OPTIONS = (
    # Bounds a message after its coding is off as well.
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_metadata_size", 64 * 1024),
    # Without it a second server could share the port and get half of what is sent.
    ("grpc.so_reuseport", 0),
)


async def open_server(
    receiver: MetricsReceiver, host: str, port: int, *, tls: tuple[Path, Path] | None
) -> tuple[grpc.aio.Server, int]:
    """Start to answer; return the server and the port it listens on.

    Args:
        port: 0 takes a free one.
        tls: PEM files of the certificate chain and its key; None on this machine's own addresses.

    Raises:
        Problem: the address cannot be listened on.
    """
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers(tuple(_handle(receiver, signal) for signal in Signal))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if tls is None:
            bound = server.add_insecure_port(address)
        else:
            chain, key = (file.read_bytes() for file in tls)
            bound = server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))
    except RuntimeError:
        raise Problem(
            f"cannot listen on {host} port {port}", where="--otlp-grpc", fix="choose another port, or 0"
        ) from None
    await server.start()
    return server, bound


def _handle(receiver: MetricsReceiver, signal: Signal) -> grpc.GenericRpcHandler:
    service = _SERVICES[signal]
    path = f"/{service}/Export"

    async def export(body: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        try:
            return await receiver.export(path, signal, read_key(_headers(context)), body)
        except Refused as refused:
            code, text = _STATUSES[CODES[refused.status]], f"Bailee: {refused}."
            await context.abort(code, text, trailing_metadata=_tell_pause(refused, code, text))
            raise  # abort has raised

    # Bytes in, bytes out: whoever has no key is refused before anything is read.
    handler = grpc.unary_unary_rpc_method_handler(export)
    return grpc.method_handlers_generic_handler(service, {"Export": handler})


def _tell_pause(refused: Refused, code: grpc.StatusCode, text: str) -> tuple[tuple[str, bytes], ...]:
    """Return the details by which an exporter knows that it may come again, and when.

    Source: OTLP/gRPC, "Throttling": RESOURCE_EXHAUSTED is tried again only with RetryInfo.
    """
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status

    if not refused.seconds:
        return ()
    status = Status(code=code.value[0], message=text)
    info = RetryInfo()
    info.retry_delay.seconds = refused.seconds
    status.details.add().Pack(info)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def _headers(context: "grpc.aio.ServicerContext[bytes, bytes]") -> Iterable[tuple[bytes, bytes]]:
    for name, value in context.invocation_metadata() or ():
        yield name.encode(), value if isinstance(value, bytes) else value.encode("latin-1", "replace")

"""Real clients, `python clients.py NAME`; the environment says where, and with what key."""

import os
import sys
import time
from typing import Any

URL, KEY = os.environ["BAILEE_SERVICE"].rstrip("/"), os.environ["ANTHROPIC_AUTH_TOKEN"]
CANARY = "canary/in/a/path"


def send_by_opentelemetry() -> None:
    """Over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    _count(OTLPMetricExporter(f"{URL}/v1/metrics", headers={"Authorization": f"Bearer {KEY}"}))


def send_by_grpc() -> None:
    """Over gRPC, and events of the other signal; where and with what key is the exporter's to find."""
    import logging

    from opentelemetry._logs import SeverityNumber
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    logging.basicConfig()  # what the exporter has to complain of
    _count(OTLPMetricExporter())
    provider = LoggerProvider()
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    logger = provider.get_logger(CANARY)
    turn: dict[str, Any] = {"version": "1.2.3", "outcome": "done", "rounds": 3, "path": CANARY}
    logger.emit(severity_number=SeverityNumber.INFO, body=CANARY, event_name="bailee.turn", attributes=turn)
    logger.emit(severity_number=SeverityNumber.INFO, body=CANARY, event_name="our.secret.project")
    assert provider.force_flush()
    provider.shutdown()


def _count(exporter: Any) -> None:
    """Two counts of a running total, one event of another name, and a histogram."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=10_000_000)])
    meter = provider.get_meter("a test")
    counter = meter.create_counter("claude_code.commit.count")
    counter.add(3, {"user.email": CANARY})
    assert provider.force_flush()
    counter.add(4, {"user.email": CANARY})
    meter.create_histogram("claude_code.lines_of_code.count").record(1, {"type": CANARY})
    meter.create_counter("our.secret.project").add(1)
    assert provider.force_flush()
    provider.shutdown()


def send_by_statsig() -> None:
    """One event that the catalogue names and one that it does not."""
    from statsig import StatsigEvent, StatsigOptions, StatsigUser, statsig

    options = StatsigOptions(api=f"{URL}/v1/", fallback_to_statsig_api=False)
    statsig.initialize(f"secret-{KEY}", options)
    user = StatsigUser(CANARY)
    turn = {"version": "1.2.3", "outcome": "done", "rounds": "3", "path": CANARY}
    statsig.log_event(StatsigEvent(user, "bailee.turn", metadata=turn))
    statsig.log_event(StatsigEvent(user, CANARY, value=CANARY))
    statsig.shutdown()  # type: ignore[no-untyped-call]


def send_by_statsig_core() -> None:
    """The same by the client that is written in Rust."""
    from statsig_python_core import Statsig, StatsigOptions, StatsigUser

    options = StatsigOptions()
    options.specs_url = f"{URL}/v2/download_config_specs"
    options.log_event_url = f"{URL}/v1/log_event"
    client = Statsig(f"secret-{KEY}", options)
    client.initialize().wait()
    user = StatsigUser(CANARY)
    turn = {"version": "1.2.3", "outcome": "done", "rounds": "3", "path": CANARY}
    client.log_event(user, "bailee.turn", None, turn)
    client.log_event(user, CANARY, CANARY)
    client.flush_events().wait()
    client.shutdown().wait()


if __name__ == "__main__":
    began = time.monotonic()
    {
        "opentelemetry": send_by_opentelemetry,
        "grpc": send_by_grpc,
        "statsig": send_by_statsig,
        "statsig-core": send_by_statsig_core,
    }[sys.argv[1]]()
    sys.stdout.write(f"{time.monotonic() - began:.1f}\n")

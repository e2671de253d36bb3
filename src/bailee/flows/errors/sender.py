"""Reports an error of our own agent by Sentry's SDK, rebuilt from the allow-list before it is sent.

The SDK finds the exceptions and their frames, and writes the envelope; what it would add of messages,
variables, source, paths, arguments, names and packages is not taken over. It is imported when there is
something to report: that takes 0.2 s.
"""

import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bailee.flows.errors.faults import admit_event, write_event

if TYPE_CHECKING:
    from sentry_sdk.envelope import Envelope
    from sentry_sdk.types import Event, Hint

PATH = "/api/1/envelope/"
# The SDK writes the key of its address into each envelope. Ours goes in a header, and nowhere else.
_ADDRESS = "https://agent@localhost/1"


def write_report(error: BaseException, *, agent: str, version: str, now: float) -> bytes | None:
    """Return the envelope that reports an error; None where nothing of it may be told.

    Args:
        agent, version: who reports.
        now: seconds since 1970 UTC.
    """
    import sentry_sdk
    from sentry_sdk.transport import Transport
    from sentry_sdk.utils import event_from_exception

    written: list[bytes] = []

    class Keeping(Transport):
        """Gives the envelope to whoever asked, who sends it."""

        def capture_envelope(self, envelope: "Envelope") -> None:
            written.append(envelope.serialize())

    def rebuild(event: "Event", hint: "Hint") -> "Event | None":
        today = datetime.fromtimestamp(now, UTC).date()
        system = {"contexts": {"os": {"name": platform.system()}}}
        fault = admit_event({**event, **system, "release": f"{agent}@{version}"}, today=today)
        if fault is None:
            return None
        rebuilt: Any = {"event_id": event.get("event_id"), **write_event(fault)}
        return rebuilt  # type: ignore[no-any-return]

    client = sentry_sdk.Client(
        dsn=_ADDRESS,
        transport=Keeping,
        before_send=rebuild,
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
        send_client_reports=False,
        include_local_variables=False,
        include_source_context=False,
        max_breadcrumbs=0,
        server_name="",
        release=f"{agent}@{version}",
    )
    try:
        event, hint = event_from_exception(error, client_options=client.options)
        client.capture_event(event, hint=hint, scope=sentry_sdk.Scope())
    finally:
        client.close(timeout=0)
    return written[0] if written else None

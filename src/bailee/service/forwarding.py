"""Puts the forwarder together: what waits, how it is written for each next hop, and whose may go."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import sqlalchemy as sa

from bailee.accounts.directory import Directory
from bailee.flows.errors import forwarding as errors
from bailee.flows.forwarding.forwarder import Forwarder, Open, Record, Request, Write
from bailee.flows.forwarding.hops import NextHop, Wire
from bailee.flows.metrics import forwarding as metrics
from bailee.flows.metrics.sender import Wire as MetricsWire
from bailee.manifests import load_manifest
from bailee.policy.contexts import Context
from bailee.policy.decisions import Decision, decide
from bailee.policy.flows import FlowId
from bailee.policy.layers import Layer, LayerName
from bailee.policy.plans import Provider

_JSON = "application/json"


def make_forwarder(
    hops: Sequence[NextHop],
    vault: sa.Engine,
    open_segment: Open,
    directory: Directory,
    *,
    provider: Provider,
    environment: Mapping[str, str],
) -> Forwarder:
    """Return what sends to these next hops.

    Args:
        provider: where model traffic of the service goes.
        environment: the service's own, in which its operator may switch forwarding off.
    """

    def choose() -> Callable[[str], bool]:
        accounts = {account.id: account for account in directory.all()}
        known: dict[str, bool] = {}

        def may(id: str) -> bool:
            if id not in known:
                account = accounts.get(id)
                context = account.to_context(provider) if account else None
                known[id] = context is not None and decide_forwarding(context, environment).allowed
            return known[id]

        return may

    return Forwarder({hop: _WRITERS[hop.wire] for hop in hops}, vault, open_segment, choose)


def decide_forwarding(context: Context, environment: Mapping[str, str]) -> Decision:
    """Decide, where there is a next hop, whether an account's records may go there."""
    import msgspec

    layer = Layer(
        name=LayerName.ENVIRONMENT, origin="the environment of the service", variables=dict(environment)
    )
    told = msgspec.structs.replace(context, has_next_hop=True, layers=(layer,))
    return decide(load_manifest("bailee").flow(FlowId.FORWARDING), told)


def _write_metrics(records: Sequence[Record], wire: MetricsWire) -> Sequence[Request]:
    held = ((record.hour_ms, record.body) for record in records)
    return [Request(one.path, _JSON, one.body) for one in metrics.write_held(held, wire)]


def _write_errors(records: Sequence[Record], secret: bytes) -> Sequence[Request]:
    return [
        Request(errors.PATH, errors.TYPE, envelope)
        for record in records
        for envelope in errors.write_held(record.exchange, record.hour_ms, record.body, secret=secret)
    ]


_WRITERS: Mapping[Wire, Write] = {
    Wire.OTLP: partial(_write_metrics, wire=MetricsWire.OTLP),
    Wire.STATSIG: partial(_write_metrics, wire=MetricsWire.STATSIG),
    # Drawn when the service starts: an event that is sent again after a kill is another one there.
    Wire.SENTRY: partial(_write_errors, secret=secrets.token_bytes(32)),
}

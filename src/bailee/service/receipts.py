"""The receipt of a run: what went where, how much of it, kept how long, trainable or not, how to erase it."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import sqlalchemy as sa

from bailee.boundary.reconciliation import Verdict
from bailee.characters import make_visible
from bailee.ledger.entries import FlowsReceipted, decode_entry
from bailee.ledger.notes import Verifier
from bailee.ledger.receipts import ReceiptRefused, verify_receipt
from bailee.manifests import Manifest
from bailee.policy.contexts import Context
from bailee.policy.decisions import Decision, Effect, decide
from bailee.policy.flows import FlowId
from bailee.policy.periods import Period
from bailee.service.boundaries import SERVICE_RULE
from bailee.service.boundary_receipts import BoundaryReceipt
from bailee.sizes import tell_count, tell_size
from bailee.vault import tables
from bailee.vault.reader import Exchange, list_exchanges

WIDTH = 110
# Lines of what was refused; the file has all.
MOST_REFUSED = 12
_encoder = msgspec.json.Encoder(order="deterministic")


class FlowReceipt(msgspec.Struct, frozen=True):
    """What passed the service as one flow.

    Attributes:
        outcomes: how many exchanges ended in which state.
        stored_bytes: size of the sealed records; 0 where no content is kept.
        expires_on: the day that begins with the records gone; None if nothing is kept, or without end.
        retention_rules, training_rules: the rules that decided how long it is kept and whether it may train.
    """

    flow: str
    destination: str
    exchanges: int
    outcomes: dict[str, int]
    sent_bytes: int
    received_bytes: int
    stored_bytes: int
    input_tokens: int
    output_tokens: int
    retention: str
    expires_on: date | None
    trainable: bool
    decided_by: str
    retention_rules: list[str]
    training_rules: list[str]


class OtherFlow(msgspec.Struct, frozen=True):
    """A declared flow that does not pass the service: allowed or not, and what decided it."""

    flow: str
    allowed: bool
    decided_by: str
    destination: str


class RunReceipt(msgspec.Struct, frozen=True):
    """The receipt of one `bailee run`.

    Attributes:
        agent: the agent whose manifest declares it; None for a command that no manifest declares.
        command: the file name of what was run.
        other_flows: what the manifest declares besides; of a command that no manifest declares, nothing.
        enforced: whether anything but the environment keeps the agent to its declared flows.
        exit_status: the command's own.
        boundary: what its boundary saw.
        settings_changed: files of the agent's settings that said something else when it had ended, or could
            not be read then.
        proof: that the ledger has the digest of all this, as `bailee ledger verify` reads it; empty in what
            the digest is of.
    """

    agent: str | None
    command: str
    account: str
    upstream: str
    started: str
    exit_status: int
    sessions: list[str]
    flows: list[FlowReceipt]
    other_flows: list[OtherFlow]
    enforced: bool
    erase: list[str]
    boundary: BoundaryReceipt
    settings_changed: list[str] = []
    proof: str = ""


def make_receipt(
    engine: sa.Engine,
    *,
    key_id: str,
    command: str,
    manifest: Manifest | None,
    context: Context,
    account: str,
    upstream: str,
    started: datetime,
    exit_status: int,
    boundary: BoundaryReceipt,
    settings_changed: Sequence[str] = (),
) -> RunReceipt:
    """Make the receipt of what was sent with one key.

    Args:
        command: the file name of what was run.
        manifest: the agent's; None for a command that no manifest declares.
        context: the agent's own context: provider and the layers of its settings and environment.
    """
    exchanges = list_exchanges(engine, key=key_id)
    decided = {
        exchange.decision: msgspec.json.decode(exchange.decision, type=Decision) for exchange in exchanges
    }
    flows = []
    for text, decision in decided.items():
        flows.append(_flow(engine, decision, [one for one in exchanges if one.decision == text]))
    sessions = list(dict.fromkeys(exchange.session for exchange in exchanges))
    reports = {one.session for one in exchanges if one.flow == FlowId.FEEDBACK and one.is_kept}
    # Model traffic passes here or nowhere we know; of the web it is the log alone that came here.
    passed = {flow.flow for flow in flows if flow.flow != FlowId.WEB}
    if manifest is None or manifest.is_led:
        passed.add(FlowId.MESSAGES)
    others = []
    for flow in manifest.flows if manifest else ():
        if flow.id not in passed:
            decision = decide(flow, context)
            destination = flow.destinations[context.provider]
            others.append(OtherFlow(flow.id, decision.allowed, decision.decided_by, destination))
    return RunReceipt(
        agent=manifest.agent if manifest else None,
        command=command,
        account=account,
        upstream=upstream,
        started=started.astimezone(UTC).isoformat(timespec="seconds"),
        exit_status=exit_status,
        sessions=sessions,
        flows=flows,
        other_flows=others,
        enforced=boundary.enforcement == "namespaces",
        boundary=boundary,
        settings_changed=list(settings_changed),
        erase=[
            f"bailee {'feedback withdraw' if session in reports else 'sessions erase'} {session}"
            for session in sessions
        ],
    )


def _flow(engine: sa.Engine, decision: Decision, exchanges: Sequence[Exchange]) -> FlowReceipt:
    outcomes: dict[str, int] = {}
    for exchange in exchanges:
        outcomes[exchange.state] = outcomes.get(exchange.state, 0) + 1
    retention: Period = decision.terms.retention
    last = max(exchange.started_ms for exchange in exchanges)
    kept = any(exchange.is_kept for exchange in exchanges)
    written = datetime.fromtimestamp(last / 1000, UTC).date()
    return FlowReceipt(
        flow=decision.flow,
        destination=exchanges[0].upstream,
        exchanges=len(exchanges),
        outcomes=outcomes,
        sent_bytes=sum(exchange.request_bytes for exchange in exchanges),
        received_bytes=sum(exchange.response_bytes or 0 for exchange in exchanges),
        stored_bytes=_stored_bytes(engine, [exchange.id for exchange in exchanges]),
        input_tokens=sum(exchange.input_tokens or 0 for exchange in exchanges),
        output_tokens=sum(exchange.output_tokens or 0 for exchange in exchanges),
        retention=str(retention),
        expires_on=retention.expires_on(written) if kept else None,
        trainable=decision.terms.trainable,
        decided_by=decision.decided_by,
        retention_rules=_rules(decision, Effect.RETAINS),
        training_rules=_rules(decision, Effect.TRAINS, Effect.FORBIDS_TRAINING),
    )


def _rules(decision: Decision, *effects: Effect) -> list[str]:
    return [rule.id for rule in decision.rules if rule.effect in effects]


def _stored_bytes(engine: sa.Engine, exchanges: Sequence[int]) -> int:
    table = tables.records
    total = 0
    with engine.connect() as connection:
        for start in range(0, len(exchanges), 500):  # SQLite limits the number of parameters
            query = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(table.c.sealed)), 0)).where(
                table.c.exchange.in_(exchanges[start : start + 500])
            )
            total += connection.execute(query).scalar_one()
    return total


def tell_receipt(receipt: RunReceipt) -> list[str]:
    """Write a receipt in lines of at most WIDTH characters, but for names that are longer, for a person."""
    lines = [f"Receipt: {receipt.agent or receipt.command} for {receipt.account}, {receipt.started}"]
    for flow in receipt.flows:
        lines += _tell_flow(flow)
    if not any(flow.flow == FlowId.MESSAGES for flow in receipt.flows):
        lines.append("  messages: nothing passed the service")
    stopped = [flow for flow in receipt.other_flows if not flow.allowed]
    left = [flow for flow in receipt.other_flows if flow.allowed]
    for reason in dict.fromkeys(flow.decided_by for flow in stopped):
        told = [flow.flow for flow in stopped if flow.decided_by == reason]
        lines += _list(f"switched off by {reason}:", told)
    used = {use.flow for use in receipt.boundary.used}
    unused = [flow for flow in left if flow.flow not in used]
    if receipt.enforced:
        lines += [f"  {one.flow}: {one.destination}" for one in unused if one.flow == FlowId.LOCAL_CACHE]
        quiet = [one.flow for one in unused if one.flow != FlowId.LOCAL_CACHE]
        lines += _list("declared, allowed and not used:", quiet) if quiet else []
    elif left:
        lines.append("  declared, allowed, not through the service:")
        lines += [f"    {flow.flow} -> {flow.destination}" for flow in left]
    if receipt.agent is None:
        lines.append(f"  no manifest declares {receipt.command}: what it sends besides is not known here")
    if receipt.settings_changed:
        shown = [make_visible(name) for name in receipt.settings_changed]
        lines += _list("SETTINGS CHANGED during the run:", shown)
    lines += _tell_boundary(receipt.boundary)
    lines.extend(f"  erase: {command}" for command in receipt.erase)
    return lines


def _tell_flow(flow: FlowReceipt) -> Iterator[str]:
    if flow.flow == FlowId.WEB:
        # Of its contents nothing is held; where they went, the boundary tells.
        yield from _list("the log of connections:", [tell_size(flow.sent_bytes)])
        yield from _tell_terms(flow)
        return
    ends = ", ".join(f"{count} {state}" for state, count in sorted(flow.outcomes.items()))
    amounts = [
        f"{tell_size(flow.sent_bytes)} sent",
        f"{tell_size(flow.received_bytes)} received",
        f"{tell_count(flow.input_tokens, 'token')} in",
        f"{flow.output_tokens} out",
    ]
    count = tell_count(flow.exchanges, "exchange")
    yield from _list(f"{flow.flow} -> {flow.destination}:", [f"{count} ({ends})", *amounts])
    yield from _tell_terms(flow)


def _tell_terms(flow: FlowReceipt) -> Iterator[str]:
    because = f"({', '.join(flow.retention_rules)})"
    if flow.expires_on is None and not flow.stored_bytes:
        yield f"    no content kept {because}"
    else:
        until = [f"until {flow.expires_on}"] if flow.expires_on else []
        kept = [f"kept {flow.retention} {because}", *until, "encrypted", tell_size(flow.stored_bytes)]
        yield from _list("", kept, indent="    ")
    trains = "may train models" if flow.trainable else "does not train models"
    yield f"    {trains} ({', '.join(flow.training_rules)}); decided by {flow.decided_by}"


def _list(start: str, parts: Sequence[str], *, indent: str = "  ") -> Iterator[str]:
    """Write parts after a beginning, none of them broken, into as few lines as they fit."""
    line = indent + start
    for place, part in enumerate(parts):
        more = part + ("," if place < len(parts) - 1 else "")
        joint = " " if line.strip() else ""
        if line.strip() and len(line) + len(joint) + len(more) > WIDTH:
            yield line
            line, joint = indent + "  ", ""
        line += joint + more
    yield line


def _tell_boundary(seen: BoundaryReceipt) -> Iterator[str]:
    """Tell what a boundary saw. Names are the agent's choice, and are shown without what they could do."""
    for use in seen.used:
        if use.rule.startswith(SERVICE_RULE):
            continue  # told above, flow by flow
        amounts = [f"{tell_size(use.sent_bytes)} sent", f"{tell_size(use.received_bytes)} received"]
        count = tell_count(use.connections, "connection")
        where = f"{make_visible(use.host)}:{use.port}"
        yield from _list(f"{use.flow or 'undeclared'} -> {where}:", [f"{count} ({use.rule})", *amounts])
    for one in seen.refused[:MOST_REFUSED]:
        yield f"  refused, {one.tries} times: {make_visible(one.reason)}"
    if len(seen.refused) > MOST_REFUSED:
        yield f"  and {len(seen.refused) - MOST_REFUSED} other refusals; --receipt FILE has all of them"
    for found in seen.abuse:
        yield f"  ABUSE: {found.reason}"
    if seen.names_refused:
        shown = [make_visible(name) for name in seen.names_refused[:MOST_REFUSED]]
        yield from _list("names that were asked for and do not exist here:", shown)
    counts = seen.counts
    if seen.enforcement == "none":
        yield "  not enforced: what an agent sends past its environment is not in this receipt"
        return
    yield "  enforced: the only way out was the proxy" + ("; files confined" if seen.confined else "")
    if seen.isolation:
        yield f"  machine: {seen.isolation}"
    connections = tell_count(counts.connections, "connection")
    if counts.verdict is Verdict.AGREED:
        sizes = f"{tell_size(counts.sent.proxy)} sent, {tell_size(counts.received.proxy)} received"
        yield f"  the kernel's count agrees: {connections}, {sizes}"
    for difference in counts.differences:
        yield f"  THE COUNTS DIFFER: {difference}"
    if counts.refused_packets:
        parts = [f"{count} {kind}" for kind, count in counts.refused_packets.items()]
        yield from _list("packets that went nowhere:", parts)


def anchor(home: Path, account: str, receipt: RunReceipt) -> RunReceipt:
    """Return a receipt with the proof that the ledger has its digest.

    Raises:
        Problem: the ledger cannot be written.
    """
    from bailee.vault.anchoring import record_flows
    from bailee.vault.custody import open_custody

    seen = receipt.boundary
    custody = open_custody(home)
    try:
        proof = record_flows(
            custody,
            account,
            digest(receipt),
            enforced=receipt.enforced,
            verdict=seen.counts.verdict.value,
            connections=seen.counts.connections,
            refused=sum(one.tries for one in seen.refused) + len(seen.names_refused),
        )
    finally:
        custody.close()
    return msgspec.structs.replace(receipt, proof=proof.decode())


def digest(receipt: RunReceipt) -> str:
    """Return the SHA-256 of a receipt without its proof, in the one encoding it is written in."""
    return hashlib.sha256(_encoder.encode(msgspec.structs.replace(receipt, proof=""))).hexdigest()


def verify_run(data: bytes, verifier: Verifier) -> RunReceipt | None:
    """Return the receipt of a run that a ledger has; None where the data is no receipt of a run.

    Raises:
        ReceiptRefused: the ledger has another one, or none.
    """
    try:
        receipt = msgspec.json.decode(data, type=RunReceipt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not receipt.proof:
        raise ReceiptRefused("it has no proof")
    wanted = digest(receipt)
    for proven in verify_receipt(receipt.proof.encode(), verifier):
        entry = decode_entry(proven.entry)
        if isinstance(entry, FlowsReceipted) and entry.digest == wanted:
            return receipt
    raise ReceiptRefused("the ledger has the receipt of this run with another content")

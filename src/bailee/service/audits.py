"""The audit trail of a cloud session: every request that it made to the outside, in one order.

It is put together from the log of connections, live or from the vault, and from what the service recorded of
what went through it: the model, Git, counts and reports. Of contents nothing is in it.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bailee.accounts.directory import open_directory
from bailee.cloud.records import CloudSession
from bailee.flows.git.meters import ABUSE
from bailee.flows.git.requests import GitRequest
from bailee.flows.web.log import Abused, Closed, LogBroken, Opened, Refused, Requested, Row, Way
from bailee.flows.web.receiver import read_held, read_live
from bailee.flows.web.sessions import TOO_MUCH
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.vault.reader import Exchange, list_exchanges, read_session
from bailee.vault.store import open_keys, open_vault
from bailee.vault.tables import State

PASSED, REFUSED, FAILED = "passed", "refused", "failed"
HEADS = ("TIME (UTC)", "WAY", "HOST", "PORT", "REQUEST", "RULE", "VERDICT", "SENT", "RECEIVED")
# What refuses nothing: the host is not there.
_FAILURES = ("unreachable", "no_address")


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    """A request, or something that was done about many of them.

    Attributes:
        at_ms: milliseconds since 1970 UTC.
        way: how it came to the proxy; for what went through the service its flow; `abuse` for what was done
            too often.
        method, path: where it was looked into; empty else.
        rule: what allowed or refused it.
        verdict: `passed`, `refused` or `failed`; of abuse `slowed`, `stopped` or `told`.
        sent, received: bytes, from the session and to it; None where they are not known, or are counted with
            an earlier request on the same connection.
        reason: in words, where it did not pass or not to its end.
        is_plain: whether what was refused was asked for in plain HTTP.
    """

    at_ms: int
    way: str
    host: str = ""
    port: int | None = None
    method: str = ""
    path: str = ""
    flow: str = ""
    rule: str = ""
    verdict: str = PASSED
    sent: int | None = None
    received: int | None = None
    reason: str = ""
    is_plain: bool = False

    @property
    def is_denied(self) -> bool:
        """Whether it did not get through, for whatever reason, or says that something was done about it."""
        return self.verdict != PASSED


def read_audit(home: Path, session: CloudSession) -> list[Audited]:
    """Return the audit trail of a session, the oldest first.

    Raises:
        Problem: a log or a record was altered, or the account is gone.
    """
    directory, vault, keystore = open_directory(home), open_vault(home), open_keys(home)
    try:
        account = directory.get(session.account).id
        name, today = f"cloud-{session.id}", datetime.now(UTC).date()
        recorded = list_exchanges(vault, account=account, session=name, flow=FlowId.GIT)
        # Of sessions that began under an earlier version the keys are known by what they did with Git.
        keys = dict.fromkeys((*session.keys, *(one.key for one in recorded)))

        def read(session: str, flow: FlowId, exchanges: Iterable[Exchange]) -> dict[int, bytes]:
            wanted = {one.id for one in exchanges if one.flow == flow}
            found = read_session(vault, keystore, account, session, today=today) if wanted else ()
            return {one.exchange: one.request.reveal() for one in found if one.exchange in wanted}

        said = read(name, FlowId.GIT, recorded)
        audited: list[Audited] = []
        for key in keys:
            # The log is looked for first: once it is not there, all of it is in the vault.
            rows = read_live(home, key, keystore.wrapper)
            exchanges = list_exchanges(vault, account=account, key=key)
            if rows is None:
                held = read(f"key-{key}", FlowId.WEB, exchanges)
                rows = [row for body in held.values() for row in read_held(body)]
            audited += tell_rows(rows)
            audited += (tell_exchange(one, said.get(one.id)) for one in exchanges if one.flow != FlowId.WEB)
    except LogBroken as fault:
        what = f"the log of connections cannot be read: {fault}"
        fix = "do not trust this session: somebody changed what lies in the home"
        raise Problem(what, where=str(home / "boundary"), fix=fix) from None
    finally:
        directory.close()
        vault.dispose()
        keystore.close()
    return sorted(audited, key=lambda one: one.at_ms)


def tell_rows(rows: Iterable[Row]) -> list[Audited]:
    """Return what a log of connections tells."""
    told: list[Audited] = []
    # The places of what is told of each connection, by its number.
    places: dict[int, list[int]] = {}

    def add(one: Audited, number: int) -> None:
        if number:
            places.setdefault(number, []).append(len(told))
        told.append(one)

    def change(place: int, **fields: object) -> None:
        told[place] = msgspec.structs.replace(told[place], **fields)

    for row in rows:
        if isinstance(row, Abused):
            add(_tell_abused(row), 0)
            continue
        known = places.get(row.number, [])
        last = told[known[-1]] if known else None
        match row:
            case Opened():
                number = 0 if row.way is Way.NAME else row.number
                reason = "" if row.way is Way.NAME else "still open"
                add(
                    Audited(
                        at_ms=row.at_ms,
                        way=row.way,
                        host=row.host,
                        port=row.port,
                        flow=row.flow,
                        rule=row.rule,
                        reason=reason,
                    ),
                    number,
                )
            case Requested() if last is not None and not last.method and last.verdict == PASSED:
                change(known[-1], method=row.method, path=row.path)
            case Requested() if last is not None:
                one = Audited(at_ms=row.at_ms, way=last.way, host=last.host, port=last.port, flow=last.flow)
                more = {"method": row.method, "path": row.path, "rule": last.rule, "reason": "still open"}
                add(msgspec.structs.replace(one, **more), row.number)
            case Refused():
                verdict = FAILED if row.rule in _FAILURES else REFUSED
                # What was opened and then turned away before anything was asked is one request.
                here = (row.host, row.port, "", PASSED)
                if last is None or (last.host, last.port, last.method, last.verdict) != here:
                    add(Audited(at_ms=row.at_ms, way=row.way, host=row.host, port=row.port), row.number)
                    known = [len(told) - 1]
                told_of = {"rule": row.rule, "verdict": verdict, "reason": row.reason}
                change(known[-1], **told_of, is_plain=row.is_plain)
            case Closed():
                _close(row, known, told)
    return told


def _close(row: Closed, places: Iterable[int], told: list[Audited]) -> None:
    """Give a connection's bytes to the first that is told of it, and its end to what passed."""
    for at, place in enumerate(places):
        fields: dict[str, object] = {"sent": row.sent, "received": row.received} if at == 0 else {}
        if told[place].verdict == PASSED:
            fields["reason"] = "" if row.outcome == "done" else row.outcome
            if row.outcome == TOO_MUCH:
                fields["verdict"] = REFUSED
        told[place] = msgspec.structs.replace(told[place], **fields)


def _tell_abused(row: Abused) -> Audited:
    return Audited(
        at_ms=row.at_ms, way="abuse", rule=row.kind.value, verdict=row.action.value, reason=row.reason
    )


def tell_exchange(exchange: Exchange, said: bytes | None) -> Audited:
    """Return what the service recorded of a request that went through it.

    Args:
        said: the record of a Git request; None where it is none, or is not held any more.
    """
    verdict, reason = PASSED, exchange.reason or ""
    if exchange.state == State.REFUSED:
        verdict = REFUSED
    elif exchange.state == State.UPSTREAM_FAILED:
        verdict = FAILED
    one = Audited(
        at_ms=exchange.started_ms,
        way=exchange.flow,
        host=exchange.upstream,
        method="" if exchange.flow == FlowId.GIT else "POST",
        path="" if exchange.flow == FlowId.GIT else exchange.path,
        flow=exchange.flow,
        rule="the service",
        verdict=verdict,
        sent=exchange.request_bytes,
        received=exchange.response_bytes,
        reason=reason,
    )
    if said is None:
        return one
    request = msgspec.json.decode(said, type=GitRequest)
    if request.what == ABUSE:
        return Audited(
            at_ms=request.at_ms, way=ABUSE, rule=request.route, verdict=request.outcome, reason=request.reason
        )
    host, _, place = request.repository.partition("/")
    return msgspec.structs.replace(
        one,
        host=host,
        method=request.what,
        path=" ".join((f"/{place}", *request.refs)),
        rule=request.outcome if request.is_failed or request.is_refused else "attached",
        verdict=FAILED if request.is_failed else REFUSED if request.is_refused else PASSED,
        reason="" if request.outcome == "passed" else request.outcome,
    )


def tell_lines(audited: Iterable[Audited]) -> Iterator[tuple[str, ...]]:
    """Write the trail as the columns of HEADS."""
    for one in audited:
        moment = datetime.fromtimestamp(one.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        asked = f"{one.method} {one.path}".strip() or (one.reason if one.way == "abuse" else "")
        sizes = ("" if count is None else f"{count:,}" for count in (one.sent, one.received))
        port = "" if one.port is None else str(one.port)
        yield moment, one.way, one.host, port, asked[:80], one.rule, one.verdict, *sizes

"""What fills the operator's pages: counts, errors, ratings, refused connections, a cloud session."""

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.holders import Operator
from bailee.accounts.passkeys import add_passkey, begin_adding
from bailee.accounts.people import Account
from bailee.cloud import disks
from bailee.cloud.records import CloudSession, Sessions, State
from bailee.flows.web.log import Closed, Opened, Refused, Way
from bailee.flows.web.receiver import begin_log, end_log, is_taken
from bailee.service.runs import FOLDER as RUNS
from bailee.vault import tables
from bailee.vault.store import open_keys, open_vault
from console.cast import HOSTILE, Cast
from counterparts.authenticators import Authenticator
from counterparts.holdings import read_exchanges
from counterparts.waiting import wait_for

RUN = "a-run-of-alice"
REFUSED_HOST = "tracker.example"
DAY_MS, HOUR_MS = 86_400_000, 3_600_000


def fill(cast: Cast) -> None:
    """Have agents send what they send, and a run and a cloud session leave their traces."""
    for place in range(14):
        cast.ask(
            "POST",
            "/v1/logs",
            body=json.dumps(_answers(place)),
            **_headers(cast, "alice" if place % 2 else "bob"),
        )
    for name, times in (("ValueError", 3), ("TimeoutError", 1), ("KeyError", 1)):
        for _ in range(times):
            cast.ask("POST", "/api/1/envelope/", body=_error(name), **_sentry(cast.keys["alice"]))
    for rating in ("3", "3", "2", "1", "dismiss"):
        body = json.dumps({"rating": rating, "version": "1.2"})
        cast.ask("POST", "/api/survey", body=body, **_headers(cast, "bob"))
    for place in range(30):
        cast.say("alice", f"alice-{place:02}", f"turn {place}: what does the parser do with an empty file?")
    leave_log(cast)
    directory = open_directory(cast.home)
    keep_passkey(directory, directory.get("alice"), cast.own_url)
    directory.close()
    make_cloud_session(cast)
    wanted = {"metrics": 14, "errors": 5, "survey": 5, "messages": 34}

    def is_there() -> bool | None:
        found = [one.flow for one in read_exchanges(cast.home) if one.state == "complete"]
        return all(found.count(flow) >= count for flow, count in wanted.items()) or None

    wait_for("what agents sent", is_there)
    wait_for("the log to be taken", lambda: is_taken(cast.home, RUN) or None)
    _spread(cast)


def keep_passkey(directory: Directory, holder: Account, origin: str) -> None:
    """Give a holder a passkey, as they add one."""
    asked = begin_adding(directory, holder, origin=origin, browser="a test's")
    add_passkey(
        directory,
        holder.name,
        Operator(holder.name, -1, signed_in=holder.id),
        name="phone",
        answer=Authenticator().create(asked, origin),
        origin=origin,
        browser="a test's",
    )


def _headers(cast: Cast, person: str) -> dict[str, str]:
    return {"authorization": f"Bearer {cast.keys[person]}", "content-type": "application/json"}


def _sentry(key: str) -> dict[str, str]:
    auth = f"Sentry sentry_key={key}, sentry_version=7, sentry_client=test/1"
    return {"x-sentry-auth": auth, "authorization": f"Bearer {key}", "content-type": "text/plain"}


def _answers(day: int) -> dict[str, object]:
    """Return requests to the model of Claude Code, as it tells of them over OpenTelemetry."""
    records = []
    for place in range(20):
        values = {"model": "claude-sonnet-4", "duration_ms": 900 + 40 * ((place * 7 + day * 3) % 37)}
        name = "claude_code.api_error" if place == 19 and day % 3 == 0 else "claude_code.api_request"
        attributes = [{"key": "event.name", "value": {"stringValue": name.partition(".")[2]}}]
        attributes += [
            {
                "key": key,
                "value": {"stringValue": value} if isinstance(value, str) else {"doubleValue": value},
            }
            for key, value in values.items()
        ]
        body = {"stringValue": name}
        records.append({"timeUnixNano": str(time.time_ns()), "body": body, "attributes": attributes})
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}


def _error(name: str) -> bytes:
    frames = [{"module": "bailee.agent.work", "function": "answer", "lineno": 120}]
    event = {
        "event_id": "0" * 32,
        "release": "bailee@1.2.3",
        "exception": {"values": [{"type": name, "value": HOSTILE, "stacktrace": {"frames": frames}}]},
    }
    payload = json.dumps(event).encode()
    return b"\n".join([b"{}", json.dumps({"type": "event", "length": len(payload)}).encode(), payload])


@contextlib.contextmanager
def holding_run(home: Path, run: str) -> Iterator[None]:
    """Be a run that goes on: the service leaves its log alone, however long it takes."""
    path = home / RUNS / run
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        path.unlink(missing_ok=True)


def leave_log(cast: Cast, run: str = RUN, person: str = "alice", key: str = "0" * 16) -> None:
    """Leave the log of a run, as its proxy does: two hosts reached, two refused."""
    with holding_run(cast.home, run):
        keys = open_keys(cast.home)
        log, _ = begin_log(cast.home, run, account=cast.ids[person], key=key, wrapper=keys.wrapper)
        keys.close()
        now = int(time.time() * 1000)
        for number, host in enumerate(("pypi.org", "registry.npmjs.org"), 1):
            flow, rule = "web", "claude-code.web"
            log.append(
                Opened(number=number, at_ms=now, way=Way.CONNECT, host=host, port=443, flow=flow, rule=rule)
            )
            log.append(
                Closed(
                    number=number,
                    at_ms=now + 40,
                    sent=2_400,
                    received=910_000,
                    kernel_sent=2_400,
                    kernel_received=910_000,
                    address="192.0.2.1",
                    outcome="done",
                )
            )
        refused = [REFUSED_HOST] * 3 + ["<b>evil</b>.example", "other.example"]
        for number, host in enumerate(refused, 10):
            reason = f"{host}:443 is not declared"
            log.append(
                Refused(
                    number=number,
                    at_ms=now + number,
                    way=Way.CONNECT,
                    host=host,
                    port=443,
                    rule="undeclared",
                    reason=reason,
                )
            )
        log.close()
        end_log(cast.home, run)


def make_cloud_session(cast: Cast, state: State = State.DONE, account: str = "alice") -> str:
    """Write down a cloud session that has ended, Alice's if it is not said, with what it said; return its
    id.
    """
    sessions, now = Sessions(cast.home), int(time.time() * 1000)
    id = sessions.make()
    sessions.write(
        CloudSession(
            id=id,
            account=account,
            repository="https://git.example/acme/app",
            base="main",
            branch=f"bailee/{id}",
            agent="claude-code",
            isolation="namespace",
            network="trusted",
            upstream="rehearsal",
            allow=(),
            setup="",
            seconds=3600,
            traffic_bytes=1 << 30,
            turns=(),
            answered=1,
            state=state,
            reason="pushed 2 commits",
            created_ms=now - 600_000,
            changed_ms=now,
            retention="30d",
        )
    )
    log = sessions.folder(id) / disks.LOG
    log.write_text(f"cloning https://git.example/acme/app\n{HOSTILE}\npushed 2 commits\n")
    log.chmod(0o600)
    cast.cloud = id
    return id


def _spread(cast: Cast) -> None:
    """Date what came over the days and hours before, as it would have come."""
    vault, table = open_vault(cast.home), tables.exchanges
    today = int(datetime.now(UTC).timestamp() * 1000)
    with vault.begin() as connection:
        for flow, step in (("metrics", DAY_MS), ("messages", HOUR_MS // 2)):
            ids = (
                connection.execute(
                    sa.select(table.c.id).where(table.c.flow == flow).order_by(table.c.id.desc())
                )
                .scalars()
                .all()
            )
            for place, id in enumerate(ids):
                at = today - place * step
                connection.execute(sa.update(table).where(table.c.id == id).values(started_ms=at))
    vault.dispose()

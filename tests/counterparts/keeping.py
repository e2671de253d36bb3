"""A home under custody whose clock a test sets, with a recorder's writer led by what accounts may."""

import hashlib
import os
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import sqlalchemy as sa

from bailee.accounts.people import Account
from bailee.ledger.entries import AnyEntry, decode_entry
from bailee.manifests import load_manifest
from bailee.policy.decisions import decide
from bailee.policy.plans import Provider
from bailee.vault import tables
from bailee.vault.custody import Custody, open_custody
from bailee.vault.frames import Begin, Decided, Finish
from bailee.vault.reader import read_session
from bailee.vault.writer import VaultWriter

FIRST_DAY = date(2026, 5, 4)


class Keeping:
    """Custody of a home, at a time that a test sets.

    Attributes:
        now: seconds since 1970 UTC.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.now = datetime(2026, 5, 4, 12, tzinfo=UTC).timestamp()
        self.custody: Custody = open_custody(home, clock=lambda: self.now)
        self._open_writer()
        self._exchange = 0

    def _open_writer(self) -> None:
        vault = self.custody.vault
        self.writer = VaultWriter(vault, self.custody.keystore, os.urandom, lambda: self.now)

    def reopen_writer(self) -> None:
        """Have another recorder go on, which knows nothing from before."""
        self.writer.close()
        self._open_writer()

    def close(self) -> None:
        """Close everything."""
        self.writer.close()
        self.custody.close()

    @property
    def today(self) -> date:
        """The UTC day."""
        return self.custody.today()

    def go_to(self, day: date) -> None:
        """Let time pass until noon of a day."""
        self.now = datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()

    def decided(self, account: Account, flow: str = "messages") -> Decided:
        """Return what the service decides on this account's traffic now."""
        decision = decide(load_manifest("bailee").flow(flow), account.to_context(Provider.ANTHROPIC))
        body = msgspec.json.encode(decision)
        return Decided(hashlib.sha256(body).digest(), body.decode(), decision.terms)

    def admit(
        self, account: Account, session: str, body: bytes, flow: str = "messages"
    ) -> tuple[Decided, Begin]:
        """Return the frames of a request that is admitted now; a recorder may get them later."""
        self._exchange += 1
        self.now += 0.01
        decided = self.decided(account, flow)
        started_ms = int(self.now * 1000)
        keep = not decided.terms.retention.is_none
        return decided, Begin(
            exchange=started_ms << 21 | self._exchange,
            account=account.id,
            session=session,
            key="key-1",
            decision=decided.digest,
            flow=flow,
            keep=keep,
            started_ms=started_ms,
            upstream="anthropic",
            path="/v1/messages",
            request_bytes=len(body),
            headers=b"",
            body=body if keep else b"",
        )

    def write(self, admitted: tuple[Decided, Begin], answer: bytes = b"answer") -> int:
        """Record an admitted request, and its answer, durably; return the exchange."""
        decided, begin = admitted
        self.writer.take([decided])
        self.writer.take([begin])
        answer = answer if begin.keep else b""
        facts = (200, 1, 2, 6, "claude", 1, 1, 0, 0, "end_turn", b"", answer)
        self.writer.take([Finish(begin.exchange, "complete", None, *facts)])
        assert begin.exchange in self.writer.commit()
        return begin.exchange

    def record(
        self,
        name: str,
        session: str = "session-1",
        body: bytes = b"said",
        answer: bytes = b"answer",
        flow: str = "messages",
    ) -> int:
        """Record an exchange of an account, as things stand."""
        return self.write(self.admit(self.custody.directory.get(name), session, body, flow), answer)

    def read(self, name: str) -> set[int]:
        """Return the exchanges of an account whose content opens today."""
        account = self.custody.directory.get(name).id
        table = tables.exchanges
        with self.custody.vault.connect() as connection:
            query = sa.select(table.c.session).where(table.c.account == account).distinct()
            sessions = list(connection.execute(query).scalars())
        return {
            transcript.exchange
            for session in sessions
            for transcript in read_session(
                self.custody.vault, self.custody.keystore, account, session, today=self.today
            )
        }

    def terms(self, name: str) -> list[tuple[str, date | None, bool]]:
        """Return the terms of the segments an account holds, the one begun first first."""
        account = self.custody.directory.get(name).id
        table = tables.segments
        query = sa.select(table.c.retention, table.c.expires_on, table.c.trainable)
        query = query.where(table.c.account == account).order_by(table.c.day, sa.desc(table.c.expires_on))
        with self.custody.vault.connect() as connection:
            return [tuple(row) for row in connection.execute(query)]

    def tighten(self, name: str) -> int:
        """Bring into force what changed for an account, as the commands do."""
        changed = self.custody.tighten(self.custody.directory.get(name))
        self.custody.settle()
        return changed

    def entries(self) -> list[AnyEntry]:
        """Return what the ledger says."""
        self.custody.settle()
        return [decode_entry(data) for data in self.custody.log.read()]

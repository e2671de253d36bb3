"""Builds a dataset: part by part, each so many sessions, so that an interrupted build goes on.

Consents are asked when a part is written, and again for everything when all are: a consent that ended while
a build went on, or while it was interrupted, has its part written anew.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bailee.files import replace_file
from bailee.ledger.entries import commit_segment
from bailee.moments import tell_moment
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.sealing.masking import Masked
from bailee.vault import tables
from bailee.vault.copies.folders import File, holding_copy
from bailee.vault.copies.registry import Kind, Maker, confirm, enter, register
from bailee.vault.custody import Custody
from bailee.vault.datasets.items import Conversation, ItemWriter, digest_file, load_arrow, name_item, schema
from bailee.vault.datasets.manifests import (
    BUILDING,
    MANIFEST,
    VERSION,
    Basis,
    Building,
    Counts,
    Manifest,
    Part,
    encode,
    read,
)
from bailee.vault.datasets.selection import Standing, Why, judge, read_standing, select_segments
from bailee.vault.datasets.verification import find_gone
from bailee.vault.datasets.withdrawal import name_facts, name_part
from bailee.vault.holds import check_reason
from bailee.vault.reader import Transcript, read_session

PURPOSE = "training"
# What is lost when a build is interrupted: 500 sessions of 40 turns are some 55 MB of Parquet, 40 s of work.
SESSIONS_IN_A_PART = 500

ReadMessages = Callable[[Transcript], Conversation | None]
# Takes JSON; raises ValueError where it cannot be masked.
Mask = Callable[[bytes], Masked]
Report = Callable[[int, int], None]
_Place = tuple[str, str]


class DatasetBuilder:
    """Builds one dataset.

    Args:
        by: who builds it, in words.
        read_messages: tells an exchange as a conversation.
        mask: masks the secrets in JSON.
    """

    def __init__(
        self,
        custody: Custody,
        out: Path,
        *,
        reason: str,
        by: str,
        read_messages: ReadMessages,
        mask: Mask,
        sessions_in_a_part: int = SESSIONS_IN_A_PART,
    ) -> None:
        self._custody = custody
        self._out = out
        self._by = by
        self._read_messages = read_messages
        self._mask = mask
        self._sessions_in_a_part = sessions_in_a_part
        self._told: set[str] = set()
        self._names: dict[_Place, str] = {}
        load_arrow()
        self._building = _open_folder(custody, out, check_reason(reason))

    def build(self, report: Report = lambda done, total: None) -> Manifest:
        """Write the parts that are missing, and then the manifest.

        What was to go while it was written is taken out before this returns.

        Args:
            report: told how many sessions are done, and of how many.
        """
        id = self._building.build
        with holding_copy(self._custody.home, id):
            now_ms = self._custody.now_ms()
            register(self._custody.vault, id, Kind.DATASET, None, self._out, Maker(self._by), now_ms)
            manifest = self._build(report)
        if self._custody.follow_copies({id}).reached:
            return read(self._out / MANIFEST, Manifest) or manifest
        return manifest

    def _build(self, report: Report) -> Manifest:
        total = _count_sessions(self._custody)
        parts: list[Part] = []
        done = 0
        while True:
            number, after = len(parts), parts[-1].upto if parts else None
            part = self._take_up(number, after) or self._write_next(number, after)
            if part is None:
                break
            parts.append(part)
            done += part.sessions
            report(done, max(done, total))
        self._write_stale_anew(parts)
        return self._finish(parts)

    def _take_up(self, number: int, after: _Place | None) -> Part | None:
        """Return a part that an earlier run has written, if it is whole."""
        part = read(self._out / name_facts(number), Part)
        if part is None or part.after != after:
            return None
        path = self._out / name_part(number)
        if part.file is not None and (not path.exists() or digest_file(path) != part.file.sha256):
            return None
        return part

    def _write_next(self, number: int, after: _Place | None) -> Part | None:
        places = _list_places(self._custody, after, limit=self._sessions_in_a_part)
        return self._write(number, after, places) if places else None

    def _write(self, number: int, after: _Place | None, places: list[_Place]) -> Part:
        (self._out / name_facts(number)).unlink(missing_ok=True)
        (self._out / name_part(number)).unlink(missing_ok=True)
        accounts = {account.id: account for account in self._custody.directory.all()}
        standings: dict[str, Standing] = {}
        part = Part(after, places[-1], len(places), Counts(), {}, [], None)
        bases: dict[str, Basis] = {}
        with ItemWriter(self._out / name_part(number)) as writer:
            for account, session in places:
                if account in accounts and account not in standings:
                    standings[account] = read_standing(self._custody, accounts[account])
                standing = standings.get(account)
                before = writer.count
                self._add_session(writer, part, number, account, session, standing)
                if standing is not None and writer.count > before:
                    bases[account] = self._basis(account, standing)
        part.bases = list(bases.values())
        if writer.count:
            path = self._out / name_part(number)
            part.file = File(path.name, digest_file(path), path.stat().st_size, writer.count)
        replace_file(self._out / name_facts(number), encode(part))
        return part

    def _add_session(
        self,
        writer: ItemWriter,
        part: Part,
        number: int,
        account: str,
        session: str,
        standing: Standing | None,
    ) -> None:
        exchanges = _list_exchanges(self._custody, account, session)
        if None in exchanges:
            part.counts.exclude(Why.NOT_HELD, len(exchanges[None]))
        masks: dict[bytes, Masked] = {}
        table = tables.segments
        with self._custody.vault.connect() as connection:
            query = select_segments().where(table.c.account == account, table.c.session == session)
            segments = connection.execute(query.order_by(table.c.day, table.c.number)).all()
        for segment in segments:
            of_segment = {row.id: row for row in exchanges.get(segment.number, [])}
            why = judge(segment, standing, self._custody.today())
            if why is not None or standing is None:
                if of_segment:
                    part.counts.exclude(why or Why.NO_CONSENT, len(of_segment))
                continue
            self._tell_holder(account)
            enter(self._custody.vault, self._building.build, [segment.id], part=number)
            for transcript in self._open(segment):
                row = of_segment.pop(transcript.exchange, None)
                if row is not None:
                    self._add(writer, part, segment, row, transcript, standing, masks)
            if of_segment:
                part.counts.exclude(Why.UNREADABLE, len(of_segment))

    def _open(self, segment: Any) -> Iterator[Transcript]:
        """Give what of a segment opens."""
        try:
            yield from read_session(
                self._custody.vault,
                self._custody.keystore,
                segment.account,
                segment.session,
                today=self._custody.today(),
                segment=segment.number,
            )
        except Problem:
            return

    def _add(
        self,
        writer: ItemWriter,
        part: Part,
        segment: Any,
        row: Any,
        transcript: Transcript,
        standing: Standing,
        masks: dict[bytes, Masked],
    ) -> None:
        if row.started_ms < standing.since_ms:
            part.counts.exclude(Why.BEFORE_CONSENT)
            return
        told = self._read_messages(transcript) if row.status is not None and row.status < 300 else None
        if told is None:
            part.counts.exclude(Why.NO_CONVERSATION)
            return
        try:
            # A conversation repeats itself every turn: each message is looked through once a session.
            for text in (told.system, told.tools, *told.messages, told.answer):
                if text not in masks:
                    masks[text] = self._mask(text)
        except ValueError:
            part.counts.exclude(Why.UNREADABLE)
            return
        system, tools, answer = masks[told.system], masks[told.tools], masks[told.answer]
        messages = [masks[message] for message in told.messages]
        kinds: Counter[str] = Counter(part.masked)
        secrets = 0
        for masked in (system, tools, *messages, answer):
            kinds.update(masked.kinds)
            secrets += sum(masked.kinds.values())
        part.masked = dict(kinds)
        part.counts.looked_at += 1
        part.counts.items += 1
        joined = "[" + ",".join(message.text for message in messages) + "]"
        writer.add(
            {
                "item": name_item(segment.id, row.id),
                "segment": commit_segment(segment.id),
                "account": self._name(segment.account),
                "session": self._name(segment.account, segment.session),
                "started": row.started_ms,
                "expires_on": segment.expires_on,
                "state": row.state,
                "model": row.model,
                "system": system.text,
                "tools": tools.text,
                "messages": joined,
                "blocks": [hashlib.sha256(message.text.encode()).hexdigest()[:32] for message in messages],
                "answer": answer.text,
                "secrets_masked": secrets,
            },
            len(system.text) + len(tools.text) + len(joined) + len(answer.text),
        )

    def _tell_holder(self, account: str) -> None:
        """Record, before the first content of an account is read, that this build reads it."""
        if account not in self._told:
            self._custody.record_access(
                account, None, reader=self._by, purpose="dataset", reason=self._building.reason
            )
            self._told.add(account)

    def _write_stale_anew(self, parts: list[Part]) -> None:
        """Write parts anew that hold what may not be in it any more."""
        while True:
            files = {part.file.name: number for number, part in enumerate(parts) if part.file}
            stale = {gone.file for gone in find_gone(self._custody, [self._out / name for name in files])}
            for name in sorted(stale):
                number = files[name]
                old = parts[number]
                places = _list_places(self._custody, old.after, upto=old.upto) or [old.upto]
                parts[number] = self._write(number, old.after, places)
            if not stale:
                return

    def _finish(self, parts: list[Part]) -> Manifest:
        counts, masked = Counts(), Counter[str]()
        bases: dict[str, Basis] = {}
        for part in parts:
            counts.looked_at += part.counts.looked_at
            counts.items += part.counts.items
            for why, count in part.counts.excluded.items():
                counts.excluded[why] = counts.excluded.get(why, 0) + count
            masked.update(part.masked)
            bases.update({basis.account: basis for basis in part.bases})
        manifest = Manifest(
            version=VERSION,
            build=self._building.build,
            begun_at=tell_moment(self._building.begun_ms),
            built_at=tell_moment(self._custody.now_ms()),
            purpose=PURPOSE,
            reason=self._building.reason,
            checkpoint=self._building.checkpoint,
            counts=counts,
            masked=dict(sorted(masked.items())),
            consents=[bases[account] for account in sorted(bases)],
            columns=schema().names,
            files=[part.file for part in parts if part.file],
        )
        data = encode(manifest)
        digest = hashlib.sha256(data).hexdigest()
        # The ledger first: a manifest that it does not tell of is one that somebody else wrote.
        self._custody.record_dataset(self._building.build, digest, counts.items, builder=self._by)
        replace_file(self._out / MANIFEST, data)
        confirm(self._custody.vault, self._building.build, digest)
        for path in [*self._out.glob("part-*.json"), *self._out.glob("*.new"), self._out / BUILDING]:
            path.unlink()
        return manifest

    def _basis(self, account: str, standing: Standing) -> Basis:
        return Basis(self._name(account), standing.basis.value, tell_moment(standing.since_ms))

    def _name(self, account: str, session: str = "") -> str:
        of = f"dataset {self._building.build} {session}"
        if (account, of) not in self._names:
            self._names = {(account, of): self._custody.pseudonyms.name(account, of)[:32]}
        return self._names[account, of]


def _open_folder(custody: Custody, out: Path, reason: str) -> Building:
    """Begin a build in an empty folder, or take up the one in it.

    Raises:
        Problem: the folder holds something else, or a build that was begun for another reason.
    """
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    building = read(out / BUILDING, Building)
    if building is None:
        if {path.name for path in out.iterdir()} - {f"{BUILDING}.new"}:  # which is there if killed at once
            raise Problem(
                "the folder is not empty, and holds no interrupted build",
                where=str(out),
                fix="name a new folder with --out",
            )
        out.chmod(0o700)
        custody.settle()
        build = custody.draw()
        building = Building(build, reason, custody.now_ms(), custody.log.note().decode())
        replace_file(out / BUILDING, encode(building))
    elif building.reason != reason:
        raise Problem(
            "the interrupted build in this folder was begun for another reason",
            where=str(out),
            fix=f"go on with --reason {building.reason!r}, or name a new folder",
        )
    return building


def _count_sessions(custody: Custody) -> int:
    with custody.vault.connect() as connection:
        count: int = connection.execute(
            sa.select(sa.func.count()).select_from(_places().subquery())
        ).scalar_one()
    return count


def _places() -> "sa.Select[Any]":
    c = tables.exchanges.c
    return sa.select(c.account, c.session).where(c.flow == FlowId.MESSAGES.value).distinct()


def _list_places(
    custody: Custody, after: _Place | None, *, upto: _Place | None = None, limit: int | None = None
) -> list[_Place]:
    """Return accounts and sessions in order."""
    c = tables.exchanges.c
    query = _places().order_by(c.account, c.session).limit(limit)
    place = sa.tuple_(c.account, c.session)
    if after is not None:
        query = query.where(place > sa.tuple_(*after))
    if upto is not None:
        query = query.where(place <= sa.tuple_(*upto))
    with custody.vault.connect() as connection:
        return [(row.account, row.session) for row in connection.execute(query)]


def _list_exchanges(custody: Custody, account: str, session: str) -> dict[int | None, list[Any]]:
    """Return a session's exchanges by the number of their segments."""
    c = tables.exchanges.c
    query = sa.select(c.id, c.segment, c.started_ms, c.model, c.state, c.status)
    query = query.where(c.account == account, c.session == session, c.flow == FlowId.MESSAGES.value)
    found: dict[int | None, list[Any]] = {}
    with custody.vault.connect() as connection:
        for row in connection.execute(query.order_by(c.id)):
            found.setdefault(row.segment, []).append(row)
    return found

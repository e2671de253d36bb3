"""What may be in a dataset now, and why the rest may not."""

from datetime import date
from enum import StrEnum
from typing import Any

import msgspec
import sqlalchemy as sa

from bailee.accounts.consents import list_changes
from bailee.accounts.people import Account, Kind
from bailee.ledger.entries import commit_segment
from bailee.policy.flows import FlowId
from bailee.policy.plans import is_consumer
from bailee.vault import tables
from bailee.vault.custody import Custody
from bailee.vault.holds import is_held
from bailee.vault.terms import terms_of

SEGMENTS_AT_A_TIME = 10_000


class Why(StrEnum):
    """Why something is not, or is no longer to be, in a dataset.

    Attributes:
        ERASED: somebody had it erased.
        EXPIRED: its time is over.
        HELD_ONLY: its time is over, and only a legal hold keeps it: for the law, not for training.
        ZDR: the account has zero data retention now.
        NO_CONSENT: no consent to training is in force for the account now.
        NOT_TRAINABLE: the terms it is held under say so: no consent when it was said, or one ended since.
        BEFORE_CONSENT: said before the consent that is in force now was given.
        NOT_HELD: its content was never held.
        UNREADABLE: a record of its segment was altered, or its key is not there.
        NO_CONVERSATION: no request and answer of a conversation, such as an error or a count of tokens.
        UNKNOWN: the vault does not hold it, and the ledger does not tell where it went.
    """

    ERASED = "erased"
    EXPIRED = "expired"
    HELD_ONLY = "held_only"
    ZDR = "zero_data_retention"
    NO_CONSENT = "no_consent"
    NOT_TRAINABLE = "not_trainable"
    BEFORE_CONSENT = "before_consent"
    NOT_HELD = "not_held"
    UNREADABLE = "unreadable"
    NO_CONVERSATION = "no_conversation"
    UNKNOWN = "unknown"


class Standing(msgspec.Struct, frozen=True):
    """What an account's consents say of training now.

    Attributes:
        basis: the consent it rests on.
        is_given: whether that is in force, and lets anything be trained on.
        since_ms: since when without a break, milliseconds since 1970 UTC; 0 if it is not.
    """

    basis: Kind
    is_given: bool
    zdr: bool
    since_ms: int


class Judged(msgspec.Struct, frozen=True):
    """What is to be said of a segment: why not, or None; and since when consent is in force."""

    why: Why | None
    since_ms: int


def read_standing(custody: Custody, account: Account) -> Standing:
    """Return the standing of an account as its consents are recorded now."""
    basis = Kind.TRAINING if is_consumer(account.plan) else Kind.DPP
    since = 0
    for change in list_changes(custody.directory, account):
        if change.kind is basis and change.given is not change.was:
            since = change.at_ms if change.given else 0
    return Standing(basis, terms_of(account, FlowId.MESSAGES).trainable, account.zdr, since)


def select_segments() -> "sa.Select[Any]":
    """Return the query for segments with what `judge` looks at."""
    return sa.select(tables.segments, is_held().label("is_held"))


def judge(segment: Any, standing: Standing | None, today: date) -> Why | None:
    """Return why a segment may not be in a dataset; None if it may.

    Args:
        segment: a row of `select_segments`.
        standing: that of its account; None where the account is gone.
    """
    if segment.expires_on == tables.ERASED:
        return Why.ERASED
    if segment.is_destroyed:
        return Why.EXPIRED
    if segment.expires_on is not None and segment.expires_on <= today:
        return Why.HELD_ONLY if segment.is_held else Why.EXPIRED
    if standing is not None and standing.zdr:
        return Why.ZDR
    if standing is None or not standing.is_given:
        return Why.NO_CONSENT
    return None if segment.trainable else Why.NOT_TRAINABLE


def judge_segments(custody: Custody, wanted: set[bytes]) -> dict[bytes, Judged]:
    """Judge segments by the ledger's name for them; those that the vault does not hold are left out.

    The whole table of segments is read, for the names are hashes of ids: cost follows what the vault holds.
    """
    table = tables.segments
    today = custody.today()
    accounts = {account.id: account for account in custody.directory.all()}
    standings: dict[str, Standing] = {}
    judged: dict[bytes, Judged] = {}
    after = -1
    while wanted:
        query = sa.select(table.c.number, table.c.id).where(table.c.number > after).order_by(table.c.number)
        with custody.vault.connect() as connection:
            some = connection.execute(query.limit(SEGMENTS_AT_A_TIME)).all()
            if not some:
                break
            after = some[-1].number
            names = {row.number: bytes.fromhex(commit_segment(row.id)) for row in some}
            found = [number for number, name in names.items() if name in wanted]
            rows = connection.execute(select_segments().where(table.c.number.in_(found))).all()
        for row in rows:
            if row.account in accounts and row.account not in standings:
                standings[row.account] = read_standing(custody, accounts[row.account])
            standing = standings.get(row.account)
            since = standing.since_ms if standing else 0
            judged[names[row.number]] = Judged(judge(row, standing, today), since)
    return judged

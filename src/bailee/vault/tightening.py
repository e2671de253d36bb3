"""What a change of settings means for what is held already: told before it is made, applied once it is."""

from collections.abc import Iterable
from datetime import date

import msgspec

from bailee.accounts.people import Account
from bailee.policy.flows import FlowId
from bailee.policy.periods import Period, tighten
from bailee.vault import tables
from bailee.vault.ceilings import HELD
from bailee.vault.custody import Custody
from bailee.vault.disks import tighten_disks
from bailee.vault.kinds import Held
from bailee.vault.sweeping import sweep
from bailee.vault.terms import terms_of


class Preview(msgspec.Struct, frozen=True):
    """What would become of what is held, in segments: days of sessions.

    Attributes:
        held: how many there are.
        untrained: how many may train models now, and would not.
        shortened: how many would be held for less long, those that would go at once among them.
        gone: how many would go at once.
        last_before, last_after: when the last of what is there goes, but for what is kept; None where nothing
            is held, or without end.
        kept: how many a legal hold keeps, whatever becomes of their terms; none of them is in `gone`.
        waiting: how many of those it would have go as soon as the hold is released.
        overdue: how many of those go then in any case.
        at_work: disks of cloud sessions that run, whose time begins when they end.
    """

    held: int
    untrained: int
    shortened: int
    gone: int
    last_before: date | None
    last_after: date | None
    kept: int = 0
    waiting: int = 0
    overdue: int = 0
    at_work: int = 0


def preview(held: Iterable[tuple[Account, Held]], today: date) -> Preview:
    """Return what it would mean for what accounts hold if they were as they are given here."""
    count = untrained = shortened = gone = kept = waiting = overdue = at_work = 0
    before: list[date | None] = []
    after: list[date | None] = []
    for account, holds in held:
        ceilings = {flow.value: terms_of(account, flow) for flow in HELD}
        # Disks of cloud sessions are held as conversations are; one at work has no day yet.
        ceilings[tables.DISKS] = ceilings[FlowId.MESSAGES.value]
        for kind in holds.kinds:
            ceiling = ceilings.get(kind.flow)
            ends = kind.expires_on
            if kind.flow == tables.DISKS and kind.is_kept:
                # It has no day as long as it is kept.
                ends = Period.parse(kind.retention, where="vault.db").expires_on(kind.day)
            is_at_work = kind.flow == tables.DISKS and ends is None
            is_due = ends is not None and ends <= today
            if ceiling is None or (is_due and not kind.is_kept):
                continue
            period = tighten(Period.parse(kind.retention, where="vault.db"), ceiling.retention)
            expiry = None if is_at_work else _sooner(ends, period.expires_on(kind.day))
            count += kind.count
            untrained += kind.count if kind.trainable and not ceiling.trainable else 0
            is_gone = expiry is not None and expiry <= today
            if kind.is_kept:
                kept += kind.count
                waiting += kind.count if is_gone and not is_due else 0
                overdue += kind.count if is_due else 0
                continue
            if is_at_work:
                at_work += kind.count
                continue
            shortened += kind.count if expiry != kind.expires_on else 0
            gone += kind.count if is_gone else 0
            before.append(kind.expires_on)
            if not is_gone:
                after.append(expiry)
    return Preview(
        count, untrained, shortened, gone, _last(before), _last(after), kept, waiting, overdue, at_work
    )


def bring_into_force(custody: Custody, accounts: Iterable[Account]) -> int:
    """Apply what was tightened to what these accounts hold, at once; return how many segments changed.

    What is to go by it is destroyed before this returns, and not when the service sweeps next.
    """
    changed = 0
    for account in accounts:
        changed += custody.tighten(account)
        changed += tighten_disks(custody.vault, account.id, terms_of(account, FlowId.MESSAGES).retention)
    custody.settle()
    if changed:
        sweep(custody, is_thorough=False)
    return changed


def _sooner(held: date | None, limit: date | None) -> date | None:
    if limit is None:
        return held
    return limit if held is None else min(held, limit)


def _last(days: list[date | None]) -> date | None:
    known = [day for day in days if day is not None]
    return max(known) if known and len(known) == len(days) else None

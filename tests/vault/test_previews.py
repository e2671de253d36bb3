"""What a change is told to do to what is held, before it is made: exactly what it then does.

Told is compared with a model that goes by days: of each segment it asks, day by day of a calendar, whether
it is still there.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from bailee.accounts.people import Account, Kind
from bailee.accounts.tables import Role
from bailee.policy.periods import Period
from bailee.policy.plans import Plan
from bailee.vault import tables
from bailee.vault.kinds import Held, read_held
from bailee.vault.kinds import Kind as KindOfSegments
from bailee.vault.tightening import Preview, bring_into_force, preview
from counterparts.keeping import Keeping

TODAY = date(2026, 5, 4)
CALENDAR = [TODAY + timedelta(days) for days in range(-60, 500)]


class Change(msgspec.Struct, frozen=True):
    """What is in force for an account after it: limits in days (0 is none), and switches."""

    plan: Plan
    training: bool
    zdr: bool
    dpp: bool
    own: int | None
    organization: int | None

    def to_account(self) -> Account:
        """Return an account of which that is in force."""

        def write(days: int | None) -> Period | None:
            return None if days is None else Period.days(days) if days else Period.parse("none")

        return Account(
            id="one",
            name="ada",
            plan=self.plan,
            organization=None if self.plan is Plan.PRO else "acme",
            role=None if self.plan is Plan.PRO else Role.MEMBER,
            training=self.training,
            dpp=self.dpp,
            zdr=self.zdr,
            retention=write(self.own),
            organization_retention=write(self.organization),
        )

    def count_days(self, flow: str) -> int:
        """Return for how many days at most something of a flow is held."""
        if self.zdr and flow in ("messages", "feedback"):
            return 0
        years = flow == "feedback" or (flow == "messages" and self.plan is Plan.PRO and self.training)
        own = [limit for limit in (self.own, self.organization) if limit is not None]
        return min([5 * 365 if years else 30, *own])

    def may_train(self, flow: str) -> bool:
        """Tell whether something of a flow may train."""
        is_consented = self.training if self.plan is Plan.PRO else self.dpp
        return flow == "messages" and is_consented and self.count_days(flow) > 0


# Ages and periods that meet are drawn often: a segment goes on the very day, or the day before or after.
NEAR = (1, 7, 29, 30, 31)
limits = st.sampled_from((None, 0, *NEAR)) | st.integers(1, 90)
changes = st.builds(
    Change,
    plan=st.just(Plan.PRO),
    training=st.booleans(),
    zdr=st.just(False),
    dpp=st.just(False),
    own=limits,
    organization=st.none(),
) | st.builds(
    Change,
    plan=st.just(Plan.TEAM),
    training=st.just(False),
    zdr=st.booleans(),
    dpp=st.booleans(),
    own=limits,
    organization=limits,
)
# Periods in days alone, so that the model needs to know of no years. What goes sooner than its period has it
# does not go later by a change.
kinds = st.builds(
    lambda flow, ago, days, sooner, trainable, many, kept: KindOfSegments(
        flow,
        TODAY - timedelta(ago),
        f"{days + sooner}d",
        TODAY - timedelta(ago) + timedelta(days),
        trainable and flow == "messages",
        many,
        kept,
    ),
    st.sampled_from(["messages", "feedback", "metrics", "web"]),
    st.sampled_from((0, *NEAR)) | st.integers(0, 50),
    st.sampled_from(NEAR) | st.integers(1, 400),
    st.sampled_from((0, 0, 3)),
    st.booleans(),
    st.integers(1, 5),
    st.booleans(),
)


def is_there(kind: KindOfSegments, change: Change | None, day: date) -> bool:
    """Tell whether a segment that no hold keeps is there on a day, as it is or as a change would have it."""
    assert kind.expires_on is not None
    age, days = (day - kind.day).days, (kind.expires_on - kind.day).days
    return age < (days if change is None else min(days, change.count_days(kind.flow)))


def model(held: list[tuple[Change, list[KindOfSegments]]]) -> Preview:
    """Return what a change does, counted segment by segment and day by day."""
    each = [(change, kind) for change, kinds in held for kind in kinds for _ in range(kind.count)]
    # What is over already is not held any more, unless a hold keeps it.
    each = [(change, kind) for change, kind in each if kind.is_kept or is_there(kind, None, TODAY)]
    free = [(change, kind) for change, kind in each if not kind.is_kept]

    def list_days(*, is_changed: bool) -> list[date]:
        """Return the days on which something is there."""
        return [
            day
            for day in CALENDAR
            if day >= TODAY
            and any(is_there(kind, change if is_changed else None, day) for change, kind in free)
        ]

    def end(days: list[date]) -> date | None:
        return days[-1] + timedelta(1) if days else None

    return Preview(
        held=len(each),
        untrained=sum(kind.trainable and not change.may_train(kind.flow) for change, kind in each),
        shortened=sum(
            any(is_there(kind, None, day) and not is_there(kind, change, day) for day in CALENDAR)
            for change, kind in free
        ),
        gone=sum(not is_there(kind, change, TODAY) for change, kind in free),
        last_before=end(list_days(is_changed=False)),
        last_after=end(list_days(is_changed=True)),
        kept=len(each) - len(free),
        waiting=sum(
            is_there(kind, None, TODAY) and not is_there(kind, change, TODAY)
            for change, kind in each
            if kind.is_kept
        ),
        overdue=sum(not is_there(kind, None, TODAY) for _, kind in each if kind.is_kept),
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(changes, st.lists(kinds, max_size=6)), max_size=3))
def test_a_change_is_told_as_a_calendar_has_it(held: list[tuple[Change, list[KindOfSegments]]]) -> None:
    """Over segments of several accounts, flows, days and terms, held or not: every number, and both days."""
    told = preview([(change.to_account(), Held(kinds, {})) for change, kinds in held], TODAY)
    assert told == model(held)


@given(changes)
def test_the_last_day_is_none_where_something_has_no_end(change: Change) -> None:
    """Of what is held without end there is no last day; under a change that ends it there is."""
    endless = KindOfSegments("messages", TODAY, "unlimited", None, False, 1)
    short = KindOfSegments("messages", TODAY, "1d", TODAY + timedelta(1), False, 1)
    told = preview([(change.to_account(), Held([endless, short], {}))], TODAY)
    assert told.last_before is None
    days = change.count_days("messages")
    if 0 < days < 400:
        assert told.last_after == TODAY + timedelta(days)


# --- What is told, and what is then done ---


@pytest.fixture
def keeping(tmp_path: Path, database: str) -> Iterator[Keeping]:
    """Give a home of a consumer and a member, each with sessions of different days, flows and terms."""
    opened = Keeping(tmp_path / "home")
    directory = opened.custody.directory
    directory.add("ada", Plan.PRO)
    directory.add("boss", Plan.TEAM, organization="acme")
    directory.add("bob", Plan.TEAM, organization="acme")
    for number, day in enumerate((1, 11, 21, 25), 1):
        opened.go_to(date(2026, 5, day))
        directory.consent("ada", given=number % 2 == 0)
        for name in ("ada", "bob"):
            opened.record(name, f"session-{number}")
            if number > 1:
                opened.record(name, f"report-{number}", flow="feedback")
            opened.record(name, f"key-{number}", flow="metrics")
    yield opened
    opened.close()


def read_segments(keeping: Keeping, account: Account) -> dict[int, tuple[date, bool]]:
    """Return when each segment of an account goes, and whether it may train, those that are gone left out."""
    table = tables.segments
    query = sa.select(table.c.number, table.c.expires_on, table.c.trainable)
    query = query.where(table.c.account == account.id, table.c.is_destroyed.is_(False))
    with keeping.custody.vault.connect() as connection:
        return {row.number: (row.expires_on, bool(row.trainable)) for row in connection.execute(query)}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("ada", "training"),
        ("bob", "zdr"),
        ("ada", "1826d"),  # of five years with a leap day in them: see `tighten`
        *((name, period) for name in ("ada", "bob") for period in ("none", "1d", "4d", "14d", "15d", "40d")),
    ],
)
def test_what_is_told_is_what_is_done(keeping: Keeping, name: str, what: str) -> None:
    """So many segments go, are held for less long and stop training as was told, and the last of them goes on
    the day that was told.
    """
    directory, custody = keeping.custody.directory, keeping.custody
    account = directory.get(name)
    before, held = read_segments(keeping, account), read_held(custody.vault, account.id)
    if what == "zdr":
        wished = msgspec.structs.replace(account, zdr=True)
        directory.decide_for_organization("acme", Kind.ZDR, given=True, by="boss")
    elif what == "training":
        wished = msgspec.structs.replace(account, training=False)
        directory.consent(name, given=False)
    else:
        wished = msgspec.structs.replace(account, retention=Period.parse(what))
        directory.limit_account(name, Period.parse(what))
    told = preview([(wished, held)], keeping.today)
    bring_into_force(custody, [directory.get(name)])
    after = read_segments(keeping, account)
    gone = before.keys() - after.keys()
    # Under a limit what goes at once is told as gone; under other terms as training no more as well.
    ended = [number for number in after if before[number][1] and not after[number][1]]
    if what in ("none", "zdr", "training"):
        ended += [number for number in gone if before[number][1]]
    sooner = [number for number in after if after[number][0] < before[number][0]]
    assert told == Preview(
        held=len(before),
        untrained=len(ended),
        shortened=len(gone) + len(sooner),
        gone=len(gone),
        last_before=max(end for end, _ in before.values()),
        last_after=max((end for end, _ in after.values()), default=None),
    )
    # Each of the changes does something, so that none of the numbers is told where nothing is.
    assert (what == "40d" and name == "bob") or ended or gone or sooner

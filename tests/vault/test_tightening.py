"""Stricter terms reach what is held already, at once; looser ones only what comes later."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import msgspec
import pytest

from bailee.accounts.people import Account, Kind
from bailee.ledger.entries import ConsentChanged, ConsentRefused, TermsTightened, decode_entry, encode_entry
from bailee.policy.flows import FlowId
from bailee.policy.periods import NONE, Period
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.vault import custody as keeping_custody
from bailee.vault import writer as writing
from bailee.vault.ceilings import HELD, Ceiling, end, lower, read_latest, read_latest_each
from bailee.vault.disks import begin_disk, set_terms, tighten_disks
from bailee.vault.disks import read_held as read_disks
from bailee.vault.holds import Hold, count_freed
from bailee.vault.kinds import read_held, sum_up
from bailee.vault.sweeping import sweep
from bailee.vault.terms import terms_of
from bailee.vault.tightening import Preview, bring_into_force, preview
from counterparts.keeping import Keeping

FIVE_YEARS = ("5y", date(2031, 5, 4), True)
THIRTY_DAYS = ("30d", date(2026, 6, 3), False)
REPORT = ("5y", date(2031, 5, 4), False)


@pytest.fixture
def keeping(tmp_path: Path, database: str) -> Iterator[Keeping]:
    """Give a home with a consumer who allows training, and an organization of two."""
    opened = Keeping(tmp_path / "home")
    directory = opened.custody.directory
    directory.add("ada", Plan.PRO)
    directory.consent("ada", given=True)
    directory.add("boss", Plan.TEAM, organization="acme")
    directory.add("bob", Plan.TEAM, organization="acme")
    yield opened
    opened.close()


def test_training_switched_off_shortens_what_is_held(keeping: Keeping) -> None:
    """Five years become thirty days counted from the day of writing, and nothing held may train."""
    said = keeping.record("ada")
    assert keeping.terms("ada") == [FIVE_YEARS]
    keeping.custody.directory.consent("ada", given=False)
    assert keeping.tighten("ada") == 1
    assert keeping.terms("ada") == [THIRTY_DAYS]
    keeping.go_to(date(2026, 6, 2))
    sweep(keeping.custody)
    assert keeping.read("ada") == {said}
    keeping.go_to(date(2026, 6, 3))
    assert sweep(keeping.custody).keys_destroyed == 1
    assert keeping.read("ada") == set()


def test_training_switched_on_again_changes_only_what_comes(keeping: Keeping) -> None:
    """Off and on: what was held stays shortened, what comes is kept five years, in one session and day."""
    keeping.record("ada")
    keeping.custody.directory.consent("ada", given=False)
    keeping.tighten("ada")
    keeping.custody.directory.consent("ada", given=True)
    assert keeping.tighten("ada") == 0
    keeping.record("ada")
    assert sorted(keeping.terms("ada")) == sorted([THIRTY_DAYS, FIVE_YEARS])


def test_what_was_admitted_before_comes_under_it_after(keeping: Keeping) -> None:
    """A request admitted under the old consent and written after the new one has the stricter terms."""
    admitted = keeping.admit(keeping.custody.directory.get("ada"), "session-1", b"said")
    keeping.now += 1
    keeping.custody.directory.consent("ada", given=False)
    keeping.tighten("ada")
    keeping.write(admitted)
    assert keeping.terms("ada") == [THIRTY_DAYS]


def test_control_without_the_late_look(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: with the look at ceilings taken out, the same request is kept five years."""
    monkeypatch.setattr(writing, "cover_late", lambda connection, begun: None)
    admitted = keeping.admit(keeping.custody.directory.get("ada"), "session-1", b"said")
    keeping.now += 1
    keeping.custody.directory.consent("ada", given=False)
    keeping.tighten("ada")
    keeping.write(admitted)
    assert keeping.terms("ada") == [FIVE_YEARS]


@pytest.mark.parametrize("is_held_in_memory", [True, False])
def test_what_was_admitted_before_two_changes_comes_under_the_stricter(
    keeping: Keeping, is_held_in_memory: bool
) -> None:
    """An upload that began before training went off, and ended after it was on again, keeps thirty days.

    It does not join the segment that its session began in between, nor does anything join its own.
    """
    admitted = keeping.admit(keeping.custody.directory.get("ada"), "session-1", b"said")
    switch_twice(keeping)
    if not is_held_in_memory:
        keeping.reopen_writer()
    keeping.write(admitted)
    keeping.record("ada")
    assert sorted(keeping.terms("ada")) == sorted([THIRTY_DAYS, FIVE_YEARS])


def test_control_where_late_ones_join(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: joining what its session writes in now, the same upload is kept five years."""
    monkeypatch.setattr(writing.VaultWriter, "_is_late", lambda self, frame: False)
    admitted = keeping.admit(keeping.custody.directory.get("ada"), "session-1", b"said")
    switch_twice(keeping)
    keeping.write(admitted)
    assert keeping.terms("ada") == [FIVE_YEARS]


def switch_twice(keeping: Keeping) -> None:
    """Switch training off and on again, and go on with the session."""
    for given in (False, True):
        keeping.now += 1
        keeping.custody.directory.consent("ada", given=given)
        keeping.tighten("ada")
    keeping.now += 1
    keeping.record("ada")


def test_what_nobody_applied_the_sweep_applies(keeping: Keeping) -> None:
    """A change whose command died before it reached the vault is applied by the next sweep."""
    keeping.record("ada")
    keeping.custody.directory.consent("ada", given=False)
    assert sweep(keeping.custody).tightened == 1
    assert keeping.terms("ada") == [THIRTY_DAYS]


@pytest.mark.parametrize("whose", ["account", "organization"])
def test_a_shorter_limit_reaches_back(keeping: Keeping, whose: str) -> None:
    """Asked by the holder or the organization, seven days hold for what is there; taking it back does not."""
    keeping.record("bob")
    directory = keeping.custody.directory

    def limit(period: str) -> None:
        if whose == "account":
            directory.limit_account("bob", Period.parse(period))
        else:
            directory.limit_organization("acme", Period.parse(period), by="boss")
        keeping.tighten("bob")

    limit("7d")
    assert keeping.terms("bob") == [("7d", date(2026, 5, 11), False)]
    limit("unlimited")
    assert keeping.terms("bob") == [("7d", date(2026, 5, 11), False)]
    keeping.record("bob")
    assert keeping.terms("bob") == [("30d", date(2026, 6, 3), False), ("7d", date(2026, 5, 11), False)]


def test_zero_data_retention_empties_what_is_held(keeping: Keeping) -> None:
    """Switched on, all that the organization's members hold is due at once; another's is not touched."""
    keeping.record("bob")
    kept = keeping.record("ada")
    keeping.custody.directory.decide_for_organization("acme", Kind.ZDR, given=True, by="boss")
    assert keeping.tighten("bob") == 1
    assert sweep(keeping.custody).keys_destroyed == 1
    assert keeping.read("bob") == set()
    assert keeping.read("ada") == {kept}


def test_leaving_the_partner_program_reaches_back(keeping: Keeping) -> None:
    """What was trainable under it is not any more; how long it is held does not change."""
    directory = keeping.custody.directory
    directory.decide_for_organization("acme", Kind.DPP, given=True, by="boss")
    keeping.record("bob")
    assert keeping.terms("bob") == [("30d", date(2026, 6, 3), True)]
    directory.decide_for_organization("acme", Kind.DPP, given=False, by="boss")
    keeping.tighten("bob")
    assert keeping.terms("bob") == [THIRTY_DAYS]


def test_changes_are_in_the_ledger(keeping: Keeping) -> None:
    """Who changed what for whom, and what it meant for what was held; by pseudonym, the same for the same."""
    keeping.record("ada")
    keeping.custody.directory.consent("ada", given=False)
    keeping.tighten("ada")
    ada = keeping.custody.pseudonyms.name(keeping.custody.directory.get("ada").id)
    changes = [one for one in keeping.entries() if isinstance(one, ConsentChanged)]
    assert [(one.subject, one.by, one.consent, one.given) for one in changes] == [
        (ada, ada, "training", True),
        (ada, ada, "training", False),
    ]
    (tightened,) = [one for one in keeping.entries() if isinstance(one, TermsTightened)]
    assert (tightened.subject, tightened.retention, tightened.segments) == (ada, "30d", 1)


Ask = Callable[[Keeping], object]
REFUSED: dict[str, Ask] = {
    "zdr": lambda k: k.custody.directory.decide_for_organization("acme", Kind.ZDR, given=True, by="bob"),
    "dpp": lambda k: k.custody.directory.decide_for_organization("acme", Kind.DPP, given=True, by="bob"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_members_change_is_refused_and_ledgered(keeping: Keeping, kind: str) -> None:
    """Only an admin decides; that somebody else tried is on record."""
    with pytest.raises(Problem):
        REFUSED[kind](keeping)
    (refused,) = [one for one in keeping.entries() if isinstance(one, ConsentRefused)]
    bob = keeping.custody.pseudonyms.name(keeping.custody.directory.get("bob").id)
    assert (refused.consent, refused.given, refused.by) == (kind, True, bob)
    assert not keeping.custody.directory.get("bob").zdr
    assert not keeping.custody.directory.get("bob").dpp


@pytest.mark.parametrize("is_thorough", [True, False], ids=["mended", "control"])
def test_looser_terms_that_nobody_noted_are_reached_back_over(keeping: Keeping, is_thorough: bool) -> None:
    """Terms loosened by a command that was killed, used, and tightened again: what is held comes under them.

    Control: going by the terms applied last alone, it does not.
    """
    directory, custody = keeping.custody.directory, keeping.custody
    directory.consent("ada", given=False)
    keeping.tighten("ada")
    directory.consent("ada", given=True)  # and killed before anything was brought under it
    keeping.record("ada")
    directory.consent("ada", given=False)
    assert custody.tighten(directory.get("ada"), is_thorough=is_thorough) == int(is_thorough)
    assert keeping.terms("ada") == [THIRTY_DAYS if is_thorough else FIVE_YEARS]


# --- Each flow by rules of its own ---


def test_training_switched_off_leaves_reports_their_years(keeping: Keeping) -> None:
    """A report was sent to be kept five years; the consent to train is about conversations."""
    keeping.record("ada", body=b"said")
    keeping.record("ada", "report-1", b"reported", flow="feedback")
    assert sorted(keeping.terms("ada")) == sorted([FIVE_YEARS, REPORT])
    keeping.custody.directory.consent("ada", given=False)
    assert keeping.tighten("ada") == 1
    assert sorted(keeping.terms("ada")) == sorted([THIRTY_DAYS, REPORT])


def test_control_with_the_terms_of_conversations_for_all(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: where every flow comes under the terms of conversations, the report has thirty days."""

    def of_conversations(account: Account, flow: FlowId) -> Ceiling:
        return terms_of(account, FlowId.MESSAGES)

    keeping.record("ada", "report-1", b"reported", flow="feedback")
    monkeypatch.setattr(keeping_custody, "terms_of", of_conversations)
    keeping.custody.directory.consent("ada", given=False)
    keeping.tighten("ada")
    assert keeping.terms("ada") == [THIRTY_DAYS]


@pytest.mark.parametrize("flow", ["feedback", "metrics", "errors"])
@pytest.mark.parametrize("whose", ["account", "organization"])
def test_a_limit_reaches_every_flow(keeping: Keeping, whose: str, flow: str) -> None:
    """Seven days, asked by the holder or the organization, hold for reports and operational data as well."""
    keeping.record("bob", "report-1", b"reported", flow=flow)
    directory = keeping.custody.directory
    if whose == "account":
        directory.limit_account("bob", Period.parse("7d"))
    else:
        directory.limit_organization("acme", Period.parse("7d"), by="boss")
    assert keeping.tighten("bob") == 1
    assert keeping.terms("bob") == [("7d", date(2026, 5, 11), False)]


def test_consents_on_conversations_reach_no_operational_data(keeping: Keeping) -> None:
    """Its thirty days do not rest on a consent to train."""
    keeping.record("ada", "key-1", b"counted", flow="metrics")
    keeping.custody.directory.consent("ada", given=False)
    assert keeping.tighten("ada") == 0
    assert keeping.terms("ada") == [THIRTY_DAYS]


def test_zero_data_retention_empties_reports(keeping: Keeping) -> None:
    """A report is a transcript: under zero data retention none is held, nor written if it comes late."""
    keeping.record("bob", "report-1", b"reported", flow="feedback")
    late = keeping.admit(keeping.custody.directory.get("bob"), "report-2", b"late", "feedback")
    keeping.now += 1
    keeping.custody.directory.decide_for_organization("acme", Kind.ZDR, given=True, by="boss")
    assert keeping.tighten("bob") == 1
    keeping.write(late)
    assert sweep(keeping.custody).keys_destroyed == 2
    assert keeping.read("bob") == set()


def test_a_late_report_comes_under_what_bounds_reports(keeping: Keeping) -> None:
    """Written after training went off it keeps its years; after a limit it has the limit."""
    report = keeping.admit(keeping.custody.directory.get("ada"), "report-1", b"one", "feedback")
    keeping.now += 1
    keeping.custody.directory.consent("ada", given=False)
    keeping.tighten("ada")
    keeping.write(report)
    assert keeping.terms("ada") == [REPORT]
    another = keeping.admit(keeping.custody.directory.get("ada"), "report-2", b"two", "feedback")
    keeping.now += 1
    keeping.custody.directory.limit_account("ada", Period.parse("7d"))
    keeping.tighten("ada")
    keeping.write(another)
    assert keeping.terms("ada") == [("7d", date(2026, 5, 11), False)] * 2


def test_an_erased_account_ends_every_flow(keeping: Keeping) -> None:
    """What comes after its erasure goes, model traffic and reports."""
    ada = keeping.custody.directory.get("ada")
    late = [keeping.admit(ada, "report-1", b"one", "feedback"), keeping.admit(ada, "session-1", b"two")]
    keeping.custody.erase_account(ada, by="ada")
    for admitted in late:
        keeping.write(admitted)
    assert sweep(keeping.custody).keys_destroyed == 2
    assert keeping.custody.keystore.count_held([]) == 0
    assert sweep(keeping.custody).keys_destroyed == 0


def test_the_ledger_names_the_flow_of_what_is_no_conversation(keeping: Keeping) -> None:
    """An entry about conversations is what it was before flows had terms of their own, to the byte."""
    keeping.record("bob", "report-1", b"reported", flow="feedback")
    keeping.record("bob")
    keeping.custody.directory.limit_account("bob", Period.parse("7d"))
    assert keeping.tighten("bob") == 2
    told = [one for one in keeping.entries() if isinstance(one, TermsTightened)]
    assert sorted((one.flow, one.retention, one.segments) for one in told) == [
        ("feedback", "7d", 1),
        ("messages", "7d", 1),
    ]
    old = (
        b'{"kind":"tightened","id":"%s","at_ms":1,"subject":"s","retention":"30d","trainable":false,"segments":2}'
        % (b"0" * 32)
    )
    entry = decode_entry(old)
    assert isinstance(entry, TermsTightened)
    assert entry.flow == "messages"
    assert encode_entry(entry) == old


def test_the_recorder_takes_no_content_whose_terms_nobody_would_tighten(keeping: Keeping) -> None:
    """A flow that is not among those that are tightened is refused, and nothing of it is written."""
    decided, begin = keeping.admit(keeping.custody.directory.get("ada"), "session-1", b"said", "local_cache")
    keeping.writer.take([decided])
    with pytest.raises(Problem, match="nobody would tighten"):
        keeping.writer.take([begin])
    assert keeping.terms("ada") == []


def test_the_latest_ceiling_of_each_flow_is_found(keeping: Keeping) -> None:
    """Also of one that was tightened long before the others were, many times; an erased account has one."""
    account = keeping.custody.directory.get("ada").id
    week = Ceiling(Period.parse("7d"), trainable=False)
    with keeping.custody.vault.begin() as connection:
        assert set(read_latest_each(connection, account).values()) == {None}
        lower(connection, account, FlowId.FEEDBACK, week, at_ms=1)
        for at_ms in range(2, 60):
            lower(connection, account, FlowId.MESSAGES, Ceiling(Period.days(at_ms), False), at_ms=at_ms)
        found = read_latest_each(connection, account)
        assert found == {flow: read_latest(connection, account, flow) for flow in HELD}
        assert (found[FlowId.FEEDBACK], found[FlowId.METRICS]) == (week, None)
        end(connection, account)
        assert set(read_latest_each(connection, account).values()) == {Ceiling(NONE, trainable=False)}


def tell_zero_data_retention(keeping: Keeping) -> Preview:
    """Return what it would mean for what bob holds to have zero data retention."""
    bob = msgspec.structs.replace(keeping.custody.directory.get("bob"), zdr=True)
    return preview([(bob, read_held(keeping.custody.vault, bob.id))], keeping.today)


def test_what_a_hold_keeps_is_not_told_as_gone(keeping: Keeping) -> None:
    """Before a change what a hold keeps is told apart, also once its day is past; after it is released it
    goes. Control: without the hold all of it is told as gone.
    """
    keeping.record("bob", "one")
    keeping.record("bob", "two")
    bob, custody = keeping.custody.directory.get("bob"), keeping.custody
    told = tell_zero_data_retention(keeping)
    assert (told.held, told.gone, told.kept, told.waiting) == (2, 2, 0, 0)
    hold = custody.hold(bob, "one", reason="case 1", by="boss")
    told = tell_zero_data_retention(keeping)
    assert (told.held, told.gone, told.kept, told.waiting) == (2, 1, 1, 1)
    (held,) = sum_up(read_held(custody.vault, bob.id))
    assert (held.segments, held.kept, held.last_expiry) == (2, 1, date(2026, 6, 3))
    custody.directory.decide_for_organization("acme", Kind.ZDR, given=True, by="boss")
    assert bring_into_force(custody, [custody.directory.get("bob")]) == 2
    told = tell_zero_data_retention(keeping)
    assert (told.held, told.gone, told.kept, told.waiting, told.overdue) == (1, 0, 1, 0, 1)
    (held,) = sum_up(read_held(custody.vault, bob.id))
    assert (held.segments, held.kept, held.last_expiry) == (1, 1, None)
    custody.release(hold.id, reason="settled", by="boss")
    assert sweep(custody).keys_destroyed == 1
    assert tell_zero_data_retention(keeping).held == 0


def begin(keeping: Keeping, id: str, *, is_at_work: bool = False) -> bytes:
    """Give bob a cloud session's disk, at rest since today or at work."""
    custody = keeping.custody
    bob = custody.directory.get("bob")
    disk = begin_disk(custody.vault, custody.keystore, bob, id, at_ms=custody.now_ms())
    written = None if is_at_work else keeping.today
    set_terms(custody.vault, disk, terms_of(bob, FlowId.MESSAGES).retention, written)
    return disk


def test_disks_of_cloud_sessions_come_under_it_at_once(keeping: Keeping) -> None:
    """They are told before a change as all else is, and their keys go with it; one at work has no day yet.

    Under a hold all of an account's stay.
    """
    custody = keeping.custody
    disk, busy = begin(keeping, "abc"), begin(keeping, "def", is_at_work=True)
    told = tell_zero_data_retention(keeping)
    assert (told.held, told.gone, told.last_before) == (2, 1, date(2026, 6, 3))
    bob = custody.directory.get("bob")
    keeping.record("bob", "one")
    hold = custody.hold(bob, "one", reason="case 1", by="boss")
    assert tighten_disks(custody.vault, bob.id, NONE) == 0
    custody.release(hold.id, reason="settled", by="boss")
    custody.directory.limit_organization("acme", Period.parse("7d"), by="boss")
    assert bring_into_force(custody, [custody.directory.get("bob")]) == 2
    held = read_disks(custody.vault, [disk, busy])
    assert (held[disk].retention, held[disk].expires_on) == ("7d", date(2026, 5, 11))
    assert held[busy].expires_on is None
    custody.directory.decide_for_organization("acme", Kind.ZDR, given=True, by="boss")
    bring_into_force(custody, [custody.directory.get("bob")])
    assert custody.keystore.get(disk) is None
    assert custody.keystore.get(busy) is not None


def test_a_disk_that_was_never_at_work_is_left_its_first_moment(keeping: Keeping) -> None:
    """Under zero data retention a session that is just beginning keeps its key through a change of settings.

    Control: once it was at work it goes with it.
    """
    custody = keeping.custody
    custody.directory.decide_for_organization("acme", Kind.ZDR, given=True, by="boss")
    bob = custody.directory.get("bob")
    disk = begin_disk(custody.vault, custody.keystore, bob, "abc", at_ms=custody.now_ms())
    bring_into_force(custody, [bob])
    assert custody.keystore.get(disk) is not None
    set_terms(custody.vault, disk, NONE, keeping.today)
    sweep(custody)
    assert custody.keystore.get(disk) is None


def test_disks_under_a_hold_are_told_as_kept(keeping: Keeping) -> None:
    """Any hold of an account keeps its disks, which have no day as long as it does: they are in what is kept,
    and in what its release frees, and go by the day that they were last at work.
    """
    custody = keeping.custody
    disk = begin(keeping, "abc")
    keeping.record("bob", "one")
    bob = custody.directory.get("bob")
    hold = custody.hold(bob, "one", reason="case 1", by="boss")
    for written in (keeping.today, None):  # before the next look at disks, and after it
        set_terms(custody.vault, disk, terms_of(bob, FlowId.MESSAGES).retention, written)
        told = tell_zero_data_retention(keeping)
        assert (told.held, told.gone, told.kept, told.waiting, told.overdue) == (2, 0, 2, 2, 0)
    with custody.vault.connect() as connection:
        assert count_freed(connection, hold, keeping.today) == (2, 0)
    keeping.go_to(date(2026, 7, 4))
    with custody.vault.connect() as connection:
        assert count_freed(connection, hold, keeping.today) == (2, 2)
    told = tell_zero_data_retention(keeping)
    assert (told.kept, told.waiting, told.overdue) == (2, 0, 2)


def test_what_is_overdue_already_is_no_change_of_a_change(keeping: Keeping) -> None:
    """What a hold keeps beyond its day goes with the hold, whatever is switched: it is told apart from what a
    change would have go.
    """
    custody = keeping.custody
    keeping.record("bob", "one")
    custody.hold(custody.directory.get("bob"), None, reason="case 1", by="boss")
    told = tell_zero_data_retention(keeping)
    assert (told.kept, told.waiting, told.overdue) == (1, 1, 0)  # Control
    custody.directory.decide_for_organization("acme", Kind.ZDR, given=True, by="boss")
    bring_into_force(custody, [custody.directory.get("bob")])
    bob = msgspec.structs.replace(custody.directory.get("bob"), zdr=False)
    told = preview([(bob, read_held(custody.vault, bob.id))], keeping.today)
    assert (told.held, told.gone, told.kept, told.waiting, told.overdue) == (1, 0, 1, 0, 1)


def test_what_a_release_frees_is_counted(keeping: Keeping) -> None:
    """What is past its day goes at once, the rest on its day; what another hold covers stays."""
    custody = keeping.custody
    bob = custody.directory.get("bob")
    keeping.record("bob", "one")
    keeping.record("bob", "two")
    all_of_it = custody.hold(bob, None, reason="case 1", by="boss")
    one = custody.hold(bob, "one", reason="case 2", by="boss")

    def count(hold: Hold) -> tuple[int, int]:
        with custody.vault.connect() as connection:
            return count_freed(connection, hold, keeping.today)

    assert (count(all_of_it), count(one)) == ((1, 0), (0, 0))
    custody.directory.decide_for_organization("acme", Kind.ZDR, given=True, by="boss")
    bring_into_force(custody, [custody.directory.get("bob")])
    assert count(all_of_it) == (1, 1)
    custody.release(one.id, reason="settled", by="boss")
    assert count(all_of_it) == (2, 2)
    custody.release(all_of_it.id, reason="settled", by="boss")
    assert sweep(custody).keys_destroyed == 2

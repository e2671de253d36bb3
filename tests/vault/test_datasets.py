"""A dataset holds what may train models at the moment it is built, and tells when that is no longer so."""

import json
import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pyarrow.parquet
import pytest
import sqlalchemy as sa

from bailee.accounts.people import Kind
from bailee.cli import dataset as command
from bailee.flows.messages.conversations import read_messages
from bailee.ledger.entries import ContentRead, DatasetBuilt
from bailee.policy.flows import FlowId
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.sealing.masking import Masked, Masker, open_masker
from bailee.vault import tables
from bailee.vault.datasets import building, selection
from bailee.vault.datasets.building import DatasetBuilder
from bailee.vault.datasets.manifests import Manifest
from bailee.vault.datasets.selection import Why
from bailee.vault.datasets.verification import Verdict, verify_dataset
from bailee.vault.sweeping import sweep
from counterparts.keeping import Keeping

ANSWER = b'{"type":"message","content":[{"type":"text","text":"done"}]}'
TOKEN = "ghp_" + "i0VpEBOWfbZAVaBSo63bbH6xnAbnBEoonCrb"
AWS = "AKIA" + "IR6AZ24XZQRNB3SG"


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    """Give a home without accounts."""
    opened = Keeping(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def masker(tmp_path_factory: pytest.TempPathFactory) -> Masker:
    """Give a masker."""
    return open_masker(tmp_path_factory.mktemp("rules"))


def say(*said: str) -> bytes:
    messages = [
        {"role": "user" if turn % 2 == 0 else "assistant", "content": text} for turn, text in enumerate(said)
    ]
    return json.dumps({"model": "claude", "metadata": {"user_id": "ada"}, "messages": messages}).encode()


def add(keeping: Keeping, name: str = "ada", plan: Plan = Plan.PRO, *, training: bool = True) -> None:
    keeping.custody.directory.add(name, plan)
    if training:
        keeping.custody.directory.consent(name, given=True)


def mask_nothing(text: bytes) -> Masked:
    return Masked(text.decode(), {})


def begin(
    keeping: Keeping, out: Path, mask: Callable[[bytes], Masked] = mask_nothing, size: int = 2
) -> DatasetBuilder:
    return DatasetBuilder(
        keeping.custody,
        out,
        reason="model 7",
        by="builder",
        read_messages=read_messages,
        mask=mask,
        sessions_in_a_part=size,
    )


def build(keeping: Keeping, out: Path, mask: Callable[[bytes], Masked] = mask_nothing) -> Manifest:
    return begin(keeping, out, mask).build()


def rows(out: Path) -> list[dict[str, Any]]:
    return [
        row for path in sorted(out.glob("*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()
    ]


def said(out: Path) -> set[str]:
    return {json.loads(row["messages"])[-1]["content"] for row in rows(out)}


def verify(keeping: Keeping, out: Path) -> Verdict:
    return verify_dataset(keeping.custody, out)


# --- What comes out ---


@pytest.mark.parametrize("plan", Plan)
@pytest.mark.parametrize("consent", [True, False])
@pytest.mark.parametrize("zdr", [True, False])
def test_only_what_consent_is_in_force_for(
    keeping: Keeping, tmp_path: Path, plan: Plan, consent: bool, zdr: bool
) -> None:
    """Plan by training or partner program by zero data retention: both must be as they should."""
    directory = keeping.custody.directory
    consumer = plan in (Plan.FREE, Plan.PRO, Plan.MAX)
    open_to_dpp = plan in (Plan.TEAM, Plan.ENTERPRISE, Plan.API)
    directory.add("ada", plan)
    if consent and consumer:
        directory.consent("ada", given=True)
    elif consent and open_to_dpp:
        directory.decide_for_organization("ada", Kind.DPP, given=True, by="ada")
    keeping.record("ada", body=say("question"), answer=ANSWER)
    if zdr and not consumer:
        directory.decide_for_organization("ada", Kind.ZDR, given=True, by="ada")
    manifest = build(keeping, tmp_path / "out")
    expected = consent and (consumer or (open_to_dpp and not zdr))
    assert manifest.counts.items == len(rows(tmp_path / "out")) == int(expected)
    assert manifest.counts.looked_at == 1
    if expected:
        assert [basis.consent for basis in manifest.consents] == ["training" if consumer else "dpp"]
        assert manifest.consents[0].since.startswith("2026-05-04T12:00:00")
    else:
        why = Why.ZDR if zdr and not consumer else Why.NO_CONSENT
        assert manifest.counts.excluded == {why: 1}
        assert not any(isinstance(entry, ContentRead) for entry in keeping.entries())


def test_reports_are_in_no_dataset(keeping: Keeping, tmp_path: Path) -> None:
    """Sending a report is no consent to training: of an account that gave one, only conversations come."""
    add(keeping)
    keeping.record("ada", body=say("question"), answer=ANSWER)
    keeping.record("ada", "report-1", body=say("reported"), answer=ANSWER, flow="feedback")
    build(keeping, tmp_path / "out")
    assert said(tmp_path / "out") == {"question"}


def test_control_where_the_policy_let_reports_train(
    keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: with reports looked at, and terms that let them train, the same build holds one."""
    add(keeping)
    keeping.record("ada", "report-1", body=say("reported"), answer=ANSWER, flow="feedback")
    monkeypatch.setattr(building, "FlowId", SimpleNamespace(MESSAGES=FlowId.FEEDBACK))
    with keeping.custody.vault.begin() as connection:
        connection.execute(sa.update(tables.segments).values(trainable=True))
    build(keeping, tmp_path / "out")
    assert said(tmp_path / "out") == {"reported"}


def expire(keeping: Keeping) -> None:
    keeping.custody.directory.limit_account("ada", keeping_period("1d"))
    keeping.tighten("ada")
    keeping.go_to(date(2026, 5, 6))


def keeping_period(text: str) -> Any:
    from bailee.policy.periods import Period

    return Period.parse(text, where="test")


def hold_and_expire(keeping: Keeping) -> None:
    keeping.custody.hold(keeping.custody.directory.get("ada"), None, reason="case", by="counsel")
    expire(keeping)


def withdraw(keeping: Keeping) -> None:
    keeping.custody.directory.consent("ada", given=False)
    keeping.tighten("ada")


def give_again(keeping: Keeping) -> None:
    withdraw(keeping)
    keeping.now += 1
    keeping.custody.directory.consent("ada", given=True)


def give_again_before_it_was_in_force(keeping: Keeping) -> None:
    keeping.custody.directory.consent("ada", given=False)
    keeping.now += 1
    keeping.custody.directory.consent("ada", given=True)


def mark_erased(keeping: Keeping) -> None:
    mark = sa.update(tables.segments).values(expires_on=tables.ERASED)
    with keeping.custody.vault.begin() as connection:
        connection.execute(mark)


def lose_key(keeping: Keeping) -> None:
    from bailee.vault.tables import keys

    with keeping.custody.keystore.engine.begin() as connection:
        connection.execute(sa.delete(keys))


def alter_record(keeping: Keeping) -> None:
    with keeping.custody.vault.begin() as connection:
        connection.execute(sa.update(tables.records).values(sealed=b"altered" * 10))


EVENTS = {
    Why.EXPIRED: expire,
    Why.HELD_ONLY: hold_and_expire,
    Why.NO_CONSENT: withdraw,
    Why.NOT_TRAINABLE: give_again,
    Why.BEFORE_CONSENT: give_again_before_it_was_in_force,
    Why.ERASED: mark_erased,
    Why.UNREADABLE: lose_key,
}


@pytest.mark.parametrize("why", EVENTS)
def test_what_is_left_out_and_why(keeping: Keeping, tmp_path: Path, why: Why) -> None:
    """Each rule alone keeps it out; before the event it would have come out."""
    add(keeping)
    keeping.record("ada", body=say("question"), answer=ANSWER)
    assert build(keeping, tmp_path / "before").counts.items == 1
    EVENTS[why](keeping)
    manifest = build(keeping, tmp_path / "out")
    assert manifest.counts.excluded == {why: 1}
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert [gone.why for gone in verify(keeping, tmp_path / "before").gone] == (
        [why] if why is not Why.UNREADABLE else []
    )


def test_control_without_the_rules(keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: with the rules taken out, what was said without consent comes out."""
    add(keeping, training=False)
    keeping.record("ada", body=say("forbidden"), answer=ANSWER)
    assert build(keeping, tmp_path / "with").counts.items == 0
    monkeypatch.setattr(building, "judge", lambda *_: None)
    monkeypatch.setattr(selection, "judge", lambda *_: None)
    assert build(keeping, tmp_path / "without").counts.items == 1
    assert said(tmp_path / "without") == {"forbidden"}


def test_a_live_hold_and_an_altered_record(keeping: Keeping, tmp_path: Path) -> None:
    """A hold on what is held anyway forbids nothing; an altered segment costs itself and no other."""
    add(keeping)
    keeping.custody.hold(keeping.custody.directory.get("ada"), None, reason="case", by="counsel")
    keeping.record("ada", "session-1", body=say("one"), answer=ANSWER)
    assert build(keeping, tmp_path / "held").counts.items == 1
    alter_record(keeping)
    keeping.record("ada", "session-2", body=say("two"), answer=ANSWER)
    keeping.record("ada", "session-3", body=b"no conversation", answer=ANSWER)
    manifest = build(keeping, tmp_path / "out")
    assert said(tmp_path / "out") == {"two"}
    assert manifest.counts.excluded == {Why.UNREADABLE: 1, Why.NO_CONVERSATION: 1}


def test_what_a_dataset_says(keeping: Keeping, tmp_path: Path, masker: Masker) -> None:
    """Columns and manifest; files for the owner only; nobody's name, id or session in any of it."""
    add(keeping)
    keeping.record("ada", body=say("one"), answer=ANSWER)
    keeping.record(
        "ada",
        body=say("one", "done", "two"),
        answer=b'data: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"streamed"}}\n\n',
    )
    manifest = build(keeping, tmp_path / "out", masker.mask_json)
    first, second = rows(tmp_path / "out")
    assert first["session"] == second["session"]
    assert json.loads(second["answer"]) == [{"type": "text", "text": "streamed"}]
    assert second["blocks"][0] == first["blocks"][0]
    assert len(second["blocks"]) == 3
    assert first["expires_on"] == date(2031, 5, 4)
    assert (manifest.purpose, manifest.reason, manifest.counts.items) == ("training", "model 7", 2)
    paths = list((tmp_path / "out").iterdir())
    assert sorted(path.name for path in paths) == ["manifest.json", "part-00000.parquet"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    account = keeping.custody.directory.get("ada").id
    everything = b"".join(path.read_bytes() for path in paths) + repr(rows(tmp_path / "out")).encode()
    for name in (b"'ada'", b'"ada"', account.encode(), b"session-1", b"builder"):
        assert name not in everything
    assert b"question" not in everything


def test_reading_is_recorded_and_shown(keeping: Keeping, tmp_path: Path) -> None:
    """Each account in it has one access, before its content is read; an account left out has none."""
    add(keeping)
    add(keeping, "bob", training=False)
    for session in range(5):
        keeping.record("ada", f"session-{session}", body=say("one"), answer=ANSWER)
    keeping.record("bob", body=say("two"), answer=ANSWER)
    build(keeping, tmp_path / "out")
    directory = keeping.custody.directory
    (access,) = directory.list_accesses(directory.get("ada").id)
    assert (access.reader, access.purpose, access.reason) == ("builder", "dataset", "model 7")
    assert directory.list_accesses(directory.get("bob").id) == []
    reads = [entry for entry in keeping.entries() if isinstance(entry, ContentRead)]
    assert [entry.subject for entry in reads] == [keeping.custody.pseudonyms.name(directory.get("ada").id)]
    with pytest.raises(Problem, match="reason"):
        DatasetBuilder(
            keeping.custody,
            tmp_path / "x",
            reason=" ",
            by="b",
            read_messages=read_messages,
            mask=mask_nothing,
        )


def test_secrets_are_masked_and_counted(keeping: Keeping, tmp_path: Path, masker: Masker) -> None:
    """In messages, answers and tools' input; control: without masking they come out."""
    add(keeping)
    answer = json.dumps({"content": [{"type": "tool_use", "name": "x", "input": {"key": AWS}}]}).encode()
    keeping.record("ada", body=say(f"use {TOKEN} please"), answer=answer)
    keeping.record("ada", body=say(f"use {TOKEN} please", "ok", "go on"), answer=ANSWER)
    build(keeping, tmp_path / "without")
    assert TOKEN in repr(rows(tmp_path / "without"))
    assert AWS in repr(rows(tmp_path / "without"))
    manifest = build(keeping, tmp_path / "out", masker.mask_json)
    shown = repr(rows(tmp_path / "out"))
    assert TOKEN not in shown
    assert AWS not in shown
    assert manifest.masked == {"aws-access-key-id": 1, "github-pat": 2}
    assert shown.count("[masked ") == 3 == sum(row["secrets_masked"] for row in rows(tmp_path / "out"))


# --- Verification ---


@pytest.fixture
def built(keeping: Keeping, tmp_path: Path) -> Path:
    """Give a dataset of ada's two sessions and bob's one."""
    for name in ("ada", "bob"):
        add(keeping, name)
    keeping.record("ada", "session-1", body=say("ada one"), answer=ANSWER)
    keeping.record("ada", "session-2", body=say("ada two"), answer=ANSWER)
    keeping.record("bob", "session-1", body=say("bob one"), answer=ANSWER)
    build(keeping, tmp_path / "out")
    assert verify(keeping, tmp_path / "out").is_in_order
    return tmp_path / "out"


def named(keeping: Keeping, out: Path) -> dict[str, Why]:
    texts = {row["item"]: json.loads(row["messages"])[-1]["content"] for row in rows(out)}
    verdict = verify(keeping, out)
    assert verdict.faults == []
    return {texts[gone.item]: gone.why for gone in verdict.gone}


def test_a_consent_withdrawn_is_named(keeping: Keeping, built: Path) -> None:
    """All items of the account, and nobody else's; also once it was given again."""
    withdraw(keeping)
    assert named(keeping, built) == {"ada one": Why.NO_CONSENT, "ada two": Why.NO_CONSENT}
    keeping.now += 1
    keeping.custody.directory.consent("ada", given=True)
    assert named(keeping, built) == {"ada one": Why.NOT_TRAINABLE, "ada two": Why.NOT_TRAINABLE}


def test_what_is_erased_is_named_by_the_ledger(keeping: Keeping, built: Path, tmp_path: Path) -> None:
    """In a copy that somebody made: a session, then an account of which nothing is left, and what expired."""
    directory = keeping.custody.directory
    built = Path(shutil.copytree(built, tmp_path / "copied"))
    keeping.custody.erase_session(directory.get("ada").id, "session-2", by="ada")
    assert named(keeping, built) == {"ada two": Why.ERASED}
    keeping.custody.erase_account(directory.get("ada"), by="ada")
    assert named(keeping, built) == {"ada one": Why.ERASED, "ada two": Why.ERASED}
    keeping.go_to(date(2031, 6, 1))
    assert named(keeping, built)["bob one"] == Why.EXPIRED
    sweep(keeping.custody)
    assert named(keeping, built)["bob one"] == Why.EXPIRED


def test_a_flipped_bit_is_found(keeping: Keeping, built: Path) -> None:
    """Anywhere in any file, the manifest included; a file too many, and one too few."""
    for path in sorted(built.iterdir()):
        good = path.read_bytes()
        for at in range(0, len(good), max(1, len(good) // 25)):
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            assert verify(keeping, built).faults, f"{path.name} at {at}"
        path.write_bytes(good)
    assert verify(keeping, built).is_in_order
    (built / "part-00009.parquet").write_bytes(b"more")
    assert [fault.path for fault in verify(keeping, built).faults] == ["part-00009.parquet"]
    (built / "part-00009.parquet").rename(built / "part-00000.parquet")
    assert verify(keeping, built).faults
    (built / "part-00000.parquet").unlink()
    assert verify(keeping, built).faults


def test_a_ledger_rolled_back_is_found(keeping: Keeping, built: Path, tmp_path: Path) -> None:
    """The ledger has to begin with the one that the dataset was built on."""
    ledger = keeping.home / "ledger"
    shutil.rmtree(ledger)
    other = Keeping(tmp_path / "other")
    other.entries()
    other.close()
    shutil.copytree(tmp_path / "other" / "ledger", ledger)
    from bailee.ledger.log import open_log

    keeping.custody.log = open_log(ledger)
    assert any("ledger" in fault.what for fault in verify(keeping, built).faults)


def test_no_dataset(keeping: Keeping, tmp_path: Path) -> None:
    """A folder without one is a wrong call."""
    with pytest.raises(Problem, match="no dataset"):
        verify(keeping, tmp_path)


# --- Interrupted ---


class Interrupted(Exception):
    """Stands for whatever ends a build."""


def test_an_interrupted_build_goes_on(keeping: Keeping, tmp_path: Path) -> None:
    """Interrupted after each part and within one, it ends as one that was not, and reads nothing twice."""
    add(keeping)
    add(keeping, "bob")
    for session in range(4):
        for name in ("ada", "bob"):
            keeping.record(name, f"session-{session}", body=say(f"{name} {session}"), answer=ANSWER)
    whole = build(keeping, tmp_path / "whole")
    out = tmp_path / "out"
    calls = 0

    def mask(text: bytes) -> Masked:
        nonlocal calls
        calls += 1
        if calls in (3, 12):
            raise Interrupted
        return mask_nothing(text)

    def stop(done: int, total: int) -> None:
        raise Interrupted

    for _ in range(2):
        with pytest.raises(Interrupted):
            begin(keeping, out, mask).build()
    with pytest.raises(Interrupted):
        begin(keeping, out).build(stop)
    with pytest.raises(Problem, match="not finished"):
        verify(keeping, out)
    with pytest.raises(Problem, match="another reason"):
        DatasetBuilder(
            keeping.custody, out, reason="x", by="b", read_messages=read_messages, mask=mask_nothing
        )
    resumed = begin(keeping, out).build()
    drop = ("account", "session")
    one, other = (
        [{name: value for name, value in row.items() if name not in drop} for row in rows(folder)]
        for folder in (tmp_path / "whole", out)
    )
    assert one == other
    assert msgspec.structs.astuple(resumed.counts) == msgspec.structs.astuple(whole.counts)
    assert [file.items for file in resumed.files] == [file.items for file in whole.files]
    assert verify(keeping, out).is_in_order
    assert sum(isinstance(entry, DatasetBuilt) for entry in keeping.entries()) == 2
    with pytest.raises(Problem, match="not empty"):
        build(keeping, out)


def test_a_consent_that_ends_meanwhile(keeping: Keeping, tmp_path: Path) -> None:
    """What was written before it ended is taken out again before the build is done."""
    add(keeping)
    add(keeping, "bob")
    for session in range(3):
        for name in ("ada", "bob"):
            keeping.record(name, f"session-{session}", body=say(name), answer=ANSWER)

    def stop(done: int, total: int) -> None:
        if done == total:
            withdraw(keeping)

    manifest = begin(keeping, tmp_path / "out").build(stop)
    assert said(tmp_path / "out") == {"bob"}
    assert manifest.counts.excluded == {Why.NO_CONSENT: 3}
    assert verify(keeping, tmp_path / "out").is_in_order


def test_the_command(
    keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masker: Masker
) -> None:
    """Exit codes: 0 in order, 1 something to remove, 2 a wrong call, each told."""
    from click.testing import CliRunner

    from bailee.sealing import masking

    add(keeping)
    keeping.record("ada", body=say(f"use {TOKEN}"), answer=ANSWER)
    monkeypatch.setattr(masking, "open_masker", lambda cache: masker)
    home, out = ["--home", str(keeping.home)], str(tmp_path / "out")
    run = CliRunner().invoke
    assert run(command.dataset, ["build", "--out", out, *home]).exit_code == 2
    done = run(command.dataset, ["build", "--out", out, "--reason", "model 7", *home])
    assert done.exit_code == 0, done.output
    assert "masked, github-pat: 1" in done.output
    withdraw(keeping)
    # The command goes by today, and what is recorded here lies in its past.
    checked = run(command.dataset, ["verify", out, "--json", *home])
    assert checked.exit_code == 1
    assert json.loads(checked.stdout)["gone"][0]["item"] == rows(Path(out))[0]["item"]
    assert run(command.dataset, ["verify", str(tmp_path / "none"), *home]).exit_code == 2

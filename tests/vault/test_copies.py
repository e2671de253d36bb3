"""What is erased or expires leaves the exports and datasets that Bailee wrote; until then, it says so."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner

from bailee.cli import copies as command
from bailee.cli import dataset as dataset_command
from bailee.flows.messages.conversations import read_messages, read_text
from bailee.ledger.entries import CopiesReached, CopyForgotten, CopyWithdrawn
from bailee.ledger.receipts import verify_receipt
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.sealing.masking import Masked
from bailee.vault import custody
from bailee.vault.copies import cascade, folders, registry
from bailee.vault.copies.registry import Copy, Maker
from bailee.vault.datasets.building import DatasetBuilder
from bailee.vault.datasets.verification import verify_dataset
from bailee.vault.datasets.withdrawing import withdraw_dataset
from bailee.vault.erasure import Erasure, count_session
from bailee.vault.exports import export_account
from bailee.vault.health import check_retention, watch_work
from bailee.vault.sweeping import preview, sweep
from counterparts.holdings import find_bytes
from counterparts.keeping import Keeping

CANARY = "canary-of-the-first"
OTHER = "heron-of-the-second"
ANSWER = b'{"type":"message","content":[{"type":"text","text":"done"}]}'
OPERATOR = Maker("operator")
HOLDER = Maker("ada", is_holder=True)


def say(text: str) -> bytes:
    return json.dumps({"model": "claude", "messages": [{"role": "user", "content": text}]}).encode()


@pytest.fixture
def keeping(tmp_path: Path, database: str) -> Iterator[Keeping]:
    """Give a home where ada consents to training, and said something in two sessions."""
    opened = Keeping(tmp_path / "home")
    opened.custody.directory.add("ada", Plan.PRO)
    opened.custody.directory.consent("ada", given=True)
    opened.record("ada", "session-1", body=say(CANARY), answer=ANSWER)
    opened.record("ada", "session-2", body=say(OTHER), answer=ANSWER)
    yield opened
    opened.close()


def export(keeping: Keeping, out: Path, maker: Maker = OPERATOR, **options: Any) -> Path:
    account = keeping.custody.directory.get("ada")
    export_account(keeping.custody, account, out, read_text=read_text, maker=maker, **options)
    return out


def builder(keeping: Keeping, out: Path, mask: Any = None, size: int = 1) -> DatasetBuilder:
    return DatasetBuilder(
        keeping.custody,
        out,
        reason="model 7",
        by="builder",
        read_messages=read_messages,
        mask=mask or (lambda text: Masked(text.decode(), {})),
        sessions_in_a_part=size,
    )


def build(keeping: Keeping, out: Path, **options: Any) -> Path:
    builder(keeping, out, **options).build()
    return out


def erase(keeping: Keeping, session: str = "session-1") -> tuple[Erasure, bytes]:
    return keeping.custody.erase_session(keeping.custody.directory.get("ada").id, session, by="op")


def holds(folder: Path, text: str) -> bool:
    """Tell whether any file has a text: as bytes, or in Parquet's compressed columns."""
    if find_bytes(folder, text.encode()):
        return True
    files = [path for path in folder.rglob("*") if path.suffix == ".parquet" or ".parquet." in path.name]
    return any(text in repr(pyarrow.parquet.ParquetFile(path).read().to_pylist()) for path in files)


def lines(out: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{kind}.jsonl").read_bytes().splitlines()]


def pending(keeping: Keeping) -> list[Copy]:
    return registry.list_pending(keeping.custody.vault)


def alarms(keeping: Keeping) -> list[str]:
    custody = keeping.custody
    return check_retention(custody.vault, custody.keystore, custody.now_ms()).alarms


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- What goes ---


def test_an_erased_session_leaves_an_export(keeping: Keeping, tmp_path: Path) -> None:
    """Its lines go, those of other sessions stay, and so does what was written beside them."""
    out = export(keeping, tmp_path / "out")
    before = {kind: lines(out, kind) for kind in ("sessions", "exchanges", "content")}
    assert holds(out, CANARY)
    counted = count_session(keeping.custody.vault, keeping.custody.directory.get("ada").id, "session-1")
    assert [told.folder for told in counted.copies.reached] == [str(out)]
    assert holds(out, CANARY)
    erased, receipt = erase(keeping)
    assert [told.folder for told in erased.copies.reached] == [str(out)]
    assert not holds(out, CANARY)
    assert not holds(out, "session-1")
    for kind, of_before in before.items():
        assert lines(out, kind) == of_before[1:]
    told = [json.loads(one.entry) for one in verify_receipt(receipt, keeping.custody.log.verifier)]
    (copies,) = [entry for entry in told if entry["kind"] == "copies"]
    assert (copies["reached"], copies["pending"], copies["holders"]) == (1, 0, 0)
    assert pending(keeping) == []
    erase(keeping, "session-2")
    assert not holds(out, OTHER)
    assert len(json.loads((out / "export.json").read_bytes())["withdrawn"]) == 2


def test_an_erased_session_leaves_a_dataset(keeping: Keeping, tmp_path: Path) -> None:
    """Its rows go and others stay; the manifest says so, and verification names nothing."""
    one, several = build(keeping, tmp_path / "one", size=5), build(keeping, tmp_path / "several")
    for out in (one, several):
        assert holds(out, CANARY)
    erased, _ = erase(keeping)
    assert len(erased.copies.reached) == 2
    for out in (one, several):
        assert not holds(out, CANARY)
        assert holds(out, OTHER)
        verdict = verify_dataset(keeping.custody, out)
        assert verdict.is_in_order
        assert verdict.items == 1
        manifest = json.loads((out / "manifest.json").read_bytes())
        assert manifest["withdrawn"][0]["taken"] == {"erased": 1}
        assert len(manifest["files"]) == 1
    erase(keeping, "session-2")
    assert verify_dataset(keeping.custody, one).is_in_order
    assert [path.name for path in several.iterdir()] == ["manifest.json"]


def test_what_expires_leaves_too(keeping: Keeping, tmp_path: Path) -> None:
    """A sweep takes a segment out on its day, and leaves the rest of its session until its own."""
    keeping.custody.directory.consent("ada", given=False)
    keeping.tighten("ada")
    keeping.go_to(date(2026, 5, 10))
    keeping.record("ada", "session-1", body=say("said later"), answer=ANSWER)
    out = export(keeping, tmp_path / "out")
    keeping.go_to(date(2026, 6, 3))
    assert preview(keeping.custody).copies == 1
    assert sweep(keeping.custody).copies == 1
    assert not holds(out, CANARY)
    assert not holds(out, OTHER)
    assert [line["session"] for line in lines(out, "content")] == ["session-1"]
    assert [line["id"] for line in lines(out, "sessions")] == ["session-1"]
    keeping.go_to(date(2026, 6, 9))
    assert sweep(keeping.custody).copies == 1
    assert lines(out, "content") == lines(out, "sessions") == []


def test_an_account_takes_its_exports_with_it(keeping: Keeping, tmp_path: Path) -> None:
    """The whole folder goes; what somebody else put into one stays, and the registry forgets both."""
    out, mixed = export(keeping, tmp_path / "out"), export(keeping, tmp_path / "mixed")
    (mixed / "notes.txt").write_text("mine")
    erased, _ = keeping.custody.erase_account(keeping.custody.directory.get("ada"), by="op")
    assert len(erased.copies.reached) == 2
    assert not out.exists()
    assert contents(mixed) == {"notes.txt": b"mine"}
    assert registry.list_copies(keeping.custody.vault) == []


@pytest.fixture
def unaware(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exports be registered as if nobody looked for an erasure: in the moment before it is marked."""
    monkeypatch.setattr(registry, "has_ended", lambda connection, account: False)


def test_no_export_begins_of_an_account_that_is_erased(
    keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its end in the vault and that of its name there is nothing of it to be copied any more."""
    remove = keeping.custody.directory.remove

    def export_first(account: str) -> str | None:
        with pytest.raises(Problem, match="being erased"):
            export(keeping, tmp_path / "out")
        return remove(account)

    monkeypatch.setattr(keeping.custody.directory, "remove", export_first)
    keeping.custody.erase_account(keeping.custody.directory.get("ada"), by="op")
    assert registry.list_copies(keeping.custody.vault) == []
    assert not (tmp_path / "out" / "account.jsonl").exists()


@pytest.mark.usefixtures("unaware")
def test_an_export_that_is_made_while_its_account_is_erased(
    keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the name and what was consented to: called in again once the account is gone, it goes whole."""
    out = tmp_path / "out"
    remove = keeping.custody.directory.remove

    def export_first(account: str) -> str | None:
        export(keeping, out)
        assert lines(out, "account")[0]["name"] == "ada"
        return remove(account)

    monkeypatch.setattr(keeping.custody.directory, "remove", export_first)
    erased, _ = keeping.custody.erase_account(keeping.custody.directory.get("ada"), by="op")
    assert [copy.folder for copy in erased.copies.reached] == [str(out)]
    assert not out.exists()
    assert registry.list_copies(keeping.custody.vault) == []


@pytest.mark.usefixtures("unaware")
def test_an_export_that_was_begun_before_goes_with_the_next_sweep(
    keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is registered only when its account is gone is found by the sweeps, whoever wrote it."""
    out = tmp_path / "out"
    account = keeping.custody.directory.get("ada")
    keeping.custody.erase_account(account, by="op")
    export_account(keeping.custody, account, out, read_text=read_text, maker=OPERATOR)
    assert lines(out, "account")[0]["name"] == "ada"
    with monkeypatch.context() as patch:
        patch.setattr(custody, "mark_remnants", lambda engine, account, at_ms: 0)
        sweep(keeping.custody)
        assert out.exists()  # control: nobody but this look finds it
    sweep(keeping.custody)
    assert not out.exists()
    assert registry.list_copies(keeping.custody.vault) == []


def test_the_account_holders_own_stays(keeping: Keeping, tmp_path: Path) -> None:
    """It is listed, an erasure tells where it lies, and not a byte of it changes."""
    out = export(keeping, tmp_path / "out", HOLDER)
    before = contents(out)
    erased, _ = erase(keeping)
    assert [told.folder for told in erased.copies.holders] == [str(out)]
    assert erased.copies.reached == erased.copies.pending == []
    assert contents(out) == before
    assert pending(keeping) == []
    (told,) = [entry for entry in keeping.entries() if isinstance(entry, CopiesReached)]
    assert (told.reached, told.pending, told.holders) == (0, 0, 1)


def test_control_without_the_cascade(
    keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: with nothing called in, the same search finds what was erased, and nobody tells of it."""
    out, built = export(keeping, tmp_path / "out"), build(keeping, tmp_path / "built")
    monkeypatch.setattr(cascade.Cascade, "run", lambda self, only=None: cascade.Reached())
    erase(keeping)
    assert holds(out, CANARY)
    assert holds(built, CANARY)
    assert not verify_dataset(keeping.custody, built).is_in_order


# --- Interrupted ---


class Interrupted(Exception):
    """Stands for whatever ends an export or a build."""


def test_an_interrupted_export_is_known(keeping: Keeping, tmp_path: Path) -> None:
    """What it has written of an erased session goes; it goes on anew, without it."""

    def stop(done: int, total: int) -> None:
        if done == 1:
            raise Interrupted

    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        export(keeping, out, report=stop)
    assert holds(out, CANARY)
    erased, _ = erase(keeping)
    assert len(erased.copies.reached) == 1
    assert not holds(out, CANARY)
    export(keeping, out)
    assert [line["session"] for line in lines(out, "content")] == ["session-2"]
    erase(keeping, "session-2")
    assert not holds(out, OTHER)


def test_an_interrupted_build_is_known(keeping: Keeping, tmp_path: Path) -> None:
    """The part that has it goes; the build goes on, and writes what may still be in it."""

    def mask(text: bytes) -> Masked:
        if OTHER.encode() in text:
            raise Interrupted
        return Masked(text.decode(), {})

    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        build(keeping, out, mask=mask)
    assert holds(out, CANARY)
    erased, _ = erase(keeping)
    assert len(erased.copies.reached) == 1
    assert not holds(out, CANARY)
    assert builder(keeping, out).build().counts.items == 1
    assert verify_dataset(keeping.custody, out).is_in_order


def test_erased_while_it_is_written(keeping: Keeping, tmp_path: Path) -> None:
    """Whoever writes the copy takes out at the end what was erased meanwhile; until then it is pending."""
    told: list[Erasure] = []

    def report(done: int, total: int) -> None:
        if done == 1:
            told.append(erase(keeping)[0])

    out = export(keeping, tmp_path / "out", report=report)
    assert [copy.why for copy in told[0].copies.pending] == [cascade.BEING_WRITTEN]
    assert not holds(out, CANARY)
    assert holds(out, OTHER)
    assert pending(keeping) == []


_KILLED = """
import os, signal, sys
from pathlib import Path
from bailee.ledger.entries import Erased
from bailee.vault import sweeping
from bailee.vault.copies import cascade, folders, registry
from bailee.vault.custody import open_custody
from bailee.vault.erasure import erase
def die(*arguments, **more):
    os.kill(os.getpid(), signal.SIGKILL)
before = {what}
calls = 0
def maybe(*arguments, **more):
    global calls
    calls += 1
    if calls == {call}:
        if not {after}:
            die()
        before(*arguments, **more)
        die()
    return before(*arguments, **more)
{what} = maybe
now = float(sys.argv[2])
custody = open_custody(Path(sys.argv[1]), clock=lambda: now)
custody.erase_session(custody.directory.get("ada").id, "session-1", by="op")
"""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("cascade.Cascade.run", 1),
        ("registry.announce", 1),
        ("folders.Folder.put", 1),
        ("folders.Folder.put", 2),
        ("folders.Folder.remove", 5),
        ("registry.confirm", 1),
        ("registry.settle", 1),
    ],
)
@pytest.mark.sqlite
def test_killed_anywhere_the_next_sweep_finishes(
    keeping: Keeping, tmp_path: Path, what: str, call: int, after: bool
) -> None:
    """kill -9 after the key is destroyed: pending until the next sweep, and nothing left after it."""
    out, built = export(keeping, tmp_path / "out"), build(keeping, tmp_path / "built", size=5)
    program = _KILLED.format(what=what, call=call, after=after)
    arguments = [sys.executable, "-c", program, str(keeping.home), str(keeping.now)]
    killed = subprocess.run(arguments, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert keeping.read("ada") != set()
    if what == "cascade.Cascade.run" and not after:
        assert holds(out, CANARY)
        assert len(pending(keeping)) == 2
        assert watch_work(keeping.custody.vault, keeping.custody.keystore, keeping.custody.directory.engine)()
    sweep(keeping.custody)
    for folder in (out, built):
        assert not holds(folder, CANARY)
        assert holds(folder, OTHER)
        assert not [path for path in folder.iterdir() if path.name.endswith(".new")]
    assert pending(keeping) == []
    assert verify_dataset(keeping.custody, built).is_in_order
    erase(keeping, "session-2")
    assert not holds(out, OTHER)


# --- What cannot be reached ---


def move(out: Path) -> str:
    out.rename(out.with_name("elsewhere"))
    return "not there any more"


def alter(out: Path) -> str:
    with next(path for path in (out / "content.jsonl", out / "part-00000.parquet") if path.exists()).open(
        "ab"
    ) as file:
        file.write(b" ")
    return "is not as it was written"


def alter_index(out: Path) -> str:
    index = next(path for path in (out / "export.json", out / "manifest.json") if path.exists())
    index.write_bytes(index.read_bytes() + b" ")
    return "is not as it was written"


def replace_by_another(out: Path) -> str:
    shutil.rmtree(out)
    out.mkdir()
    (out / "export.json").write_text('{"id": "another", "content": "mine"}')
    (out / "manifest.json").write_text('{"build": "another", "content": "mine"}')
    (out / "content.jsonl").write_text("mine\n")
    return "does not hold it any more"


def link_folder(out: Path) -> str:
    out.rename(out.with_name("elsewhere"))
    out.symlink_to(out.with_name("elsewhere"))
    return "cannot be opened"


def link_file(out: Path) -> str:
    path = next(path for path in (out / "content.jsonl", out / "part-00000.parquet") if path.exists())
    path.rename(out.parent / "elsewhere")
    path.symlink_to(out.parent / "elsewhere")
    return "is gone"


@pytest.mark.parametrize("kind", [export, build], ids=["export", "dataset"])
@pytest.mark.parametrize("change", [move, alter, alter_index, replace_by_another, link_folder, link_file])
@pytest.mark.sqlite
def test_what_cannot_be_reached_is_pending(keeping: Keeping, tmp_path: Path, kind: Any, change: Any) -> None:
    """Moved, altered, replaced or linked elsewhere: not a byte is touched, and it alarms until settled."""
    out = kind(keeping, tmp_path / "out")
    expected = change(out)
    everything = {
        path: path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and keeping.home not in path.parents
    }
    erased, receipt = erase(keeping)
    assert erased.copies.reached == []
    (copy,) = erased.copies.pending
    assert expected in copy.why
    told = [json.loads(one.entry) for one in verify_receipt(receipt, keeping.custody.log.verifier)]
    assert [entry["pending"] for entry in told if entry["kind"] == "copies"] == [1]
    assert sweep(keeping.custody).copies_pending == 1
    assert {path: path.read_bytes() for path in everything} == everything
    (alarm,) = alarms(keeping)
    assert copy.id in alarm
    assert expected in alarm
    keeping.custody.forget_copy(pending(keeping)[0], reason="deleted", by="op")
    assert alarms(keeping) == []
    assert sum(isinstance(entry, CopyForgotten) for entry in keeping.entries()) == 1


def test_a_copy_that_was_moved_is_located(keeping: Keeping, tmp_path: Path) -> None:
    """Named at its new place by the command, it is reached by the next sweep."""
    out = export(keeping, tmp_path / "out")
    moved = tmp_path / "moved"
    out.rename(moved)
    erase(keeping)
    (copy,) = pending(keeping)
    run, home = CliRunner().invoke, ["--home", str(keeping.home)]
    listed = json.loads(run(command.copies, ["list", "--json", *home]).stdout)
    assert [(one["id"], one["account"], one["due"]) for one in listed] == [(copy.id, "ada", 2)]
    assert "is to go since" in run(command.copies, ["list", *home]).stdout
    (tmp_path / "empty").mkdir()
    wrong = run(command.copies, ["locate", copy.id, str(tmp_path / "empty"), *home])
    assert isinstance(wrong.exception, Problem)
    assert run(command.copies, ["locate", copy.id, str(moved), *home]).exit_code == 0
    assert sweep(keeping.custody).copies == 1
    assert not holds(moved, CANARY)
    assert holds(moved, OTHER)
    assert run(command.copies, ["forget", copy.id, "--reason", "done", *home]).exit_code == 0
    assert isinstance(run(command.copies, ["forget", copy.id, "--reason", "x", *home]).exception, Problem)
    assert run(command.copies, ["list", *home]).stdout == ""
    assert "done" in run(command.copies, ["list", "--all", *home]).stdout


@pytest.mark.sqlite
def test_without_the_library(keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow an export is reached all the same; the dataset waits, and says for what."""
    out, built = export(keeping, tmp_path / "out"), build(keeping, tmp_path / "built")
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "pyarrow", None)
        erased, _ = erase(keeping)
    assert [told.folder for told in erased.copies.reached] == [str(out)]
    assert "pip install" in erased.copies.pending[0].why
    assert holds(built, CANARY)
    assert len(alarms(keeping)) == 1
    sweep(keeping.custody)
    assert not holds(built, CANARY)
    assert alarms(keeping) == []


def test_a_folder_that_cannot_be_written(keeping: Keeping, tmp_path: Path) -> None:
    """It stays pending with the system's own words, and is reached once it can be written."""
    out = export(keeping, tmp_path / "out")
    (out / "exchanges.jsonl.new").mkdir()  # stops root too
    erased, _ = erase(keeping)
    assert "File exists: exchanges.jsonl.new" in erased.copies.pending[0].why
    (out / "exchanges.jsonl.new").rmdir()
    assert sweep(keeping.custody).copies == 1
    assert not holds(out, CANARY)


# --- Consents that ended ---


def test_what_a_consent_covered_is_withdrawn_when_asked(keeping: Keeping, tmp_path: Path) -> None:
    """Not by itself: verification names it, `withdraw` takes all of it out, and then nothing is named."""
    keeping.custody.directory.add("bob", Plan.PRO)
    keeping.custody.directory.consent("bob", given=True)
    keeping.record("bob", "session-3", body=say("bob's"), answer=ANSWER)
    out = build(keeping, tmp_path / "out", size=2)
    keeping.custody.directory.consent("ada", given=False)
    keeping.tighten("ada")
    sweep(keeping.custody)
    assert holds(out, CANARY)
    assert len(verify_dataset(keeping.custody, out).gone) == 2
    assert withdraw_dataset(keeping.custody, out) == {"no_consent": 2}
    assert verify_dataset(keeping.custody, out).is_in_order
    assert not holds(out, CANARY)
    assert not holds(out, OTHER)
    assert holds(out, "bob's")
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert len(manifest["consents"]) == manifest["counts"]["items"] == 1
    assert withdraw_dataset(keeping.custody, out) == {}
    assert sum(isinstance(entry, CopyWithdrawn) for entry in keeping.entries()) == 1


@pytest.mark.sqlite
def test_withdrawing_from_what_is_not_ours(keeping: Keeping, tmp_path: Path) -> None:
    """A copy of a dataset, and one that was altered, are refused and left as they are."""
    out = build(keeping, tmp_path / "out")
    keeping.custody.directory.consent("ada", given=False)
    keeping.tighten("ada")
    shutil.copytree(out, tmp_path / "copied")
    alter(out)
    for folder in (tmp_path / "copied", out):
        before = contents(folder)
        done = CliRunner().invoke(
            dataset_command.dataset, ["withdraw", str(folder), "--home", str(keeping.home)]
        )
        assert isinstance(done.exception, Problem)
        assert contents(folder) == before


def test_what_a_folder_gives_away(tmp_path: Path) -> None:
    """Links are neither read nor removed nor written through."""
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (tmp_path / "copy").mkdir()
    for name in ("link", "file.new"):
        (tmp_path / "copy" / name).symlink_to(secret)
    with folders.open_folder(tmp_path / "copy") as folder:
        assert folder.read("link") is None
        folder.remove("link")
        with pytest.raises(OSError, match="exists"), folder.writing("file"):
            pass
    assert secret.read_text() == "mine"
    assert (tmp_path / "copy" / "link").is_symlink()

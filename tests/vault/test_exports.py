"""A person gets everything that is held about them, readable, with the terms it is held under."""

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bailee.accounts.keys import create_key
from bailee.accounts.tables import KeyOrigin
from bailee.cli import accounts as command
from bailee.flows.messages.conversations import read_text
from bailee.ledger.entries import ContentRead
from bailee.policy.plans import Plan
from bailee.policy.problems import Problem
from bailee.vault import exports
from bailee.vault.copies.registry import Maker
from bailee.vault.exports import KINDS, Exported, export_account
from counterparts.keeping import Keeping

BINARY = b"\xff\xfe no text \x00"
SAID = [
    ("session-1", b'{"a":1}'),
    ("session-1", "größer".encode()),
    ("session-2", BINARY),
    ("session-3", b"x"),
]


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    """Give a home where ada said something in three sessions, and bob in one."""
    opened = Keeping(tmp_path / "home")
    directory = opened.custody.directory
    for name in ("ada", "bob"):
        directory.add(name, Plan.PRO)
    directory.consent("ada", given=True)
    create_key(directory, "ada", label="laptop", clock=lambda: opened.now)
    create_key(directory, "bob", label="bob's")
    for session, body in SAID:
        opened.record("ada", session, body=body, answer=b"answer to " + body)
    opened.record("bob", "session-1", body=b"bob's secret")
    ada = directory.get("ada")
    opened.custody.hold(ada, "session-3", reason="case 7", by="counsel")
    opened.custody.record_access(ada.id, "session-1", reader="eve", purpose="show", reason="ticket 9")
    directory.consent("ada", given=False)
    opened.tighten("ada")
    yield opened
    opened.close()


def export(keeping: Keeping, out: Path, **options: Any) -> Exported:
    account = keeping.custody.directory.get("ada")
    maker = options.pop("maker", Maker("ada", is_holder=True))
    return export_account(keeping.custody, account, out, read_text=read_text, maker=maker, **options)


def lines(out: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{kind}.jsonl").read_bytes().splitlines()]


def read_all(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_every_byte_said_comes_out(keeping: Keeping, tmp_path: Path) -> None:
    """Requests and answers, text as text and the rest in base64; what another account said does not."""
    out = tmp_path / "out"
    done = export(keeping, out)
    content = lines(out, "content")
    for told, (session, body) in zip(content, SAID, strict=True):
        assert told["session"] == session
        for name, data in (("request", body), ("response", b"answer to " + body)):
            if f"{name}_base64" in told:
                assert base64.b64decode(told[f"{name}_base64"]) == data
            else:
                assert told[name].encode() == data
    assert "request_base64" in content[2]
    assert done.lines == {kind: len(lines(out, kind)) for kind in KINDS}
    everything = b"".join(read_all(out).values())
    assert b"bob" not in everything
    assert sorted(read_all(out)) == sorted(
        ["README.txt", "export.json", *(f"{kind}.jsonl" for kind in KINDS)]
    )
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_facts_and_terms(keeping: Keeping, tmp_path: Path) -> None:
    """Consents with time and giver, keys without secrets, holds, accesses, and the terms in force now."""
    out = tmp_path / "out"
    export(keeping, out)
    (account,) = lines(out, "account")
    assert (account["name"], account["plan"], account["training"]) == ("ada", "pro", False)
    given, ended = lines(out, "consents")
    assert (given["given"], ended["given"], given["by"], given["for"]) == (True, False, "ada", "account")
    assert given["at"].startswith("2026-05-04T12:00:00")
    (key,) = lines(out, "keys")
    assert set(key) == {"id", "label", "created", "revoked", "origin", "made_by"}
    (hold,) = lines(out, "holds")
    assert (hold["session"], hold["reason"], hold["released"]) == ("session-3", "case 7", None)
    (access,) = lines(out, "accesses")
    assert (access["reader"], access["purpose"], access["reason"]) == ("eve", "show", "ticket 9")
    assert [session["id"] for session in lines(out, "sessions")] == ["session-1", "session-2", "session-3"]
    for exchange in lines(out, "exchanges"):
        terms = exchange["terms"]
        assert (terms["retention"], terms["expires_on"], terms["trainable"]) == ("30d", "2026-06-03", False)
        assert terms["purpose"]
        assert terms["legal_hold"] is (exchange["session"] == "session-3")
        # The decision of then, beside the terms of now.
        assert exchange["decision"]["terms"]["trainable"] is True
        assert exchange["decision"]["rules"]
    readme = (out / "README.txt").read_text()
    assert all(f"{kind}.jsonl" in readme for kind in KINDS)


class Interrupted(Exception):
    """Stands for whatever ends an export."""


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_interrupted_export_goes_on(keeping: Keeping, tmp_path: Path, at: int) -> None:
    """Interrupted between sessions and within one, it ends as one that was not."""
    export(keeping, tmp_path / "whole")
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == at:
            raise Interrupted

    with pytest.raises(Interrupted):
        export(keeping, out, report=stop)
    with (out / "content.jsonl.partial").open("ab") as file:
        file.write(b'{"half a li')
    begun: list[int] = []
    assert export(keeping, out, report=lambda done, total: begun.append(done)).was_resumed
    whole, resumed = read_all(tmp_path / "whole"), read_all(out)
    for name in ("README.txt", "export.json"):  # times and ids
        del whole[name], resumed[name]
    assert whole == resumed


def test_what_changed_meanwhile(keeping: Keeping, tmp_path: Path) -> None:
    """What was erased while an export was interrupted is not in it when it ends."""
    out = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        export(keeping, out, report=stop)
    assert b'{\\"a\\":1}' in (out / "content.jsonl.partial").read_bytes()
    keeping.custody.erase_session(keeping.custody.directory.get("ada").id, "session-1", by="ada")
    assert not export(keeping, out).was_resumed
    assert [told["session"] for told in lines(out, "content")] == ["session-2", "session-3"]


def test_folders_that_hold_something_else(keeping: Keeping, tmp_path: Path) -> None:
    """A folder that is not empty, an export that is done, and one of another account are refused."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(Problem, match="not empty"):
        export(keeping, tmp_path / "mine")
    export(keeping, tmp_path / "out")
    with pytest.raises(Problem, match="not empty"):
        export(keeping, tmp_path / "out")

    def stop(done: int, total: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        export(keeping, tmp_path / "half", report=stop)
    bob = keeping.custody.directory.get("bob")
    maker = Maker("bob", is_holder=True)
    with pytest.raises(Problem, match="not empty"):
        export_account(keeping.custody, bob, tmp_path / "half", read_text=read_text, maker=maker)


def test_memory_holds_one_session(keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty sessions of 1 MB take the memory of one, not of all."""
    import tracemalloc

    for number in range(20):
        body = str(number).encode() * 500_000
        keeping.record("ada", f"large-{number:02}", body=body[:1_000_000], answer=body[:1_000_000])
    tracemalloc.start()
    export(keeping, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "out" / "content.jsonl").stat().st_size > 20_000_000
    assert peak < 15_000_000


def test_who_may_export(keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account holder needs no reason; anybody else does, and it is on the ledger."""
    monkeypatch.delenv("BAILEE_KEY", raising=False)
    _, key = create_key(keeping.custody.directory, "ada", origin=KeyOrigin.HOLDER)
    run = CliRunner().invoke
    arguments = ["export", "ada", "--home", str(keeping.home), "--out"]
    refused = run(command.accounts, [*arguments, str(tmp_path / "a")])
    assert isinstance(refused.exception, Problem)
    assert not (tmp_path / "a").exists()

    def count() -> int:
        return sum(isinstance(e, ContentRead) and e.purpose == "export" for e in keeping.entries())

    assert run(command.accounts, [*arguments, str(tmp_path / "b")], env={"BAILEE_KEY": key}).exit_code == 0
    assert count() == 0
    done = run(command.accounts, [*arguments, str(tmp_path / "c"), "--reason", "asked in writing", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["lines"]["sessions"] == 3
    assert "yours" not in done.stderr
    assert count() == 1
    (_, access) = lines(tmp_path / "c", "accesses")[::-1]
    assert (access["purpose"], access["reason"]) == ("export", "asked in writing")


def test_control_a_session_left_out(
    keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: an export that leaves a session out does not pass for everything."""
    whole = exports.list_ids
    monkeypatch.setattr(exports, "list_ids", lambda *some: whole(*some)[1:])
    export(keeping, tmp_path / "out")
    with pytest.raises(ValueError, match="longer than argument 1"):
        list(zip(lines(tmp_path / "out", "content"), SAID, strict=True))

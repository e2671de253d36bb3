"""Downloads are sent while they are made: one that fails breaks, and a form that nobody waits for is done."""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn

from bailee.console.application import Console
from bailee.console.rendering import TEMPLATES
from bailee.flows.messages.data_pages import make_pages
from bailee.ledger.receipts import verify_receipt
from bailee.pages import Download, Installation, Kept, Page, Part, View, Visit, Visitor
from bailee.policy.plans import Plan, Provider
from bailee.policy.problems import Problem
from bailee.vault.proofs import count_receipts, keep_receipt, read_receipts
from console.cast import Cast
from counterparts.keeping import Keeping
from counterparts.waiting import wait_for


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    """Give a home where ada said something in three sessions."""
    opened = Keeping(tmp_path / "home")
    opened.custody.directory.add("ada", Plan.PRO)
    for number in range(3):
        opened.record("ada", f"session-{number}")
    yield opened
    opened.close()


def install(keeping: Keeping) -> Installation:
    return Installation(
        home=keeping.home,
        upstream="rehearsal",
        upstream_url="http://127.0.0.1",
        provider=Provider.ANTHROPIC,
        is_first_party=True,
        retains_nothing=False,
        hops=(),
        tracker="",
        started_ms=0,
    )


def fetch(keeping: Keeping, pieces: Iterator[bytes]) -> bytes:
    """Download from a page of a console on a real server."""
    page = Page(
        path="/console/file",
        title="File",
        parts=frozenset({Part.ANYBODY}),
        templates=TEMPLATES,
        show=lambda visit: Download(lambda custody: pieces, "file.bin", "application/octet-stream"),
    )
    custody = keeping.custody
    console = Console([page], custody=custody, open_custody=lambda: custody, installation=install(keeping))
    server = uvicorn.Server(uvicorn.Config(console, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for("the server", lambda: server.started or None)
        port = server.servers[0].sockets[0].getsockname()[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/console/file")
            with connection.getresponse() as answer:
                assert (answer.status, answer.getheader("transfer-encoding")) == (200, "chunked")
                return answer.read()
    finally:
        server.should_exit = True
        thread.join()
        console.close()


def test_a_download_that_fails_midway_breaks(keeping: Keeping, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever takes it notices, and the log has a line for it; one that ends well is taken whole."""

    def fail() -> Iterator[bytes]:
        yield b"first"
        raise Problem("a record was altered", where="session-1")

    with pytest.raises(http.client.IncompleteRead):
        fetch(keeping, fail())
    told = [one for one in caplog.records if one.name.startswith("bailee")]
    assert "a record was altered" in told[0].getMessage()
    assert all(one.exc_info is None for one in caplog.records)
    assert fetch(keeping, iter([b"first", b"second"])) == b"firstsecond"


def erase_everything(keeping: Keeping) -> object:
    """Do what the page does where Ada has written her name."""
    (act,) = [page.act for page in make_pages() if page.path == "/console/data/erase"]
    assert act is not None
    visit = Visit(
        visitor=Visitor(keeping.custody.directory.get("ada")),
        custody=keeping.custody,
        installation=install(keeping),
        kept=Kept(),
        path={},
        query={},
        form={"name": "ada"},
    )
    return act(visit)


def test_erasing_everything_goes_on_where_it_was_cut_off(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receipt of what went is kept; sent again the rest goes, and all receipts hold."""
    custody, ada = keeping.custody, keeping.custody.directory.get("ada")
    erase = custody.erase_session

    def stop(account: str, session: str, *, by: str, person: str) -> object:
        if session == "session-1":
            raise KeyboardInterrupt
        return erase(account, session, by=by, person=person)

    with monkeypatch.context() as cut:
        cut.setattr(custody, "erase_session", stop)
        with pytest.raises(KeyboardInterrupt):
            erase_everything(keeping)
    assert count_receipts(keeping.home, ada.id) == 1
    keeping.now += 1
    answer = erase_everything(keeping)
    assert isinstance(answer, View)
    assert answer.facts["sessions"] == 2
    receipts = list(read_receipts(keeping.home, ada.id))
    assert len(receipts) == 3
    for receipt in receipts:
        assert len(verify_receipt(receipt, custody.log.verifier)) == 2


def test_a_hold_that_comes_midway_is_told_with_what_went(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was erased before it is told, with its receipt, and that not all of it went; the reason is not.
    Control: where nothing went yet it is a refusal.
    """
    custody, ada = keeping.custody, keeping.custody.directory.get("ada")
    erase = custody.erase_session

    def erase_and_hold(account: str, session: str, *, by: str, person: str) -> object:
        done = erase(account, session, by=by, person=person)
        custody.hold(ada, None, reason="a secret case", by="boss")
        return done

    with monkeypatch.context() as held:
        held.setattr(custody, "erase_session", erase_and_hold)
        answer = erase_everything(keeping)
    assert isinstance(answer, View)
    assert (answer.facts["sessions"], answer.facts["keys"], answer.facts["many"]) == (1, 1, 1)
    assert "a legal hold keeps it" in answer.facts["stopped"]
    assert "secret case" not in answer.facts["stopped"]
    assert count_receipts(keeping.home, ada.id) == 1
    with pytest.raises(Problem, match="legal hold"):
        erase_everything(keeping)


def test_kept_receipts_go_with_their_account(keeping: Keeping) -> None:
    """Erasing the account removes them, and none of another's."""
    ada = keeping.custody.directory.get("ada")
    for account in (ada.id, "another"):
        keep_receipt(keeping.home, account, b"{}\n", at_ms=1)
    keeping.custody.erase_account(ada, by="op")
    assert count_receipts(keeping.home, ada.id) == 0
    assert count_receipts(keeping.home, "another") == 1


def test_who_hangs_up_finds_the_receipts_later(cast: Cast) -> None:
    """A browser that waits for no answer: what it asked for is done, and its receipts are there."""
    cast.say("admin", "ada-goes", "forget this")
    wait_for(
        "it to be held", lambda: cast.ask("GET", "/console/data/session/ada-goes", "admin")[0] == 200 or None
    )
    token = cast.ask("GET", "/console/privacy", "admin")[1].partition('form_token" value="')[2][:64]
    before = cast.ask("GET", "/console/data/receipts", "admin")[1].count('"checkpoint"')
    connection = http.client.HTTPConnection(*cast.service.address, timeout=30)
    sent = {
        "cookie": f"bailee_console={cast.tokens['admin']}",
        "content-type": "application/x-www-form-urlencoded",
    }
    body = urlencode({"form_token": token})
    connection.request("POST", "/console/data/session/ada-goes/erase", body, sent)
    connection.close()

    def count() -> int:
        return cast.ask("GET", "/console/data/receipts", "admin")[1].count('"checkpoint"')

    wait_for("the receipt", lambda: count() == before + 1 or None)
    assert cast.ask("GET", "/console/data/session/ada-goes", "admin")[0] == 404


def test_who_hangs_up_leaves_no_export(cast: Cast) -> None:
    """Nothing of an export lies below the service's temporary folder midway, nor afterwards."""
    token = cast.ask("GET", "/console/privacy", "alice")[1].partition('form_token" value="')[2][:64]
    connection = http.client.HTTPConnection(*cast.service.address, timeout=30)
    sent = {
        "cookie": f"bailee_console={cast.tokens['alice']}",
        "content-type": "application/x-www-form-urlencoded",
    }
    connection.request("POST", "/console/data/export", urlencode({"form_token": token}), sent)
    answer = connection.getresponse()
    assert (answer.status, answer.read(2)) == (200, b"\x1f\x8b")

    def find() -> list[Path]:
        found = [path for path in cast.service.temporary.rglob("*") if path.is_file()]
        return [path for path in found if b"a very long line" in path.read_bytes()]

    assert find() == []
    connection.close()
    assert find() == []
    assert list(cast.service.temporary.glob("bailee-export-*")) == []
    left = cast.service.temporary / "left"
    left.write_bytes(b"a very long line")
    assert find() == [left]
    left.unlink()

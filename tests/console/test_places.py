"""What is held beside the vault's records, as of cloud sessions: exported and erased with all the rest."""

import json
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest

from bailee.cloud.records import Sessions
from bailee.ledger.entries import Erased, decode_entry
from bailee.ledger.log import FOLDER, open_log
from bailee.ledger.receipts import split_receipts, verify_receipt
from bailee.service.cloud_rest import settle
from bailee.vault.proofs import count_receipts, keep_receipt
from console.browsers import Visitor
from console.cast import Cast, found_organization
from console.filling import make_cloud_session
from counterparts.programs import run_program
from counterparts.waiting import wait_for

Visit = Callable[..., Visitor]
FORM = {"content-type": "application/x-www-form-urlencoded"}
SAID = "cloning https://git.example/acme/app"


@pytest.fixture
def initech(cast: Cast, request: pytest.FixtureRequest) -> Cast:
    """Give an organization of its own, whose member has a cloud session, sealed, and a conversation."""
    name = f"initech-{abs(hash(request.node.name)) % 1_000_000}"
    found = found_organization(cast.home, cast.service, name)
    found.cloud = make_cloud_session(found, account=f"{name}-member")
    settle(found.home, Sessions(found.home))
    found.say("member", f"{name}-first", "hello")
    wait_for("it to be held", lambda: f"{name}-first" in found.ask("GET", "/console/data", "member")[1])
    return found


def read_form(cast: Cast, place: str) -> str:
    """Return the token that the member's forms carry."""
    return cast.ask("GET", place, "member")[1].partition('form_token" value="')[2][:64]


def send(cast: Cast, place: str, token: str, **fields: str) -> tuple[int, str]:
    """Send a form of the member's."""
    body = urlencode({"form_token": token, **fields})
    return cast.ask("POST", place, "member", body, **FORM)[:2]


def test_an_export_has_cloud_sessions(visit: Visit, initech: Cast) -> None:
    """Their facts and what they said come with everything else, and nobody else's do; the page leads to
    them.
    """
    page = visit("member", initech).go("/console/data")
    with page.expect_download() as download:
        page.click("text=Export everything")
    with tarfile.open(download.value.path()) as archive:
        name = next(name for name in archive.getnames() if name.endswith("/cloud.jsonl"))
        held, readme = (
            archive.extractfile(name),
            archive.extractfile(name.replace("cloud.jsonl", "README.txt")),
        )
        assert held is not None
        assert readme is not None
        told = [json.loads(line) for line in held]
        assert "cloud sessions: what was asked" in readme.read().decode()
    assert {one["id"] for one in told} == {initech.cloud}
    assert told[0]["repository"] == "https://git.example/acme/app"
    assert SAID in told[1]["log"]
    page.click("text=1 cloud session")
    assert page.url.endswith("/console/cloud")
    assert initech.cloud in page.inner_text("main")


def test_a_cloud_session_is_erased(visit: Visit, initech: Cast, cast: Cast, has_scripts: bool) -> None:
    """What goes is told first; then its key, its disk and its log are gone, with a receipt under its holder's
    account. Its conversation stays, and nobody else can do it.
    """
    place = f"/console/cloud/{initech.cloud}/erase"
    for person in ("charlie", "operator", "admin", "nobody"):
        assert cast.ask("GET", place, person)[0] in (303, 404), person
    window = visit("member", initech, java_script_enabled=has_scripts)
    sessions = Sessions(initech.home)
    for retention, is_offered in (("none", False), ("30d", True)):
        # Of what is not kept nothing can be gone on with.
        sessions.change(initech.cloud, retention=retention)
        page = window.go(f"/console/cloud/{initech.cloud}")
        assert (page.query_selector("text=bailee cloud say") is not None) is is_offered
    page.click("text=Erase…")
    assert "what it pushed to" in page.inner_text("main")
    assert not has_scripts or window.check_with_axe() == []
    disk = sessions.read_facts(initech.cloud).disk
    assert sessions.key_of(disk) is not None
    page.click("text=Erase this session")
    assert "is gone with its disk" in page.inner_text("main")
    page.click("text=Verify it here")
    assert page.inner_text(".big").startswith("1 of 1")
    assert Sessions(initech.home).key_of(disk) is None
    assert not sessions.folder(initech.cloud).exists()
    assert initech.ids["member"] in cast.list_known()
    assert not any("-member" in one for one in cast.list_known())
    assert cast.ask("GET", f"/console/cloud/{initech.cloud}", "operator")[0] == 404
    assert "-first" in window.go("/console/data").inner_text("main")


def test_everything_is_everything(visit: Visit, initech: Cast, tmp_path: Path) -> None:
    """Erasing everything takes cloud sessions too, told first, and the file with all receipts verifies by the
    command that it is for; one of them changed does not.
    """
    name = initech_member(initech)
    page = visit("member", initech, java_script_enabled=False).go("/console/data/erase")
    assert "1 cloud session" in page.inner_text("main")
    page.fill("#f-name", name)
    page.click("main button")
    assert "1 session, 1 cloud session" in page.inner_text("main")
    assert not Sessions(initech.home).folder(initech.cloud).exists()
    page.click("text=Verify it here")
    assert page.inner_text(".big").startswith("2 of 2")
    page = visit("member", initech).go("/console/data")
    assert "Held besides" not in page.inner_text("main")
    page.click("text=Verify them")
    assert page.inner_text(".big").startswith("2 of 2")
    page = visit("member", initech).go("/console/data")
    with page.expect_download() as download:
        page.click("text=download them")
    path = Path(download.value.path())
    assert len(json.loads(path.read_text())) == 2
    words = ("ledger", "verify", str(path), "--home", str(initech.home))
    done = run_program(*words, environment={}, folder=tmp_path)
    assert (done.returncode, "2 of 2 receipts hold" in done.stdout) == (0, True)
    path.write_bytes(path.read_bytes().replace(b'"index": ', b'"index": 1', 1))
    done = run_program(*words, environment={}, folder=tmp_path)
    assert (done.returncode, "1 of 2 receipts hold" in done.stdout) == (1, True)
    path.write_bytes(b"[]\n")
    done = run_program(*words, environment={}, folder=tmp_path)
    assert (done.returncode, "there is no receipt in this file" in done.stderr) == (2, True)


def initech_member(initech: Cast) -> str:
    """Return the name of the member."""
    return Sessions(initech.home).read_facts(initech.cloud).account


def test_two_browsers_erase_the_same(initech: Cast) -> None:
    """What both send at once goes once: the ledger counts it once, nobody is told of a fault, and each
    receipt verifies.
    """
    name = initech_member(initech)
    sessions = [f"{name}-{number}" for number in range(6)]
    for session in sessions:
        initech.say("member", session, "twice")
    wait_for("all", lambda: sessions[-1] in initech.ask("GET", "/console/data", "member")[1])
    log = open_log(initech.home / FOLDER)
    before, token = log.size, read_form(initech, "/console/data/erase")
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: send(initech, "/console/data/erase", token, name=name), range(3)))
    assert [status for status, _ in answers] == [200] * 3, [
        told.partition("<main")[2][:600] for _, told in answers
    ]
    wait_for("the ledger", lambda: "erased" in initech.ask("GET", "/console/ledger", "member")[1])
    entries = [decode_entry(data) for data in log.read(before, log.size)]
    erased = [one for one in entries if isinstance(one, Erased)]
    assert sum(one.segments for one in erased) == len(sessions) + 1 + 1  # the first one, and the disk
    assert sum(one.exchanges for one in erased) == len(sessions) + 1


def test_more_receipts_than_a_page_shows_are_all_verified(initech: Cast) -> None:
    """Of very many all are verified, and what is wrong is told wherever it stands."""
    token, name = read_form(initech, "/console/data/erase"), initech_member(initech)
    assert send(initech, "/console/data/erase", token, name=name)[0] == 200
    kept = initech.home / "receipts" / initech.ids["member"]
    one = next(iter(kept.iterdir())).read_bytes()
    for number in range(1300):
        keep_receipt(initech.home, initech.ids["member"], one + b" " * (number == 1234), at_ms=number)
    # Not a copy more than there are different ones by time.
    assert count_receipts(initech.home, initech.ids["member"]) == 1302
    status, told = send(initech, "/console/receipts", token, kept="1")
    assert status == 200
    assert "1301 of 1302" in told
    assert "Receipt 1235: Not verified" in told
    verifier = open_log(initech.home / FOLDER).verifier
    data = initech.ask("GET", "/console/data/receipts", "member")[1].encode()
    assert sum(bool(verify_receipt(one, verifier)) for one in split_receipts(data)[:50]) == 50

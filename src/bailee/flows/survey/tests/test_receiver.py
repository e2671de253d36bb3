"""Ratings at a real service: what is taken, what is held of it, and what is not."""

import http.client
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.flows.survey.ratings import Rating
from bailee.flows.survey.receiver import NOBODY, SESSION
from bailee.flows.survey.results import Count, count_ratings, summarize
from bailee.policy.plans import Plan
from bailee.vault import tables
from bailee.vault.reader import list_exchanges, read_session
from bailee.vault.store import open_keys, open_vault
from counterparts.holdings import find_bytes
from counterparts.programs import run_program
from counterparts.services import Service, clean_environment, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("survey")


@pytest.fixture(scope="module")
def key(folder: Path) -> str:
    directory = open_directory(folder / "state")
    directory.add("ada", Plan.PRO)
    try:
        return create_key(directory, "ada")[1]
    finally:
        directory.close()


@pytest.fixture(scope="module")
def service(folder: Path, key: str) -> Iterator[Service]:
    with serving(folder / "state", folder, "--upstream", "rehearsal") as service:
        yield service


def post(service: Service, body: bytes, key: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*service.address, timeout=30)
    headers = {"Authorization": f"Bearer {key}", "X-Claude-Code-Session-Id": "SESSION-CANARY"}
    connection.request("POST", "/api/survey", body, headers)
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def count(home: Path, days: int = 0) -> dict[tuple[str, str], int]:
    vault, keys = open_vault(home), open_keys(home)
    try:
        today = datetime.now(UTC).date() + timedelta(days=days)
        exchanges = list_exchanges(vault, account=NOBODY, session=SESSION)
        counts = count_ratings(exchanges, read_session(vault, keys, NOBODY, SESSION, today=today))
    finally:
        keys.close()
        vault.dispose()
    return {(one.version, one.rating): one.count for one in counts}


def test_each_rating_is_counted_and_dismissing_is_one(service: Service, key: str) -> None:
    """1, 2, 3 and dismiss are held as what they are, by day and version."""
    for rating in (*Rating, Rating.DISMISS):
        assert post(service, json.dumps({"rating": rating, "version": "1.2"}).encode(), key) == (204, b"")
    expected = {("1.2", "1"): 1, ("1.2", "2"): 1, ("1.2", "3"): 1, ("1.2", "dismiss"): 2}
    assert {one: number for one, number in count(service.home).items() if one[0] == "1.2"} == expected
    environment = clean_environment(service.home.parent, BAILEE_HOME=str(service.home))
    told = run_program("survey", "days", "--json", environment=environment, folder=service.home.parent)
    assert sum(one["count"] for one in json.loads(told.stdout) if one["version"] == "1.2") == 5


@pytest.mark.parametrize(
    "body",
    [
        b'{"rating":"1","version":"1","session":"x"}',
        b'{"rating":"1","version":"1","comment":""}',
        b'{"rating":"4","version":"1"}',
        b'{"rating":1,"version":"1"}',
        b'{"rating":"1","version":"/home/ada"}',
        b'{"rating":"1","version":""}',
        b'{"rating":"1"}',
        b"[]",
        b"{",
        b"\xff",
        b'{"rating":"1","version":"' + b"1" * 2000 + b'"}',
    ],
)
def test_the_format_has_room_for_nothing_else(service: Service, key: str, body: bytes) -> None:
    """A field more, a rating that is none or a version that is none is refused, and nothing of it is held."""
    before = count(service.home)
    assert post(service, body, key)[0] in (400, 413)
    assert count(service.home) == before


def test_without_a_key_nothing_is_taken(service: Service, key: str) -> None:
    """Ratings come from accounts of this service."""
    assert post(service, b'{"rating":"1","version":"1"}', "nobody")[0] == 401


def test_nothing_held_leads_to_a_person_or_a_session(service: Service, key: str) -> None:
    """No column of a rating holds account, key, session or time of day; its id is no moment; it is sealed."""
    post(service, b'{"rating":"3","version":"9.8.7canary"}', key)
    vault = open_vault(service.home)
    with vault.connect() as connection:
        exchanges = tables.exchanges
        rows = connection.execute(sa.select(exchanges).where(exchanges.c.flow == "survey")).mappings().all()
        segments = connection.execute(sa.select(tables.segments)).mappings().all()
    vault.dispose()
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    assert rows
    for row in rows:
        assert (row["account"], row["session"], row["key"]) == ("", "survey", "")
        assert row["started_ms"] % 86_400_000 == 0
        assert row["first_byte_ms"] is None
        assert not row["duration_ms"]
        assert not row["request_bytes"]
    assert max(abs((row["id"] >> 21) - now_ms) for row in rows) > 60_000
    assert {row["decision"] for row in rows} == {rows[0]["decision"]}
    assert all(segment["account"] == "" for segment in segments)
    assert find_bytes(service.home, b"9.8.7canary", b"SESSION-CANARY") == []


def test_a_rating_goes_on_its_day(service: Service, key: str) -> None:
    """After 30 days it is not counted any more, and its key is due like any other's."""
    assert post(service, b'{"rating":"2","version":"30"}', key)[0] == 204
    assert count(service.home, days=29)
    assert count(service.home, days=30) == {}


def test_a_summary_counts_dismissals_apart() -> None:
    """By version; the mean is of those who gave a number, and none where nobody did."""
    day = date(2026, 11, 26)
    counts = [
        Count(day, "1.0.0", "1", 1),
        Count(day, "1.0.0", "3", 2),
        Count(day + timedelta(days=1), "1.0.0", "3", 1),
        Count(day, "1.0.0", "dismiss", 9),
        Count(day, "2.0.0", "dismiss", 1),
    ]
    first, second = summarize(counts)
    assert (first.version, first.counts, first.mean) == (
        "1.0.0",
        {"1": 1, "2": 0, "3": 3, "dismiss": 9},
        2.5,
    )
    assert (second.counts["dismiss"], second.mean) == (1, None)

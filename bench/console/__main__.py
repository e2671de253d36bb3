"""`python -m bench.console`: the first byte of every page of the console, with 100,000 sessions held."""

import http.client
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import sqlalchemy as sa

from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.keys import create_key
from bailee.accounts.operators import appoint_operator
from bailee.accounts.sign_ins import Way, sign_in
from bailee.policy.plans import Plan
from bailee.service.console import make_pages
from bailee.vault import tables
from bailee.vault.store import open_vault
from bench.machine import describe_machine, tell_machine, write_table
from bench.retention.homes import Holding, build_home

ROOT = Path(__file__).resolve().parents[2]
AIM_MS = 50.0
TURNS = 40
NOTES = """\
- First byte: from the request until the status line is there, over one connection that stays open. Each page
  is drawn by then. *many* holds half of all sessions, *few* a thousand.
- The first request of a page, which makes what is kept of it, counts like all others."""


@dataclass(frozen=True)
class Visit:
    """Milliseconds until the first byte of a page, for somebody."""

    who: str
    path: str
    p50: float
    p95: float
    most: float


@click.command()
@click.option("--sessions", default=100_000, show_default=True, help="How many are held.")
@click.option("--quick", is_flag=True, help="A tenth of them, asked ten times: rough figures.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all here.")
def main(sessions: int, quick: bool, json_file: Path | None) -> None:
    """Measure every page, as whoever may see it."""
    sys.path.insert(0, str(ROOT / "tests"))
    from counterparts.services import serving

    sessions, times = (sessions // 10, 10) if quick else (sessions, 60)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        home = Path(name) / "state"
        build_home(home, Holding(sessions, ()), datetime.now(UTC).date(), None, lambda count: None)
        tokens, key = _fill(home)
        with serving(home, Path(name), "--upstream", "rehearsal") as service:
            for _ in range(TURNS):
                _say(service.address, key)
            found = [_measure(service.address, who, path, tokens[who], times) for who, path in _list_pages()]
    if json_file:
        facts = {
            "sessions": sessions,
            "visits": [asdict(one) for one in found],
            "machine": describe_machine(),
        }
        json_file.write_text(json.dumps(facts, indent=1) + "\n")
    rows = [
        (one.path, one.who, f"{one.p50:.1f}", f"{one.p95:.1f}", f"{one.most:.1f}")
        for one in sorted(found, key=lambda one: -one.p95)
    ]
    click.echo(f"Pages with {sessions:,} sessions in the store; milliseconds. {tell_machine()}\n")
    click.echo(write_table(("page", "who", "p50", "p95", "most"), rows))
    worst = max(one.p95 for one in found)
    click.echo(f"\nThe slowest p95 is {worst:.1f} ms; {AIM_MS:.0f} ms are aimed at.\n\n{NOTES}")


def _fill(home: Path) -> tuple[dict[str, str], str]:
    """Give one account half of what is held, make an admin and an operator, and sign all of them in."""
    directory = open_directory(home)
    many, few = directory.get("account-0000"), directory.get("account-0001")
    directory.add("admin", Plan.TEAM, organization="acme")
    appoint_operator(directory, "account-0002", given=True, by="bench")
    vault = open_vault(home)
    with vault.begin() as connection:
        for table, number in ((tables.segments, "number"), (tables.exchanges, "segment")):
            half = table.c[number] % 2 == 0
            connection.execute(sa.update(table).where(half).values(account=many.id))
    vault.dispose()
    key = create_key(directory, "account-0001")[1]
    people = {"many": many.id, "few": few.id}
    people |= {"admin": directory.get("admin").id, "operator": directory.get("account-0002").id}
    tokens = {who: _sign_in(directory, account) for who, account in people.items()}
    directory.close()
    return tokens, key


def _sign_in(directory: Directory, account: str) -> str:
    return sign_in(directory, account, None, Way.PASSWORD, address="127.0.0.1", agent="bench")


def _list_pages() -> list[tuple[str, str]]:
    """Return who asks for which page: holders for theirs, an admin and an operator for theirs."""
    found: list[tuple[str, str]] = []
    for page in make_pages():
        if page.show is None or "{" in page.path or page.path in ("/console", "/console/sign-in"):
            continue
        parts = {part.value for part in page.parts}
        whos = ["operator"] if "operator" in parts else ["admin"] if "admin" in parts else []
        found += [(who, page.path) for who in ("many", "few") if "holder" in parts]
        found += [(who, page.path) for who in whos or ([] if "holder" in parts else ["few"])]
    return [*found, ("many", "/console/data?flow=web"), ("few", "/console/data/session/bench")]


def _measure(address: tuple[str, int], who: str, path: str, token: str, times: int) -> Visit:
    connection = http.client.HTTPConnection(*address, timeout=60)
    took = []
    for _ in range(times):
        began = time.perf_counter()
        connection.request("GET", path, headers={"cookie": f"bailee_console={token}"})
        answer = connection.getresponse()
        took.append((time.perf_counter() - began) * 1000)
        answer.read()
        assert answer.status in (200, 303, 400), f"{path}: {answer.status}"
    connection.close()
    return Visit(who, path, statistics.median(took), sorted(took)[int(len(took) * 0.95)], max(took))


def _say(address: tuple[str, int], key: str) -> None:
    body = {"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "say something " * 200}]}
    headers = {
        "authorization": f"Bearer {key}",
        "content-type": "application/json",
        "x-claude-code-session-id": "bench",
    }
    connection = http.client.HTTPConnection(*address, timeout=60)
    connection.request("POST", "/v1/messages", json.dumps(body), headers)
    assert connection.getresponse().read()
    connection.close()


if __name__ == "__main__":
    main()

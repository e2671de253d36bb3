"""Sessions in the order of their last use, found by whichever way costs least: all ways find the same."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.policy.flows import FlowId
from bailee.vault import recent, tables
from bailee.vault.store import open_vault

PEOPLE, FLOWS = ("alice", "bob"), (FlowId.MESSAGES, FlowId.WEB)
PAGE = 3


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[sa.Engine]:
    """Give a vault with 300 exchanges of two accounts, one of them used lately, in mixed sessions."""
    engine = open_vault(tmp_path)
    chance = random.Random(7)
    rows = []
    for id in range(1, 301):
        account = "alice" if id < 150 or chance.random() < 0.1 else "bob"
        flow = FlowId.WEB if chance.random() < 0.1 else FlowId.MESSAGES
        session = f"{flow}-{chance.randrange(12)}"
        numbers = {"decision": 1, "started_ms": id, "request_bytes": 1}
        words = {"key": "", "state": "complete", "upstream": "", "path": ""}
        rows.append(
            {"id": id, "account": account, "session": session, "flow": flow.value, **numbers, **words}
        )
    with engine.begin() as connection:
        connection.execute(sa.insert(tables.decisions), [{"number": 1, "digest": bytes(32), "body": "{}"}])
        connection.execute(sa.insert(tables.exchanges), rows)
    yield engine
    engine.dispose()


def read_all(engine: sa.Engine, account: str, flow: FlowId) -> list[tuple[str, int]]:
    """Return every session and its last use, page by page."""
    found: list[tuple[str, int]] = []
    before: int | None = None
    while True:
        page = recent.list_recent(engine, account, limit=PAGE, before=before, flow=flow)
        found += [(one.id, one.last_ms) for one in page.sessions]
        if page.next is None:
            return found
        before = page.next


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("account", PEOPLE)
def test_all_ways_find_the_same(
    vault: sa.Engine, account: str, flow: FlowId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the index, by the walk, and by a walk that gives up: each session once, the one used last first."""
    table = tables.exchanges
    last = sa.func.max(table.c.started_ms)
    query = sa.select(table.c.session, last).where(table.c.account == account, table.c.flow == flow.value)
    with vault.connect() as connection:
        wanted = [
            tuple(row) for row in connection.execute(query.group_by(table.c.session).order_by(last.desc()))
        ]
    assert len(wanted) > PAGE
    assert read_all(vault, account, flow) == wanted
    monkeypatch.setattr(recent, "FEW", 0)
    monkeypatch.setattr(recent, "_STEP", 10)
    for steps in (1000, 3):
        monkeypatch.setattr(recent, "_MOST_STEPS", steps)
        assert read_all(vault, account, flow) == wanted


def test_a_walk_gives_up(vault: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was there long ago is not looked for among all that came since; who came lately is found."""
    monkeypatch.setattr(recent, "_STEP", 10)
    monkeypatch.setattr(recent, "_MOST_STEPS", 3)
    with vault.connect() as connection:
        assert recent._find_by_walk(connection, "alice", FlowId.WEB, None, PAGE) is None
        assert recent._find_by_walk(connection, "bob", FlowId.MESSAGES, None, PAGE) is not None

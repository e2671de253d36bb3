"""A database server that goes away: requests are refused, and all goes on with its return."""

from pathlib import Path

import pytest

from bailee.database.locations import VARIABLE
from counterparts.agents import prompt
from counterparts.databases import Server, draw_name
from counterparts.gates import Gate, open_gate
from counterparts.holdings import read_exchanges, wait_until_ended
from counterparts.waiting import wait_for

_END = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname LIKE %s AND pid <> pg_backend_pid()
"""


def test_no_database_no_service(tmp_path: Path, postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the accounts are away a key that was good is answered 503; with all back, it is as before."""
    name = draw_name()
    monkeypatch.setenv(VARIABLE, postgresql.url(name))
    with open_gate(tmp_path, "--upstream", "rehearsal") as gate, postgresql.connect() as server:
        assert ask(gate, "before") == 200
        server.execute(f"ALTER DATABASE {name}_accounts ALLOW_CONNECTIONS false".encode())
        server.execute(_END, (f"{name}_accounts",))
        assert ask(gate, "during") == 503
        assert ask(gate, "during") == 503
        server.execute(f"ALTER DATABASE {name}_accounts ALLOW_CONNECTIONS true".encode())
        assert ask(gate, "after") == 200
        # The recorder ends with its connection, and another takes its place.
        server.execute(_END, (f"{name}_%",))
        wait_for("the recorder that comes next", lambda: ask(gate, "at last") == 200)
        for session in ("before", "after"):
            wait_until_ended(gate.home, session)
        assert read_exchanges(gate.home, "during") == []
        assert "Traceback" not in gate.service.errors
    postgresql.drop(name)


def ask(gate: Gate, session: str) -> int:
    """Let one request through, if it is let, and return the status of the answer."""
    with gate.connect() as agent:
        agent.ask(session, prompt("x"))
        return agent.read_answer().status

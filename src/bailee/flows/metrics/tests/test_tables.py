"""Points as Parquet."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bailee.flows.metrics.results import Held
from bailee.flows.metrics.tables import write_parquet
from bailee.policy.problems import Problem

HOUR = datetime(2026, 11, 26, 11, tzinfo=UTC)
POINTS = [
    Held(HOUR, "bailee.turn", {"version": "1.2.3", "outcome": "done", "rounds": 3.0}),
    Held(HOUR, "claude_code.commit.count", {"value": 7.0}),
]


def test_every_point_is_a_row(tmp_path: Path) -> None:
    """With its hour and name; a field that another entry has is empty, numbers are numbers."""
    path = tmp_path / "metrics.parquet"
    write_parquet(POINTS, path)
    rows = pq.read_table(path).to_pylist()
    assert [{key: value for key, value in row.items() if value is not None} for row in rows] == [
        {"hour": HOUR, "name": "bailee.turn", "version": "1.2.3", "outcome": "done", "rounds": 3.0},
        {"hour": HOUR, "name": "claude_code.commit.count", "value": 7.0},
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    """It may be another export: nothing is written over."""
    path = tmp_path / "metrics.parquet"
    path.write_bytes(b"mine")
    with pytest.raises(Problem):
        write_parquet(POINTS, path)
    assert path.read_bytes() == b"mine"


def test_no_point_is_a_table_too(tmp_path: Path) -> None:
    """Columns without a row."""
    write_parquet([], tmp_path / "metrics.parquet")
    table = pq.read_table(tmp_path / "metrics.parquet")
    assert (table.num_rows, {"hour", "name", "value"} <= set(table.column_names)) == (0, True)

"""Lists of runs: each filter is a look into an index, whatever the others are."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import apsw
import pytest

from loom.stores.sqlite import sql
from loom.stores.sqlite.database import open_for_writing

COLUMNS = ("state", "actor", "parent", "root")
CHOICES = [(columns, labels) for count in range(5) for columns in combinations(COLUMNS, count) for labels in range(3)]


@pytest.fixture
def db(tmp_path: Path) -> apsw.Connection:
    return open_for_writing(str(tmp_path / "runs.db"), "process", 1.0)


@pytest.mark.parametrize(("columns", "labels"), CHOICES)
def test_no_list_walks_through_runs_or_sorts_them(db: apsw.Connection, columns: tuple[str, ...], labels: int) -> None:
    """Each step is a search by index; a filter's own index is the one that is searched."""
    values = (100, 10, *columns, *["label"] * (2 * labels))
    plan = [str(row[3]) for row in db.execute("EXPLAIN QUERY PLAN " + sql.list_runs(columns, labels), values)]
    assert {step for step in plan if step.startswith("SCAN")} <= {"SCAN round", "SCAN CONSTANT ROW"}
    assert not [step for step in plan if "TEMP B-TREE" in step]
    for column in columns:
        assert any(f"COVERING INDEX run_{column} ({column}=? AND id<?)" in step for step in plan)
    assert sum("SEARCH label USING PRIMARY KEY (name=? AND value=? AND run<?)" in step for step in plan) == labels
    db.close()

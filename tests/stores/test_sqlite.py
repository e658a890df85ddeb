"""The SQLite store: the shipped suites, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from loom.stores.sqlite import SqliteStore
from loom.testing.clock import StoreFactory
from loom.testing.conformance import SharedStoreConformance
from loom.testing.machine import queue_machine, store_machine

pytestmark = pytest.mark.anyio


@contextmanager
def place() -> Iterator[StoreFactory]:
    with TemporaryDirectory() as folder:
        yield lambda clock: SqliteStore(Path(folder) / "runs.db", clock=clock)


class TestConformance(SharedStoreConformance):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> StoreFactory:
        return lambda clock: SqliteStore(tmp_path / "runs.db", clock=clock)


TestLogMachine = store_machine(place, reopens=True)
TestQueueMachine = queue_machine(place, reopens=True)

"""The memory store: the shipped suites, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loom.stores.memory import MemoryStore
from loom.testing.clock import Clock, StoreFactory
from loom.testing.conformance import StoreConformance
from loom.testing.machine import queue_machine, store_machine


def make(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


@contextmanager
def place() -> Iterator[StoreFactory]:
    yield make


class TestConformance(StoreConformance):
    @pytest.fixture
    def make_store(self) -> StoreFactory:
        return make


TestLogMachine = store_machine(place)
TestQueueMachine = queue_machine(place)

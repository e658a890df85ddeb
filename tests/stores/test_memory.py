"""The memory store: the conformance suite, and what is its own."""

from __future__ import annotations

import pytest

from loom.stores.memory import MemoryStore
from loom.testing.conformance import Clock, StoreConformance, StoreFactory


class TestConformance(StoreConformance):
    @pytest.fixture
    def make_store(self) -> StoreFactory:
        def make(clock: Clock) -> MemoryStore:
            return MemoryStore(clock=clock)

        return make

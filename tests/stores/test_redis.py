"""The Redis store: the shipped suites, and what is its own."""

from __future__ import annotations

import itertools

import pytest

from loom.stores.redis import RedisStore, parse_url
from loom.testing.clock import StoreFactory
from loom.testing.conformance import SharedStoreConformance

pytestmark = pytest.mark.anyio
import os
_numbers = itertools.count()


class TestConformance(SharedStoreConformance):
    @pytest.fixture
    def make_store(self) -> StoreFactory:
        address = parse_url(f"redis://127.0.0.1:{os.environ.get('PORT', 6399)}/?prefix=t{os.getpid()}-{next(_numbers)}")
        return lambda clock: RedisStore(address, clock=clock)

from collections.abc import Iterator
from contextlib import contextmanager
from loom.testing.machine import queue_machine, store_machine


@contextmanager
def place() -> Iterator[StoreFactory]:
    address = parse_url(f"redis://127.0.0.1:{os.environ.get('PORT', 6399)}/?prefix=m{os.getpid()}-{next(_numbers)}")
    yield lambda clock: RedisStore(address, clock=clock)


TestLogMachine = store_machine(place, reopens=True)
TestQueueMachine = queue_machine(place, reopens=True)

"""The Redis store: the shipped suites, on each of its topologies, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loom.stores.redis import RedisStore, parse_url
from loom.testing.clock import StoreFactory
from loom.testing.conformance import SharedStoreConformance
from loom.testing.machine import queue_machine, store_machine
from tests.servers.fixtures import own

pytestmark = pytest.mark.anyio


class TestConformance(SharedStoreConformance):
    @pytest.fixture
    def make_store(self, redis_url: str) -> StoreFactory:
        return lambda clock: RedisStore(parse_url(redis_url), clock=clock)

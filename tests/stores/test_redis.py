"""The Redis store: the shipped suites, on each of its topologies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loom.stores.redis import RedisStore, parse_url
from loom.testing.clock import StoreFactory
from loom.testing.conformance import SharedStoreConformance
from loom.testing.machine import log_machine, queue_machine, run_machine, worker_machine
from tests.servers.fixtures import own
from tests.servers.server import Server

pytestmark = pytest.mark.anyio


class TestConformance(SharedStoreConformance):
    @pytest.fixture
    def make_store(self, redis_url: str) -> StoreFactory:
        return lambda clock: RedisStore(parse_url(redis_url), clock=clock)


_urls: list[str] = []


@pytest.fixture(autouse=True, scope="module")
def for_the_machines(valkey: Server) -> Iterator[None]:
    """They are made before any fixture is."""
    _urls.append(valkey.url())
    yield
    _urls.clear()


@contextmanager
def place() -> Iterator[StoreFactory]:
    url = own(_urls[0])
    yield lambda clock: RedisStore(parse_url(url), clock=clock)


SHRINKS = pytest.mark.timeout(600)
"""A failure is told when its shortest form was found: for a slow machine that takes minutes."""

TestLogMachine = SHRINKS(log_machine(place, reopens=True))
TestRunMachine = SHRINKS(run_machine(place, reopens=True))
TestQueueMachine = SHRINKS(queue_machine(place, reopens=True))
TestWorkerMachine = SHRINKS(worker_machine(place, reopens=True))

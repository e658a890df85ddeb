"""Fixtures: a store on the shared Valkey, with a prefix of its own. A module that needs another has its own `store`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from loom.stores.redis import RedisStore, parse_url
from tests.servers.fixtures import own
from tests.servers.server import Server


@pytest.fixture
def url(valkey: Server) -> str:
    return own(valkey.url())


@pytest.fixture
async def store(url: str) -> AsyncIterator[RedisStore]:
    async with RedisStore(parse_url(url)) as store:
        yield store

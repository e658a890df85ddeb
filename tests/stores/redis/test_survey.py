"""What a server is, and how it is set up to lose runs, as `loom doctor` tells it."""

from __future__ import annotations

import pytest

from loom.model.ports import Durability, Survey, Surveyed
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.survey import cautions_of
from tests.servers.cluster import Cluster
from tests.servers.server import Server
from tests.servers.servers import Servers

pytestmark = pytest.mark.anyio


async def survey_of(url: str) -> Survey:
    async with RedisStore(parse_url(url)) as store:
        assert isinstance(store, Surveyed)
        return await store.survey()


async def test_what_it_is(redis7: Server, valkey: Server, cluster: Cluster) -> None:
    assert (await survey_of(redis7.url())).server.startswith("Redis 7.0.")
    assert (await survey_of(valkey.url())).server.startswith("Valkey 9.1.")
    assert (await survey_of(cluster.url())).server.endswith(", cluster")


async def test_a_durable_server_needs_no_caution(servers: Servers) -> None:
    with servers.durable("redis7") as server:
        assert (await survey_of(server.url())).cautions == ()


async def test_one_that_forgets_does_unless_that_is_wanted(valkey: Server) -> None:
    (caution,) = (await survey_of(valkey.url())).cautions
    assert "appendonly yes" in caution
    assert (await survey_of(valkey.url(durability="memory"))).cautions == ()


async def test_one_that_does_not_say(servers: Servers) -> None:
    rights = ">hush ~loom:* ~{loom}:* &loom:* &{loom}:* +@read +@write +@pubsub +@connection +@scripting +time"
    with servers.server("redis7", users={"alice": rights}) as server:
        (caution,) = (await survey_of(server.url(user="alice", password="hush"))).cautions
    assert "does not tell" in caution


@pytest.mark.parametrize(
    ("policy", "asked", "says"),
    [
        ("noeviction", None, ()),
        ("allkeys-lru", None, ("of open runs too",)),
        ("volatile-lru", "replica", ("ended runs before their time",)),
    ],
)
def test_policies_of_eviction(policy: str, asked: Durability | None, says: tuple[str, ...]) -> None:
    found = cautions_of({"appendonly": "yes", "maxmemory-policy": policy}, asked)
    assert [words in caution for words, caution in zip(says, found, strict=True)] == [True] * len(says)

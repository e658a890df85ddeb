"""What users meet when too few replicas confirm: whoever starts is told, and the same again is one run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

import loom
from loom.backoff import Backoff
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Worker
from loom.model import limits
from loom.model.errors import OutcomeUnknown
from loom.model.names import PUBLISHED
from loom.model.run import Meta, Start
from loom.server.app import create_app
from loom.server.http.address import Address
from loom.server.serve import serving
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.keys import Keys
from loom.tasks import spawn
from tests.server.harness import ask
from tests.servers.cluster import Cluster
from tests.servers.fixtures import own
from tests.servers.sentinel import Sentinels
from tests.servers.server import Server
from tests.servers.servers import Servers

pytestmark = pytest.mark.anyio

app = loom.App()


@app.actor
async def greet(name: str) -> AsyncIterator[str]:
    yield f"hello {name}"


@pytest.fixture
def sentinels(servers: Servers) -> Any:
    with servers.sentinels(sentinels=1, down_after=60.0) as sentinels:
        yield sentinels


@pytest.fixture
def url(sentinels: Sentinels) -> str:
    return own(sentinels.url(durability="replica"))


@pytest.fixture
def replica(sentinels: Sentinels, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(limits, "REPLICA_WAIT", 0.1)
    return next(server for server in sentinels.servers if server is not sentinels.primary)


async def post(address: Address, **body: Any) -> Any:
    return await ask(address, "POST", "/runs", {"actor": "greet", "input": "you", **body})


async def post_until_confirmed(address: Address, **body: Any) -> Any:
    while (reply := await post(address, **body)).status == 503:
        pass
    return reply


async def test_a_start_over_http_names_the_run_that_may_be_there(url: str, replica: Server) -> None:
    """By that id it is started again, as one run, also when a worker has driven it meanwhile."""
    async with RedisStore(parse_url(url)) as store, serving(create_app(StoreTransport(store)), port=0) as address:
        replica.pause()
        refused = await post(address)
        assert refused.status == 503
        assert refused.error["code"] == "outcome_unknown"
        assert "0 of 1 replicas have confirmed it" in refused.error["message"]
        run = refused.error["details"]["run"]
        assert (await post(address, id=run)).error["details"] == {"run": run}
        replica.resume()
        async with Worker(store, app.registry, drain=0):
            again = await post_until_confirmed(address, id=run)
            assert again.status == 201
            assert again.json["id"] == run
            async with loom.connect(url) as client:
                assert await client.run(run).result(timeout=10) == "hello you"
        assert (await post_until_confirmed(address, id=run)).json["state"] == "completed"
        assert [head.meta.run for head in await store.runs.list_runs()] == [run]


async def test_a_client_of_a_server_rides_it_out(url: str, replica: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with (
        RedisStore(parse_url(url)) as store,
        serving(create_app(StoreTransport(store)), port=0) as address,
        loom.connect(f"http://{address.host}:{address.port}") as client,
    ):
        replica.pause()
        starting = spawn(client.start("greet", "you"), "start")
        while "asking again" not in caplog.text:
            entries = await store.queue.list_entries()
        replica.resume()
        run = await starting
        assert [entry.run for entry in entries] == [run.id]
        assert len(await store.runs.list_runs()) == len(await store.queue.list_entries()) == 1


async def test_a_publisher_is_told_and_opens_the_same_run_afterwards(url: str, replica: Server) -> None:
    async with loom.connect(url) as client:
        replica.pause()
        with pytest.raises(OutcomeUnknown, match="0 of 1 replicas"):
            async with client.publisher("job"):
                pass
        replica.resume()
        while True:
            try:
                async with client.publisher("job") as publisher:
                    await publisher.publish("hello")
            except OutcomeUnknown:
                continue
            break
        assert [chunk.data async for chunk in client.run("job").chunks() if chunk.type == "data"] == ["hello"]


async def test_workers_go_on_claiming_and_renewing(url: str, replica: Server) -> None:
    """No claim waits for a replica: what a run says waits, and is said when there are enough again."""
    async with RedisStore(parse_url(url)) as store, loom.connect(url) as client:
        replica.pause()
        with pytest.raises(OutcomeUnknown) as told:
            await client.start("greet", "you")
        run = told.value.details["run"]
        async with Worker(store, app.registry, name="w1", drain=0):
            while [entry.worker for entry in await store.queue.list_entries()] != ["w1"]:
                pass
            replica.resume()
            again = await Backoff.of_store().attempt(lambda: client.start("greet", "you", id=run))
            assert await again.result(timeout=10) == "hello you"


async def test_no_start_that_was_confirmed_is_lost_with_a_node_of_a_cluster(servers: Servers) -> None:
    """The one with the queue dies in the midst of it; who starts goes on with its replica."""
    with servers.cluster(replicas=True) as cluster:
        url = own(cluster.url(durability="replica"))
        keys = Keys(parse_url(url).prefix)
        primary = cluster.node_of(keys.queue)
        async with RedisStore(parse_url(url)) as store:
            transport = StoreTransport(store)
            started: list[str] = []

            async def start(number: int) -> None:
                asked = Start(run=f"run-{number}", actor="greet")
                head = await Backoff.of_store().attempt(lambda: transport.start(asked))
                started.append(head.meta.run)

            await asyncio.gather(*(start(number) for number in range(20)))
            late = [spawn(start(number), "start") for number in range(20, 60)]
            primary.kill()
            await asyncio.to_thread(_failed_over, cluster, primary)
            primary.start()  # as a replica, without which nothing is confirmed
            await asyncio.gather(*late)
            seized = await Backoff.of_store().attempt(
                lambda: store.queue.force_claim(Meta(run="job", actor="publisher", queue=PUBLISHED), "p1", lease=30.0)
            )
            entries = [entry.run for entry in await store.queue.list_entries(limit=100)]
            assert sorted(entries) == sorted([*started, seized.run])
            assert len(started) == 60
            assert [(await store.runs.get(run)).state for run in started] == ["queued"] * 60
            await transport.aclose()


def _failed_over(cluster: Cluster, old: Server) -> None:
    replica = cluster.replicas[cluster.nodes.index(old)]
    while replica.ask("ROLE")[0] != "master":
        pass

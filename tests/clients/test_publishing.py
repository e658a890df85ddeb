"""Publishing from code that is no actor: on each store, from code that blocks, served by a gateway, killed."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import loom
from loom.engine.follow.transport import StoreTransport
from loom.server.app import create_app
from loom.server.serve import serving
from tests.servers.fixtures import TOPOLOGIES

from .places import connected, connected_sync, served, url_of

pytestmark = pytest.mark.anyio

Place = tuple[str, Path, str]
"""What `connected` is called with."""

SHARED = ["sqlite", *TOPOLOGIES]
STORES = ["memory", *SHARED]


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return request.param, tmp_path, url_of(request, tmp_path)


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that processes share."""
    return url_of(request, tmp_path)


@asynccontextmanager
async def a_gateway(url: str) -> AsyncIterator[str]:
    """A server over the store, without a worker; its URL."""
    async with loom.open_store(url) as store:
        transport = StoreTransport(store)
        async with serving(create_app(transport), port=0) as address:
            yield address.url
        await transport.aclose()


async def test_a_run_is_published(place: Place) -> None:
    async with connected(*place)(loom.App()) as client:
        async with client.publisher("job", actor="importer", retention=timedelta(hours=1)) as pub:
            for number in range(3000):
                await pub.publish(number)
            await client.run("job").send("note", "hello")
            assert (await pub.receive()).data == "hello"
            await pub.complete({"rows": 3000})
        assert [value async for value in client.run("job").values()] == list(range(3000))
        head = await client.run("job").status()
        assert (head.state, head.meta.actor, head.meta.retention) == ("completed", "importer", 3600.0)
        assert [head.meta.run for head in await client.runs(actor="importer")] == ["job"]
        chunks = [chunk async for chunk in client.consumer.read("job", head.cursor_at(3000))]
        assert [chunk.type for chunk in chunks] == ["data", "complete"]


async def test_a_second_publisher_goes_on(place: Place) -> None:
    async with connected(*place)(loom.App()) as client:
        first = await client.publisher("job").__aenter__()
        await first.publish("one ")
        await first.flush()
        async with client.publisher("job") as second:
            assert [chunk.data for chunk in await second.previous()] == ["one "]
            await second.publish("two")
        with contextlib.suppress(loom.Fenced):  # or only when it is to be stored
            await first.publish("late")
        with pytest.raises(loom.Fenced):
            await first.flush()
        with pytest.raises(loom.Fenced):
            await first.__aexit__(None, None, None)
        assert await client.run("job").result() == "one two"


async def test_a_cancel_reaches_the_publisher(place: Place) -> None:
    async with connected(*place)(loom.App()) as client:
        pub = await client.publisher("job").__aenter__()
        await client.run("job").cancel()
        await pub.wait_cancelled()
        with pytest.raises(loom.RunCancelled):
            await pub.publish("late")
        with pytest.raises(loom.RunCancelled):
            await pub.__aexit__(None, None, None)
        assert (await client.run("job").status()).state == "cancelled"


def test_code_that_blocks(place: Place) -> None:
    with connected_sync(*place)(loom.App()) as client:
        read: list[Any] = []

        def consume() -> None:
            read.extend(chunk.data for chunk in client.consumer.read("job", wait=20) if chunk.type == "data")

        reading = threading.Thread(target=consume)
        reading.start()
        with client.publisher("job") as pub:
            assert (pub.attempt, pub.kept_through, pub.cancelled, list(pub.previous())) == (1, 0, False, [])
            for number in range(100):
                pub.publish(number)
            pub.flush()
            assert pub.tail == 101
            client.run(pub.id).send("note", 1)
            assert pub.receive("note").data == 1
            pub.complete("done")
        reading.join()
        assert read == list(range(100))
        assert client.run("job").result() == "done"
        with pytest.raises(ZeroDivisionError), client.publisher("failing"):
            raise ZeroDivisionError
        assert client.run("failing").status().state == "failed"
        with client.publisher("told") as pub:
            pub.fail("because")
        with client.publisher("left") as pub:
            pub.hand_over()
        with client.publisher("left", restart=True):
            pass
        assert client.run("left").status().state == "completed"


async def test_it_is_not_retried(place: Place) -> None:
    """Nobody would drive the new one."""
    async with connected(*place)(loom.App()) as client:
        async with client.publisher("job"):
            with pytest.raises(loom.InvalidInput, match="publisher"):
                await client.retry("job")
        with pytest.raises(loom.InvalidInput, match="publisher"):
            await client.retry("job", id="again")
        assert [head.meta.run for head in await client.runs()] == ["job"]


async def test_a_servers_client_publishes_nothing() -> None:
    async with served(loom.App()) as url, loom.connect(url) as client:
        with pytest.raises(loom.UsageError, match="a store"):
            client.publisher("job")


async def test_a_gateway_serves_it(shared: str) -> None:
    """It shares the store with the publisher, and nothing else; it needs no app and no worker."""
    async with a_gateway(shared) as url, loom.connect(url) as viewer:
        async with (
            loom.connect(shared) as client,
            client.publisher("job", actor="importer") as pub,
        ):
            chunks = viewer.consumer.read("job", wait=20)
            assert (await anext(chunks)).type == "start"
            for number in range(5):
                await pub.publish(number)
                assert (await anext(chunks)).data == number
            assert [head.meta.run for head in await viewer.runs(state="running")] == ["job"]
            await viewer.run("job").send("note", 7)
            assert (await pub.receive()).data == 7
            await pub.complete("done")
        assert [chunk.type async for chunk in chunks] == ["complete"]
        assert await viewer.run("job").result() == "done"


KILLED = """
import os, signal, sys, loom
with loom.connect_sync(sys.argv[1]) as client:
    pub = client.publisher("job", lease=0.5).__enter__()
    pub.publish("one")
    pub.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(store: str, program: str) -> None:
    subprocess.run([sys.executable, "-c", program, store], timeout=60, check=False)


async def test_no_viewer_hangs_when_the_publisher_is_killed(shared: str) -> None:
    """With kill -9; there is no worker anywhere, the gateway that serves the viewer ends the run."""
    async with a_gateway(shared) as url, loom.connect(url) as viewer:
        await asyncio.to_thread(killed, shared, KILLED)
        with pytest.raises(loom.RunLost, match="publisher"):
            await viewer.run("job").result()
        chunks = [chunk async for chunk in viewer.run("job").chunks(raise_errors=False)]
        assert [chunk.data for chunk in chunks[1:]] == ["one", None]


async def test_a_publisher_that_was_killed_is_gone_on_with(shared: str) -> None:
    """By the next process, within the lease."""
    await asyncio.to_thread(killed, shared, KILLED.replace("0.5", "60"))
    async with loom.connect(shared) as client:
        async with client.publisher("job") as pub:
            assert [chunk.data for chunk in await pub.previous()] == ["one"]
            await pub.publish(" two")
        assert await client.run("job").result() == "one two"


async def test_a_run_is_kept_as_long_as_its_actor_says(place: Place) -> None:
    """The start's word comes first, then the actor's, then the app's."""
    app = loom.App(retention=3600)
    other = loom.App()

    @app.actor
    async def plain() -> None: ...

    @app.actor(retention=timedelta(minutes=1))
    async def brief() -> None: ...

    @other.actor
    async def foreign() -> None: ...

    app.include(other)
    async with connected(*place)(app) as client:
        runs = {
            "plain": await client.start(plain),
            "by name": await client.start("plain"),
            "brief": await client.start("brief"),
            "used": await client.start(brief.using(retention=5)),
            "said": await client.start("brief", retention=0, delay=60),
            "foreign": await client.start(foreign),
        }
        kept = {name: (await run.status()).meta.retention for name, run in runs.items()}
        assert kept == {"plain": 3600, "by name": 3600, "brief": 60, "used": 5, "said": 0, "foreign": None}


async def test_the_result_of_a_run_that_is_not_to_be_kept_is_read_all_the_same(place: Place) -> None:
    app = loom.App(retention=0)

    @app.actor
    async def add(a: int, b: int) -> int:
        return a + b

    async with connected(*place)(app) as client:
        assert await asyncio.gather(*(client.execute(add, n, 1) for n in range(20))) == list(range(1, 21))


@pytest.mark.parametrize("retention", [-1, float("inf"), float("nan"), "1h"])
def test_a_retention_that_is_none(retention: Any) -> None:
    with pytest.raises(loom.UsageError, match="retention"):
        loom.App(retention=retention)
    with pytest.raises(loom.UsageError, match="retention"):
        loom.App().actor("x", retention=retention)(lambda: None)

"""A client belongs to the event loop that connected it: in another one every call refuses, and nothing is started."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import loom
from loom.engine.follow.consumer import Consumer
from loom.engine.follow.run import OwnedRun
from loom.engine.run.publisher import Publisher
from loom.portal import Portal
from tests.servers.server import Server

from .places import Connected

Call = Callable[[loom.Client, loom.Run[Any, Any]], Any]

ANOTHER = "connected in another event loop: connect inside each asyncio.run"


async def _all(items: Any) -> list[Any]:
    return [item async for item in items]


async def _within(block: Any) -> None:
    async with block:
        pass


async def _awaited(run: loom.Run[Any, Any]) -> None:
    await run


CLIENT: dict[str, Call] = {
    "start": lambda client, run: client.start("count", 1, id="never"),
    "stream": lambda client, run: _within(client.stream("count", 1, id="never")),
    "execute": lambda client, run: client.execute("count", 1, id="never"),
    "retry": lambda client, run: client.retry(run.id, id="never"),
    "entries": lambda client, run: client.entries(),
    "workers": lambda client, run: client.workers(),
    "ask_to_drain": lambda client, run: client.ask_to_drain("w"),
    "runs": lambda client, run: client.runs(),
    "actors": lambda client, run: client.actors(),
    "aclose": lambda client, run: client.aclose(),
}
RUN: dict[str, Call] = {
    "__aiter__": lambda client, run: _all(run),
    "__await__": lambda client, run: _awaited(run),
    "chunks": lambda client, run: _all(run.chunks()),
    "values": lambda client, run: _all(run.values()),
    "text": lambda client, run: run.text(),
    "result": lambda client, run: run.result(),
    "usage": lambda client, run: run.usage(),
    "wait": lambda client, run: run.wait(),
    "status": lambda client, run: run.status(),
    "send": lambda client, run: run.send("word"),
    "cancel": lambda client, run: run.cancel(),
}
OWNED: dict[str, Call] = {
    "__aenter__": lambda client, run: client.stream("count", 1, id="never").__aenter__(),
    "__aiter__": lambda client, run: _all(client.stream("count", 1, id="never")),
    "values": lambda client, run: _all(client.stream("count", 1, id="never").values()),
}
CONSUMER: dict[str, Call] = {"read": lambda client, run: _all(client.consumer.read(run.id))}
PUBLISHER: dict[str, Callable[[Publisher], Any]] = {
    "publish": lambda pub: pub.publish(1),
    "flush": lambda pub: pub.flush(),
    "receive": lambda pub: pub.receive(),
    "previous": lambda pub: pub.previous(),
    "wait_cancelled": lambda pub: pub.wait_cancelled(),
    "complete": lambda pub: pub.complete(),
    "fail": lambda pub: pub.fail("why"),
    "hand_over": lambda pub: pub.hand_over(),
    "__aexit__": lambda pub: pub.__aexit__(None, None, None),
}
NEED_NO_LOOP = {
    loom.Client: {"run", "publisher", "consumer", "transport"},
    loom.Run: {"id", "transport"},
    OwnedRun: {"transport"},
    Consumer: set[str](),
    Publisher: {"id", "attempt", "kept_through", "tail", "cancelled"},
}


def test_no_public_call_is_forgotten() -> None:
    calls: dict[type[Any], dict[str, Any]] = {
        loom.Client: CLIENT,
        loom.Run: RUN,
        OwnedRun: OWNED,
        Consumer: CONSUMER,
        Publisher: PUBLISHER,
    }
    for kind, named in calls.items():
        public = {name for name in vars(kind) if not name.startswith("_")}
        assert public - NEED_NO_LOOP[kind] <= named.keys(), kind


def declared() -> loom.App:
    app = loom.App()

    @app.actor
    async def count(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    return app


class Elsewhere:
    """A client that was connected on a loop that runs in another thread."""

    def __init__(self, connected: Connected) -> None:
        self.portal = Portal()
        self._stack = AsyncExitStack()
        self.client: loom.Client = self.portal.call(self._stack.enter_async_context(connected(declared())))
        self.run = self.portal.call(self.client.start("count", 3))

    def close(self) -> None:
        self.portal.call(self._stack.aclose())
        self.portal.close()


@pytest.fixture
def elsewhere(connected: Connected) -> Iterator[Elsewhere]:
    place = Elsewhere(connected)
    yield place
    place.close()


def refused(call: Callable[..., Any], *args: Any) -> None:
    async def attempt() -> None:
        await call(*args)

    with pytest.raises(loom.UsageError, match=ANOTHER):
        asyncio.run(asyncio.wait_for(attempt(), 20))


def test_every_call_refuses_and_starts_nothing(elsewhere: Elsewhere) -> None:
    client, run = elsewhere.client, elsewhere.run
    for calls in (CLIENT, RUN, OWNED, CONSUMER):
        for call in calls.values():
            refused(call, client, run)
    assert elsewhere.portal.call(run.result()) == [0, 1, 2]
    assert [head.meta.run for head in elsewhere.portal.call(client.runs())] == [run.id]


def test_an_iterator_is_not_continued(elsewhere: Elsewhere) -> None:
    """What `asyncio.run` has closed at its end would else pass for a run that has ended."""
    client, run, portal = elsewhere.client, elsewhere.run, elsewhere.portal
    owned = client.stream("count", 3)
    for items in (run.chunks(), run.values(), client.consumer.read(run.id), aiter(owned), owned.values()):
        first = portal.call(_next(items))
        refused(_all, items)
        refused(items.aclose)
        refused(_thrown, items, ValueError())
        assert portal.call(_next(items)) != first
        with pytest.raises(ValueError, match="thrown in"):
            portal.call(_thrown(items, ValueError("thrown in")))


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items)


async def _thrown(items: AsyncGenerator[Any, None], error: Exception) -> None:
    await items.athrow(error)


def test_a_block_is_left_where_it_was_entered(elsewhere: Elsewhere) -> None:
    owned = elsewhere.client.stream("count", 3)
    run = elsewhere.portal.call(owned.__aenter__())
    refused(owned.__aexit__)
    assert elsewhere.portal.call(run.result()) == [0, 1, 2]
    elsewhere.portal.call(owned.__aexit__())


def test_publishers(tmp_path: Path) -> None:
    place = Elsewhere(lambda app: loom.connect(f"sqlite:///{tmp_path / 'runs.db'}", app=app, worker=True, drain=0))
    publisher = place.client.publisher("p")
    refused(publisher.__aenter__)
    place.portal.call(publisher.__aenter__())
    for call in PUBLISHER.values():
        refused(call, publisher)
    place.portal.call(publisher.publish("said"))
    place.portal.call(publisher.__aexit__(None, None, None))
    assert place.portal.call(place.client.run("p").text()) == "said"
    place.close()


def test_a_connection_is_left_where_it_was_entered(tmp_path: Path) -> None:
    portal = Portal()
    connection = loom.connect(f"sqlite:///{tmp_path / 'runs.db'}")
    client = portal.call(connection.__aenter__())
    refused(connection.__aexit__, None, None, None)
    assert portal.call(client.runs()) == []
    portal.call(connection.__aexit__(None, None, None))
    portal.close()


def test_without_a_loop() -> None:
    client = loom.connect_sync("memory://", app=declared(), worker=True)
    with client as blocking:
        coroutine = blocking._client.runs()
        with pytest.raises(loom.UsageError, match="no asyncio event loop"):
            coroutine.send(None)


LEFT_BEHIND = """
import asyncio, os, sys, loom
app = loom.App()
async def enter(url):
    memory = url.startswith("memory")
    return await loom.connect(url, app=app if memory else None, worker=memory).__aenter__()
for url in sys.argv[1:]:
    client = asyncio.run(enter(url))
    for call in (lambda: client.start("echo", "x", id="once"), lambda: client.run("once").status(), client.runs):
        async def again():
            async with asyncio.timeout(20):
                await call()
        try:
            asyncio.run(again())
        except loom.UsageError as error:
            assert "in another event loop" in str(error), error
        else:
            assert False, url
print("refused", flush=True)
os._exit(0)
"""


def test_a_client_whose_loop_is_closed(tmp_path: Path, redis7: Server) -> None:
    """As a client at the top of a module, used by one `asyncio.run` after another."""
    urls = ("memory://", f"sqlite:///{tmp_path / 'runs.db'}", redis7.url(), "http://127.0.0.1:1")
    done = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND, *urls], capture_output=True, text=True, timeout=60, check=False
    )
    assert "refused" in done.stdout, done.stderr

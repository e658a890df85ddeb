"""What is used after its client was closed says so, and nobody who waits is left hanging."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loom.engine.follow.transport import StoreTransport
from loom.model.chunk import Message, Page
from loom.model.errors import HandleClosed
from loom.model.run import Start
from loom.stores.memory import MemoryStore
from loom.tasks import spawn
from loom.testing.author import Author

from .kit import turns

pytestmark = pytest.mark.anyio


class SlowStore(MemoryStore):
    """Its reads wait, once told to."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        read = self.logs.read

        async def slowly(*args: Any, **options: Any) -> Page:
            if self.slow:
                await asyncio.sleep(3600)
            return await read(*args, **options)

        self.logs.read = slowly  # type: ignore[method-assign]


@pytest.mark.parametrize("reading", [False, True])
async def test_viewers_that_wait_are_told(reading: bool) -> None:
    async with SlowStore() as store:
        author = await Author.start(store)
        transport = StoreTransport(store)
        viewer = transport.hub.follow(author.log)
        assert len(await anext(viewer)) == 1

        async def more() -> Page:
            return await anext(viewer)

        store.slow = reading
        if reading:
            transport.hub.attach(author.log)._forget()
        task = spawn(more(), "test")
        await turns()
        await transport.aclose()
        with pytest.raises(HandleClosed):
            await task
        assert not task.cancelled()


async def test_a_cancelled_viewer_is_cancelled() -> None:
    async with SlowStore() as store:
        author = await Author.start(store)
        transport = StoreTransport(store)
        store.slow = True
        viewer = transport.hub.follow(author.log)

        async def first() -> Page:
            return await anext(viewer)

        task = spawn(first(), "test")
        await turns()
        task.cancel()
        await transport.aclose()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_every_call_tells() -> None:
    async with MemoryStore() as store:
        author = await Author.start(store)
        transport = StoreTransport(store)
        viewer = transport.hub.follow(author.log)
        await transport.aclose()
        calls = [
            transport.start(Start(run="r", actor="a")),
            transport.head("r"),
            transport.list_runs(),
            transport.read("r", None, limit=1, wait=0),
            transport.send("r", Message("m", sender="s", id="i")),
            transport.cancel("r"),
            transport.heartbeat("r"),
            transport.commit_position("r", "me", 1),
        ]
        for call in calls:
            with pytest.raises(HandleClosed):
                await call
        with pytest.raises(HandleClosed):
            await anext(viewer)

"""What the engine's tests share: logs made by hand, logs read whole; and the waits of `tests.waits`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from loom.app import App
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Worker
from loom.engine.run.writer import Writer
from loom.model.chunk import Chunk
from loom.model.cursor import Cursor
from loom.model.grammar import State, advance
from loom.model.ports import Fence, Store
from loom.model.run import Meta
from loom.testing.author import Runs
from loom.wire.json import decode_batch
from tests.waits import later, turns, until

__all__ = [
    "chunks_in",
    "data_in",
    "grammatical",
    "later",
    "open_log",
    "running",
    "turns",
    "types_in",
    "until",
    "writer_of",
]


async def open_log(store: Runs, run: str = "run", token: str = "t", **more: Any) -> Fence:
    """A log with a writer's right to it."""
    await store.runs.create(Meta(run=run, actor="actor", created=1.0, **more))
    return await store.logs.fence(run, token)


async def writer_of(store: Runs, run: str = "run", token: str = "t") -> Writer:
    """A writer on a new log, which has said `start`."""
    writer = Writer(store.logs, run, await open_log(store, run, token))
    writer.put(Chunk("start", {"attempt": 1}))
    await writer.flush()
    return writer


async def chunks_in(store: Runs, log: str = "run") -> list[Chunk[Any]]:
    """Everything that stands in a log now."""
    chunks: list[Chunk[Any]] = []
    after: Cursor | None = None
    while True:
        page = await store.logs.read(log, after)
        chunks.extend(chunk for batch in page.batches for chunk in decode_batch(batch))
        after = page.cursor
        if page.caught_up:
            return chunks


def types_in(chunks: list[Chunk[Any]]) -> list[str]:
    return [chunk.type for chunk in chunks]


def data_in(chunks: list[Chunk[Any]]) -> list[Any]:
    """The data of the data chunks."""
    return [chunk.data for chunk in chunks if chunk.type == "data"]


def grammatical(chunks: list[Chunk[Any]]) -> State:
    """The state after `chunks`; raises when they break the grammar, or their seqs are not dense."""
    state = State.NEW
    for seq, chunk in enumerate(chunks, 1):
        assert chunk.seq == seq
        state = advance(state, chunk.type)
    return state


@asynccontextmanager
async def running(store: Store, app: App, **options: Any) -> AsyncIterator[Client]:
    """A client of `store`, with a worker for `app`."""
    options.setdefault("drain", 0.0)
    async with (
        app.resources() as resources,
        Worker(store, app.registry, resources=resources, **options),
        Client(StoreTransport(store, app.registry)) as client,
    ):
        yield client

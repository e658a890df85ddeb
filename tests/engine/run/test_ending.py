"""A run that nobody drives ends by one chunk, once, and only by who holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from loom.engine.run.ending import end_run, error_chunk
from loom.model import limits
from loom.model.errors import ErrorInfo, Fenced
from loom.model.run import Meta
from loom.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

LOST = ErrorInfo("run_lost", "it was lost")


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    async with MemoryStore() as store:
        await store.runs.create(Meta(run="r", actor="a"))
        yield store


def test_the_chunk_says_why_and_when() -> None:
    chunk = error_chunk(LOST)
    assert (chunk.type, chunk.error) == ("error", LOST)
    assert chunk.time


async def test_it_ends_once(store: MemoryStore) -> None:
    await end_run(store.logs, "r", await store.logs.fence("r", "one"), LOST)
    await end_run(store.logs, "r", await store.logs.fence("r", "two"), ErrorInfo("run_failed", "again"))
    head = await store.runs.get("r")
    assert (head.state, head.error, head.tail) == ("lost", LOST, 1)


async def test_who_was_fenced_ends_nothing(store: MemoryStore) -> None:
    fence = await store.logs.fence("r", "one")
    await store.logs.fence("r", "two")
    with pytest.raises(Fenced):
        await end_run(store.logs, "r", fence, LOST)
    assert (await store.runs.get("r")).state == "running"


async def test_what_is_told_is_bounded(store: MemoryStore) -> None:
    await end_run(store.logs, "r", await store.logs.fence("r", "one"), ErrorInfo("run_lost", "x" * 10**6))
    error = (await store.runs.get("r")).error
    assert error is not None
    assert len(error.message) <= limits.ERROR_CHARACTERS

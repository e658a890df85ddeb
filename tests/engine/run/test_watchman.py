"""The watchman: finds publishers that died, whatever gets in its way."""

from __future__ import annotations

from typing import Any

import pytest

from loom.engine.run.watchman import Watchman
from loom.model.errors import HandleClosed
from loom.model.names import PUBLISHED
from loom.model.run import Meta
from loom.stores.memory import MemoryStore
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import Author
from tests.engine.kit import chunks_in, later, types_in
from tests.faults.store import FaultStore
from tests.virtual import Clock, VirtualLoop

pytestmark = pytest.mark.anyio

META = Meta(run="job", actor="publisher", queue=PUBLISHED)


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def store(virtual_time: Clock) -> FaultStore:
    return FaultStore(MemoryStore(clock=virtual_time))


@pytest.fixture
def watchman(store: FaultStore) -> Watchman:
    return Watchman(store, "watchman")


async def lapsed(store: FaultStore) -> None:
    """A run whose publisher let go of it."""
    await store.queue.release(await store.queue.force_claim(META, "publisher", lease=1.0))


async def test_what_lapsed_is_ended(store: FaultStore, watchman: Watchman) -> None:
    assert await watchman.look() == 0
    author = await Author.start(store, "job", queue=PUBLISHED)
    await author.say("data")
    await lapsed(store)
    assert await watchman.look() == 1
    assert types_in(await chunks_in(store, "job")) == ["start", "data", "error"]
    assert await watchman.look() == 0


async def test_what_never_began_is_ended(store: FaultStore, watchman: Watchman) -> None:
    await lapsed(store)
    assert await watchman.look() == 1
    assert (await store.runs.get("job")).state == "lost"


async def test_what_has_ended_is_let_go(store: FaultStore, watchman: Watchman) -> None:
    await (await Author.start(store, "job", queue=PUBLISHED)).say("complete")
    await lapsed(store)
    assert await watchman.look() == 0
    assert (await store.runs.get("job")).state == "completed"
    assert await store.queue.claim([PUBLISHED], "test", lease=1.0, wait=0.0) is None


async def test_who_comes_between_goes_on(store: FaultStore, watchman: Watchman) -> None:
    """A publisher that opens the run while it is being ended has it."""
    await lapsed(store)
    held = store.hold("append")
    looking = spawn(watchman.look(), "look")
    await held.arrived.wait()
    await store.queue.force_claim(META, "another", lease=10.0)
    fence = await store.logs.fence("job", "another")
    held.let_go()
    assert await looking == 0
    author = Author(store.logs, "job", fence)
    await author.say("start", "complete")
    assert (await store.runs.get("job")).state == "completed"


async def test_it_goes_on_over_faults(store: FaultStore, watchman: Watchman, caplog: pytest.LogCaptureFixture) -> None:
    store.refuse("claim", times=2)
    store.refuse("claim", ZeroDivisionError(), skip=2)
    store.lose_reply("fence")
    await lapsed(store)
    task = spawn(watchman.run(), "watch")
    await later(lambda: "ZeroDivisionError" in caplog.text)
    while not store.calls["create"] or not (await store.runs.get("job")).ended:
        await later(lambda calls=store.calls["claim"]: store.calls["claim"] > calls)  # type: ignore[misc]
    await cancel_and_wait(task)
    assert (await store.runs.get("job")).state == "lost"


async def test_it_ends_with_its_store(store: FaultStore, watchman: Watchman) -> None:
    store.refuse("claim", HandleClosed("closed"))
    await watchman.run()

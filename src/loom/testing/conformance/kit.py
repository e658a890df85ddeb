"""What the parts of the suite share: fixtures, names, and waits that are bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Any

import pytest

from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import ErrorInfo, LoomError
from loom.model.ports import Notice, Store
from loom.model.run import Claim, Meta
from loom.testing.clock import ManualClock, StoreFactory
from loom.wire.json import encode

WAIT = 20.0
"""Seconds for a wait that is to be woken at once: a test in which it passes fails, the wake-up was lost."""

LEASE = 10.0
CANCELLED = encode(Chunk("error", error=ErrorInfo("cancelled", "by test")))
QUEUES = ("default",)


def meta(run: str = "run", actor: str = "actor", **more: Any) -> Meta:
    """How a run of the suite is started."""
    return Meta(run=run, actor=actor, created=1.0, **more)


def failed(code: str) -> Chunk[Any]:
    """An `error` chunk."""
    return Chunk("error", error=ErrorInfo(code, f"{code} by test", details={"by": "test"}))


async def turns(count: int) -> None:
    """Let the loop turn `count` times: what else is ready goes on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def claim(
    store: Store,
    worker: str = "w1",
    *,
    queues: Sequence[str] = QUEUES,
    wait: float = 0.0,
    without: Collection[str] = (),
) -> Claim | None:
    """A claim with the suite's lease."""
    return await store.claim(queues, worker, lease=LEASE, wait=wait, without=without)


async def stand_still(store: Store, clock: ManualClock, seconds: float) -> None:
    """Let `seconds` pass, in which somebody looks at the queue as often as a waiting worker does."""
    end = clock.now + seconds
    while clock.now < end:
        clock.advance(min(limits.OBSERVE, end - clock.now))
        assert await claim(store, "observer", queues=["nobody's"]) is None


async def must_claim(
    store: Store,
    worker: str = "w1",
    *,
    queues: Sequence[str] = QUEUES,
    wait: float = 0.0,
    without: Collection[str] = (),
) -> Claim:
    """A claim that has to be there."""
    claimed = await claim(store, worker, queues=queues, wait=wait, without=without)
    assert claimed is not None
    return claimed


async def outcome_of(call: Any) -> Any:
    """What a call gives, be it an error of ours."""
    try:
        return await call
    except LoomError as error:
        return error


class Told:
    """The notices of one watch."""

    def __init__(self, store: Store, log: str) -> None:
        self.notices: list[Notice] = []
        self._event = asyncio.Event()
        self.unwatch = store.watch(log, self.notify)

    def notify(self, notice: Notice) -> None:
        self.notices.append(notice)
        self._event.set()

    async def next(self, *, marks: bool = False) -> list[Notice]:
        """The notices since the last call, at least one that tells more than marks (or, with `marks`, them)."""
        async with asyncio.timeout(WAIT / 2):
            while not any(marks or not notice.marks for notice in self.notices):
                self._event.clear()
                await self._event.wait()
        notices, self.notices = self.notices, []
        return notices


class Suite:
    """The fixtures; `make_store` comes from the subclass."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture(autouse=True)
    def nobody_waited_in_vain(self) -> Iterator[None]:
        """What comes when a wait is over looks like what a wake-up brings, but for the time."""
        started = time.monotonic()
        yield
        assert time.monotonic() - started < WAIT, "a wake-up was lost"

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The monotonic clock that the store under test measures leases and delays by."""
        return ManualClock()

    @pytest.fixture
    async def store(self, make_store: StoreFactory, clock: ManualClock) -> AsyncIterator[Store]:
        async with make_store(clock) as store:
            yield store

"""What the parts of the suite share: fixtures, names, and waits that are bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Any, Protocol

import pytest

from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import ErrorInfo, LoomError
from loom.model.ports import Commit, LogSpec, LogStore, Notice, RunStore, Store, WorkerRegistry, WorkQueue
from loom.model.run import Claim, Meta
from loom.testing.author import Author
from loom.testing.clock import ManualClock, StoreFactory
from loom.wire.json import encode

WAIT = 20.0
"""Seconds for a wait that is to be woken at once: a test in which it passes fails, the wake-up was lost."""

LEASE = 10.0
CANCELLED = encode(Chunk("error", error=ErrorInfo("cancelled", "by test")))
QUEUES = ("default",)

FAR = 1e10
"""A time that does not come, in Unix seconds."""

ENDED = Commit(state="completed")
"""Ends a log, as a last chunk `complete` does."""


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
    queue: WorkQueue,
    worker: str = "w1",
    *,
    queues: Sequence[str] = QUEUES,
    wait: float = 0.0,
    exclude: Collection[str] = (),
) -> Claim | None:
    """A claim with the suite's lease."""
    return await queue.claim(queues, worker, lease=LEASE, wait=wait, exclude=exclude)


async def stand_still(queue: WorkQueue, clock: ManualClock, seconds: float) -> None:
    """Let `seconds` pass, in which somebody looks at the queue as often as a waiting worker does."""
    end = clock.now + seconds
    while clock.now < end:
        clock.advance(min(limits.OBSERVE, end - clock.now))
        assert await claim(queue, "observer", queues=["nobody's"]) is None


async def must_claim(
    queue: WorkQueue,
    worker: str = "w1",
    *,
    queues: Sequence[str] = QUEUES,
    wait: float = 0.0,
    exclude: Collection[str] = (),
) -> Claim:
    """A claim that has to be there."""
    claimed = await claim(queue, worker, queues=queues, wait=wait, exclude=exclude)
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

    def __init__(self, logs: LogStore, log: str) -> None:
        self.notices: list[Notice] = []
        self._event = asyncio.Event()
        self.unwatch = logs.watch(log, self.notify)

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


class LogMaker(Protocol):
    """Makes the logs that the tests of logs write: without a run, or the outboxes of runs."""

    async def create(self, log: str = "log") -> None: ...

    async def drop(self, log: str = "log") -> None: ...

    async def start(self, log: str = "log", token: str = "token") -> Author:
        """A log's author, who has said `start`."""
        ...


class LogsAlone:
    """Logs without runs."""

    def __init__(self, logs: LogStore) -> None:
        self._logs = logs

    async def create(self, log: str = "log") -> None:
        await self._logs.create(log, LogSpec())

    async def drop(self, log: str = "log") -> None:
        await self._logs.drop(log)

    async def start(self, log: str = "log", token: str = "token") -> Author:
        author = await Author.open(self._logs, log, token)
        await author.say("start")
        return author


class Outboxes:
    """Outboxes of runs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, log: str = "log") -> None:
        await self._store.runs.create(meta(log))

    async def drop(self, log: str = "log") -> None:
        await self._store.runs.drop(log)

    async def start(self, log: str = "log", token: str = "token") -> Author:
        return await Author.start(self._store, log, token)


class Suite:
    """The fixtures; `make_store` comes from the subclass. A place that offers one port only overrides that fixture."""

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

    @pytest.fixture
    def logs(self, store: Store) -> LogStore:
        return store.logs

    @pytest.fixture
    def maker(self, logs: LogStore) -> LogMaker:
        return LogsAlone(logs)

    @pytest.fixture
    def runs(self, store: Store) -> RunStore:
        return store.runs

    @pytest.fixture
    def queue(self, store: Store) -> WorkQueue:
        return store.queue

    @pytest.fixture
    def workers(self, store: Store) -> WorkerRegistry:
        return store.workers

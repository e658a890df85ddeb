"""A primary is parted from its Sentinels and its replica, not from its clients: for a while there are two, both are
written to, and when they are joined again what the old one took is thrown away.

What was acknowledged at `replica` must still be there; at lower levels whoever saw what was lost must be told.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any, TypeVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

import loom
from loom.backoff import Backoff
from loom.connect import open_store
from loom.engine.follow.hub import Hub
from loom.engine.follow.transport import StoreTransport
from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.cursor import Cursor, attempt_of
from loom.model.errors import CursorExpired, LogError, OutcomeUnknown, Unavailable
from loom.model.ports import Store
from loom.model.run import Meta
from loom.server.app import create_app
from loom.server.http.address import Address
from loom.server.serve import serving
from loom.tasks import TaskSet
from loom.testing.author import Author, read_all
from loom.wire.json import decode_chunk
from tests.faults.proxy import Proxy, proxy_before
from tests.server.harness import ask
from tests.servers.fixtures import own
from tests.servers.sentinel import Sentinels
from tests.servers.servers import Servers

from .harness import Seen

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

T = TypeVar("T")

PATIENCE = 30.0
RUNS = 4
"""Of each kind."""
KINDS = ("torn", "twins", "alone", "quiet")
"""While there are two primaries: written on both, by the first writer and one that takes over; by two that take over,
as the same attempt; on the old one only; or not at all."""
ASKED = 20
"""Of the cursors of what is gone, so many are asked for again."""
BATCHES = 5
"""That each writer says, or tries to, in that time."""


class Split:
    """Sentinels over two servers, of which the first can be parted from all but its clients."""

    def __init__(self, sentinels: Sentinels, portal: BlockingPortal, proxy: Proxy) -> None:
        self.sentinels = sentinels
        self._portal = portal
        self._proxy = proxy

    async def part(self) -> None:
        """Returns when another primary takes writes; the old one does as well."""
        old = self.sentinels.servers[0]
        assert self.sentinels.primary is old
        await asyncio.to_thread(_in_step, self.sentinels)
        self._portal.call(self._proxy.stall, "127.0.0.2")
        await asyncio.to_thread(self.sentinels.wait_failover, old)
        assert old.ask("ROLE")[0] == "master"

    async def heal(self) -> None:
        """Returns when the old primary follows the new one."""
        self._portal.call(self._proxy.go_on)
        await asyncio.to_thread(self.sentinels.wait_ready)
        assert self.sentinels.servers[0].ask("ROLE")[0] == "slave"


def _in_step(sentinels: Sentinels) -> None:
    """Until the replica has everything."""
    primary, replica = (server.client() for server in sentinels.servers)
    said = primary.info("replication")["master_repl_offset"]
    while replica.info("replication")["slave_repl_offset"] < said:
        pass


@pytest.fixture
def split(servers: Servers) -> Iterator[Split]:
    """The proxy has a thread of its own: servers are started by this one, and wait for it."""
    sentinels = servers.sentinels(down_after=1.0)  # a busy machine is no failure
    before = proxy_before(sentinels.servers[0].url())
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(before) as proxy:
        sentinels.front(0, proxy.port)
        with sentinels:
            yield Split(sentinels, portal, proxy)


class Pen:
    """Writes a run as the engine's writer does: a batch after the other, each until it is acknowledged."""

    def __init__(self, author: Author) -> None:
        self.run = author.log
        self.attempt = attempt_of(author.epoch)
        self.acknowledged: Seen = []
        self._tried = 0
        self._trying = asyncio.Event()
        self._author = author
        self._numbers = itertools.count()

    @classmethod
    async def take(cls, store: Store, run: str) -> Pen:
        """With a new attempt."""
        token = uuid.uuid4().hex
        return cls(await at_last(lambda: Author.take(store.logs, run, token)))

    async def say(self, *types: str) -> None:
        """Raises `LogError` when it is refused for good. No two say the same."""
        said = [Chunk(type, f"{self._author.epoch}: {next(self._numbers)}") for type in types]
        batch = self._author.batch(*said)
        while True:
            self._tried += 1
            self._trying.set()
            try:
                await self._author.send(batch, end=types[-1] == "complete")
            except (Unavailable, OutcomeUnknown):
                await asyncio.sleep(0.02)
            else:
                cursors = (f"{batch.epoch}-{seq}" for seq in range(batch.first, batch.last + 1))
                self.acknowledged += [(cursor, c.type, c.data) for cursor, c in zip(cursors, said, strict=True)]
                return

    async def tries(self, times: int) -> None:
        """Until it has tried to say something so many times more."""
        target = self._tried + times
        while self._tried < target:
            self._trying.clear()
            await self._trying.wait()

    async def write(self, stop: asyncio.Event) -> LogError | None:
        """Until told to stop, or refused for good."""
        try:
            while not stop.is_set():
                await self.say("data", "data", "data")
                await asyncio.sleep(0.01)  # its pace
        except LogError as error:
            return error
        return None


class View:
    """What one viewer saw of a run, and whether it was told that some of it does not stand."""

    def __init__(self, run: str, chunks: AsyncGenerator[tuple[str, str, Any], None]) -> None:
        self.run = run
        self.seen: Seen = []
        self.told = False
        self._chunks = chunks
        self._news = asyncio.Event()

    async def follow(self) -> None:
        """To the log's end, or until it is told."""
        try:
            async with aclosing(self._chunks) as chunks:
                async for one in chunks:
                    self.seen.append(one)
                    self._news.set()
        except CursorExpired:
            self.told = True

    async def has(self, count: int) -> None:
        while len(self.seen) < count:
            self._news.clear()
            await self._news.wait()


async def over_store(hub: Hub, run: str) -> AsyncGenerator[tuple[str, str, Any], None]:
    async for page in hub.follow(run):
        for cursor, line in page.lines():
            chunk = decode_chunk(line)
            yield str(cursor), chunk.type, chunk.data


async def over_http(client: loom.Client, run: str) -> AsyncGenerator[tuple[str, str, Any], None]:
    async for chunk in client.run(run).chunks():
        yield str(chunk.cursor), chunk.type, chunk.data


async def at_last(call: Callable[[], Awaitable[T]]) -> T:
    """What it gives once the store is within reach: Sentinels cut all connections to whom they make a replica."""
    return await Backoff.of_store().attempt(call)


async def log_of(store: Store, run: str) -> Seen:
    lines = await at_last(lambda: read_all(store.logs, run))
    chunks = [(cursor, decode_chunk(line)) for cursor, line in lines]
    return [(str(cursor), chunk.type, chunk.data) for cursor, chunk in chunks]


class Play:
    """Some runs of each kind, their writers and viewers, before, while and after there are two primaries."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self._tasks = TaskSet()
        self._stop = asyncio.Event()
        self._writing: list[asyncio.Task[LogError | None]] = []
        self.runs = [f"{kind}-{i}" for kind in KINDS for i in range(RUNS)]
        self.everyone: list[Pen] = []
        self.pens: dict[str, Pen] = {}
        self.heirs: dict[str, Pen] = {}
        self.views: list[View] = []
        self._there: list[View] = []
        self.refused: Counter[str] = Counter()
        self.old: Store
        self.new: Store
        self.address: Address

    async def begin(self) -> None:
        """Everybody is on the old primary: the writers, and of each run a viewer on the store and one over HTTP."""
        self.old = await self._stack.enter_async_context(open_store(self._url))
        gateway = create_app(StoreTransport(self.old, loom.App().registry))
        self.address = await self._stack.enter_async_context(serving(gateway, port=0))
        client = await self._stack.enter_async_context(loom.connect(self.address.url))
        self._stack.push_async_callback(self._tasks.aclose)
        for run in self.runs:
            meta = Meta(run=run, actor="actor")
            await at_last(partial(self.old.runs.create, meta))
            self.pens[run] = await self._pen(self.old, run)
            await self.pens[run].say("start", "data", "data")
            self._view(run, over_http(client, run))
        await self._view_all(self.old)
        self._there = list(self.views)
        for view in self._there:
            await view.has(3)
        self._write(self.pens, "torn", "alone")

    async def write_on_both(self) -> None:
        """A second writer takes some runs over on the new primary, where there are viewers now, too. Every writer has
        tried its part, and who watches on the old primary has seen what is there, when this returns."""
        self.new = await self._stack.enter_async_context(open_store(self._url))
        await self._view_all(self.new)
        for run in self._of("torn", "twins"):
            self.heirs[run] = await self._pen(self.new, run)
        for run in self._of("twins"):
            self.pens[run] = await self._pen(self.old, run)
            assert self.pens[run].attempt == self.heirs[run].attempt == 2
        self._write(self.heirs, "torn", "twins")
        self._write(self.pens, "twins")
        writers = [*(self.pens[run] for run in self._of("torn", "twins", "alone")), *self.heirs.values()]
        await asyncio.gather(*(pen.tries(BATCHES) for pen in writers))
        for view in self._there:
            await view.has(len(await log_of(self.old, view.run)))

    async def finish(self) -> None:
        """There is one primary. Every run is ended, by its first writer if that may; every viewer ends."""
        self._stop.set()
        await asyncio.gather(*self._writing)
        for run in self.runs:
            if run not in self.heirs and await self._may_say(self.pens[run], "complete"):
                continue
            if run in self.heirs:
                assert not await self._may_say(self.pens[run], "data"), "two writers"
            heir = self.heirs.get(run) or await self._pen(self.new, run)
            await heir.say("complete")
        await self._tasks.wait_all()

    async def _pen(self, store: Store, run: str) -> Pen:
        self.everyone.append(await Pen.take(store, run))
        return self.everyone[-1]

    async def _may_say(self, pen: Pen, type: str) -> bool:
        try:
            await pen.say(type)
        except LogError as error:
            self.refused[error.code] += 1
            return False
        return True

    def was_misled(self, view: View) -> bool:
        """Whether it may have seen what was not in the log, if only for a while: a writer who is not refused says again
        what was not acknowledged."""
        return view in self._there and view.run not in self._of("quiet")

    def _of(self, *kinds: str) -> list[str]:
        return [run for run in self.runs if run.split("-")[0] in kinds]

    def _write(self, pens: dict[str, Pen], *kinds: str) -> None:
        self._writing += [self._tasks.spawn(pens[run].write(self._stop), "write") for run in self._of(*kinds)]

    async def _view_all(self, store: Store) -> None:
        hub = Hub(store)
        self._stack.push_async_callback(hub.aclose)
        for run in self.runs:
            self._view(run, over_store(hub, run))

    def _view(self, run: str, chunks: AsyncGenerator[tuple[str, str, Any], None]) -> None:
        view = View(run, chunks)
        self.views.append(view)
        self._tasks.spawn(view.follow(), "view")


@pytest.mark.parametrize("durability", ["memory", "replica"])
async def test_what_was_acknowledged_is_there_or_its_loss_is_told(
    split: Split, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(1)
    url = f"{own(split.sentinels.url())}&durability={durability}"
    async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
        play = Play(url, stack)
        await play.begin()
        monkeypatch.setattr(limits, "REPLICA_WAIT", 0.1)
        await split.part()
        await play.write_on_both()
        await split.heal()
        await play.finish()
        logs = {run: await log_of(play.new, run) for run in play.runs}
        acknowledged, lost = count_lost(play, logs)
        told = [view for view in play.views if view.told]
        gone = {cursor: view.run for view in play.views for cursor in strange(view, logs[view.run])}
        print(f"{acknowledged} chunks acknowledged, {lost} of them lost; writers refused: {dict(play.refused)}")
        print(f"{len(told)} of {len(play.views)} viewers saw what is gone ({len(gone)} chunks) and were told")
        if durability == "replica":
            assert lost == 0
        else:
            assert lost > 0, "nothing was lost: this proved nothing"
        assert told, "nobody saw what was lost: this proved nothing"
        for view in play.views:
            assert view.told or view.seen == logs[view.run]
            assert not view.told or play.was_misled(view), "told for nothing"
        for cursor in dice.sample(sorted(gone), min(len(gone), ASKED)):
            await is_told(play, gone[cursor], cursor)


def count_lost(play: Play, logs: dict[str, Seen]) -> tuple[int, int]:
    """How much was acknowledged, and how much of it is not in the logs, or not as it was said."""
    lost = sum(one not in logs[pen.run] for pen in play.everyone for one in pen.acknowledged)
    return sum(len(pen.acknowledged) for pen in play.everyone), lost


def strange(view: View, log: Seen) -> list[str]:
    """The cursors of what a viewer saw and the log does not have, or has otherwise."""
    return [one[0] for one in view.seen if one not in log]


async def is_told(play: Play, run: str, cursor: str) -> None:
    """Whoever resumes behind what is gone, on whichever store, and over HTTP."""
    for store in (play.old, play.new):
        with pytest.raises(CursorExpired):
            await at_last(lambda store=store: store.logs.read(run, Cursor.parse(cursor)))  # type: ignore[misc]
    for path, headers in (
        (f"/runs/{run}/chunks?after={cursor}", {}),
        (f"/runs/{run}/events", {"Last-Event-ID": cursor}),
    ):
        while (reply := await ask(play.address, "GET", path, headers=headers)).status == 503:
            pass
        assert reply.status == 410

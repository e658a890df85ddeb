"""The transport of this process: a client's calls, made on a store."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from msgspec.structs import replace

from loom.affinity import LoopAffinity
from loom.engine.declare.producer import Producer
from loom.engine.declare.registry import Registry
from loom.engine.declare.starts import child_of, settled, started_again
from loom.engine.run.ending import error_chunk
from loom.engine.run.watchman import Watchman
from loom.model import limits
from loom.model.chunk import CANCEL, Message, Page
from loom.model.cursor import Cursor
from loom.model.errors import (
    Conflict,
    ErrorInfo,
    InvalidInput,
    LogEnded,
    LogNotFound,
    OutcomeUnknown,
    RemoteProtocolError,
    StoreFull,
    Unavailable,
    closed,
)
from loom.model.names import check_id
from loom.model.ports import InlineSink, Store, message_producer
from loom.model.run import ALL_RUNS, ActorInfo, Entry, Head, Meta, Place, RunFilter, Start, WorkerInfo, inbox_of
from loom.model.text import escaped
from loom.tasks import cancel_and_wait, spawn, together
from loom.wire.data import encode_data
from loom.wire.failure import line_of
from loom.wire.json import check_depth, check_size, encode

from .hub import Hub, Wait

__all__ = ["StoreTransport"]

_log = logging.getLogger("loom.client")


class StoreTransport:
    """`Transport` over a store. With a `registry`, what is started is checked against it before anything is stored.

    `served`: the queues of the only worker that can ever be on this store, if it is known that there can be no other;
    starts in any other queue are refused then. `parent`: the run that this is for, which is the parent of what is
    started; `hub`: one that is shared, and closed by its owner; `wait`: awaits what waits for another run."""

    def __init__(
        self,
        store: Store,
        registry: Registry | None = None,
        *,
        served: Callable[[], Sequence[str]] | None = None,
        hub: Hub | None = None,
        parent: Meta | None = None,
        wait: Wait | None = None,
    ) -> None:
        self._store = store
        self._shares_hub = hub is not None
        self.hub = Hub(store) if hub is None else hub
        self._parent = parent
        self._wait = wait
        self._registry = registry
        self._served = served
        self._closed = False
        self._affinity = LoopAffinity()
        self.check_loop = self._affinity.check
        self._watching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<StoreTransport on {type(self._store).__name__}>"

    @property
    def store(self) -> Store:
        """Raises `HandleClosed` once this transport is closed, and `UsageError` in another event loop, as then
        everything does that needs the store."""
        if self._closed:
            raise closed()
        self.check_loop()
        return self._store

    def as_child(self, meta: Meta) -> Meta:
        """The run of `meta`, as a child of the run that this is for, if it is for one."""
        return meta if self._parent is None else child_of(self._parent, meta)

    async def start(self, start: Start) -> Head:
        producer = None if self._registry is None else self._registry.get(start.actor)
        return await self._started(settled(start, producer, self._parent), producer)

    async def _started(self, meta: Meta, producer: Producer[..., Any] | None) -> Head:
        self._check_served(meta.queue)
        # An entry of a run that has ended is dropped by who claims it: nobody may for as long as its delay.
        head = None if meta.not_before is None else await self._find(meta.run)
        if head is None:
            head = await self._stored(meta)
        if not _same_request(head.meta, meta, producer):
            raise Conflict(f"run {meta.run!r} was started with another actor, key or input", details={"run": meta.run})
        return head

    def _check_served(self, queue: str) -> None:
        """Raises `InvalidInput` for a queue in which a run would wait for ever."""
        if self._served is not None and queue not in (served := self._served()):
            raise InvalidInput(
                f"queue: no worker serves {queue!r}, and none can come: this store is one process's alone, and its"
                f" worker serves {', '.join(served)}. Name the queue in that worker's queues",
                details={"field": "queue"},
            )

    async def _stored(self, meta: Meta) -> Head:
        """Queue before log, or both at once: whoever claims the entry makes the log."""
        store = self.store
        put, create = self._put(meta), store.runs.create(meta)
        try:
            _, head = await together(put, create, f"loom-create {meta.run}", at_once=store.waits)
            return head
        except StoreFull as full:
            return await self._refused(meta, full)
        except OutcomeUnknown as unknown:  # by its id it can be looked for, and started again
            unknown.details = {"run": meta.run, **unknown.details}
            raise

    async def _put(self, meta: Meta) -> None:
        """The log is the truth: a sweep puts a run that no queue holds, so a start does not fail for that."""
        try:
            await self.store.queue.put(meta)
        except (Unavailable, OutcomeUnknown) as error:
            _log.warning("run %s: it waits for the next sweep of a worker: %s", meta.run, escaped(str(error)))

    async def _refused(self, meta: Meta, full: StoreFull) -> Head:
        """A repeat, of a run that is there already, is not refused; a start that was refused must not run after all."""
        found = await self._find(meta.run)
        if found is not None and found.meta.created != meta.created:
            return found
        await self.store.runs.drop(meta.run)
        raise full

    async def retry(self, run: str, *, id: str) -> Head:
        ended = await self.store.runs.get(run)
        if ended.meta.published:
            raise InvalidInput(f"run {run!r} was written by a publisher: there is no actor to start anew")
        if not ended.ended:
            raise Conflict(f"run {run!r} has not ended: cancel it first", details={"run": run})
        old = ended.meta
        producer = None if self._registry is None else self._registry.get(old.actor)
        head = await self._started(started_again(old, check_id(id), producer), producer)
        if head.meta.retry_of != run:
            raise Conflict(f"run {id!r} was started otherwise", details={"run": id})
        return head

    async def _find(self, run: str) -> Head | None:
        try:
            return await self.store.runs.get(run)
        except LogNotFound:
            return None

    async def head(self, run: str, *, full: bool = True) -> Head:
        return await self.store.runs.get(run, full=full)

    async def list_runs(
        self, filter: RunFilter = ALL_RUNS, *, limit: int = 100, before: str | None = None
    ) -> list[Head]:
        return await self.store.runs.list_runs(filter, limit=min(limit, limits.LIST_LIMIT), before=before)

    async def list_entries(
        self, *, queue: str | None = None, place: Place | None = None, limit: int = 100
    ) -> list[Entry]:
        return await self.store.queue.list_entries(queue=queue, place=place, limit=min(limit, limits.LIST_LIMIT))

    async def list_workers(self) -> list[WorkerInfo]:
        return await self.store.workers.list_workers()

    async def request_drain(self, worker: str) -> None:
        await self.store.workers.request_drain(worker)

    async def actors(self) -> list[ActorInfo]:
        self.check_loop()
        return [] if self._registry is None else sorted((p.info() for p in self._registry), key=lambda info: info.name)

    def follow(
        self,
        run: str,
        after: Cursor | None = None,
        *,
        attach: bool = True,
        sink: InlineSink | None = None,
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[Page, None]:
        self.check_loop()
        self._watch()
        return self.hub.follow(run, after, attach=attach, sink=sink, limit_bytes=limit_bytes, wait=self._wait)

    async def read(self, run: str, after: Cursor | None, *, limit: int, wait: float) -> Page:
        self._watch()
        return await self.store.logs.read(run, after, limit=min(limit, limits.READ_LIMIT), wait=wait)

    async def send(self, run: str, message: Message[Any]) -> None:
        if message.type == CANCEL:
            await self.cancel(run)
            return
        await self._send(run, message)

    async def _send(self, run: str, message: Message[Any]) -> None:
        check_id(message.type, "type")
        for field in ("id", "sender"):
            check_id(getattr(message, field), field)
        if message.sender == CANCEL and message.type != CANCEL:  # it would pass for the run's cancel, sent before
            raise InvalidInput(f"sender: {CANCEL!r} is reserved", details={"field": "sender"})
        stored = Message(message.type, message.data, message.sender, message.id, message.time or time.time())
        try:
            data = encode_data(stored)
            check_depth(data)
        except (TypeError, ValueError, RecursionError, RemoteProtocolError) as error:
            raise InvalidInput(f"data: {error}", details={"field": "data"}) from None
        except Exception as error:  # user code: a value's JSON form may raise anything
            raise InvalidInput(f"data: {line_of(error)}", details={"field": "data"}) from error
        check_size(data, limits.MESSAGE_BYTES, "a message")
        producer = message_producer(message.sender, message.id)
        await self.store.logs.send(inbox_of(run), data, producer, urgent=message.type == CANCEL)

    async def cancel(self, run: str) -> None:
        info = ErrorInfo("cancelled", "the run was cancelled before it began")
        if await self.store.runs.cancel_unstarted(run, encode(error_chunk(info))):
            return
        try:
            await self._send(run, Message(CANCEL, sender=CANCEL, id=CANCEL))
        except LogEnded:
            return  # it ended by itself: there is nothing to cancel

    async def heartbeat(self, run: str) -> None:
        await self.store.runs.heartbeat(run)

    async def commit_position(self, run: str, reader: str, seq: int | None) -> None:
        check_id(reader, "reader")
        head = await self.store.runs.get(run, full=False)
        if head.meta.ahead is not None and not head.ended:
            await self.store.logs.commit_position(run, reader, seq)

    async def aclose(self) -> None:
        self.check_loop()
        self._closed = True
        try:
            if not self._shares_hub:
                await self.hub.aclose()
        finally:
            if self._watching is not None:
                await cancel_and_wait(self._watching)

    def _watch(self) -> None:
        """Somebody reads: he shall learn of a publisher that died, also where there is no worker."""
        if self._watching is None and not self._closed and self._parent is None:  # a run's worker has one
            watchman = Watchman(self._store, f"watchman-{uuid.uuid4().hex[:8]}")
            self._watching = spawn(watchman.run(), "loom-watchman")


def _same_request(there: Meta, asked: Meta, producer: Producer[..., Any] | None) -> bool:
    """Also when the inputs mean the same in other words, or one was stored by who did not know the producer."""
    if there.same_request(asked):
        return True
    same_but_input = there.same_request(replace(asked, input=there.input))
    return same_but_input and producer is not None and producer.inputs.same(there.input, asked.input)

"""The clients that runs have, `ctx.client`: what a run starts is its child."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from loom.engine.declare.context import FromThread
from loom.engine.declare.registry import Registry
from loom.engine.run.slots import Slot
from loom.model.errors import UsageError, closed
from loom.model.ports import Store
from loom.model.run import Meta
from loom.tasks import TaskSet

from .client import Client
from .hub import Hub
from .transport import StoreTransport

if TYPE_CHECKING:
    from .blocking import SyncClient  # 5 ms, which only threads need

__all__ = ["ChildClient", "RunClients"]

T = TypeVar("T")


class RunClients:
    """The clients of the runs that one worker drives: one hub, so that a child's log is read once."""

    def __init__(self, store: Store, registry: Registry, served: Callable[[], Sequence[str]] | None = None) -> None:
        self._store = store
        self._registry = registry
        self._served = served
        self._hub = Hub(store)

    def of(self, meta: Meta, slot: Slot) -> ChildClient:
        """A client whose starts are children of that run. `slot` is given back while it waits for a run."""

        def connect() -> StoreTransport:
            return StoreTransport(
                self._store, self._registry, served=self._served, hub=self._hub, parent=meta, wait=slot.wait_for_run
            )

        return ChildClient(connect)

    async def aclose(self) -> None:
        await self._hub.aclose()


class ChildClient:
    """The client of one attempt, and the same for its threads; made when they are first used."""

    def __init__(self, connect: Callable[[], StoreTransport]) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._closed = False
        self._dropped = TaskSet()

    @property
    def client(self) -> Client:
        if self._closed:
            raise closed()
        if self._client is None:
            self._client = Client(self._connect())
        return self._client

    def blocking(self, call: FromThread, loop: asyncio.AbstractEventLoop | None) -> SyncClient:
        """The client for threads, which make `call` on the `loop`."""
        from .blocking import SyncClient

        assert loop is not None
        return SyncClient(_ThreadCaller(call, loop, self._dropped), self.client)

    async def aclose(self) -> None:
        """Iterators that threads have dropped are closed first: one of them may have a run to cancel."""
        await self._dropped.wait_out()
        self._closed = True
        if self._client is not None:
            await self._client.aclose()


class _ThreadCaller:
    """A run's threads call into its loop; a `Caller`."""

    def __init__(self, call: FromThread, loop: asyncio.AbstractEventLoop, dropped: TaskSet) -> None:
        self._call = call
        self._loop = loop
        self._dropped = dropped

    def call(self, coro: Coroutine[Any, Any, T]) -> T:
        try:
            return cast(T, self._call(lambda: coro))
        except UsageError:  # it was not begun, or has raised that itself
            coro.close()
            raise

    def post(self, begin: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(begin)

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        from loom.portal import Iteration

        return Iteration(self, items)

    def drop(self, items: AsyncGenerator[Any, None]) -> None:
        self.post(lambda: self._dropped.spawn(items.aclose(), "loom-drop"))

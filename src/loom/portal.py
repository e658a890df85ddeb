"""For code that blocks (Django, Flask, scripts, notebooks): the same client through one portal, a loop in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from loom.connect import connect
from loom.engine.client import Client
from loom.engine.registry import Bound, Producer
from loom.engine.run import OwnedRun, Run
from loom.model.chunk import Chunk
from loom.model.cursor import Cursor
from loom.model.errors import HandleClosed
from loom.model.run import ActorInfo, Head, RunState

__all__ = ["Portal", "SyncClient", "SyncOwnedRun", "SyncRun", "connect_sync"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Portal:
    """One event loop in one thread. Calls from any thread run there; interrupting a caller cancels its call."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loom-portal", daemon=True)
        self._thread.start()

    def call(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run `coro` on the loop and wait for it."""
        if self._loop.is_closed():
            coro.close()
            raise HandleClosed("this client was closed: its `connect_sync` block has been left")
        future = asyncio.run_coroutine_threadsafe(coro, self._loop)
        try:
            return future.result()
        except FutureCancelled:
            raise
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items of an async iterator, one call each; it is closed when the iteration ends or is left."""

        async def step() -> tuple[bool, Any]:
            try:
                return True, await anext(items)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                more, item = self.call(step())
                if not more:
                    return
                yield item
        finally:
            if not self._loop.is_closed():
                self.call(cast(Any, items).aclose())

    def close(self) -> None:
        """Stop the loop and wait for its thread. Idempotent."""
        if self._loop.is_closed():
            return
        self.call(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncRun(Generic[T, R]):
    """`Run`, for code that blocks: see there."""

    def __init__(self, portal: Portal, run: Run[T, R]) -> None:
        self._portal = portal
        self._run = run

    @property
    def id(self) -> str:
        return self._run.id

    def __iter__(self) -> Iterator[Chunk[T]]:
        return self.chunks()

    def chunks(self, after: Cursor | str | None = None, *, raise_errors: bool = True) -> Iterator[Chunk[T]]:
        return self._portal.iterate(self._run.chunks(after, raise_errors=raise_errors))

    def values(self, after: Cursor | str | None = None) -> Iterator[T]:
        return self._portal.iterate(self._run.values(after))

    def text(self) -> str:
        return self._portal.call(self._run.text())

    def result(self, timeout: float | timedelta | None = None) -> R:
        return self._portal.call(self._run.result(timeout))

    def wait(self, timeout: float | timedelta | None = None) -> Head:
        return self._portal.call(self._run.wait(timeout))

    def status(self) -> Head:
        return self._portal.call(self._run.status())

    def send(self, type: str, data: Any = None, *, id: str | None = None) -> None:
        self._portal.call(self._run.send(type, data, id=id))

    def cancel(self, *, wait: bool = False, timeout: float | timedelta | None = None) -> None:
        self._portal.call(self._run.cancel(wait=wait, timeout=timeout))


class SyncOwnedRun(Generic[T, R]):
    """`OwnedRun`, for code that blocks: ``with client.stream(...) as run``; leaving the block cancels."""

    def __init__(self, portal: Portal, owned: OwnedRun[T, R]) -> None:
        self._portal = portal
        self._owned = owned

    def __enter__(self) -> SyncRun[T, R]:
        return SyncRun(self._portal, self._portal.call(self._owned.__aenter__()))

    def __exit__(self, *exc: object) -> None:
        self._portal.call(self._owned.__aexit__(*exc))

    def __iter__(self) -> Iterator[Chunk[T]]:
        return self._portal.iterate(self._owned.__aiter__())

    def values(self) -> Iterator[T]:
        return self._portal.iterate(self._owned.values())


class SyncClient:
    """`Client`, for code that blocks: see there. Safe to use from several threads."""

    def __init__(self, portal: Portal, client: Client) -> None:
        self._portal = portal
        self._client = client

    @overload
    def start(
        self, producer: Producer[P, AsyncIterator[T]] | Bound[P, AsyncIterator[T]], *args: P.args, **kwargs: P.kwargs
    ) -> SyncRun[T, Any]: ...
    @overload
    def start(
        self,
        producer: Producer[P, Coroutine[Any, Any, R]] | Bound[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> SyncRun[Any, R]: ...
    @overload
    def start(
        self, producer: Producer[P, Iterator[T]] | Bound[P, Iterator[T]], *args: P.args, **kwargs: P.kwargs
    ) -> SyncRun[T, Any]: ...
    @overload
    def start(self, producer: Producer[P, R] | Bound[P, R], *args: P.args, **kwargs: P.kwargs) -> SyncRun[Any, R]: ...
    @overload
    def start(self, producer: str | type[Any], *args: Any, **kwargs: Any) -> SyncRun[Any, Any]: ...
    def start(self, producer: Any, *args: Any, **kwargs: Any) -> SyncRun[Any, Any]:
        return SyncRun(self._portal, self._portal.call(self._client.start(producer, *args, **kwargs)))

    @overload
    def stream(
        self, producer: Producer[P, AsyncIterator[T]] | Bound[P, AsyncIterator[T]], *args: P.args, **kwargs: P.kwargs
    ) -> SyncOwnedRun[T, Any]: ...
    @overload
    def stream(
        self,
        producer: Producer[P, Coroutine[Any, Any, R]] | Bound[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> SyncOwnedRun[Any, R]: ...
    @overload
    def stream(
        self, producer: Producer[P, Iterator[T]] | Bound[P, Iterator[T]], *args: P.args, **kwargs: P.kwargs
    ) -> SyncOwnedRun[T, Any]: ...
    @overload
    def stream(
        self, producer: Producer[P, R] | Bound[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> SyncOwnedRun[Any, R]: ...
    @overload
    def stream(self, producer: str | type[Any], *args: Any, **kwargs: Any) -> SyncOwnedRun[Any, Any]: ...
    def stream(self, producer: Any, *args: Any, **kwargs: Any) -> SyncOwnedRun[Any, Any]:
        return SyncOwnedRun(self._portal, self._client.stream(producer, *args, **kwargs))

    @overload
    def execute(
        self,
        producer: Producer[P, AsyncIterator[str]] | Bound[P, AsyncIterator[str]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> str: ...
    @overload
    def execute(
        self, producer: Producer[P, AsyncIterator[T]] | Bound[P, AsyncIterator[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Any: ...
    @overload
    def execute(
        self,
        producer: Producer[P, Coroutine[Any, Any, R]] | Bound[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    def execute(
        self, producer: Producer[P, Iterator[T]] | Bound[P, Iterator[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Any: ...
    @overload
    def execute(self, producer: Producer[P, R] | Bound[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def execute(self, producer: str | type[Any], *args: Any, **kwargs: Any) -> Any: ...
    def execute(self, producer: Any, *args: Any, **kwargs: Any) -> Any:
        return self._portal.call(self._client.execute(producer, *args, **kwargs))

    def run(self, id: str) -> SyncRun[Any, Any]:
        return SyncRun(self._portal, self._client.run(id))

    def runs(
        self, *, limit: int = 100, before: str | None = None, state: RunState | None = None, actor: str | None = None
    ) -> list[Head]:
        return self._portal.call(self._client.runs(limit=limit, before=before, state=state, actor=actor))

    def actors(self) -> list[ActorInfo]:
        return self._portal.call(self._client.actors())


class connect_sync:
    """``with loom.connect_sync(url) as client``: `loom.connect`, for code that blocks; the same arguments.

    Ending a `for` loop early closes its iterator when it is collected; ``contextlib.closing`` closes it at once.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._connection: AbstractAsyncContextManager[Client] = connect(url, **options)
        self._portal: Portal | None = None

    def __enter__(self) -> SyncClient:
        self._portal = portal = Portal()
        try:
            return SyncClient(portal, portal.call(_enter(self._connection)))
        except BaseException:
            portal.close()
            raise

    def __exit__(self, *exc: object) -> None:
        assert self._portal is not None
        try:
            self._portal.call(_leave(self._connection))
        finally:
            self._portal.close()


async def _enter(connection: AbstractAsyncContextManager[Client]) -> Client:
    return await connection.__aenter__()


async def _leave(connection: AbstractAsyncContextManager[Client]) -> None:
    await connection.__aexit__(None, None, None)

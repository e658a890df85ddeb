"""For code that blocks (Django, Flask, scripts, notebooks): the same client through one portal, a loop in a thread."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, overload

from loom.connect import connect
from loom.engine.client import Client
from loom.engine.consumer import Consumer
from loom.engine.context import Previous
from loom.engine.producer import Bound, Producer
from loom.engine.publisher import Publisher
from loom.engine.run import OwnedRun, Run
from loom.model import limits
from loom.model.chunk import Chunk, Message
from loom.model.cursor import Cursor
from loom.model.errors import ErrorInfo, HandleClosed, UsageError, closed
from loom.model.keep import Keep
from loom.model.parts import Usage
from loom.model.run import ActorInfo, Entry, Head, Place, RunState, WorkerInfo
from loom.tasks import TaskSet, spawn

__all__ = ["Portal", "SyncClient", "SyncConsumer", "SyncOwnedRun", "SyncPublisher", "SyncRun", "connect_sync"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Portal:
    """One event loop in one thread. Calls from any thread run there; interrupting a caller cancels its call. A process
    that is forked off has no such thread: what is called there raises."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._gate = threading.RLock()  # a signal's handler may call while the thread that it interrupts holds it
        self._closed = False
        self._dropped: set[AsyncGenerator[Any, None]] = set()
        self._closing = TaskSet()
        self._stop = asyncio.Event()
        ready: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._main, args=(ready,), name="loom-portal", daemon=True)
        self._thread.start()
        self._loop = ready.result()

    def _main(self, ready: Future[asyncio.AbstractEventLoop]) -> None:
        """In the thread. Leaving the runner ends what is still going on."""
        with asyncio.Runner() as runner:
            ready.set_result(runner.get_loop())
            runner.run(self._stopped())

    async def _stopped(self) -> None:
        await self._stop.wait()

    def call(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run `coro` on the loop and wait for it. Interrupted, it is cancelled, and has ended when this raises.

        Raises `HandleClosed` after `close`, and `UsageError` in the portal's own thread, which would wait for itself,
        and in a child of its process, which would wait for ever.
        """
        if self._process != os.getpid():
            coro.close()
            raise UsageError(
                "this client is of the process that this one was forked from: connect in the child (loom.per_process)"
            )
        if threading.current_thread() is self._thread:
            coro.close()
            raise UsageError("an async producer cannot use the blocking client: use loom.connect there")
        call = _Call(coro)
        try:
            self._hand_over(call)
            return call.outcome.result()
        except BaseException:
            if not call.outcome.done():
                self._take_back(call)
            raise

    def _hand_over(self, call: _Call[Any]) -> None:
        with self._gate:
            if not self._closed:
                self._loop.call_soon_threadsafe(call.begin)
                call.handed_over = True
                return
        call.cancel()
        raise closed()

    def _take_back(self, call: _Call[Any]) -> None:
        """Its caller was interrupted. Closing cancels what was handed over; nobody else knows of what was not."""
        with self._gate:
            if not self._closed:
                self._loop.call_soon_threadsafe(call.cancel)
            elif not call.handed_over:
                call.cancel()
        wait_for([call.outcome])

    def post(self, begin: Callable[[], object]) -> None:
        """Have `begin` called on the loop, soon, without waiting; not at all once the portal is closed. Takes no lock:
        finalizers call it, which run in any thread at any moment."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(begin)

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items of an async iterator, one call each. It is closed when the iteration ends, fails or is closed, and
        soon after it was collected."""
        return _Iteration(self, cast("AsyncGenerator[T, None]", items))

    def drop(self, items: AsyncGenerator[Any, None]) -> None:
        """Have an async iterator closed, soon, as `post` does."""
        self.post(partial(self._drop, items))

    def _drop(self, items: AsyncGenerator[Any, None]) -> None:
        self._dropped.add(items)
        if not self._stop.is_set():  # else the runner closes it, as it does all that is alive: never two at once
            self._closing.spawn(self._close(items), "loom-portal-drop")

    async def wait_dropped(self) -> None:
        """On the loop: until what was dropped is closed."""
        await self._closing.wait_all()

    async def _close(self, items: AsyncGenerator[Any, None]) -> None:
        try:
            await items.aclose()
        finally:
            if not self._stop.is_set():  # else this may be cancelled too early, and must leave it to the runner
                self._dropped.discard(items)

    def close(self) -> None:
        """End what still goes on there, and the thread. Idempotent. Calls under way in other threads are cancelled."""
        if self._process != os.getpid():  # it is not ours; somebody may have held its gate when we were forked
            return
        with self._gate:
            if self._closed:
                return
            self._closed = True
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


class _Iteration(Generic[T]):
    """See `Portal.iterate`. No generator: one that is collected cannot tell this from being closed, and would wait, in
    whatever thread the collector interrupts and whatever locks this holds."""

    def __init__(self, portal: Portal, items: AsyncGenerator[T, None]) -> None:
        self._portal = portal
        self._items = items
        # Until then it holds on to the items: if they were collected together, their loop would close them, too.
        self._open = weakref.finalize(self, portal.drop, items)
        self._open.atexit = False  # the process that exits takes the loop along

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if not self._open.alive:
            raise StopIteration
        try:
            return self._portal.call(self._next())
        except _Ended:
            self.close()
            raise StopIteration from None
        except BaseException:
            self.close()
            raise

    async def _next(self) -> T:
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            raise _Ended from None

    def close(self) -> None:
        """Idempotent."""
        if self._open.detach() is None:
            return
        with suppress(HandleClosed):  # closing the portal has closed it
            self._portal.call(self._items.aclose())


class _Ended(Exception):
    """An async iterator has no more."""


class _Call(Generic[T]):
    """A call on its way to the loop and back."""

    handed_over = False

    def __init__(self, coro: Coroutine[Any, Any, T]) -> None:
        self._coro = coro
        self._task: asyncio.Task[T] | None = None
        self.outcome: Future[T] = Future()

    def begin(self) -> None:
        """On the loop."""
        if not self.outcome.done():
            self._task = spawn(self._coro, "loom-portal-call")
            self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """On the loop; its caller may have been interrupted before it was begun."""
        if self._task is not None:
            self._task.cancel()
        elif not self.outcome.done():
            self._coro.close()
            self._give_up()

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._give_up()
        elif (error := task.exception()) is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())

    def _give_up(self) -> None:
        self.outcome.cancel()
        self.outcome.set_running_or_notify_cancel()


class SyncRun(Generic[T, R]):
    """`Run`, for code that blocks: see there."""

    def __init__(self, portal: Portal, run: Run[T, R]) -> None:
        self._portal = portal
        self._run = run

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def behind(self) -> tuple[Portal, Run[T, R]]:
        """The portal, and the run that lives there: for who works with it on the loop."""
        return self._portal, self._run

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

    def usage(self) -> Usage | None:
        return self._portal.call(self._run.usage())

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

    @property
    def behind(self) -> tuple[Portal, OwnedRun[T, R]]:
        """See `SyncRun.behind`."""
        return self._portal, self._owned

    def __iter__(self) -> Iterator[Chunk[T]]:
        return self._portal.iterate(self._owned.__aiter__())

    def values(self) -> Iterator[T]:
        return self._portal.iterate(self._owned.values())


class SyncPublisher:
    """`Publisher`, for code that blocks: see there. ``with client.publisher("job-7") as pub: pub.publish("hello")``."""

    def __init__(self, portal: Portal, publisher: Publisher) -> None:
        self._portal = portal
        self._publisher = publisher
        self.id = publisher.id

    def __enter__(self) -> Self:
        self._portal.call(self._publisher.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._portal.call(self._publisher.__aexit__(kind, error, trace))

    @property
    def attempt(self) -> int:
        return self._publisher.attempt

    @property
    def kept_through(self) -> int:
        return self._publisher.kept_through

    @property
    def tail(self) -> int:
        return self._publisher.tail

    @property
    def cancelled(self) -> bool:
        return self._publisher.cancelled

    def previous(self) -> Previous:
        return self._portal.call(self._publisher.previous())

    def publish(self, value: Any) -> None:
        self._portal.call(self._publisher.publish(value))

    def flush(self) -> None:
        self._portal.call(self._publisher.flush())

    def receive(self, type: str | None = None) -> Message[Any]:
        return self._portal.call(self._publisher.receive(type))

    def complete(self, result: Any = None) -> None:
        self._portal.call(self._publisher.complete(result))

    def fail(self, error: BaseException | ErrorInfo | str) -> None:
        self._portal.call(self._publisher.fail(error))

    def hand_over(self) -> None:
        self._portal.call(self._publisher.hand_over())


class SyncConsumer:
    """`Consumer`, for code that blocks: see there."""

    def __init__(self, portal: Portal, consumer: Consumer) -> None:
        self._portal = portal
        self._consumer = consumer

    def read(
        self,
        id: str,
        after: Cursor | str | None = None,
        *,
        wait: float | timedelta = 0.0,
        raise_errors: bool = True,
    ) -> Iterator[Chunk[Any]]:
        return self._portal.iterate(self._consumer.read(id, after, wait=wait, raise_errors=raise_errors))


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

    def publisher(
        self,
        id: str | None = None,
        *,
        actor: str = "publisher",
        lease: float | timedelta = limits.PUBLISHER_LEASE,
        retention: float | timedelta | None = None,
        keep: Keep | None = None,
        restart: bool = False,
    ) -> SyncPublisher:
        publisher = self._client.publisher(
            id, actor=actor, lease=lease, retention=retention, keep=keep, restart=restart
        )
        return SyncPublisher(self._portal, publisher)

    @property
    def consumer(self) -> SyncConsumer:
        return SyncConsumer(self._portal, self._client.consumer)

    def runs(
        self, *, limit: int = 100, before: str | None = None, state: RunState | None = None, actor: str | None = None
    ) -> list[Head]:
        return self._portal.call(self._client.runs(limit=limit, before=before, state=state, actor=actor))

    def retry(self, run: str, *, id: str | None = None) -> SyncRun[Any, Any]:
        return SyncRun(self._portal, self._portal.call(self._client.retry(run, id=id)))

    def entries(self, *, queue: str | None = None, place: Place | None = None, limit: int = 100) -> list[Entry]:
        return self._portal.call(self._client.entries(queue=queue, place=place, limit=limit))

    def workers(self) -> list[WorkerInfo]:
        return self._portal.call(self._client.workers())

    def ask_to_drain(self, worker: str) -> None:
        self._portal.call(self._client.ask_to_drain(worker))

    def actors(self) -> list[ActorInfo]:
        return self._portal.call(self._client.actors())


class connect_sync:
    """``with loom.connect_sync(url) as client``: `loom.connect`, for code that blocks; the same arguments.

    Ending a `for` loop early closes its iterator soon after it was collected, and before the block is left;
    ``contextlib.closing`` closes it at once.
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
            self._portal.call(_leave(self._portal, self._connection))
        finally:
            self._portal.close()


async def _enter(connection: AbstractAsyncContextManager[Client]) -> Client:
    return await connection.__aenter__()


async def _leave(portal: Portal, connection: AbstractAsyncContextManager[Client]) -> None:
    await portal.wait_dropped()  # it may have a run to cancel
    await connection.__aexit__(None, None, None)

"""For code that blocks: the same client, call by call through a portal, that of `connect_sync` or a run's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from loom.engine.declare.context import Previous
from loom.engine.declare.producer import Startable
from loom.engine.run.publisher import Publisher
from loom.model import limits
from loom.model.chunk import Chunk, Message
from loom.model.cursor import Cursor
from loom.model.errors import ErrorInfo
from loom.model.keep import Keep
from loom.model.parts import Usage
from loom.model.run import ActorInfo, Entry, Head, Place, RunState, WorkerInfo
from loom.portal import Caller

from .client import Client
from .consumer import Consumer
from .run import OwnedRun, Run

__all__ = ["SyncClient", "SyncConsumer", "SyncOwnedRun", "SyncPublisher", "SyncRun"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class SyncRun(Generic[T, R]):
    """`Run`, for code that blocks: see there."""

    def __init__(self, portal: Caller, run: Run[T, R]) -> None:
        self._portal = portal
        self._run = run

    def __repr__(self) -> str:
        return f"<SyncRun {self.id}>"

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def behind(self) -> tuple[Caller, Run[T, R]]:
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

    def status(self, *, full: bool = False) -> Head:
        return self._portal.call(self._run.status(full=full))

    def send(self, type: str, data: Any = None, *, id: str | None = None) -> None:
        self._portal.call(self._run.send(type, data, id=id))

    def cancel(self, *, wait: bool = False, timeout: float | timedelta | None = None) -> None:
        self._portal.call(self._run.cancel(wait=wait, timeout=timeout))


class SyncOwnedRun(Generic[T, R]):
    """`OwnedRun`, for code that blocks: ``with client.stream(...) as run``; leaving the block cancels."""

    def __init__(self, portal: Caller, owned: OwnedRun[T, R]) -> None:
        self._portal = portal
        self._owned = owned

    def __repr__(self) -> str:
        return f"<Sync{repr(self._owned).removeprefix('<')}"

    def __enter__(self) -> SyncRun[T, R]:
        return SyncRun(self._portal, self._portal.call(self._owned.__aenter__()))

    def __exit__(self, *exc: object) -> None:
        self._portal.call(self._owned.__aexit__(*exc))

    @property
    def behind(self) -> tuple[Caller, OwnedRun[T, R]]:
        """See `SyncRun.behind`."""
        return self._portal, self._owned

    def __iter__(self) -> Iterator[Chunk[T]]:
        return self._portal.iterate(self._owned.__aiter__())

    def values(self) -> Iterator[T]:
        return self._portal.iterate(self._owned.values())


class SyncPublisher:
    """`Publisher`, for code that blocks: see there. ``with client.publisher("job-7") as pub: pub.publish("hello")``."""

    def __init__(self, portal: Caller, publisher: Publisher) -> None:
        self._portal = portal
        self._publisher = publisher
        self.id = publisher.id

    def __repr__(self) -> str:
        return f"<SyncPublisher of {self.id}>"

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

    def __init__(self, portal: Caller, consumer: Consumer) -> None:
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

    def __init__(self, portal: Caller, client: Client) -> None:
        self._portal = portal
        self._client = client

    def __repr__(self) -> str:
        return f"<Sync{repr(self._client).removeprefix('<')}"

    @overload
    def start(self, producer: Startable[P, AsyncIterator[T]], *args: P.args, **kwargs: P.kwargs) -> SyncRun[T, Any]: ...
    @overload
    def start(
        self,
        producer: Startable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> SyncRun[Any, R]: ...
    @overload
    def start(self, producer: Startable[P, Iterator[T]], *args: P.args, **kwargs: P.kwargs) -> SyncRun[T, Any]: ...
    @overload
    def start(self, producer: Startable[P, R], *args: P.args, **kwargs: P.kwargs) -> SyncRun[Any, R]: ...
    @overload
    def start(self, producer: str | type[Any], *args: Any, **kwargs: Any) -> SyncRun[Any, Any]: ...
    def start(self, producer: Any, *args: Any, **kwargs: Any) -> SyncRun[Any, Any]:
        return SyncRun(self._portal, self._portal.call(self._client.start(producer, *args, **kwargs)))

    @overload
    def stream(
        self, producer: Startable[P, AsyncIterator[T]], *args: P.args, **kwargs: P.kwargs
    ) -> SyncOwnedRun[T, Any]: ...
    @overload
    def stream(
        self,
        producer: Startable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> SyncOwnedRun[Any, R]: ...
    @overload
    def stream(
        self, producer: Startable[P, Iterator[T]], *args: P.args, **kwargs: P.kwargs
    ) -> SyncOwnedRun[T, Any]: ...
    @overload
    def stream(self, producer: Startable[P, R], *args: P.args, **kwargs: P.kwargs) -> SyncOwnedRun[Any, R]: ...
    @overload
    def stream(self, producer: str | type[Any], *args: Any, **kwargs: Any) -> SyncOwnedRun[Any, Any]: ...
    def stream(self, producer: Any, *args: Any, **kwargs: Any) -> SyncOwnedRun[Any, Any]:
        return SyncOwnedRun(self._portal, self._client.stream(producer, *args, **kwargs))

    @overload
    def execute(
        self,
        producer: Startable[P, AsyncIterator[str]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> str: ...
    @overload
    def execute(self, producer: Startable[P, AsyncIterator[T]], *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    def execute(
        self,
        producer: Startable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    def execute(self, producer: Startable[P, Iterator[T]], *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    def execute(self, producer: Startable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...
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
        self,
        *,
        limit: int = 100,
        before: str | None = None,
        state: RunState | None = None,
        actor: str | None = None,
        labels: Mapping[str, str] | None = None,
        parent: str | None = None,
        root: str | None = None,
    ) -> list[Head]:
        return self._portal.call(
            self._client.runs(
                limit=limit, before=before, state=state, actor=actor, labels=labels, parent=parent, root=root
            )
        )

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

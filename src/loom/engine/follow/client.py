"""The client: what starts, follows, feeds and cancels runs. One contract, over a store or through a server."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from datetime import timedelta
from typing import Any, ParamSpec, Self, TypeVar, get_args, overload

from loom.engine.declare.inputs import encode_input
from loom.engine.declare.options import check_keep, check_lease, retention_of
from loom.engine.declare.producer import Bound, Producer, Startable
from loom.engine.run.publisher import Publisher
from loom.model import limits
from loom.model.errors import UsageError, closed
from loom.model.keep import Keep
from loom.model.names import PUBLISHED, check_id
from loom.model.numbers import is_whole, seconds
from loom.model.options import COMPLETE, OPTIONS, Options, settled_value
from loom.model.ports import Transport
from loom.model.run import ActorInfo, Entry, Head, Meta, Place, RunFilter, RunState, Start, WorkerInfo

from .consumer import Consumer
from .run import OwnedRun, Run
from .transport import StoreTransport
from .unserved import UnservedQueues

__all__ = ["Client", "new_id"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Client:
    """Starts, follows, feeds and cancels runs. Made by `loom.connect`; usable until that block is left.

    A producer is given as the registered function (typed through; its arguments are checked and its declared options
    known, with or without an `app`) or by name (then one argument is the input, keywords are its fields). The keywords
    of `RunOptions` are options: they win over what the actor declares, also with its default as value, and None lifts a
    declared one. By name, what neither says is the server's or the app's to fill in; a store's client without an `app`
    takes the defaults, and the run's `Meta.assumed` names them. Every method may raise `Unavailable`; starting raises
    `UnknownProducer`, `InvalidInput` (naming the field; nothing ran), and `Conflict` when `id` is taken by another
    request.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._unserved = UnservedQueues(transport)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Client on {self._transport!r}{' (closed)' if self._closed else ''}>"

    @property
    def transport(self) -> Transport:
        """How runs are reached: for who serves them on."""
        return self._transport

    @overload
    async def start(
        self, producer: Startable[P, AsyncIterator[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Run[T, Any]: ...
    @overload
    async def start(
        self,
        producer: Startable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Run[Any, R]: ...
    @overload
    async def start(self, producer: Startable[P, Iterator[T]], *args: P.args, **kwargs: P.kwargs) -> Run[T, Any]: ...
    @overload
    async def start(self, producer: Startable[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[Any, R]: ...
    @overload
    async def start(self, producer: str | type[Any], *args: Any, **kwargs: Any) -> Run[Any, Any]: ...
    async def start(self, producer: Any, *args: Any, **kwargs: Any) -> Run[Any, Any]:
        """Start a detached run: it goes on without us. Durable when this returns.

        With an `id`, starting again the same is starting once. Raises `OutcomeUnknown` when a store's replicas did not
        confirm it; the run that may be there is its ``details["run"]``.
        """
        return await self._begin(_Request(producer, args, kwargs), None)

    @overload
    def stream(
        self, producer: Startable[P, AsyncIterator[T]], *args: P.args, **kwargs: P.kwargs
    ) -> OwnedRun[T, Any]: ...
    @overload
    def stream(
        self,
        producer: Startable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> OwnedRun[Any, R]: ...
    @overload
    def stream(self, producer: Startable[P, Iterator[T]], *args: P.args, **kwargs: P.kwargs) -> OwnedRun[T, Any]: ...
    @overload
    def stream(self, producer: Startable[P, R], *args: P.args, **kwargs: P.kwargs) -> OwnedRun[Any, R]: ...
    @overload
    def stream(self, producer: str | type[Any], *args: Any, **kwargs: Any) -> OwnedRun[Any, Any]: ...
    def stream(self, producer: Any, *args: Any, **kwargs: Any) -> OwnedRun[Any, Any]:
        """Start an owned run: ``async with client.stream(chat, "hi") as run``; leaving the block cancels it."""
        request = _Request(producer, args, kwargs)

        async def begin(lease: float) -> Run[Any, Any]:
            return await self._begin(request, lease)

        return OwnedRun(begin, self._transport)

    @overload
    async def execute(
        self,
        producer: Startable[P, AsyncIterator[str]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> str: ...
    @overload
    async def execute(self, producer: Startable[P, AsyncIterator[T]], *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    async def execute(
        self,
        producer: Startable[P, Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R: ...
    @overload
    async def execute(self, producer: Startable[P, Iterator[T]], *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    async def execute(self, producer: Startable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def execute(self, producer: str | type[Any], *args: Any, **kwargs: Any) -> Any: ...
    async def execute(self, producer: Any, *args: Any, **kwargs: Any) -> Any:
        """Start, wait, result in one; owned: cancelling this call cancels the run. Raises as `Run.result`."""
        async with self.stream(producer, *args, **kwargs) as run:
            return await run.result()

    def run(self, id: str) -> Run[Any, Any]:
        """A handle on any run, by id. No I/O: whether it exists shows when it is used."""
        self._check_open()
        return Run(self._transport, check_id(id))

    async def retry(self, run: str, *, id: str | None = None) -> Run[Any, Any]:
        """Start an ended run anew, be it a dead letter: a new, detached run of the same actor, input, key, queue and
        options, whose `Meta.retry_of` names the old one. With an `id`, retrying again is retrying once.

        Raises `Conflict` for a run that has not ended, `LogNotFound` for one that is not there (any more).
        """
        self._check_open()
        head = await self._transport.retry(check_id(run), id=new_id() if id is None else check_id(id))
        return Run(self._transport, head.meta.run)

    async def entries(self, *, queue: str | None = None, place: Place | None = None, limit: int = 100) -> list[Entry]:
        """Open runs as the queue holds them, in the order of putting; delayed starts last. Raises `UsageError` for
        what is no place, or no limit."""
        self._check_open()
        _check_listed(limit, "place", place, get_args(Place))
        return await self._transport.list_entries(queue=queue, place=place, limit=limit)

    async def workers(self) -> list[WorkerInfo]:
        """The workers that told of themselves within the last `limits.WORKER_SEEN` seconds, by name."""
        self._check_open()
        return await self._transport.list_workers()

    async def ask_to_drain(self, worker: str) -> None:
        """Let a worker, by name, take nothing new and finish or hand over what it drives, within seconds.

        Raises `UsageError` (``unknown_worker``) for one that `workers` does not name."""
        self._check_open()
        await self._transport.request_drain(worker)

    def publisher(
        self,
        id: str | None = None,
        *,
        actor: str = "publisher",
        lease: float | timedelta = limits.PUBLISHER_LEASE,
        retention: float | timedelta | None = None,
        keep: Keep | None = None,
        restart: bool = False,
    ) -> Publisher:
        """A run that the code in its block writes: ``async with client.publisher("job-7") as pub``. No I/O yet.

        `id`: which run (default: a new one); opening one that was left unfinished goes on with it, or with `restart`
        takes back what was said. `actor`: what it is listed under. `lease`: seconds without a sign of life after which
        it ends with `run_lost`. `retention`: seconds that it is kept after its end. `keep`: how much of it is kept
        while it goes on. Raises `UsageError` for a server's client: publishing needs a store.
        """
        self._check_open()
        transport = self._transport
        if not isinstance(transport, StoreTransport):
            raise UsageError("publishing needs a store (as sqlite:///runs.db): a server's clients start actors")
        kept = retention_of(retention)
        check_keep(keep)
        span = seconds(lease) or 0.0
        check_lease(span)
        meta = Meta(
            run=check_id(id) if id is not None else new_id(),
            actor=check_id(actor, "actor"),
            queue=PUBLISHED,
            created=time.time(),
            **kept.of_run(),
        )
        return Publisher(lambda: transport.store, transport.as_child(meta), lease=span, keep=keep, restart=restart)

    @property
    def consumer(self) -> Consumer:
        """Reads runs by id, also such as are still to come."""
        self._check_open()
        return Consumer(self._transport)

    async def runs(
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
        """Runs, newest first. `before`: those older than that run; `labels`: those that have all of them; `parent`:
        those that this run started; `root`: those below this run, at any depth. Raises `UsageError` for what is no
        state, or no limit, `InvalidInput` for what is no name, or no labels, `LogNotFound` where `before` is no run."""
        self._check_open()
        _check_listed(limit, "state", state, get_args(RunState))
        for field, name in (("actor", actor), ("parent", parent), ("root", root)):
            if name is not None:
                check_id(name, field)
        filter = RunFilter(
            state=state, actor=actor, labels=settled_value("labels", labels) or {}, parent=parent, root=root
        )
        return await self._transport.list_runs(filter, limit=limit, before=before)

    async def actors(self) -> list[ActorInfo]:
        """What can be started here."""
        self._check_open()
        return await self._transport.actors()

    async def _begin(self, request: _Request, owner_lease: float | None) -> Run[Any, Any]:
        self._check_open()
        self._transport.check_loop()
        start = request.start(owner_lease)
        head = await self._transport.start(start)
        self._unserved.started(head.meta)
        producer = request.producer
        if producer is None:
            return Run(self._transport, start.run)
        return Run(self._transport, start.run, yields=producer.yields, returns=producer.returns)

    def _check_open(self) -> None:
        if self._closed:
            raise closed()

    async def aclose(self) -> None:
        """Let go of the transport. Runs that are under way stay so."""
        self._transport.check_loop()
        self._closed = True
        try:
            await self._unserved.aclose()
        finally:
            await self._transport.aclose()

    async def __aenter__(self) -> Self:
        self._transport.check_loop()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


class _Request:
    """What to start: a producer or a name, arguments, options."""

    def __init__(self, what: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = what.options if isinstance(what, Bound) else Options()
        producer = what.producer if isinstance(what, Bound) else what
        if not isinstance(producer, (Producer, str)):
            raise UsageError(f"not a registered producer: {what!r} (decorate it with @app.actor, or give its name)")
        named = set() if isinstance(producer, str) else producer.inputs.names
        given = Options.of({name: kwargs.pop(name) for name in (OPTIONS.keys() - named) & kwargs.keys()}).over(bound)
        self.producer: Producer[..., Any] | None = None
        if isinstance(producer, str):
            self.name = check_id(producer, "actor")
            self.input = encode_input(_plain_input(args, kwargs))
            self.options = given
        else:
            self.producer = producer
            self.name = producer.name
            self.input = producer.inputs.settled(encode_input(producer.inputs.bind(args, kwargs)), canonical=True)
            self.options = given.over(producer.options).over(COMPLETE)

    def start(self, owner_lease: float | None) -> Start:
        return Start(
            run=self.options.given.get("id") or new_id(),
            actor=self.name,
            input=self.input,
            canonical=True,
            options=self.options,
            owner_lease=owner_lease,
            producer=self.producer,
        )


def _check_listed(limit: Any, field: str, value: Any, known: tuple[str, ...]) -> None:
    """Raise `UsageError` unless a list can be so long, and the field that it is narrowed by has a known value."""
    if not is_whole(limit):
        raise UsageError(f"limit: {limit!r:.80} is not a whole number, more than 0", details={"field": "limit"})
    if value is not None and value not in known:
        raise UsageError(f"{field}: {value!r:.80} is none of {', '.join(known)}", details={"field": field})


def _plain_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) > 1 or (args and kwargs):
        odd = f": {min(kwargs)!r} is no option" if len(args) == 1 else ""
        raise UsageError(f"by name, give the input as one argument, or its fields as keywords{odd}")
    return args[0] if args else kwargs or None


def new_id() -> str:
    """A run id nobody has used: time-ordered, so that stores keep neighbours together."""
    return f"{time.time_ns() // 1_000_000:011x}{uuid.uuid4().hex[:16]}"

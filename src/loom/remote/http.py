"""The transport of a client whose runs live behind a server: the calls of `Transport` as requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from loom.backoff import repeated
from loom.model import limits
from loom.model.chunk import Message, Page
from loom.model.cursor import Cursor
from loom.model.errors import InvalidInput, LogNotFound, OutcomeUnknown, Unavailable, UsageError
from loom.model.names import check_id
from loom.model.ports import InlineSink
from loom.model.run import ALL_RUNS, ActorInfo, Entry, Head, Place, RunFilter, Start, WorkerInfo
from loom.wire.data import encode_value
from loom.wire.failure import line_of
from loom.wire.json import check_depth, check_size, encode
from loom.wire.option_text import QUERY
from loom.wire.views import (
    ActorList,
    EntryList,
    InboxBody,
    MarkBody,
    PageView,
    RetryBody,
    RunList,
    RunView,
    StartBody,
    WorkerList,
    head_of,
)

from .answers import decode_as, refusal
from .connections import Connections, Query
from .follower import Follower, Patience
from .outages import Outages, Told
from .pages import page_of

__all__ = ["HttpTransport", "Patience"]

CALL_ATTEMPTS = 5
"""Calls of a server that is out of reach before the caller is told, the first included."""

CALL_BACKOFF = (0.1, 2.0)
"""First and longest pause between them, doubling and jittered: a server that restarts is back within these."""

CALL_WITHIN = 15.0
"""No further call is made when the first lies this long back, nor when the server asks for a longer pause."""

CALLS = 100
"""Calls of one client under way at once: a loop over thousands of runs shall not open thousands of connections."""

T = TypeVar("T")

_log = logging.getLogger("loom.client")


class HttpTransport:
    """`Transport` over a Loom server.

    A call that finds the server out of reach is made again, as every call is idempotent, at most `CALL_ATTEMPTS`
    times within `CALL_WITHIN`; then it raises `Unavailable`. Following goes on for as long as somebody waits
    (see `Follower`); the log, and `told`, are told of each outage once. Refusals are raised as the errors that the
    server names. At most `CALLS` calls are under way at once, the others wait; each followed run has a
    connection of its own.

    `api_key` is sent as a bearer and appears in no message, log or repr. `trust_env`: whether the environment may name
    a proxy (default: not for this machine). Belongs to one event loop; connects when first asked. Closing ends whatever
    is under way with `HandleClosed`. Raises `UsageError` for a URL or key that cannot be one.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        trust_env: bool | None = None,
        patience: Patience | None = None,
        told: Told | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self._connections = Connections(url, api_key=api_key, trust_env=trust_env, connect=self._patience.connect)
        self._outages = Outages(self._connections.place, told)
        self._calls = asyncio.Semaphore(CALLS)
        self.check_loop = self._connections.lifetime.check_loop

    def __repr__(self) -> str:
        return f"<HttpTransport {self._connections.place}>"

    async def start(self, start: Start) -> Head:
        body = StartBody(
            actor=start.actor,
            input=start.input,
            owner_lease=start.owner_lease,
            **{**start.options.given, "id": start.run},
        )
        return head_of(self._read_as(await self._call("POST", "/runs", body=body), RunView))

    async def head(self, run: str, *, full: bool = True) -> Head:
        query = None if full else {"full": "0"}
        return head_of(self._read_as(await self._call("GET", _path(run), query=query), RunView))

    async def list_runs(
        self, filter: RunFilter = ALL_RUNS, *, limit: int = 100, before: str | None = None
    ) -> list[Head]:
        query: dict[str, str | list[str]] = {"limit": str(min(limit, limits.LIST_LIMIT)), **filter.columns}
        if before is not None:
            query["before"] = before
        if filter.labels:
            query["label"] = [f"{name}{QUERY}{value}" for name, value in filter.labels.items()]
        listed = self._read_as(await self._call("GET", "/runs", query=query), RunList)
        return [head_of(view) for view in listed.runs]

    async def actors(self) -> list[ActorInfo]:
        return self._read_as(await self._call("GET", "/actors"), ActorList).actors

    async def retry(self, run: str, *, id: str) -> Head:
        body = RetryBody(id=check_id(id))
        return head_of(self._read_as(await self._call("POST", _path(run, "retry"), body=body), RunView))

    async def list_entries(
        self, *, queue: str | None = None, place: Place | None = None, limit: int = 100
    ) -> list[Entry]:
        given = {"limit": str(min(limit, limits.LIST_LIMIT)), "queue": queue, "place": place}
        query = {name: value for name, value in given.items() if value is not None}
        return self._read_as(await self._call("GET", "/queue", query=query), EntryList).entries

    async def list_workers(self) -> list[WorkerInfo]:
        return self._read_as(await self._call("GET", "/workers"), WorkerList).workers

    async def request_drain(self, worker: str) -> None:
        try:
            check_id(worker, "worker")
        except InvalidInput:
            raise UsageError(f"there is no worker {worker[:80]!r}", code="unknown_worker") from None
        await self._call("POST", f"/workers/{worker}/drain")

    def follow(
        self,
        run: str,
        after: Cursor | None = None,
        *,
        attach: bool = True,
        sink: InlineSink | None = None,
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[Page, None]:
        return Follower(
            self._connections,
            _path(run, "events"),
            run,
            after,
            patience=self._patience,
            outages=self._outages,
            tell=self.commit_position if attach else None,
            limit_bytes=limit_bytes,
        ).pages()

    async def read(self, run: str, after: Cursor | None, *, limit: int, wait: float) -> Page:
        query = {"limit": str(min(limit, limits.READ_LIMIT))}
        if after is not None:
            query["after"] = str(after)
        clock = asyncio.get_running_loop().time
        end = clock() + wait
        while True:
            left = min(max(end - clock(), 0.0), limits.LONG_POLL)
            view = await self._poll(run, {**query, "wait": f"{left:.3f}"} if left else query, left)
            page = page_of(view, after)
            if page.batches or page.ended or clock() >= end:
                return page

    async def _poll(self, run: str, query: Query, wait: float) -> PageView:
        """A read that waits is no call that others may have to wait for."""
        timeout = self._patience.answer + wait
        data = await self._call("GET", _path(run, "chunks"), query=query, timeout=timeout, waits=wait > 0)
        return self._read_as(data, PageView)

    async def send(self, run: str, message: Message[Any]) -> None:
        try:
            data = encode_value(message.data)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"data: {error}", details={"field": "data"}) from None
        except Exception as error:  # user code: a value's JSON form may raise anything
            raise InvalidInput(f"data: {line_of(error)}", details={"field": "data"}) from error
        check_size(data, limits.MESSAGE_BYTES, "a message")
        check_depth(data)
        body = InboxBody(type=message.type, data=msgspec.Raw(data), id=message.id, sender=message.sender)
        await self._call("POST", _path(run, "inbox"), body=body)

    async def cancel(self, run: str) -> None:
        await self._call("POST", _path(run, "cancel"))

    async def heartbeat(self, run: str) -> None:
        """Not waited for longer than there is until the next: a connection that has died unseen costs one beat."""
        timeout = min(self._patience.answer, limits.OWNER_LEASE / limits.RENEW_FRACTION)
        await self._call("POST", _path(run, "renew"), timeout=timeout)

    async def commit_position(self, run: str, reader: str, seq: int | None) -> None:
        timeout = min(self._patience.answer, limits.READER_LEASE / limits.RENEW_FRACTION)
        await self._call(
            "POST", _path(run, f"readers/{check_id(reader, 'reader')}"), body=MarkBody(seq), timeout=timeout
        )

    async def aclose(self) -> None:
        await self._connections.aclose()

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        timeout: float | None = None,
        waits: bool = False,
    ) -> bytes:
        """The body of the answer. Raises what the refusal is, or the failure once there were enough."""
        data = None if body is None else encode(body)
        timeout = timeout or self._patience.answer

        async def once() -> bytes:
            if waits:
                return await self._once(method, path, query, data, timeout)
            async with self._calls:
                return await self._once(method, path, query, data, timeout)

        return await self._connections.lifetime.run(lambda: self._repeated(once))

    async def _repeated(self, once: Callable[[], Awaitable[bytes]]) -> bytes:
        return await repeated(
            once,
            lambda error: isinstance(error, (Unavailable, OutcomeUnknown)),
            attempts=CALL_ATTEMPTS,
            within=CALL_WITHIN,
            backoff=CALL_BACKOFF,
            log=_log,
        )

    async def _once(self, method: str, path: str, query: Query | None, data: bytes | None, timeout: float) -> bytes:
        exchange = await self._connections.request(method, path, query=query, body=data, timeout=timeout)
        try:
            body = await exchange.body()
        finally:
            await exchange.aclose()
        if not 200 <= exchange.status < 300:
            raise refusal(exchange.status, exchange.headers, body, exchange.place)
        return body

    def _read_as(self, data: bytes, type: type[T]) -> T:
        return decode_as(data, type, self._connections.place)


def _path(run: str, under: str = "") -> str:
    """Where a run is found. What is no id never becomes part of a path. Raises `LogNotFound`."""
    try:
        check_id(run)
    except InvalidInput:
        raise LogNotFound(f"there is no run {run[:80]!r}") from None
    return f"/runs/{run}" + (f"/{under}" if under else "")

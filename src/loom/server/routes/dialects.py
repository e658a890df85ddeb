"""The routes of dialects: a dialect reads a request as a command, which is carried out here."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from starlette.requests import Request
from starlette.types import ASGIApp

from loom.engine.declare.inputs import encode_input
from loom.engine.follow.client import new_id
from loom.model import limits
from loom.model.run import Start
from loom.server.http.answers import empty, json_answer, refusing
from loom.server.http.requests import check_run, idempotent_id, read_json
from loom.server.stream.events import EventStream
from loom.server.stream.streams import Streams
from loom.wire.dialect import Catalog, Dialect, FollowRun, HttpRequest, Route, ShowCatalog, StartRun

from .exchange import Exchange, read_retracted, run_headers, surviving, viewing_of
from .operations import Operation
from .parameters import IDEMPOTENCY_KEY
from .runs import location_of

__all__ = ["Dialects"]


class Dialects:
    """Handlers over the transport, and nothing else of the engine. `default_actor` answers for names that no actor
    has."""

    def __init__(self, streams: Streams, dialects: Iterable[Dialect], default_actor: str | None) -> None:
        self._streams = streams
        self._transport = streams.transport
        self._dialects = tuple(dialects)
        self._default = default_actor
        self._since = int(time.time())

    def operations(self) -> tuple[Operation, ...]:
        return tuple(self._operation(dialect, route) for dialect in self._dialects for route in dialect.routes)

    def _operation(self, dialect: Dialect, route: Route) -> Operation:
        parameters = (*route.parameters, IDEMPOTENCY_KEY) if route.method == "POST" else route.parameters
        return Operation(
            route.method, route.path, route.name, route.summary, partial(self._answer, dialect, route),
            route.answers, parameters, route.body, route.errors,
            refuse=refusing(dialect.refuse), error_body=dialect.error_body, dialect=dialect,
        )  # fmt: skip

    async def _answer(self, dialect: Dialect, route: Route, request: Request) -> ASGIApp:
        body = b"" if route.body is None else await read_json(request)
        command = route.read(HttpRequest(request.path_params, request.query_params, request.headers, body))
        match command:
            case StartRun():
                return await self._start(dialect, command, request)
            case FollowRun():
                return await self._follow(dialect, command, request)
            case ShowCatalog():
                return json_answer(command.answer(await self._catalog()))

    async def _catalog(self) -> Catalog:
        return Catalog(tuple(await self._transport.actors()), self._default, self._since)

    async def _start(self, dialect: Dialect, start: StartRun, request: Request) -> ASGIApp:
        self._streams.check_open()
        call = start.call(await self._catalog())
        run = idempotent_id(request, None)
        asked = Start(
            run=run or new_id(),
            actor=call.actor,
            input=encode_input(call.input),
            canonical=True,
            owner_lease=self._streams.times.leave_grace,
        )
        head = await self._transport.start(asked)
        location = location_of(request, asked.run)
        return Exchange(self._streams, dialect, start, head, location, repeatable=run is not None)

    async def _follow(self, dialect: Dialect, follow: FollowRun, request: Request) -> ASGIApp:
        self._streams.check_open()
        run = check_run(follow.run)
        head = await self._transport.head(run, full=False)
        page = await self._transport.read(run, follow.after, limit=limits.PAGE_CHUNKS, wait=0.0)
        if page.ended and not page.batches:
            return empty()
        again = follow.after is None and head.attempt > 1
        retracted = await read_retracted(self._transport, run) if again else None
        viewing = viewing_of(
            surviving(follow.encoder(run, head.meta.created), retracted),
            run_headers(run, location_of(request, run)),
            resumable=dialect.resumable,
            owned=head.meta.owner_lease is not None,
        )
        return EventStream(self._streams, run, page, viewing)

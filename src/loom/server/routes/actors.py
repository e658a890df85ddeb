"""The routes of actors: the list, and start and stream in one."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from loom.model.cursor import Cursor
from loom.model.errors import InvalidInput, LogNotFound, RemoteProtocolError, UnknownProducer, UsageError
from loom.model.names import check_id
from loom.model.options import Options
from loom.server.http.answers import json_answer
from loom.server.http.requests import check_accepts_events, header, query_flag, query_options, read_body
from loom.server.stream.events import BEGINNING, EventStream, Viewing, open_events, parting
from loom.server.stream.streams import Streams
from loom.wire.json import check_depth, decode
from loom.wire.sse import bookmark
from loom.wire.views import ActorList, StreamBody

from .operations import Answer, Operation, Parameter
from .parameters import EVENTS, FLAG, ID, IDEMPOTENCY_KEY, LAST_EVENT_ID, NAMED, QUERY_OPTIONS
from .runs import location_of, start_of

__all__ = ["Actors"]

_NAME = Parameter("path", "name", "The actor.", ID)
_INPUT = Parameter("query", "input", "The input, as JSON; null if left out.", {}, json=True)
_DETACH = Parameter("query", "detach", "1: the run goes on when its viewer leaves.", FLAG)


class Actors:
    """Handlers over the transport, and nothing else of the engine."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._transport = streams.transport

    def operations(self) -> tuple[Operation, ...]:
        answers = {**EVENTS, 200: Answer("A new run's chunks, or, resumed, the rest of it.", str, ("Location",))}
        shared = (_NAME, *QUERY_OPTIONS, _DETACH, LAST_EVENT_ID, NAMED)
        errors = (404, 406, 409, 410, 422, 507)
        summary = "Start an owned run and follow it; with Last-Event-ID go on following it."
        streams = [
            operation
            for path, suffix in (("/actors/{name}/stream", ""), ("/actor/{name}/stream", "Alias"))
            for operation in (
                Operation(
                    "GET", path, f"stream{suffix}", summary, self.stream, answers, (*shared, _INPUT), errors=errors,
                ),
                Operation(
                    "POST", path, f"postStream{suffix}", summary, self.stream, answers,
                    (*shared, IDEMPOTENCY_KEY), StreamBody, errors,
                ),
            )
        ]  # fmt: skip
        listed = {200: Answer("What can be run, by name.", ActorList)}
        return (Operation("GET", "/actors", "listActors", "The actors.", self.list, listed), *streams)

    async def list(self, request: Request) -> ASGIApp:
        return json_answer(ActorList(await self._transport.actors()))

    async def stream(self, request: Request) -> ASGIApp:
        """Owned: the connection renews the run, which is cancelled some time after it is cut and not resumed."""
        check_accepts_events(request)
        owned = not query_flag(request, "detach", False)
        query_flag(request, "named", True)  # refused, if it is wrong, before anything is started
        if (end := parting(self._streams, request.method, Viewing())) is not None:
            return end  # nothing was started
        last = header(request, "last-event-id")
        if last:
            return await self._resume(request, last, owned)
        if request.method == "HEAD":
            return await self._describe(request)
        return await self._start(request, owned)

    async def _start(self, request: Request, owned: bool) -> ASGIApp:
        input, options = await _asked(request)
        lease = self._streams.times.leave_grace if owned else None
        start = start_of(request, _name_in_path(request), input, options, owner_lease=lease)
        await self._transport.start(start)
        viewing = _viewing(request, start.run, owned=owned, opening=bookmark(f"{start.run}:"))
        return EventStream(self._streams, start.run, BEGINNING, viewing)

    async def _resume(self, request: Request, last: str, owned: bool) -> ASGIApp:
        run, after = _parse_event_id(last)
        name = _name_in_path(request)
        head = await self._transport.head(run, full=False)
        if head.meta.actor != name:
            raise LogNotFound(f"no run {run!r} of actor {name!r}")
        viewing = _viewing(request, run, owned=owned and head.meta.owner_lease is not None)
        return await open_events(self._streams, run, after, viewing)

    async def _describe(self, request: Request) -> ASGIApp:
        """HEAD is safe: it starts nothing."""
        name = _name_in_path(request)
        known = {actor.name for actor in await self._transport.actors()}
        if known and name not in known:
            raise UnknownProducer(f"no actor {name!r}")
        return EventStream(self._streams, name, BEGINNING, Viewing())


def _viewing(request: Request, run: str, *, owned: bool, opening: bytes = b"") -> Viewing:
    """Ids that name the run: who comes again with one goes on following it, and starts no other."""
    return Viewing(
        named=query_flag(request, "named", True),
        prefix=f"{run}:".encode(),
        opening=opening,
        location=location_of(request, run),
        owned=owned,
    )


def _name_in_path(request: Request) -> str:
    name: str = request.path_params["name"]
    try:
        return check_id(name, "name")
    except InvalidInput:
        raise UnknownProducer(f"no actor {name[:80]!r}") from None


async def _asked(request: Request) -> tuple[msgspec.Raw, Options]:
    """The input and the options, in the body of a POST, the query of a GET; some options in the query of both."""
    in_query = query_options(request)
    if request.method != "POST":
        return _input_in_query(request.query_params.get("input", "null").encode()), in_query
    body = await read_body(request, StreamBody)
    options = body.options()
    for name, value in in_query.given.items():
        if options.given.get(name, value) != value:
            raise InvalidInput(f"{name}: the query and the body say different things", details={"field": name})
    return body.input, options.over(in_query)


def _input_in_query(data: bytes) -> msgspec.Raw:
    check_depth(data)
    try:
        decode(data)
    except RemoteProtocolError as error:
        message = f"input: {error.message}; a text stands in quotes, as ?input=%22hello%22"
        raise RemoteProtocolError(message, details={"field": "input"}) from None
    return msgspec.Raw(data)


def _parse_event_id(text: str) -> tuple[str, Cursor | None]:
    """``<run>:<cursor>``; without a cursor it is the run's beginning. Raises `UsageError`."""
    run, colon, cursor = text.rpartition(":")
    try:
        return check_id(run if colon else ""), Cursor.parse(cursor) if cursor else None
    except UsageError:
        raise UsageError(
            f"Last-Event-ID: {text[:80]!r} is no id of this stream (<run>:<cursor>)",
            details={"field": "Last-Event-ID"},
        ) from None

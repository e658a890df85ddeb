"""The routes of runs: start, list, look, follow, read, tell, cancel, renew."""

from __future__ import annotations

import uuid
from typing import cast, get_args

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from loom.engine.client import new_id
from loom.model import limits
from loom.model.chunk import Message, Page
from loom.model.errors import InvalidInput, UsageError
from loom.model.run import ID_PATTERN, PRIVATE, Meta, RunState, check_id
from loom.wire.json import check_size, decode
from loom.wire.views import (
    Accepted,
    ChunkView,
    InboxBody,
    MarkBody,
    PageView,
    RunList,
    RunView,
    StartBody,
    StreamBody,
    view_of,
)

from .answers import empty, json_answer
from .operations import Answer, Operation, Parameter
from .requests import (
    accepts_events,
    canonical_json,
    idempotent_id,
    query_cursor,
    query_duration,
    query_flag,
    query_int,
    query_name,
    read_body,
    resume_at,
    run_in_path,
)
from .streams import LongPoll, Streams, open_events

__all__ = [
    "AFTER",
    "EVENTS",
    "FLAG",
    "ID",
    "IDEMPOTENCY_KEY",
    "LAST_EVENT_ID",
    "NAMED",
    "Runs",
    "location_of",
    "meta_of",
]

_STATES = get_args(RunState)
ID = {"type": "string", "pattern": f"^{ID_PATTERN}$", "maxLength": limits.ID_LENGTH}
_RUN = Parameter("path", "id", "The run.", ID)
_READER = Parameter("path", "reader", "The reader, by a name of its own choice: random, best.", ID)
_CURSOR = r"^((0|[1-9][0-9]{0,17})-[1-9][0-9]{0,17})?$"
AFTER = Parameter(
    "query",
    "after",
    "A cursor: what follows it. Left out or empty: from the beginning.",
    {"type": "string", "pattern": _CURSOR},
)
FLAG = {"type": "string", "enum": ["0", "1", "false", "true", ""]}
NAMED = Parameter("query", "named", "0: no `event:` lines, for `onmessage`.", FLAG)
LAST_EVENT_ID = Parameter("header", "Last-Event-ID", "The id of the last event seen. Wins over `after`.")
IDEMPOTENCY_KEY = Parameter(
    "header",
    "Idempotency-Key",
    "Names the run: sent again with the same request it gets the same run. Not together with an id.",
    {"type": "string", "minLength": 1, "maxLength": limits.IDEMPOTENCY_KEY_LENGTH},
)
ATTACH = Parameter(
    "query",
    "attach",
    "0: a run with `ahead` does not wait for this connection. Its reader says itself how far it has read, if the answer"
    " says `Loom-Ahead` (`POST /runs/{id}/readers/{reader}`).",
    {"type": "string", "enum": ["0", "1", "false", "true", ""]},
)
EVENTS = {
    200: Answer("The run's chunks as events, until its end.", str),
    204: Answer("Nothing is left: the run has ended and the cursor is at its end. Do not reconnect."),
}


class Runs:
    """Handlers over the transport, and nothing else of the engine."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._transport = streams.transport

    def operations(self) -> tuple[Operation, ...]:
        found = {200: Answer("The run.", RunView)}
        return (
            Operation(
                "POST", "/runs", "startRun", "Start a run, detached unless it has an `owner_lease`.", self.start,
                {201: Answer("The run, new or as it was started by the same request before.", RunView, ("Location",))},
                (IDEMPOTENCY_KEY,), StartBody, (404, 409, 422, 507),
            ),
            Operation(
                "GET", "/runs", "listRuns", "Runs, newest first, without input and result.", self.list,
                {200: Answer("A page of runs.", RunList)},
                (
                    Parameter("query", "limit", "At most so many.", _whole(limits.LIST_LIMIT, 100)),
                    Parameter("query", "before", "Those older than this run: the `next` of the page before.", ID),
                    Parameter("query", "state", "Only those.", {"type": "string", "enum": list(_STATES)}),
                    Parameter("query", "actor", "Only those of this actor.", ID),
                ),
                errors=(404,),
            ),
            Operation(
                "GET", "/runs/{id}", "showRun", "A run: state, cursors, times, result.", self.show, found, (_RUN,),
                errors=(404,),
            ),
            Operation(
                "GET", "/runs/{id}/events", "followRun", "Follow a run.", self.events, EVENTS,
                (_RUN, AFTER, LAST_EVENT_ID, NAMED, ATTACH), errors=(404, 406, 410),
            ),
            Operation(
                "GET", "/runs/{id}/chunks", "readRun", "Read one page of a run, waiting for it if asked to.",
                self.chunks, {200: Answer("A page, which may be empty.", PageView)},
                (
                    _RUN, AFTER,
                    Parameter("query", "limit", "At most so many.", _whole(limits.READ_LIMIT, limits.PAGE_CHUNKS)),
                    Parameter(
                        "query", "wait", f"Wait so long for a chunk: 50ms, 2s; at most {limits.LONG_POLL:g} s.",
                        {"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]{1,9})?(ms|s|m|h)?$"},
                    ),
                ),
                errors=(404, 410),
            ),
            Operation(
                "POST", "/runs/{id}/inbox", "sendToRun", "Tell a run something; stored when answered.", self.inbox,
                {202: Answer("The message's id.", Accepted)}, (_RUN,), InboxBody,
                (404, 409, 422, 429, 507),
            ),
            Operation(
                "POST", "/runs/{id}/cancel", "cancelRun", "Ask for a run's end; confirmed by its `error` chunk.",
                self.cancel, {202: Answer("The run's id.", Accepted)}, (_RUN,), errors=(404, 507),
            ),
            Operation(
                "POST", "/runs/{id}/renew", "renewRun", "The owner of an owned run is alive.", self.renew,
                {204: Answer("Renewed (or ended).")}, (_RUN,), errors=(404, 507),
            ),
            Operation(
                "POST", "/runs/{id}/readers/{reader}", "markRun",
                "A reader, named by itself, has read so far; again at least every few seconds, or it no longer counts.",
                self.mark, {204: Answer("Noted (or nothing waits for readers).")}, (_RUN, _READER), MarkBody,
                (404, 422, 429, 507),
            ),
        )  # fmt: skip

    async def start(self, request: Request) -> ASGIApp:
        body = await read_body(request, StartBody)
        meta = meta_of(request, body.actor, body, owner_lease=body.owner_lease)
        head = await self._transport.start(meta)
        return json_answer(view_of(head), 201, {"Location": location_of(request, meta.run)})

    async def list(self, request: Request) -> ASGIApp:
        limit = query_int(request, "limit", 100, limits.LIST_LIMIT)
        state = request.query_params.get("state")
        if state is not None and state not in _STATES:
            raise UsageError(f"state: {state[:80]!r} is none of {', '.join(_STATES)}", details={"field": "state"})
        heads = await self._transport.heads(
            limit=limit,
            before=query_name(request, "before"),
            state=cast("RunState | None", state),
            actor=query_name(request, "actor"),
        )
        following = heads[-1].meta.run if len(heads) == limit else None
        return json_answer(RunList([view_of(head, full=False) for head in heads], following))

    async def show(self, request: Request) -> ASGIApp:
        return json_answer(view_of(await self._transport.head(run_in_path(request))))

    async def events(self, request: Request) -> ASGIApp:
        run = run_in_path(request)
        accepts_events(request)
        self._streams.check_open()
        named = query_flag(request, "named", True)
        attach = query_flag(request, "attach", True)
        after = resume_at(request, run, request.query_params.get("after"))
        ahead = None if attach else (await self._transport.head(run)).meta.ahead
        return await open_events(self._streams, run, after, named=named, attach=attach, ahead=ahead)

    async def chunks(self, request: Request) -> ASGIApp:
        run = run_in_path(request)
        after = query_cursor(request)
        limit = query_int(request, "limit", limits.PAGE_CHUNKS, limits.READ_LIMIT)
        wait = query_duration(request, "wait", self._streams.times.long_poll)
        if not wait or request.method == "HEAD":
            return json_answer(_page_view(await self._transport.read(run, after, limit=limit, wait=0.0)))

        async def read() -> ASGIApp:
            return json_answer(_page_view(await self._transport.read(run, after, limit=limit, wait=wait)))

        self._streams.check_open()
        return LongPoll(self._streams, read)

    async def inbox(self, request: Request) -> ASGIApp:
        run = run_in_path(request)
        body = await read_body(request, InboxBody)
        message = _message_of(body)
        await self._transport.send(run, message)
        return json_answer(Accepted(message.id), 202)

    async def cancel(self, request: Request) -> ASGIApp:
        run = run_in_path(request)
        await self._transport.cancel(run)
        return json_answer(Accepted(run), 202)

    async def renew(self, request: Request) -> ASGIApp:
        await self._transport.touch(run_in_path(request))
        return empty()

    async def mark(self, request: Request) -> ASGIApp:
        run = run_in_path(request)
        body = await read_body(request, MarkBody)
        await self._transport.mark(run, check_id(request.path_params["reader"], "reader"), body.seq)
        return empty()


def meta_of(request: Request, actor: str, body: StartBody | StreamBody, *, owner_lease: float | None) -> Meta:
    """What is asked for. Raises `InvalidInput` naming the field, `LimitExceeded`, `RemoteProtocolError`."""
    check_size(bytes(body.input), limits.INPUT_BYTES, "an input")
    run = idempotent_id(request, body.id)
    return Meta(
        run=new_id() if run is None else check_id(run),
        actor=actor,
        input=canonical_json(body.input),
        queue=_checked_queue(body.queue),
        key=None if body.key is None else check_id(body.key, "key"),
        timeout=body.timeout,
        idle_timeout=body.idle_timeout,
        ahead=body.ahead,
        retention=body.retention,
        owner_lease=owner_lease,
    )


def _checked_queue(name: str) -> str:
    if name.startswith(PRIVATE):
        raise InvalidInput(f"queue: names that begin with {PRIVATE!r} are private", details={"field": "queue"})
    return check_id(name, "queue")


def location_of(request: Request, run: str) -> str:
    """Where the run is found, as this server is mounted."""
    return f"{request.scope.get('root_path', '')}/runs/{run}"


def _page_view(page: Page) -> PageView:
    return PageView(
        chunks=[ChunkView(str(cursor), msgspec.Raw(line)) for cursor, line in page.lines()],
        cursor=None if page.cursor is None else str(page.cursor),
        caught_up=page.caught_up,
        ended=page.ended,
    )


def _message_of(body: InboxBody) -> Message[object]:
    check_size(bytes(body.data), limits.MESSAGE_BYTES, "a message")
    return Message(
        check_id(body.type, "type"),
        decode(bytes(body.data)),
        check_id(body.sender, "sender"),
        uuid.uuid4().hex if body.id is None else check_id(body.id, "id"),
    )


def _whole(most: int, default: int) -> dict[str, object]:
    return {"type": "integer", "minimum": 1, "maximum": most, "default": default}

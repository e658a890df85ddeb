"""The routes of runs: start, list, look, follow, read, tell, cancel, renew."""

from __future__ import annotations

import uuid
from typing import cast, get_args

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from loom.engine.follow.client import new_id
from loom.model import limits
from loom.model.chunk import Message, Page
from loom.model.errors import InvalidInput, UsageError
from loom.model.names import PRIVATE, check_id
from loom.model.options import OPTIONS, Options
from loom.model.run import RunFilter, RunState, Start
from loom.server.http.answers import empty, json_answer
from loom.server.http.requests import (
    check_accepts_events,
    idempotent_id,
    query_cursor,
    query_duration,
    query_flag,
    query_int,
    query_name,
    query_option,
    read_body,
    resume_at,
    run_in_path,
)
from loom.server.stream.events import Viewing, open_events, parting
from loom.server.stream.streams import Streams
from loom.wire.json import check_size, decode
from loom.wire.option_text import schema_in_query
from loom.wire.views import (
    Accepted,
    ChunkView,
    InboxBody,
    MarkBody,
    PageView,
    RetryBody,
    RunList,
    RunView,
    StartBody,
    view_of,
)

from .operations import Answer, Operation, Parameter
from .parameters import (
    AFTER,
    ATTACH,
    EVENTS,
    FULL,
    ID,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    NAMED,
    READER,
    RUN,
    WAIT,
    at_most,
)
from .polls import LongPoll

__all__ = ["Runs", "location_of", "start_of"]

_STATES = get_args(RunState)
_LABEL = schema_in_query(OPTIONS["labels"])


class Runs:
    """Handlers over the transport, and nothing else of the engine."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._transport = streams.transport

    def operations(self) -> tuple[Operation, ...]:
        return (*self._of_all(), *self._reading(), *self._telling())

    def _of_all(self) -> tuple[Operation, ...]:
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
                    at_most(limits.LIST_LIMIT, 100),
                    Parameter("query", "before", "Those older than this run: the `next` of the page before.", ID),
                    Parameter("query", "state", "Only those.", {"type": "string", "enum": list(_STATES)}),
                    Parameter("query", "actor", "Only those of this actor.", ID),
                    Parameter("query", "label", "Only those with all of these labels.", _LABEL),
                    Parameter("query", "parent", "Only those that this run started.", ID),
                    Parameter("query", "root", "Only those below this run, at any depth.", ID),
                ),
                errors=(404,),
            ),
        )  # fmt: skip

    def _reading(self) -> tuple[Operation, ...]:
        return (
            Operation(
                "GET", "/runs/{id}", "showRun", "A run: state, cursors, times, result.", self.show,
                {200: Answer("The run.", RunView)}, (RUN, FULL), errors=(404,),
            ),
            Operation(
                "GET", "/runs/{id}/events", "followRun", "Follow a run.", self.events, EVENTS,
                (RUN, AFTER, LAST_EVENT_ID, NAMED, ATTACH), errors=(404, 406, 410),
            ),
            Operation(
                "GET", "/runs/{id}/chunks", "readRun", "Read one page of a run, waiting for it if asked to.",
                self.chunks, {200: Answer("A page, which may be empty.", PageView)},
                (RUN, AFTER, at_most(limits.READ_LIMIT, limits.PAGE_CHUNKS), WAIT), errors=(404, 410),
            ),
        )  # fmt: skip

    def _telling(self) -> tuple[Operation, ...]:
        return (
            Operation(
                "POST", "/runs/{id}/inbox", "sendToRun", "Tell a run something; stored when answered.", self.inbox,
                {202: Answer("The message's id.", Accepted)}, (RUN,), InboxBody,
                (404, 409, 422, 429, 507),
            ),
            Operation(
                "POST", "/runs/{id}/cancel", "cancelRun", "Ask for a run's end; confirmed by its `error` chunk.",
                self.cancel, {202: Answer("The run's id.", Accepted)}, (RUN,), errors=(404, 507),
            ),
            Operation(
                "POST", "/runs/{id}/retry", "retryRun",
                "Start an ended run anew: same actor, input, key, queue and options, `retry_of` naming the old one.",
                self.retry,
                {201: Answer("The new run, or the one that the same request started before.", RunView, ("Location",))},
                (RUN, IDEMPOTENCY_KEY), RetryBody, (404, 409, 422, 507),
            ),
            Operation(
                "POST", "/runs/{id}/renew", "renewRun", "The owner of an owned run is alive.", self.renew,
                {204: Answer("Renewed (or ended).")}, (RUN,), errors=(404, 507),
            ),
            Operation(
                "POST", "/runs/{id}/readers/{reader}", "markRun",
                "A reader, named by itself, has read so far; again at least every few seconds, or it no longer counts.",
                self.mark, {204: Answer("Noted (or nothing waits for readers).")}, (RUN, READER), MarkBody,
                (404, 422, 429, 507),
            ),
        )  # fmt: skip

    async def start(self, request: Request) -> ASGIApp:
        body = await read_body(request, StartBody)
        start = start_of(request, body.actor, body.input, body.options(), owner_lease=body.owner_lease)
        head = await self._transport.start(start)
        return json_answer(view_of(head), 201, {"Location": location_of(request, start.run)})

    async def list(self, request: Request) -> ASGIApp:
        limit = query_int(request, "limit", 100, limits.LIST_LIMIT)
        state = request.query_params.get("state")
        if state is not None and state not in _STATES:
            raise UsageError(f"state: {state[:80]!r} is none of {', '.join(_STATES)}", details={"field": "state"})
        filter = RunFilter(
            state=cast("RunState | None", state),
            actor=query_name(request, "actor"),
            labels=query_option(request, "labels") or {},
            parent=query_name(request, "parent"),
            root=query_name(request, "root"),
        )
        heads = await self._transport.list_runs(filter, limit=limit, before=query_name(request, "before"))
        following = heads[-1].meta.run if len(heads) == limit else None
        return json_answer(RunList([view_of(head, full=False) for head in heads], following))

    async def show(self, request: Request) -> ASGIApp:
        full = query_flag(request, "full", True)
        return json_answer(view_of(await self._transport.head(run_in_path(request), full=full), full=full))

    async def events(self, request: Request) -> ASGIApp:
        run = run_in_path(request)
        check_accepts_events(request)
        named = query_flag(request, "named", True)
        attach = query_flag(request, "attach", True)
        after = resume_at(request, run, request.query_params.get("after"))
        if (end := parting(self._streams, request.method, Viewing(named=named))) is not None:
            return end
        ahead = None if attach else (await self._transport.head(run, full=False)).meta.ahead
        return await open_events(self._streams, run, after, Viewing(named=named, attach=attach, ahead=ahead))

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

    async def retry(self, request: Request) -> ASGIApp:
        run = run_in_path(request)
        body = await read_body(request, RetryBody)
        named = idempotent_id(request, body.id)
        head = await self._transport.retry(run, id=new_id() if named is None else check_id(named))
        return json_answer(view_of(head), 201, {"Location": location_of(request, head.meta.run)})

    async def renew(self, request: Request) -> ASGIApp:
        await self._transport.heartbeat(run_in_path(request))
        return empty()

    async def mark(self, request: Request) -> ASGIApp:
        run = run_in_path(request)
        body = await read_body(request, MarkBody)
        await self._transport.commit_position(run, check_id(request.path_params["reader"], "reader"), body.seq)
        return empty()


def start_of(request: Request, actor: str, input: msgspec.Raw, options: Options, *, owner_lease: float | None) -> Start:
    """The start that a request asks for. Raises `InvalidInput` naming the field."""
    if str(options.given.get("queue", "")).startswith(PRIVATE):
        raise InvalidInput(f"queue: names that begin with {PRIVATE!r} are private", details={"field": "queue"})
    run = idempotent_id(request, options.given.get("id"))
    return Start(run=run or new_id(), actor=actor, input=input, options=options, owner_lease=owner_lease)


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

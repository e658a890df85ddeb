"""The gateway of `redis_stream` on sse-starlette."""

from __future__ import annotations

from collections.abc import AsyncIterator

from redis_stream import ask, connected, read
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

client = connected()


async def start(request: Request) -> Response:
    await ask(client, await request.json())
    return Response(status_code=201)


async def _events(run: str) -> AsyncIterator[ServerSentEvent]:
    async for id, type, data in read(client, run):
        yield ServerSentEvent(data, event=type, id=id)


async def events(request: Request) -> EventSourceResponse:
    return EventSourceResponse(_events(request.path_params["run"]))


app = Starlette(routes=[Route("/runs", start, methods=["POST"]), Route("/runs/{run}/events", events)])

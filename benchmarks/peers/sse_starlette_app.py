"""sse-starlette's EventSourceResponse."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sources import source
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route


async def _events(kind: str, argument: float) -> AsyncIterator[ServerSentEvent]:
    async for i, text in source(kind, argument):
        yield ServerSentEvent(text, event="data", id=str(i))


async def stream(request: Request) -> EventSourceResponse:
    return EventSourceResponse(_events(request.path_params["kind"], request.path_params["argument"]))


app = Starlette(routes=[Route("/{kind}/{argument:float}", stream, methods=["GET", "POST"])])

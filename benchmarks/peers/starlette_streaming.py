"""Starlette's StreamingResponse over a generator of events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sources import source
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


async def _events(kind: str, argument: float) -> AsyncIterator[str]:
    async for i, text in source(kind, argument):
        yield f"id: {i}\nevent: data\ndata: {text}\n\n"


async def stream(request: Request) -> StreamingResponse:
    events = _events(request.path_params["kind"], request.path_params["argument"])
    return StreamingResponse(events, media_type="text/event-stream")


app = Starlette(routes=[Route("/{kind}/{argument:float}", stream, methods=["GET", "POST"])])

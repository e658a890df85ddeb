"""FastAPI's own server-sent events: a path operation that yields."""

from __future__ import annotations

from collections.abc import AsyncIterable

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sources import source

app = FastAPI()


@app.get("/{kind}/{argument}", response_class=EventSourceResponse)
@app.post("/{kind}/{argument}", response_class=EventSourceResponse)
async def stream(kind: str, argument: float) -> AsyncIterable[ServerSentEvent]:
    async for i, text in source(kind, argument):
        yield ServerSentEvent(raw_data=text, event="data", id=str(i))

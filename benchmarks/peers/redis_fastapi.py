"""The gateway of `redis_stream` on FastAPI's own server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from redis_stream import ask, connected, read

app = FastAPI()
client = connected()


@app.post("/runs", status_code=201)
async def start(job: dict[str, Any]) -> None:
    await ask(client, job)


@app.get("/runs/{run}/events", response_class=EventSourceResponse)
async def events(run: str) -> AsyncIterable[ServerSentEvent]:
    async for id, type, data in read(client, run):
        yield ServerSentEvent(raw_data=data, event=type, id=id)

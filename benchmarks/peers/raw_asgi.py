"""Raw ASGI: one send for each event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sources import source

_START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]) -> None:
    if scope["type"] != "http":
        return
    _, kind, argument = scope["path"].split("/")
    await send(_START)
    async for i, text in source(kind, float(argument)):
        event = b"id: %d\nevent: data\ndata: %b\n\n" % (i, text.encode())
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})

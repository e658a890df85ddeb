"""Actors for other people's OpenAI clients to talk to, and the server that they know by its `base_url` alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import loom
from loom.app import App
from loom.model.ai import AI
from loom.server.app import Times

from .harness import Rig, rig

TIMES = Times(heartbeat=0.05, first_output=0.2)
"""Silence is long soon."""

ANSWER = ["Rivers ", "run ", "to ", "the ", "sea."]
MODEL = "@cf/meta/llama-4-scout"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def chats(ai: AI | None = None) -> App:
    app = App(ai=ai, default_actor="rivers")

    @app.actor("rivers")
    async def rivers(messages: list[loom.ChatMessage]) -> AsyncIterator[Any]:
        """A model as they are: text, a finish reason, a count."""
        for token in ANSWER:
            yield loom.TextPart(token)
        yield loom.FinishReasonPart("stop")
        yield loom.UsagePart(7, 5)

    @app.actor("tools")
    async def tools(messages: list[loom.ChatMessage], tools: list[loom.ToolSpec] | None = None) -> AsyncIterator[Any]:
        """Calls the tool that it is given, and tells what came of it."""
        last = messages[-1]
        if last.role == "tool":
            yield f"It is {last.content}."
        else:
            assert tools is not None
            yield loom.ToolCallPart("call_1", tools[0].name, '{"city":"Delft"}')
            yield loom.FinishReasonPart("tool_calls")
            yield loom.UsagePart(7, 5)

    @app.actor("breaks")
    async def breaks(prompt: str) -> AsyncIterator[str]:
        yield "half"
        raise ValueError("ouch")

    @app.actor("busy")
    async def busy(prompt: str) -> AsyncIterator[str]:
        raise loom.LimitExceeded("too many", details={"retry_after": 7})
        yield ""

    @app.actor("thinks")
    async def thinks(prompt: str) -> AsyncIterator[str]:
        """Silent at first, and once more in between: a peer's own delay."""
        await asyncio.sleep(1.5)
        yield "at "
        await asyncio.sleep(0.3)
        yield "last"

    @app.actor("refuses")
    async def refuses(prompt: str) -> AsyncIterator[Any]:
        yield loom.RefusalPart("I will not.")

    @app.actor("forwards")
    async def forwards(messages: list[loom.ChatMessage], ctx: loom.Context) -> AsyncIterator[str]:
        """Asks another server's model."""
        async with aclosing(ctx.ai.stream_completion(messages=messages)) as tokens:
            async for token in tokens:
                yield token

    return app


@asynccontextmanager
async def serving_chats(app: App | None = None, **options: Any) -> AsyncIterator[Rig]:
    app = app or chats()
    async with (
        app.resources() as resources,
        rig(
            app.registry, worker=True, resources=resources, times=TIMES, default_actor=app.default_actor, **options
        ) as r,
    ):
        yield r

"""The chats that the chaos tests kill in mid-answer: each actor has its own model."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing

import loom
from loom.model.ai import AI
from loom.producers.llm import MarkovWriter, OpenAICompatible

RATE = 20.0
SERVER = os.environ["MODEL_SERVER"]


def app_with(ai: AI) -> loom.App:
    app = loom.App(ai=ai)

    @app.actor("chat", retry=loom.Retry(mode="continue", attempts=50), max_crashes=50)
    async def chat(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
        async with aclosing(ctx.ai.stream_completion(prompt, continue_from=ctx.said())) as tokens:
            async for token in tokens:
                yield token

    return app


app = loom.App()
app.include(app_with(MarkovWriter(rate=RATE)), prefix="builtin-")
app.include(app_with(OpenAICompatible(f"{SERVER}/goes-on/v1", model="m")), prefix="goes-on-")
app.include(app_with(OpenAICompatible(f"{SERVER}/starts-over/v1", model="m")), prefix="starts-over-")

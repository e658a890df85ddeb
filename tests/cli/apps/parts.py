"""An app whose model speaks in parts, and counts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import loom
from loom.testing import FakeAI

app = loom.App(
    ai=FakeAI(
        [loom.ReasoningPart("hm"), "Rivers run", " to the sea.", loom.RefusalPart(" No more."), loom.UsagePart(12, 40)]
    )
)


@app.actor
async def chat(prompt: str, ctx: loom.Context) -> AsyncIterator[loom.Part]:
    async for part in ctx.ai.stream_parts(prompt):
        yield part

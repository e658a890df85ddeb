"""The app that is used when none is named: something to stream within the first minute, without key or set-up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import loom

from .wordcount import Count, count_words

__all__ = ["app", "chat", "wordcount"]

app = loom.App()

_CONTINUE = (
    "The last message is the beginning of your own answer, which was interrupted."
    " Go on exactly where it stops. Repeat nothing of it and do not comment on the interruption."
)

_HINT = "check OPENAI_BASE_URL; loom doctor says what can be reached from here"


@app.actor("chat-agent", retry=loom.Retry(mode="continue", on=(loom.Unavailable,)))
async def chat(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
    """Answers a prompt with the model that OPENAI_BASE_URL names, else with a small built-in Markov-chain writer."""
    said = "".join(chunk.data for chunk in ctx.previous if chunk.type == "data")
    spoken = bool(said)
    try:
        async with aclosing(ctx.ai.stream_completion(messages=_messages(prompt, said))) as tokens:
            async for token in tokens:
                spoken = True
                yield token
    except loom.Unavailable as error:
        if spoken:
            raise
        # Until something is said the model's client calls again by itself: there is nothing to go on from here.
        raise loom.RunFailed(f"no model: {error}", details={"hint": _HINT}) from error


def _messages(prompt: str, said: str) -> list[dict[str, Any]]:
    asked = {"role": "user", "content": prompt}
    if not said:
        return [asked]
    return [{"role": "system", "content": _CONTINUE}, asked, {"role": "assistant", "content": said}]


@app.actor
def wordcount(source: list[str] | str) -> Iterator[Count | loom.Progress | loom.Result[Count]]:
    """Counts lines, words and bytes: of a list of files, or of a text."""
    yield from count_words(source)

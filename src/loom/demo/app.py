"""The apps that are used when none is named: something to stream within the first minute, without key or set-up.

`app` is for whoever may ask: it reads files below the folder that LOOM_FILES names, and without it none. `local` is for
a command that drives its own user's run: it reads what that user may read.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import loom

from .wordcount import Count, count_words

__all__ = ["app", "chat", "converse", "local", "model", "wordcount"]


def model() -> loom.AI:
    """The model that the environment names, else the built-in writer, which needs no key and no network."""
    from loom.producers.llm import MarkovWriter, ai_from_environment  # which counting words does not need

    return ai_from_environment(os.environ) or MarkovWriter()


app = loom.App(ai=model, default_actor="chat")
local = loom.App(ai=model)
_shared = loom.App(ai=model)

_HINT = "check OPENAI_BASE_URL; loom doctor says what can be reached from here"

_GO_ON = loom.Retry(mode="continue", on=(loom.Unavailable,))


@_shared.actor("chat-agent", retry=_GO_ON)
async def chat(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
    """Answers a prompt with the model that OPENAI_BASE_URL names, else with a small built-in Markov-chain writer."""
    async with aclosing(_answer([{"role": "user", "content": prompt}], ctx)) as tokens:
        async for token in tokens:
            yield token


@_shared.actor("chat", retry=_GO_ON, max_crashes=20)
async def converse(messages: list[dict[str, Any]], ctx: loom.Context) -> AsyncIterator[str]:
    """Answers the last of a conversation's messages (`{"role": "user", "content": "…"}`), as chat-agent does."""
    async with aclosing(_answer(messages, ctx)) as tokens:
        async for token in tokens:
            yield token


async def _answer(messages: list[dict[str, Any]], ctx: loom.Context) -> AsyncGenerator[str, None]:
    """The rest of the answer, if an earlier attempt has said some of it."""
    said = ctx.said()
    spoken = bool(said)
    try:
        async with aclosing(ctx.ai.stream_completion(messages=messages, continue_from=said)) as tokens:
            async for token in tokens:
                spoken = True
                yield token
    except loom.Unavailable as error:
        if spoken:
            raise
        # Until something is said the model's client calls again by itself: there is nothing to go on from here.
        raise loom.RunFailed(f"no model: {error}", details={"hint": _HINT}) from error


local.include(_shared)
app.include(_shared)

Counted = Iterator[Count | loom.Progress | loom.Result[Count]]


@local.actor
def wordcount(source: list[str] | str) -> Counted:
    """Counts lines, words and bytes: of a list of files, or of a text."""
    yield from count_words(source)


@app.actor("wordcount")
def wordcount_below(source: list[str] | str) -> Counted:
    """Counts lines, words and bytes: of a list of files below the server's LOOM_FILES, or of a text."""
    folder = os.environ.get("LOOM_FILES")
    if not folder and not isinstance(source, str):
        refusal = "no files are read here: LOOM_FILES names the folder whose files may be; a text is counted anywhere"
        raise loom.InvalidInput(f"source: {refusal}", details={"field": "source"})
    yield from count_words(source, below=Path(folder) if folder else None)

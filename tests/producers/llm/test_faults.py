"""The error of a run whose model server refuses a prompt or breaks off: the reason, and all that is known."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

import loom
import loom.testing
from loom.model.errors import ErrorInfo, LimitExceeded, Unavailable
from loom.producers.llm import Anthropic, OpenAICompatible
from loom.producers.llm.http import _reason_of

from .provider import Play, Provider, chunked, events, head, said, sized, until_close

pytestmark = pytest.mark.anyio

TOO_LONG = {
    "OpenAI": (
        400,
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130042 tokens.",
    ),
    "OpenAI, newer": (
        400,
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
    ),
    "OpenAI, configured": (
        400,
        "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 3.",
    ),
    "vLLM": (400, "The decoder prompt (length 40000) is longer than the maximum model length of 32768."),
    "vLLM, earlier": (400, "The prompt (total length 25938) is too long to fit into the model (context length 4096)."),
    "llama.cpp": (400, "the request exceeds the available context size, try increasing it"),
    "llama-cpp-python": (400, "This model's maximum context length is 512 tokens. However, you requested 909 tokens"),
    "Ollama": (500, "input length exceeds maximum context length"),
    "LM Studio": (
        400,
        "Trying to keep the first 111490 tokens when context the overflows. However, the model is loaded with context"
        " length of only 32768 tokens",
    ),
    "LM Studio, newer": (200, "Context size has been exceeded."),
    "SGLang": (400, "The input (61709 tokens) is longer than the model's context length (40960 tokens)."),
    "TGI": (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"),
    "Mistral": (
        400,
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    ),
    "Gemini": (400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
    "Groq": (400, "Please reduce the length of the messages or completion."),
    "xAI": (400, "This model's maximum prompt length is 131072 but the request contains 537812 tokens."),
    "SiliconFlow": (400, "length of prompt_tokens (163280) must be less than max_seq_len (32768)."),
    "Anthropic": (400, "prompt is too long: 210000 tokens > 200000 maximum"),
    "Anthropic, the answer too": (400, "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000"),
    "Bedrock": (400, "Input is too long for requested model."),
}
"""Status and message, as these servers send them; few have a code for it."""


@pytest.mark.parametrize("wire", [OpenAICompatible, Anthropic])
@pytest.mark.parametrize("server", TOO_LONG)
async def test_a_prompt_that_is_too_long_is_told_as_such(wire: Any, server: str) -> None:
    status, message = TOO_LONG[server]
    error = {"type": "error", "error": {"message": message}}
    play = chunked(b"event: error\n" + events(error)) if status == 200 else sized(json.dumps(error).encode(), status)
    async with Provider([Play(play)]) as provider, aclosing(model(wire, provider)) as ai:
        with pytest.raises(LimitExceeded) as raised:
            await ai.complete("hi")
    assert (raised.value.code, raised.value.retryable) == ("context_length", False)
    assert message[:60] in raised.value.message
    assert len(provider.requests) == 1


def model(wire: Any, provider: Provider) -> Any:
    url = provider.url if wire is OpenAICompatible else provider.url.removesuffix("/v1")
    return wire(url, model="m", attempts=2, backoff=(0.001, 0.001))


HEL = events(said("Hel"))
RESET = r"(Connection reset by peer|the connection was broken off)"
BROKEN: dict[str, tuple[Play, str, dict[str, Any]]] = {
    "an empty stream": (
        Play(until_close(b"")),
        r"gave an empty answer, after 0 events and 0 bytes \(status 200\): some servers refuse a prompt",
        {"status": 200, "events": 0, "bytes": 0},
    ),
    "an empty stream, sized": (
        Play(sized(b"", content_type="text/event-stream")),
        r"gave an empty answer, after 0 events and 0 bytes \(status 200\)",
        {"status": 200, "events": 0, "bytes": 0},
    ),
    "its end alone": (
        Play(chunked(events(b"[DONE]"))),
        r"gave an empty answer, after 1 events and 14 bytes \(status 200\)",
        {"status": 200, "events": 1, "bytes": 14},
    ),
    "usage alone": (
        Play(chunked(events({"choices": [], "usage": {"prompt_tokens": 9}}, b"[DONE]"))),
        r"gave an empty answer, after 2 events",
        {"status": 200, "events": 2},
    ),
    "comments alone": (Play(until_close(b": hello\n\n" * 3)), "gave an empty answer, after 0 events", {"bytes": 27}),
    "an end in mid-answer": (
        Play(until_close(HEL)),
        r"broke off its answer, after 1 events and \d+ bytes \(status 200\)",
        {"status": 200, "events": 1, "bytes": len(HEL)},
    ),
    "a reset in mid-answer": (
        Play(head(content_length="1000") + HEL, cut=1000, reset=True),
        rf"{RESET}, after 1 events and \d+ bytes \(status 200\)",
        {"status": 200, "events": 1, "bytes": len(HEL)},
    ),
    "a reset before it": (
        Play(head(content_length="1000"), cut=1000, reset=True),
        rf"{RESET}, after 0 events and 0 bytes \(status 200\): some servers refuse a prompt",
        {"status": 200, "events": 0, "bytes": 0},
    ),
    "chunks without their end": (  # llama-cpp-python, whose generator raises behind the head
        Play(head(transfer_encoding="chunked"), cut=1000),
        r"peer closed connection .*, after 0 events and 0 bytes \(status 200\): some servers refuse a prompt",
        {"status": 200, "events": 0, "bytes": 0},
    ),
    "a reset before the head": (Play(b"", cut=0, reset=True), RESET, {}),
    "an end before the head": (Play(b"", cut=0), "disconnected without sending a response", {}),
    "half a document": (
        Play(head(200, "application/json", content_length="100") + b"{", cut=1000, reset=True),
        rf"{RESET}, after 0 events and 1 bytes \(status 200\)",
        {"status": 200, "bytes": 1},
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_run_s_error_says_why_the_answer_ended_and_what_had_come(case: str) -> None:
    play, reason, known = BROKEN[case]
    async with Provider([play]) as provider:
        info = await failed(provider)
        place = provider.url.removeprefix("http://").removesuffix("/v1")
    assert re.search(rf"^Unavailable: {provider.url}:? .*{reason}", info.message), info.message
    assert info.retryable
    assert info.details["code"] == "unavailable"
    assert {"host": place, **known}.items() <= info.details.items()


async def failed(provider: Provider) -> ErrorInfo:
    """The error of a run that asks this server."""
    app = loom.App(ai=lambda: OpenAICompatible(provider.url, model="m", attempts=2, backoff=(0.001, 0.001)))

    @app.actor
    async def chat(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
        async for token in ctx.ai.stream_completion(prompt):
            yield token

    async with loom.testing.client(app) as client:
        run = await client.start(chat, "hi")
        ended = await run.wait(10)
    assert ended.error is not None
    return ended.error


async def test_a_server_that_is_not_there_is_named() -> None:
    async with Provider() as gone:
        pass
    info = await failed(gone)
    assert info.message == f"Unavailable: {gone.url}: All connection attempts failed"
    assert (info.retryable, info.details["code"]) == (True, "unavailable")


async def test_an_answer_that_is_empty_but_finished_is_one() -> None:
    play = Play(chunked(events(said("", "stop"), b"[DONE]")))
    async with Provider([play]) as provider, aclosing(model(OpenAICompatible, provider)) as ai:
        assert await ai.complete("hi") == ""


def test_the_reason_is_never_empty() -> None:
    error = Unavailable("")
    assert _reason_of(error) == "Unavailable"
    error.__context__ = ConnectionResetError(104, "Connection reset by peer")
    assert _reason_of(error) == "[Errno 104] Connection reset by peer"

"""Anthropic's Messages against a server over a socket: every recording, every cut, what is asked, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from loom.model.errors import (
    InvalidInput,
    LimitExceeded,
    LoomError,
    RemoteProtocolError,
    StartOver,
    Unauthorized,
    Unavailable,
    UsageError,
)
from loom.model.parts import (
    FinishReasonPart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
    UsagePart,
)
from loom.producers.llm.anthropic import Anthropic

from .anthropic_recordings import NOT_STREAMED, RECORDINGS, TEXT, block, delta, lines, start, stopped, text
from .provider import Play, Provider, chunked, head, sized, until_close
from .recordings import Recording

pytestmark = pytest.mark.anyio

KEY = "sk-ant-test-4f9a8c27d1e6"
HELLO = chunked(text("Hel", "lo"))


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with Provider() as provider:
        yield provider


def ai_of(provider: Provider, **options: Any) -> Anthropic:
    url = provider.url.removesuffix("/v1")
    return Anthropic(url, **{"api_key": KEY, "model": "claude-x", "backoff": (0.001, 0.002), **options})


async def outcome(ai: Anthropic) -> tuple[list[Part], LoomError | None]:
    parts: list[Part] = []
    try:
        async for part in ai.stream_parts("hi"):
            parts.append(part)
    except LoomError as error:
        return parts, error
    return parts, None


def refused(type: str, message: str = "no", status: int = 400, **fields: str) -> bytes:
    error = {"type": "error", "error": {"type": type, "message": message}, "request_id": "req_1"}
    return sized(msgspec.json.encode(error), status, **fields)


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda r: r.name)
@pytest.mark.parametrize("frame", [chunked, until_close])
@pytest.mark.parametrize("step", [None, 1], ids=["whole", "byte-wise"])
async def test_reads_each_recording(provider: Provider, recording: Recording, frame: Any, step: int | None) -> None:
    provider.play(Play(frame(recording.body, recording.content_type), step=step))
    async with aclosing(ai_of(provider)) as ai:
        assert await outcome(ai) == (recording.parts, None)


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda r: r.name)
async def test_a_cut_at_any_byte_never_gives_a_wrong_answer(provider: Provider, recording: Recording) -> None:
    line = until_close(recording.body, recording.content_type)
    offset = len(line) - len(recording.body)
    async with aclosing(ai_of(provider, attempts=1)) as ai:
        for cut in range(len(line)):
            provider.play(Play(line, cut=cut))
            parts, error = await outcome(ai)
            assert parts == recording.parts[: len(parts)] or parts[-1] == recording.parts[-1], cut
            assert (error is None) == (cut >= offset + recording.whole_from), (cut, error)
            assert (error is None) == any(isinstance(part, FinishReasonPart) for part in parts)
            assert error is None or type(error) in (Unavailable, RemoteProtocolError)


async def test_connections_are_used_again(provider: Provider) -> None:
    provider.play(HELLO)
    async with aclosing(ai_of(provider)) as ai:
        assert [await ai.complete("hi") for _ in range(3)] == ["Hello"] * 3
    assert provider.connections == 1


async def test_cancelling_closes_the_connection_at_once(provider: Provider) -> None:
    begun = lines(start(input_tokens=9), block(0, type="text"), delta(0, type="text_delta", text="Hel"))
    provider.play(Play(head() + begun, stay=True))
    async with aclosing(ai_of(provider)) as ai:
        async with aclosing(ai.stream_completion("hi")) as texts:
            assert await anext(texts) == "Hel"
        await asyncio.wait_for(provider.left.wait(), 1)


# --- asking ----------------------------------------------------------------------------------------------------------


async def test_what_is_sent(provider: Provider) -> None:
    provider.play(HELLO)
    async with aclosing(ai_of(provider)) as ai:
        await ai.complete("hi", temperature=0.5, tools=[ToolSpec("add", "adds", {"type": "object"}), ToolSpec("now")])
    request = provider.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in request.headers
    assert request.body == {
        "model": "claude-x",
        "max_tokens": 16384,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "temperature": 0.5,
        "tools": [
            {"name": "add", "description": "adds", "input_schema": {"type": "object"}},
            {"name": "now", "input_schema": {"type": "object"}},
        ],
    }


async def test_without_a_key_none_is_sent_and_without_a_model_none_is_guessed(provider: Provider) -> None:
    provider.play(HELLO)
    async with aclosing(ai_of(provider, api_key=None, model=None, max_tokens=5)) as ai:
        assert await ai.complete("hi", model="m") == "Hello"
        with pytest.raises(UsageError, match="ANTHROPIC_MODEL"):
            await ai.complete("hi")
    assert "x-api-key" not in provider.requests[0].headers
    assert provider.requests[0].body["max_tokens"] == 5


# --- going on --------------------------------------------------------------------------------------------------------


async def said_behind(provider: Provider, begun: str, *pieces: str) -> str:
    provider.play(chunked(text(*pieces)))
    async with aclosing(ai_of(provider)) as ai:
        return "".join([token async for token in ai.stream_completion("hi", continue_from=begun)])


async def test_an_answer_goes_on_from_its_beginning(provider: Provider) -> None:
    assert await said_behind(provider, "Once", " upon", " a") == " upon a"
    assert provider.requests[-1].body["messages"] == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Once"},
    ]


@pytest.mark.parametrize("pieces", [(" \n", " upon"), (" \n upon",), (" ", "\n ", "upon"), ("upon",)])
async def test_white_space_at_the_end_of_a_beginning_is_said_once(provider: Provider, pieces: tuple[str, ...]) -> None:
    assert await said_behind(provider, "Once \n ", *pieces) == "upon"
    assert provider.requests[-1].body["messages"][-1]["content"] == "Once"


async def test_a_beginning_of_white_space_alone_is_not_sent(provider: Provider) -> None:
    assert await said_behind(provider, "\n", "\nOnce") == "Once"
    assert len(provider.requests[-1].body["messages"]) == 1


@pytest.mark.parametrize(
    "message",
    [
        "Prefilling assistant messages is not supported for this model.",
        "This model does not support assistant message prefill. The conversation must end with a user message.",
    ],
)
async def test_a_model_that_does_not_go_on_starts_over(provider: Provider, message: str) -> None:
    provider.play(refused("invalid_request_error", message))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(StartOver, match="does not go on"):
            await anext(ai.stream_completion("hi", continue_from="Once"))


# --- structured ------------------------------------------------------------------------------------------------------


class Point(msgspec.Struct):
    x: int
    y: int


async def test_a_structured_answer_in_the_models_own_way(provider: Provider) -> None:
    provider.play(chunked(text('{"x": 1', ', "y": 2}')))
    async with aclosing(ai_of(provider)) as ai:
        assert await ai.complete("hi", output=Point) == Point(1, 2)
    form = provider.requests[0].body["output_config"]["format"]
    assert form["type"] == "json_schema"
    assert form["schema"]["properties"] == {"x": {"type": "integer"}, "y": {"type": "integer"}}


async def test_a_structured_answer_by_a_tool_where_a_model_has_no_way(provider: Provider) -> None:
    called = lines(
        start(input_tokens=1),
        block(0, type="tool_use", id="t", name="answer", input={}),
        delta(0, type="input_json_delta", partial_json='{"x": 1'),
        delta(0, type="input_json_delta", partial_json=', "y": 2}'),
        stopped("tool_use", output_tokens=3),
        {"type": "message_stop"},
    )
    no = refused("invalid_request_error", "'claude-x' does not support output_config.format")
    provider.play(no, chunked(called), chunked(called))
    async with aclosing(ai_of(provider)) as ai:
        partials = [part.partial async for part in ai.stream_object(Point, "hi")]
        assert partials == [{}, {"x": 1, "y": 2}, {"x": 1, "y": 2}] or partials[-1] == {"x": 1, "y": 2}
        assert await ai.complete("hi", output=Point) == Point(1, 2)
    assert len(provider.requests) == 3, "the model is asked in vain once"
    body = provider.requests[-1].body
    assert body["tool_choice"] == {"type": "tool", "name": "answer"}
    assert body["tools"][0]["input_schema"]["required"] == ["x", "y"]


# --- tools -----------------------------------------------------------------------------------------------------------


async def test_tools_get_their_reasoning_and_results_back(provider: Provider) -> None:
    def weather(city: str) -> str:
        return f"rain in {city}"

    asked = lines(
        start(input_tokens=20, output_tokens=1),
        block(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="Which city?"),
        delta(0, type="signature_delta", signature="EqQ="),
        block(1, type="tool_use", id="toolu_1", name="weather", input={}),
        delta(1, type="input_json_delta", partial_json='{"city": "Oslo"}'),
        block(2, type="tool_use", id="toolu_2", name="weather", input={}),
        delta(2, type="input_json_delta", partial_json='{"town": "Oslo"}'),
        stopped("tool_use", output_tokens=30),
        {"type": "message_stop"},
    )
    provider.play(chunked(asked), chunked(text("Rain.")))
    async with aclosing(ai_of(provider)) as ai:
        parts = [part async for part in ai.run_tools("hi", tools=[weather])]
    wrong = "Error: wrong arguments: town: weather has no such parameter"
    assert parts == [
        ReasoningPart("Which city?"),
        ReasoningPart("", "EqQ="),
        ToolCallPart("toolu_1", "weather", '{"city": "Oslo"}', 0),
        ToolCallPart("toolu_2", "weather", '{"town": "Oslo"}', 1),
        ToolResultPart("toolu_1", "weather", "rain in Oslo"),
        ToolResultPart("toolu_2", "weather", wrong, is_error=True),
        TextPart("Rain."),
        FinishReasonPart("stop"),
        UsagePart(29, 42),
    ]
    _, said, told = provider.requests[1].body["messages"]
    assert said["content"] == [
        {"type": "thinking", "thinking": "Which city?", "signature": "EqQ="},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {"town": "Oslo"}},
    ]
    assert told["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain in Oslo"},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": wrong, "is_error": True},
    ]


# --- refusing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "code", "retryable"),
    [
        (refused("authentication_error", "invalid x-api-key", 401), Unauthorized, "unauthorized", False),
        (refused("permission_error", "not allowed", 403), Unauthorized, "forbidden", False),
        (refused("not_found_error", "model: claude-x", 404), InvalidInput, "invalid_input", False),
        (refused("request_too_large", "too big", 413), LimitExceeded, "too_large", False),
        (refused("rate_limit_error", "slow", 429, retry_after="77"), LimitExceeded, "limit_exceeded", True),
        (refused("billing_error", "pay", 402), LimitExceeded, "limit_exceeded", False),
        (
            refused("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
            LimitExceeded,
            "limit_exceeded",
            False,
        ),
        (
            refused("invalid_request_error", "prompt is too long: 208656 tokens > 200000 maximum"),
            LimitExceeded,
            "context_length",
            False,
        ),
        (
            refused("invalid_request_error", "input length and `max_tokens` exceed context limit: 188240 + 21333"),
            LimitExceeded,
            "context_length",
            False,
        ),
        (
            refused("invalid_request_error", "Output blocked by content filtering policy"),
            InvalidInput,
            "content_filter",
            False,
        ),
        (refused("invalid_request_error", "temperature: bad"), InvalidInput, "invalid_input", False),
    ],
)
async def test_a_refusal_is_told_at_once(
    provider: Provider, answer: bytes, kind: type[LoomError], code: str, retryable: bool
) -> None:
    provider.play(answer)
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(kind) as caught:
            await ai.complete("hi")
    assert (type(caught.value), caught.value.code, caught.value.retryable) == (kind, code, retryable)
    assert caught.value.details.get("retry_after") == (77 if retryable else None)
    assert len(provider.requests) == 1


async def test_a_wrong_key_names_its_variable_and_not_the_key(provider: Provider) -> None:
    provider.play(refused("authentication_error", f"invalid x-api-key: {KEY}", 401))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(Unauthorized, match="ANTHROPIC_API_KEY") as caught:
            await ai.complete("hi")
    assert KEY not in repr(caught.value) + repr(ai)


@pytest.mark.parametrize("first", [refused("overloaded_error", "Overloaded", 529), refused("api_error", "oops", 500)])
async def test_an_overload_is_asked_again(provider: Provider, first: bytes) -> None:
    provider.play(first, HELLO)
    async with aclosing(ai_of(provider)) as ai:
        assert await ai.complete("hi") == "Hello"


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


async def test_an_overload_in_mid_stream_is_asked_again_while_nothing_was_said(provider: Provider) -> None:
    begun = [start(input_tokens=9, output_tokens=1), block(0, type="text", text="")]
    provider.play(chunked(lines(*begun, OVERLOADED)), HELLO)
    async with aclosing(ai_of(provider)) as ai:
        assert await ai.complete("hi") == "Hello"
    provider.play(chunked(lines(*begun, delta(0, type="text_delta", text="Hel"), OVERLOADED)))
    async with aclosing(ai_of(provider)) as ai:
        parts, error = await outcome(ai)
    assert parts[0] == TextPart("Hel")
    assert isinstance(error, Unavailable)
    assert error.details["provider_code"] == "overloaded_error"


async def test_a_refusal_of_the_model_is_its_finish_reason(provider: Provider) -> None:
    provider.play(chunked(text("I", reason="refusal")))
    async with aclosing(ai_of(provider)) as ai:
        parts, _ = await outcome(ai)
        assert FinishReasonPart("content_filter") in parts
        provider.play(chunked(text('{"x"', reason="refusal")), chunked(text('{"x"', reason="max_tokens")))
        with pytest.raises(InvalidInput, match="refused") as caught:
            await ai.complete("hi", output=Point)
        assert caught.value.code == "content_filter"
        with pytest.raises(LimitExceeded, match="max_tokens"):
            await ai.complete("hi", output=Point)


async def test_a_wrong_base_url_is_told(provider: Provider) -> None:
    provider.play(sized(b"<html>", 404))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(InvalidInput, match="before /v1"):
            await ai.complete("hi")
    provider.play(sized(b'{"type": "other"}'))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(RemoteProtocolError, match="no message"):
            await ai.complete("hi")


def test_recordings_are_what_they_say() -> None:
    assert TEXT.whole_from < len(TEXT.body)
    assert NOT_STREAMED.whole_from == len(NOT_STREAMED.body)

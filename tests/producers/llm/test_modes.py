"""Structured answers of servers that know only some of the ways to ask for one, as they really refuse the others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest

from loom.model.errors import InvalidInput, LimitExceeded, LoomError, RemoteProtocolError, Unavailable
from loom.producers.llm import Anthropic, OpenAICompatible
from loom.producers.llm.http import HttpModel

from .provider import Provider, chunked, events, said, sized

pytestmark = pytest.mark.anyio


class Point(msgspec.Struct):
    x: int
    y: int


JSON = '{"x": 1, "y": 2}'
LITERAL = (
    "[{'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': \"Input should be 'text' or"
    " 'json_object'\", 'input': 'json_schema', 'ctx': {'expected': \"'text' or 'json_object'\"}}]"
)


def mode_of(body: Any) -> str:
    """The way in which a request asks for a structured answer, on either wire."""
    if "output_config" in body:
        return str(body["output_config"]["format"]["type"])
    if "response_format" in body:
        return str(body["response_format"]["type"])
    return "tool" if "tools" in body else "prompt"


def refuse(message: str, status: int, **fields: Any) -> bytes:
    return sized(json.dumps({"error": {"message": message, **fields}}).encode(), status)


def in_text() -> bytes:
    return chunked(events(said(JSON[:8]), said(JSON[8:], "stop"), b"[DONE]"))


def by_tool() -> bytes:
    calls = [
        {"index": 0, "id": "a", "function": {"name": "answer", "arguments": JSON[:8]}},
        {"index": 0, "function": {"arguments": JSON[8:]}},
    ]
    pieces = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]} for call in calls]
    return chunked(events(*pieces, {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}, b"[DONE]"))


def answered(mode: str) -> bytes:
    return by_tool() if mode == "tool" else in_text()


@asynccontextmanager
async def asking(
    answers: Callable[[Any], bytes], wire: type[HttpModel] = OpenAICompatible
) -> AsyncIterator[tuple[Provider, HttpModel]]:
    """A server that answers so, and a model that asks it, each time at most twice."""
    async with Provider(answers=answers) as provider:
        url = provider.url if wire is OpenAICompatible else provider.url.removesuffix("/v1")
        async with aclosing(wire(url, model="m", attempts=2, backoff=(0.001, 0.001))) as ai:
            yield provider, ai


REFUSALS: dict[str, tuple[dict[str, bytes], str]] = {
    "llama-cpp-python": (
        {"json_schema": refuse(LITERAL, 500, type="internal_server_error", param=None, code=None)},
        "json_object",
    ),
    "llama.cpp of 2024": (
        {
            "json_schema": refuse(
                'response_format type must be one of "text" or "json_object", but got: json_schema',
                500,
                code=500,
                type="server_error",
            )
        },
        "json_object",
    ),
    "vLLM before 0.6": (
        {
            "json_schema": sized(
                json.dumps({"object": "error", "message": LITERAL, "type": "BadRequestError", "code": 400}).encode(),
                400,
            )
        },
        "json_object",
    ),
    "DeepSeek": (
        {"json_schema": refuse("This response_format type is unavailable now", 400, type="invalid_request_error")},
        "json_object",
    ),
    "OpenAI's older models": (
        {
            "json_schema": refuse(
                "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
                400,
                type="invalid_request_error",
                param="response_format",
            )
        },
        "json_object",
    ),
    "LM Studio": (
        {"json_object": refuse("'response_format.type' must be 'json_schema' or 'text'", 400)},
        "json_schema",
    ),
    "a failure under a 200": (
        {"json_schema": chunked(events({"error": {"message": "KeyError: 'json_schema'", "code": 500}}))},
        "json_object",
    ),
    "one that fails without a word": (dict.fromkeys(("json_schema", "json_object"), sized(b"", 500)), "tool"),
    "one that refuses without a word": (dict.fromkeys(("json_schema", "json_object"), sized(b"", 422)), "tool"),
    "an endpoint of a router": (
        dict.fromkeys(
            ("json_schema", "json_object"), refuse("No endpoints found that support response_format.", 404, code=404)
        ),
        "tool",
    ),
    "one that knows text alone": (
        {
            "json_schema": sized(b"Internal Server Error", 500, content_type="text/plain"),
            "json_object": sized(b"Internal Server Error", 500, content_type="text/plain"),
            "tool": refuse("does not support tools", 400),
        },
        "prompt",
    ),
}


def server(refused: dict[str, bytes]) -> Callable[[Any], bytes]:
    return lambda body: refused.get(mode_of(body)) or answered(mode_of(body))


@pytest.mark.parametrize("name", REFUSALS)
async def test_it_is_asked_in_the_way_that_the_server_takes_and_so_from_then_on(name: str) -> None:
    refused, mode = REFUSALS[name]
    async with asking(server(refused)) as (provider, ai):
        assert await ai.complete("Where?", output=Point) == Point(1, 2)
        assert mode_of(provider.requests[-1].body) == mode
        tried = [mode_of(request.body) for request in provider.requests]
        await ai.complete("Where?", output=Point)  # failures without a word may have been an outage: asked once more
        first = len(provider.requests)
        parts = [part async for part in ai.stream_object(Point, "And now?")]
        assert (parts[0].partial, parts[-1].value) == ({"x": 1}, Point(1, 2))
        assert [mode_of(request.body) for request in provider.requests[first:]] == [mode]
        await ai.complete("Where?", output=Point, model="another")
        assert [mode_of(request.body) for request in provider.requests[first + 1 :]] == tried


async def test_the_schema_stands_behind_the_prompt() -> None:
    async with asking(server(REFUSALS["one that knows text alone"][0])) as (provider, ai):
        content: Any
        picture = {"type": "image_url", "image_url": {"url": "http://a/b.png"}}
        before = [{"role": "system", "content": "Be brief."}]
        for content in ("Where?", [{"type": "text", "text": "Where?"}, picture]):
            messages: list[Any] = [*before, {"role": "user", "content": content}]
            await ai.complete(messages=messages, output=Point)
            assert messages[-1]["content"] == content
        await ai.complete(messages=before, output=Point)
    asked = [request.body["messages"] for request in provider.requests if mode_of(request.body) == "prompt"]
    assert asked[0][1]["content"].startswith("Where?\n\nAnswer with one JSON object")
    assert '"required":["x","y"]' in asked[0][1]["content"]
    assert asked[1][1]["content"][:2] == [{"type": "text", "text": "Where?"}, picture]
    assert "JSON Schema" in asked[1][1]["content"][2]["text"]
    assert [message["role"] for message in asked[2]] == ["system", "user"]


async def test_an_outage_stays_one_and_nothing_is_learned_of_it() -> None:
    down = [True]
    answers: Callable[[Any], bytes] = lambda body: sized(b"", 500) if down[0] else answered(mode_of(body))  # noqa: E731
    async with asking(answers) as (provider, ai):
        with pytest.raises(Unavailable) as raised:
            await ai.complete("Where?", output=Point)
        assert raised.value.retryable
        modes = [mode_of(request.body) for request in provider.requests]
        assert modes == ["json_schema", "json_object", "tool", "prompt"] * 2
        down[0] = False
        assert await ai.complete("Where?", output=Point) == Point(1, 2)
        assert mode_of(provider.requests[-1].body) == "json_schema"
        down[0] = True
        count = len(provider.requests)
        with pytest.raises(Unavailable):  # it has taken a schema before: this is no refusal of it
            await ai.complete("Where?", output=Point)
        assert [mode_of(request.body) for request in provider.requests[count:]] == ["json_schema"] * 2


async def test_a_failure_that_passes_leads_to_no_lesser_mode_for_good() -> None:
    plays = [sized(b"", 500)]
    answers: Callable[[Any], bytes] = lambda body: plays.pop() if plays else answered(mode_of(body))  # noqa: E731
    async with asking(answers) as (provider, ai):
        for _ in range(3):
            assert await ai.complete("Where?", output=Point) == Point(1, 2)
    modes = [mode_of(request.body) for request in provider.requests]
    assert modes == ["json_schema", "json_object", "json_schema", "json_schema"]


@pytest.mark.parametrize(
    ("play", "kind", "count"),
    [
        (sized(b"", 503), Unavailable, 2),
        (sized(b"", 429), LimitExceeded, 2),
        (refuse("no such model", 404), InvalidInput, 1),
        (refuse("This model's maximum context length is 10 tokens", 400), LimitExceeded, 1),
        (refuse("filtered", 400, code="content_filter"), InvalidInput, 1),
    ],
)
async def test_what_has_nothing_to_do_with_the_way_of_asking_is_told_at_once(
    play: bytes, kind: type[LoomError], count: int
) -> None:
    async with asking(lambda _: play) as (provider, ai):
        with pytest.raises(kind):
            await ai.complete("Where?", output=Point)
    assert [mode_of(request.body) for request in provider.requests] == ["json_schema"] * count


async def test_a_request_that_is_refused_in_every_way_is_no_outage() -> None:
    plays = {"json_schema": sized(b"", 500)}
    answers: Callable[[Any], bytes] = lambda body: plays.get(mode_of(body)) or refuse("no such message", 400)  # noqa: E731
    async with asking(answers) as (provider, ai):
        with pytest.raises(InvalidInput, match="no such message"):
            await ai.complete("Where?", output=Point)
    assert len(provider.requests) == 4


ANTHROPIC = {
    "text": b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%b}}'
    % json.dumps(JSON).encode(),
    "tool": b'{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":%b}}'
    % json.dumps(JSON).encode(),
}
END = b'{"type":"message_delta","delta":{"stop_reason":"end_turn"}}', b'{"type":"message_stop"}'


@pytest.mark.parametrize("status", [400, 422, 500, 501])
@pytest.mark.parametrize("mode", ["tool", "prompt"])
async def test_servers_of_anthropic_s_wire(status: int, mode: str) -> None:
    def answers(body: Any) -> bytes:
        if mode_of(body) != mode:
            return refuse("no", status, type="api_error")
        return chunked(events(ANTHROPIC["tool" if mode == "tool" else "text"], *END))

    async with asking(answers, Anthropic) as (provider, ai):
        for _ in range(3):
            assert await ai.complete("Where?", output=Point) == Point(1, 2)
    modes = [mode_of(request.body) for request in provider.requests]
    tried = ["json_schema", "tool", "prompt"]
    tried = tried[: tried.index(mode) + 1]
    assert modes == [*tried, *(tried if status >= 500 else [mode]), mode]


@pytest.mark.parametrize("text", ["I would rather not say. " * 90, "It is [1, 2].", 'It is {"x": 1', ""])
async def test_an_answer_in_prose_is_kept(text: str) -> None:
    async with asking(lambda _: chunked(events(said(text), said("", "stop")))) as (_, ai):
        with pytest.raises(RemoteProtocolError, match="no Point: no whole JSON") as raised:
            await ai.complete("Where?", output=Point)
    assert raised.value.details == {"answer": text}

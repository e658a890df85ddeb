"""The provider against a server over a socket: every recording, every cut, retries, cancels, keys."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from loom.model import limits
from loom.model.errors import (
    HandleClosed,
    InvalidInput,
    LimitExceeded,
    LoomError,
    RemoteProtocolError,
    StartOver,
    Unauthorized,
    Unavailable,
    UsageError,
)
from loom.model.parts import ChatMessage, FinishReasonPart, Part, ReasoningPart, TextPart, ToolResultPart, ToolSpec
from loom.producers.llm.openai import OPENAI_URL, OpenAICompatible
from loom.producers.llm.refusals import AI_ERROR_CHARACTERS

from .provider import PATIENCE, Play, Provider, Request, chunked, events, head, said, sized, until_close
from .recordings import CLOUDFLARE, NOT_STREAMED, OPENAI, OPENAI_TOOLS, RECORDINGS, Recording

pytestmark = pytest.mark.anyio

KEY = "sk-test-4f9a8c27d1e6"
HELLO = events(said("Hel"), said("lo"), said("", "stop"), b"[DONE]")
HALF = chunked(events(said("Hel"), said("lo")))


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with Provider() as provider:
        yield provider


def ai_of(provider: Provider, **options: Any) -> OpenAICompatible:
    return OpenAICompatible(provider.url, **{"api_key": KEY, "model": "m", "backoff": (0.001, 0.002), **options})


async def take(ai: OpenAICompatible, into: list[Part]) -> None:
    async for part in ai.stream_parts("hi"):
        into.append(part)


async def outcome(ai: OpenAICompatible) -> tuple[list[Part], LoomError | None]:
    parts: list[Part] = []
    try:
        await take(ai, parts)
    except LoomError as error:
        return parts, error
    return parts, None


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda r: r.name)
@pytest.mark.parametrize("frame", [chunked, until_close])
@pytest.mark.parametrize("step", [None, 1], ids=["whole", "byte-wise"])
async def test_reads_each_recording(provider: Provider, recording: Recording, frame: Any, step: int | None) -> None:
    provider.play(Play(frame(recording.body, recording.content_type), step=step))
    async with aclosing(ai_of(provider)) as ai:
        assert await outcome(ai) == (recording.parts, None)


async def test_a_character_split_in_its_middle_arrives_whole(provider: Provider) -> None:
    line = until_close(OPENAI.body)
    middle = line.index("🌊".encode()) + 2
    provider.play(Play(line, step=middle))
    async with aclosing(ai_of(provider)) as ai:
        assert (await outcome(ai))[0] == OPENAI.parts


@pytest.mark.parametrize(
    ("recording", "frame"),
    [(recording, until_close) for recording in RECORDINGS]
    + [(recording, chunked) for recording in (OPENAI, OPENAI_TOOLS, CLOUDFLARE, NOT_STREAMED)],
    ids=lambda value: getattr(value, "name", None) or value.__name__,
)
async def test_a_cut_at_any_byte_never_gives_a_wrong_answer(
    provider: Provider, recording: Recording, frame: Any
) -> None:
    line = frame(recording.body, recording.content_type)
    whole = recording.body[: recording.whole_from]
    async with aclosing(ai_of(provider, attempts=1)) as ai:
        for cut in range(len(line)):
            provider.play(Play(line, cut=cut))
            parts, error = await outcome(ai)
            if error is None:
                spoken, ending = parts[: len(recording.said)], parts[len(recording.said) :]
                assert spoken == recording.said
                assert ending == recording.parts[len(spoken) :][: len(ending)]
                assert any(isinstance(part, FinishReasonPart) for part in ending)
                assert arrived(line[:cut], whole, frame), cut
            else:
                assert type(error) in (Unavailable, RemoteProtocolError), error
                assert parts == recording.said[: len(parts)]
                # A document whose framing broke is refused, even where all of it seems to be there.
                assert recording is NOT_STREAMED or not arrived(line[:cut], whole, frame), (cut, error)
    assert len(provider.requests) == len(line)


def arrived(line: bytes, whole: bytes, frame: Any) -> bool:
    """Whether so much of the line holds the answer's whole, as far as it was framed."""
    _, _, body = line.partition(b"\r\n\r\n")
    if frame is until_close:
        return body.startswith(whole)
    got = bytearray()
    while body:
        size, end, body = body.partition(b"\r\n")
        if not end:
            break
        got += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return got.startswith(whole)


async def test_a_reset_at_any_byte_never_gives_a_wrong_answer(provider: Provider) -> None:
    line = chunked(HELLO)
    async with aclosing(ai_of(provider, attempts=1)) as ai:
        for cut in range(len(line)):
            provider.play(Play(line, cut=cut, reset=True))
            parts, error = await outcome(ai)
            if error is None:
                assert parts == [TextPart("Hel"), TextPart("lo"), FinishReasonPart("stop")]
            else:
                assert isinstance(error, Unavailable)
                assert parts == [TextPart("Hel"), TextPart("lo")][: len(parts)]


async def test_done_without_the_finish_reason_that_the_server_speaks_of_is_a_cut(provider: Provider) -> None:
    for play in Play(chunked(events(said("Hel"), b"[DONE]"))), Play(head() + events(said("Hel"), b"[DONE]"), stay=True):
        provider.play(play)
        async with aclosing(ai_of(provider)) as ai:
            parts, error = await outcome(ai)
        assert parts == [TextPart("Hel")]
        assert isinstance(error, Unavailable)
        assert "broke off" in error.message


async def test_text_and_completion(provider: Provider) -> None:
    provider.play(chunked(OPENAI.body))
    async with aclosing(ai_of(provider)) as ai:
        assert [text async for text in ai.stream_completion("hi")] == ["Grüße", " vom 🌊", '\n"ja" é']
        assert await ai.complete("hi") == 'Grüße vom 🌊\n"ja" é'


async def test_each_token_is_given_on_as_it_comes(provider: Provider) -> None:
    provider.play(Play(head() + events(said("Hel")), stay=True))
    async with aclosing(ai_of(provider)) as ai, aclosing(ai.stream_completion("hi")) as texts:
        assert await anext(texts) == "Hel"


async def test_connections_are_used_again(provider: Provider) -> None:
    provider.play(chunked(HELLO))
    async with aclosing(ai_of(provider)) as ai:
        assert [await ai.complete("hi") for _ in range(3)] == ["Hello"] * 3
    assert provider.connections == 1


async def test_an_answer_that_is_finished_is_not_waited_on(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.producers.llm.http.AI_TRAILER", 0.01)
    provider.play(Play(head() + events(said("Hi"), said("", "stop")), stay=True))
    async with aclosing(ai_of(provider)) as ai:
        assert await outcome(ai) == ([TextPart("Hi"), FinishReasonPart("stop")], None)
        await asyncio.wait_for(provider.left.wait(), PATIENCE)


async def test_nor_when_comments_follow_for_ever(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.producers.llm.http.AI_TRAILER", 0.01)
    for_ever = b":\n\n" * 300_000
    provider.play(Play(head() + events(said("Hi"), said("", "stop")) + for_ever, step=300, cut=10_000_000, stay=True))
    async with aclosing(ai_of(provider)) as ai:
        assert await outcome(ai) == ([TextPart("Hi"), FinishReasonPart("stop")], None)
        await asyncio.wait_for(provider.left.wait(), PATIENCE)
        assert not provider.came.is_set()


# --- asking ----------------------------------------------------------------------------------------------------------


async def asked(provider: Provider, ai: OpenAICompatible, *prompt: str, **options: Any) -> Request:
    provider.play(chunked(HELLO))
    async with aclosing(ai):
        await ai.complete(*prompt, **options)
    return provider.requests[-1]


async def test_what_is_sent(provider: Provider) -> None:
    request = await asked(
        provider,
        ai_of(provider),
        messages=[ChatMessage("system", "Be kind."), {"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        model="other",
        temperature=0.5,
        max_tokens=7,
        tools=[ToolSpec("now"), ToolSpec("add", "adds", {"type": "object"})],
    )
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.body == {
        "model": "other",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 7,
        "tools": [
            {"type": "function", "function": {"name": "now"}},
            {"type": "function", "function": {"name": "add", "description": "adds", "parameters": {"type": "object"}}},
        ],
    }


async def test_a_prompt_is_a_message_of_the_user(provider: Provider) -> None:
    request = await asked(provider, ai_of(provider), "hi")
    assert request.body["messages"] == [{"role": "user", "content": "hi"}]
    assert request.body.keys() == {"model", "messages", "stream", "stream_options"}


async def test_without_a_key_none_is_sent(provider: Provider) -> None:
    assert "authorization" not in (await asked(provider, ai_of(provider, api_key=None), "hi")).headers


async def test_a_query_in_the_base_url_is_kept(provider: Provider) -> None:
    ai = OpenAICompatible(f"{provider.url}/?api-version=1", model="m")
    assert (await asked(provider, ai, "hi")).path == "/v1/chat/completions?api-version=1"


async def test_without_a_model_it_is_the_first_that_the_server_lists(provider: Provider) -> None:
    listed = sized(b'{"object":"list","data":[{"id":"qwen"},{"id":"other"}]}')
    async with aclosing(ai_of(provider, model=None)) as ai:
        provider.play(listed, chunked(HELLO), chunked(HELLO))
        await ai.complete("hi")
        await ai.complete("hi")
    assert [request.path for request in provider.requests] == ["/v1/models", *["/v1/chat/completions"] * 2]
    assert [request.body["model"] for request in provider.requests[1:]] == ["qwen"] * 2


@pytest.mark.parametrize("listed", [sized(b'{"data":null}'), sized(b"{}", 404), sized(b"no", 200), sized(b"", 405)])
async def test_without_a_model_and_a_list_it_asks_for_one(provider: Provider, listed: bytes) -> None:
    provider.play(listed)
    async with aclosing(ai_of(provider, model=None)) as ai:
        with pytest.raises(UsageError, match="OPENAI_MODEL"):
            await ai.complete("hi")


async def test_openai_is_not_asked_which_of_its_models() -> None:
    async with aclosing(OpenAICompatible(api_key=KEY)) as ai:
        with pytest.raises(UsageError, match="OPENAI_MODEL"):
            await ai.complete("hi")


# --- going on from a beginning ---------------------------------------------------------------------------------------


def listed(owner: str | None) -> bytes:
    return sized(json.dumps({"object": "list", "data": [{"id": "m", "owned_by": owner}]}).encode())


async def gone_on(provider: Provider, **options: Any) -> Request:
    async with aclosing(ai_of(provider, **options)) as ai:
        assert "".join([text async for text in ai.stream_completion("hi", continue_from="Hm. ")]) == "Hello"
    return provider.requests[-1]


@pytest.mark.parametrize(
    ("owner", "message", "body"),
    [
        ("llamacpp", {}, {}),
        ("library", {}, {}),
        ("vllm", {}, {"add_generation_prompt": False, "continue_final_message": True}),
        ("sglang", {}, {"add_generation_prompt": False, "continue_final_message": True}),
    ],
)
async def test_a_server_is_known_by_its_list(provider: Provider, owner: str, message: Any, body: Any) -> None:
    provider.play(listed(owner), chunked(HELLO))
    request = await gone_on(provider)
    assert request.body["messages"][-1] == {"role": "assistant", "content": "Hm. ", **message}
    assert request.body.items() >= body.items()
    assert ("continue_final_message" in request.body) == bool(body)


async def test_a_server_may_be_told_of(provider: Provider) -> None:
    provider.play(chunked(HELLO))
    request = await gone_on(provider, prefixing="prefix")
    assert request.body["messages"][-1] == {"role": "assistant", "content": "Hm. ", "prefix": True}


@pytest.mark.parametrize("answer", [listed("openai"), listed(None), sized(b"{}"), sized(b"", 404)])
async def test_a_server_that_is_not_known_starts_over(provider: Provider, answer: bytes) -> None:
    provider.play(answer)
    async with aclosing(ai_of(provider)) as ai:
        for _ in range(2):
            with pytest.raises(StartOver):
                await anext(ai.stream_completion("hi", continue_from="Hm"))
    assert len(provider.requests) == 1


async def test_a_server_that_refuses_a_beginning_starts_over(provider: Provider) -> None:
    provider.play(sized(b'{"error":{"message":"no assistant message may come last"}}', 400))
    async with aclosing(ai_of(provider, prefixing="message")) as ai:
        with pytest.raises(StartOver, match="may come last"):
            await anext(ai.stream_completion("hi", continue_from="Hm"))


async def test_openai_s_own_starts_over_and_is_not_asked() -> None:
    async with aclosing(OpenAICompatible(api_key=KEY, model="m")) as ai:
        with pytest.raises(StartOver, match="openai"):
            await anext(ai.stream_completion("hi", continue_from="Hm"))


# --- structured answers and tools ------------------------------------------------------------------------------------


async def test_a_structured_answer_is_asked_for_by_its_schema(provider: Provider) -> None:
    class Point(msgspec.Struct):
        x: int
        y: int = 0

    class Open(msgspec.Struct):
        fields: dict[str, int]

    provider.play(chunked(events(said('{"x": 1,'), said(' "y": 2}', "stop"), b"[DONE]")))
    async with aclosing(ai_of(provider)) as ai:
        assert await ai.complete("hi", output=Point) == Point(1, 2)
        with pytest.raises(RemoteProtocolError, match="no Open"):
            await ai.complete("hi", output=Open)
    form, advice = (request.body["response_format"]["json_schema"] for request in provider.requests)
    assert provider.requests[0].body["response_format"]["type"] == "json_schema"
    assert (form["name"], form["strict"]) == ("answer", True)
    assert form["schema"]["required"] == ["x", "y"]
    assert advice["strict"] is False


async def test_what_only_anthropic_s_wire_says_is_not_sent(provider: Provider) -> None:
    def broken() -> None:
        raise OSError("no")

    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "broken", "arguments": "{}"}}
    asked = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    provider.play(chunked(events(asked, b"[DONE]")), chunked(HELLO))
    async with aclosing(ai_of(provider)) as ai:
        parts = [part async for part in ai.run_tools("hi", tools=[broken])]
    assert parts[1] == ToolResultPart("a", "broken", "Error: OSError: no", is_error=True)
    assert provider.requests[1].body["messages"][-1] == {
        "role": "tool", "tool_call_id": "a", "content": "Error: OSError: no",
    }  # fmt: skip


# --- repeating -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
async def test_a_call_that_failed_in_passing_is_repeated(provider: Provider, status: int) -> None:
    provider.play(sized(b'{"error":{"message":"later"}}', status), chunked(HELLO))
    async with aclosing(ai_of(provider)) as ai:
        assert await ai.complete("hi") == "Hello"
    assert len(provider.requests) == 2


async def test_it_waits_as_long_as_it_is_asked_to(provider: Provider) -> None:
    provider.play(sized(b"", 429, retry_after="0.08"), sized(b"", 503, retry_after_ms="80"), chunked(HELLO))
    async with aclosing(ai_of(provider)) as ai:
        assert await ai.complete("hi") == "Hello"
    times = [request.at for request in provider.requests]
    assert all(later - earlier >= 0.08 for earlier, later in itertools.pairwise(times))


async def test_it_does_not_wait_longer_than_is_bearable(provider: Provider) -> None:
    provider.play(sized(b'{"error":{"message":"slow down"}}', 429, retry_after="3600"))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(LimitExceeded, match="slow down") as caught:
            await ai.complete("hi")
    assert caught.value.retryable
    assert caught.value.details["retry_after"] == 3600
    assert len(provider.requests) == 1


async def test_attempts_are_bounded(provider: Provider) -> None:
    provider.play(sized(b'{"error":"model is loading"}', 503))
    async with aclosing(ai_of(provider, attempts=3)) as ai:
        with pytest.raises(Unavailable, match="model is loading"):
            await ai.complete("hi")
    assert len(provider.requests) == 3


@pytest.mark.parametrize(
    "first",
    [
        Play(b"", cut=0),
        Play(b"", cut=0, reset=True),
        Play(b"HTTP/1.1 200 O", cut=14),
        Play(until_close(b"")),
        Play(until_close(events({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))),
        Play(chunked(events({"error": {"message": "overloaded", "code": 503}}))),
    ],
    ids=["nothing", "reset", "half a head", "no event", "a role alone", "an error"],
)
async def test_an_answer_that_breaks_off_before_it_said_anything_is_asked_for_again(
    provider: Provider, first: Play
) -> None:
    provider.play(first, chunked(HELLO))
    async with aclosing(ai_of(provider)) as ai:
        assert await ai.complete("hi") == "Hello"
    assert len(provider.requests) == 2


@pytest.mark.parametrize(
    "broken",
    [
        Play(HALF, cut=len(HALF) - 5),
        Play(HALF, cut=len(HALF) - 5, reset=True),
        Play(HALF),
        Play(until_close(events(said("Hel"), said("lo"), {"error": {"message": "overloaded", "code": 503}}))),
        Play(until_close(events(said("Hel"), said("lo"), b"{"))),
        Play(until_close(events(said("Hel"), said("lo"), said("", "error")))),
    ],
    ids=["cut", "reset", "ended", "an error", "no JSON", "finish reason error"],
)
async def test_nothing_is_repeated_once_a_token_was_given_on(provider: Provider, broken: Play) -> None:
    provider.play(broken, chunked(HELLO))
    async with aclosing(ai_of(provider)) as ai:
        parts, error = await outcome(ai)
    assert parts in ([TextPart("Hel")], [TextPart("Hel"), TextPart("lo")])
    assert isinstance(error, Unavailable | RemoteProtocolError)
    assert len(provider.requests) == 1


async def test_reasoning_is_said_too(provider: Provider) -> None:
    thought = {"choices": [{"delta": {"reasoning": "Hm"}, "finish_reason": None}]}
    provider.play(chunked(events(thought)), chunked(HELLO))
    async with aclosing(ai_of(provider)) as ai:
        parts, error = await outcome(ai)
    assert parts == [ReasoningPart("Hm")]
    assert isinstance(error, Unavailable)
    assert len(provider.requests) == 1


async def test_a_server_that_is_not_there() -> None:
    async with Provider() as gone:
        pass
    async with aclosing(ai_of(gone, attempts=2)) as ai:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
            await ai.complete("hi")


async def test_a_server_that_falls_silent(provider: Provider) -> None:
    provider.play(Play(head() + events(said("Hel")), stay=True))
    async with aclosing(ai_of(provider, silence=0.05)) as ai:
        parts, error = await outcome(ai)
        assert parts == [TextPart("Hel")]
        assert isinstance(error, Unavailable)
        assert "silent for 0.05 s" in error.message
        await asyncio.wait_for(provider.left.wait(), PATIENCE)


@pytest.mark.parametrize("alive", [b":\n\n", b'event: ping\ndata: {"type": "ping"}\n\n'])
@pytest.mark.parametrize("said_before", [[], [said("Hel")]])
async def test_a_server_that_is_alive_for_ever_and_says_nothing(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, alive: bytes, said_before: list[Any]
) -> None:
    monkeypatch.setattr("loom.producers.llm.http.AI_KEPT_ALIVE", 0.3)
    line = head() + events(*said_before) + alive * 300_000
    provider.play(Play(line, step=300, cut=100_000_000, stay=True))
    async with aclosing(ai_of(provider, attempts=1)) as ai:
        parts, error = await outcome(ai)
        assert parts == [TextPart("Hel") for _ in said_before]
        assert isinstance(error, Unavailable)
        assert "nothing of its answer for 0.3 s" in error.message
        await asyncio.wait_for(provider.left.wait(), PATIENCE)


# --- refusing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "message"),
    [
        (400, b'{"error":{"message":"too long","param":"messages","code":"x"}}', InvalidInput, "invalid_input", "too"),
        (404, b'{"error":{"message":"no model m"}}', InvalidInput, "invalid_input", "no model m"),
        (404, b"<html>", InvalidInput, "invalid_input", "end in /v1"),
        (422, b'{"detail":[{"loc":["body"],"msg":"bad"}]}', InvalidInput, "invalid_input", "bad"),
        (403, b'{"error":{"message":"not in your region"}}', Unauthorized, "forbidden", "region"),
        (413, b"", LimitExceeded, "too_large", "too large"),
        (402, b'{"error":{"message":"no credit"}}', LimitExceeded, "limit_exceeded", "no credit"),
        (429, b'{"error":{"message":"pay","code":"insufficient_quota"}}', LimitExceeded, "limit_exceeded", "pay"),
        (405, b"", RemoteProtocolError, "protocol_error", "405"),
        (302, b"", RemoteProtocolError, "protocol_error", "redirects"),
    ],
)
async def test_a_refusal_is_told_at_once(
    provider: Provider, status: int, body: bytes, kind: type[LoomError], code: str, message: str
) -> None:
    provider.play(sized(body, status, location="http://elsewhere.example/?key=1"))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(kind, match=message) as caught:
            await ai.complete("hi")
    assert caught.value.code == code
    assert not caught.value.retryable
    assert len(provider.requests) == 1


async def test_the_provider_may_overrule_what_is_repeated(provider: Provider) -> None:
    provider.play(sized(b"", 500, x_should_retry="false"))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(Unavailable):
            await ai.complete("hi")
    provider.play(sized(b"", 400, x_should_retry="true"), chunked(HELLO))
    async with aclosing(ai_of(provider)) as ai:
        assert await ai.complete("hi") == "Hello"
    assert len(provider.requests) == 3


async def test_a_page_is_no_answer(provider: Provider) -> None:
    provider.play(sized(b"<html>", content_type="text/html"))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(RemoteProtocolError, match="base URL"):
            await ai.complete("hi")


async def test_an_error_with_status_200(provider: Provider) -> None:
    provider.play(sized(b'{"success":false,"errors":[{"code":7009,"message":"Upstream service unavailable"}]}'))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(LoomError, match="Upstream service unavailable"):
            await ai.complete("hi")


async def test_a_wrong_key_is_told_and_the_key_is_not(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = f'{{"error":{{"message":"Incorrect API key provided: {KEY}","code":"invalid_api_key"}}}}'.encode()
    provider.play(sized(echo, 503), sized(echo, 401))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(Unauthorized, match="OPENAI_API_KEY") as caught:
            await ai.complete("hi")
    shown = [repr(ai), str(ai), repr(caught.value), str(caught.value.info), *traceback.format_exception(caught.value)]
    shown += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert len(provider.requests) == 2
    assert not any(KEY in text for text in shown)


async def test_a_key_that_a_provider_repeats_is_blotted_out(provider: Provider) -> None:
    provider.play(sized(f'{{"error":{{"message":"odd {KEY}\\u001b[31m\\n{"x" * 9999}"}}}}'.encode(), 400))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(InvalidInput, match=r"odd \[key\] \[31m x") as caught:
            await ai.complete("hi")
    assert len(caught.value.message) < 2 * AI_ERROR_CHARACTERS


@pytest.mark.parametrize("key", ["sk-1\nx", "schlüssel", "a\x00b"])
def test_what_can_be_no_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        OpenAICompatible(api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://x", "x", "http://", "http://user:secret@host/v1", "http://[::1", ""])
def test_what_can_be_no_base_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        OpenAICompatible(url)
    assert "secret" not in str(caught.value)


def test_the_query_of_the_base_url_is_not_shown() -> None:
    assert repr(OpenAICompatible("http://host/v1?key=secret")) == "<OpenAICompatible http://host/v1>"
    assert repr(OpenAICompatible(OPENAI_URL)) == "<OpenAICompatible https://api.openai.com/v1>"


# --- bounds, cancels, ends -------------------------------------------------------------------------------------------


async def test_an_event_without_end_is_refused(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AI_EVENT_BYTES", 100_000)
    provider.play(Play(head() + events(said("Hel")) + b"data: " + b"x" * 500_000, stay=True))
    async with aclosing(ai_of(provider)) as ai:
        parts, error = await outcome(ai)
        assert parts == [TextPart("Hel")]
        assert isinstance(error, LimitExceeded)
        await asyncio.wait_for(provider.left.wait(), PATIENCE)


async def test_a_document_without_end_is_refused(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AI_BODY_BYTES", len(NOT_STREAMED.body) - 1)
    provider.play(chunked(NOT_STREAMED.body, "application/json"))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(LimitExceeded):
            await ai.complete("hi")


async def test_an_answer_too_long_to_gather_is_refused(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AI_ANSWER_CHARACTERS", 4)
    provider.play(chunked(HELLO))
    async with aclosing(ai_of(provider)) as ai:
        with pytest.raises(LimitExceeded):
            await ai.complete("hi")


@pytest.mark.parametrize(
    "said_first", [b"", head(), head() + events(said("Hel"))], ids=["no head", "no token", "token"]
)
async def test_cancelling_the_task_closes_the_connection_at_once(provider: Provider, said_first: bytes) -> None:
    provider.play(Play(said_first, stay=True))
    parts: list[Part] = []
    async with aclosing(ai_of(provider)) as ai:
        task = asyncio.ensure_future(take(ai, parts))
        await provider.came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(provider.left.wait(), PATIENCE)
    assert len(provider.requests) == 1


async def test_closing_the_iterator_closes_the_connection_at_once(provider: Provider) -> None:
    provider.play(Play(head() + events(said("Hel")), stay=True))
    async with aclosing(ai_of(provider)) as ai:
        async with aclosing(ai.stream_completion("hi")) as texts:
            assert await anext(texts) == "Hel"
        await asyncio.wait_for(provider.left.wait(), PATIENCE)


async def test_cancelling_while_it_waits_to_repeat(provider: Provider) -> None:
    provider.play(sized(b"", 429, retry_after="20"))
    async with aclosing(ai_of(provider)) as ai:
        task = asyncio.ensure_future(ai.complete("hi"))
        await provider.came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(provider.requests) == 1


async def test_closing_ends_what_still_streams(provider: Provider) -> None:
    provider.play(Play(head() + events(said("Hel")), stay=True))
    ai = ai_of(provider)
    async with aclosing(ai.stream_completion("hi")) as texts:
        assert await anext(texts) == "Hel"
        await ai.aclose()
        with pytest.raises(Unavailable):
            await anext(texts)
    await ai.aclose()
    with pytest.raises(HandleClosed):
        await ai.complete("hi")
    await asyncio.wait_for(provider.left.wait(), PATIENCE)

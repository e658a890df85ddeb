"""Characters that a provider cuts in half, on both wires: joined where the halves meet, else U+FFFD."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import loom
import loom.testing
from loom.model.errors import RemoteProtocolError
from loom.model.parts import FinishReasonPart, Part, ReasoningPart, TextPart, ToolCallPart, UsagePart
from loom.producers.llm import Anthropic, OpenAICompatible
from loom.producers.llm.completions import Answer
from loom.producers.llm.http import Reading
from loom.producers.llm.messages import MessageAnswer
from loom.producers.llm.surrogates import TextJoiner, sound_text
from loom.wire.json import decode, mended
from loom.wire.partial import PartialJson

from .provider import Provider, chunked, sized

TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("😀📰💀é\u20ac"), max_size=12)
HALVES = st.text(st.characters() | st.sampled_from("\ud83d\ude00\udc80😀"), max_size=12)


def pieces_of(text: str, cuts: list[int]) -> list[bytes]:
    """The text as JSON strings, cut between any two UTF-16 units."""
    units = text.encode("utf-16-le", "surrogatepass")
    places = sorted({0, len(units), *(2 * (cut % (len(units) // 2 + 1)) for cut in cuts)})
    cut_up = [units[a:b].decode("utf-16-le", "surrogatepass") for a, b in itertools.pairwise(places)]
    return [json.dumps(piece).encode() for piece in cut_up]


def bytes_of(text: str, cuts: list[int]) -> list[bytes]:
    """The text as JSON strings, cut between any two bytes of its UTF-8."""
    data = text.replace("\\", "/").replace('"', "'").encode()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    plain = bytes(c if c >= 32 else 46 for c in data)
    return [b'"%b"' % plain[a:b] for a, b in itertools.pairwise(places)]


def expected(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def openai_text(piece: bytes) -> bytes:
    return b'{"choices":[{"index":0,"delta":{"content":%b}}]}' % piece


def openai_thought(piece: bytes) -> bytes:
    return b'{"choices":[{"index":0,"delta":{"reasoning_content":%b}}]}' % piece


def openai_arguments(piece: bytes) -> bytes:
    call = b'{"index":0,"id":"a","function":{"name":"f","arguments":%b}}' % piece
    return b'{"choices":[{"index":0,"delta":{"tool_calls":[%b]}}]}' % call


def anthropic_text(piece: bytes) -> bytes:
    return b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%b}}' % piece


def anthropic_thought(piece: bytes) -> bytes:
    return b'{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":%b}}' % piece


def anthropic_arguments(piece: bytes) -> bytes:
    return b'{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":%b}}' % piece


OPENAI_END = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
ANTHROPIC_END = b'{"type":"message_delta","delta":{"stop_reason":"end_turn"}}'
TOOL = b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"a","name":"f","input":{}}}'


def said(answer: Reading, *data: bytes) -> str:
    """All that is said in text, reasoning and arguments."""
    parts = [part for event in data for part in answer.feed(event)] + answer.end()
    json.dumps([msgspec.to_builtins(part) for part in parts], ensure_ascii=False).encode()
    return "".join(
        part.arguments if isinstance(part, ToolCallPart) else part.text
        for part in parts
        if isinstance(part, TextPart | ReasoningPart | ToolCallPart)
    )


Wire = tuple[Callable[[], Reading], Callable[[bytes], bytes], list[bytes], bytes]
WIRES: list[Wire] = [
    (Answer, openai_text, [], OPENAI_END),
    (Answer, openai_thought, [], OPENAI_END),
    (MessageAnswer, anthropic_text, [], ANTHROPIC_END),
    (MessageAnswer, anthropic_thought, [], ANTHROPIC_END),
]
ARGUMENTS: list[Wire] = [
    (Answer, openai_arguments, [], OPENAI_END),
    (MessageAnswer, anthropic_arguments, [TOOL], ANTHROPIC_END),
]


@pytest.mark.parametrize("wire", WIRES, ids=["text", "reasoning", "text", "thinking"])
@settings(max_examples=40)
@given(text=HALVES, cuts=st.lists(st.integers(0, 20), max_size=4))
@example(text="Hi 😀 there", cuts=[4])
@example(text="\ud83d\ud83d\ude00", cuts=[1, 2])
def test_halves_of_pairs_join_where_they_meet(wire: Wire, text: str, cuts: list[int]) -> None:
    answer, event, before, end = wire
    assert said(answer(), *before, *map(event, pieces_of(text, cuts)), end) == expected(text)


@pytest.mark.parametrize("wire", WIRES, ids=["text", "reasoning", "text", "thinking"])
@settings(max_examples=40)
@given(text=TEXTS, cuts=st.lists(st.integers(0, 40), max_size=6))
@example(text="Hi 😀", cuts=[5])
def test_utf_8_cut_between_events_joins(wire: Wire, text: str, cuts: list[int]) -> None:
    answer, event, before, end = wire
    pieces = bytes_of(text, cuts)
    whole = b"".join(piece[1:-1] for piece in pieces).decode()
    assert said(answer(), *before, *map(event, pieces), end) == whole


@pytest.mark.parametrize("wire", ARGUMENTS, ids=["openai", "anthropic"])
@settings(max_examples=40)
@given(text=HALVES, cuts=st.lists(st.integers(0, 40), max_size=4), escaped=st.booleans())
def test_arguments_of_tools_can_be_read_and_sent(wire: Wire, text: str, cuts: list[int], escaped: bool) -> None:
    answer, event, before, end = wire
    arguments = said(
        answer(), *before, *map(event, pieces_of(json.dumps({"a": text}, ensure_ascii=escaped), cuts)), end
    )
    assert msgspec.json.decode(arguments) == {"a": expected(text)}


@settings(max_examples=40)
@given(text=st.text(max_size=6), cut=st.binary(max_size=4))
def test_bytes_that_are_no_utf_8_are_replaced_as_a_decoder_does(text: str, cut: bytes) -> None:
    joiner = TextJoiner()
    data = text.encode() + cut
    given_on = [joiner.feed(bytes([byte]).decode("utf-8", "surrogateescape")) for byte in data] + [joiner.end()]
    assert "".join(given_on) == data.decode("utf-8", "replace")
    assert sound_text(data.decode("utf-8", "surrogateescape")) == data.decode("utf-8", "replace")


@settings(max_examples=40)
@given(value=st.dictionaries(HALVES, HALVES | st.lists(HALVES)), escaped=st.booleans())
@example(value={"a": "\\ud83d \\\\ \ud83d"}, escaped=True)
def test_what_is_mended_is_what_the_partial_reader_sees(value: Any, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    partial = PartialJson()
    partial.feed(sound_text(text))
    data = mended(text.encode("utf-8", "surrogatepass") if escaped else sound_text(text).encode())
    assert partial.value == decode(data)


def test_halves_of_different_blocks_do_not_meet() -> None:
    first, second = anthropic_text(rb'"\ud83d"'), anthropic_text(rb'"\ude00"')
    stop = b'{"type":"content_block_stop","index":0}'
    assert (
        said(MessageAnswer(), first, stop, second.replace(b'"index":0', b'"index":1'), ANTHROPIC_END) == "\ufffd\ufffd"
    )


def test_a_signature_stands_behind_the_whole_of_its_reasoning() -> None:
    answer = MessageAnswer()
    answer.feed(anthropic_thought(rb'"Hm \ud83d"'))
    seal = b'{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s"}}'
    assert answer.feed(seal) == [ReasoningPart("\ufffd"), ReasoningPart("", "s")]


def test_a_half_in_any_other_field_harms_nothing() -> None:
    half = rb'"\ud800"'
    answer = Answer()
    parts: list[Part] = []
    for event in (
        b'{"id":%b,"choices":[{"index":0,"delta":{"role":%b,"content":"fi"},"logprobs":{%b:[%b]}}]}' % ((half,) * 4),
        b'{"choices":[{"delta":{"tool_calls":[{"id":%b,"function":{"name":%b,"arguments":{"text":%b,%b:1}}}]}}]}'
        % ((half,) * 4),
        b'{"choices":[{"index":0,"delta":{},"finish_reason":%b}]}' % half,
        b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"more":{%b:%b}}}' % (half, half),
    ):
        parts += answer.feed(event)
    r = "\ufffd"
    assert [*parts, *answer.end()] == [
        TextPart("fi"),
        ToolCallPart(r, r, json.dumps({"text": r, r: 1}, ensure_ascii=False, separators=(",", ":")), 0),
        FinishReasonPart(r),
        UsagePart(1, 2, {"more": {r: r}}),
    ]


@pytest.mark.parametrize("half", [rb'"\ud800"', rb'"\udc80"', b'"\xf0"'])
@pytest.mark.parametrize("content", [b"%b", b"[%b]"])
def test_a_half_where_no_text_is_expected_is_the_server_s_fault(half: bytes, content: bytes) -> None:
    """The decoder's own error would quote it, and cannot."""
    with pytest.raises(RemoteProtocolError):
        MessageAnswer().feed(b'{"type":"message_start","message":{"content":%b}}' % (content % half))
    with pytest.raises(RemoteProtocolError):
        MessageAnswer().whole(b'{"type":"message","content":%b}' % (content % half))


OPENAI_WHOLE = rb"""{"id":"\ud800","choices":[{"index":0,"message":{"role":"assistant",
"content":"Hi \ud83d\ude00 \ud83d"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"""
ANTHROPIC_WHOLE = rb"""{"type":"message","id":"\ud800","content":[{"type":"text","text":"Hi \ud83d\ude00 \ud83d"}],
"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2}}"""


@pytest.mark.anyio
@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_an_answer_that_does_not_stream(wire: str) -> None:
    async with Provider() as provider:
        provider.play(sized(OPENAI_WHOLE if wire == "openai" else ANTHROPIC_WHOLE))
        url = provider.url if wire == "openai" else provider.url.removesuffix("/v1")
        async with aclosing((OpenAICompatible if wire == "openai" else Anthropic)(url, model="m")) as ai:
            assert await ai.complete("hi") == "Hi 😀 \ufffd"


@pytest.mark.anyio
@pytest.mark.parametrize("body", [rb'{"error":{"message":"no \ud83d"}}', b'{"error":{"message":"no \xf0\x9f"}}'])
async def test_a_refusal_keeps_its_words(body: bytes) -> None:
    async with Provider() as provider:
        provider.play(sized(body, 400))
        async with aclosing(OpenAICompatible(provider.url, model="m")) as ai:
            with pytest.raises(loom.InvalidInput, match="no \ufffd"):
                await ai.complete("hi")


class Mood(msgspec.Struct):
    sign: str


@pytest.mark.anyio
async def test_a_run_says_emojis_and_objects_that_came_in_halves() -> None:
    lines = [openai_text(piece) for piece in (rb'"{\"sign\": \"\ud83d"', rb'"\ude00\\ud83d"', rb'"\\ude00\\ud800\"}"')]
    app = loom.App()

    @app.actor
    async def mood(ctx: loom.Context) -> AsyncIterator[dict[str, str] | loom.Result[Mood]]:
        async for part in ctx.ai.stream_object(Mood, "How are you?"):
            yield part.partial
        assert part.value is not None
        yield loom.Result(part.value)

    async with Provider() as provider:
        provider.play(chunked(b"".join(b"data: %b\n\n" % line for line in [*lines, OPENAI_END, b"[DONE]"])))
        app.ai = OpenAICompatible(provider.url, model="m")
        async with aclosing(app.ai), loom.testing.client(app) as client:
            run = await client.start(mood)
            assert await run.result(timeout=10) == Mood("😀😀\ufffd")
            values = [value["sign"] async for value in run.values() if isinstance(value, dict)]
    assert [value for at, value in enumerate(values) if value not in values[:at]] == ["", "😀", "😀😀\ufffd"]

"""The scripted model."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from loom.model.ai import AI
from loom.model.errors import StartOver, Unavailable
from loom.model.parts import FinishReasonPart, TextPart, ToolCallPart, UsagePart
from loom.testing.fake_ai import FakeAI

pytestmark = pytest.mark.anyio

CALL = ToolCallPart("a", "now", "{}")


async def test_one_script_for_every_call() -> None:
    ai: AI = FakeAI(["Hel", "lo"])
    assert await ai.complete("hi") == "Hello"
    assert [text async for text in ai.stream_completion("hi")] == ["Hel", "lo"]


async def test_a_script_for_each_call() -> None:
    ai = FakeAI([["one"], ["two"]])
    assert [await ai.complete("a"), await ai.complete("b")] == ["one", "two"]
    with pytest.raises(AssertionError, match="call 3 of a FakeAI whose script has 2"):
        await ai.complete("c")


async def test_parts_and_the_finish_that_follows() -> None:
    parts = [part async for part in FakeAI(["x", CALL]).stream_parts("hi")]
    assert parts == [TextPart("x"), CALL, FinishReasonPart("tool_calls")]
    script = [TextPart("x"), FinishReasonPart("length"), UsagePart(1, 1)]
    assert [part async for part in FakeAI(script).stream_parts("hi")] == script


async def test_a_usage_at_the_end_comes_behind_the_finish() -> None:
    parts = [part async for part in FakeAI(["x", CALL, UsagePart(1, 1)]).stream_parts("hi")]
    assert parts == [TextPart("x"), CALL, FinishReasonPart("tool_calls"), UsagePart(1, 1)]


async def test_it_goes_on_or_starts_over() -> None:
    ai = FakeAI(["lo"])
    assert [text async for text in ai.stream_completion("hi", continue_from="Hel")] == ["lo"]
    assert ai.calls[0].continues
    with pytest.raises(StartOver):
        await anext(FakeAI(["lo"], continues=False).stream_completion("hi", continue_from="Hel"))


async def test_it_raises_what_it_is_told_to() -> None:
    ai = FakeAI([["Hel", Unavailable("gone")], [ValueError]])
    texts = ai.stream_completion("hi")
    assert await anext(texts) == "Hel"
    with pytest.raises(Unavailable, match="gone"):
        await anext(texts)
    with pytest.raises(ValueError):
        await ai.complete("hi")
    assert ai.stopped == 2


async def test_it_remembers_what_it_was_asked() -> None:
    ai = FakeAI(["x"])
    await ai.complete("hi", model="m", temperature=0.5, max_tokens=3)
    await ai.complete(messages=[{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
    first, second = ai.calls
    assert (first.prompt, first.model, first.temperature, first.max_tokens) == ("hi", "m", 0.5, 3)
    assert second.prompt == "u"
    assert second.messages[0] == {"role": "system", "content": "s"}


async def test_it_waits_for_an_event_and_tells_that_it_was_stopped() -> None:
    gate = asyncio.Event()
    ai = FakeAI(["Hel", gate, "lo"])
    async with aclosing(ai.stream_completion("hi")) as texts:
        assert await anext(texts) == "Hel"
        gate.set()
        assert await anext(texts) == "lo"
    assert ai.stopped == 1
    await ai.aclose()
    assert ai.closed

"""The port over one method: what is refused at the call, and what is counted."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Any

import pytest

from loom.engine.run.usage import Meter, metered
from loom.model.errors import UsageError
from loom.model.parts import FinishReasonPart, TextPart, ToolSpec, Usage, UsagePart
from loom.testing import FakeAI

pytestmark = pytest.mark.anyio

SAID: list[Any] = [UsagePart(4, 1), "Hel", "lo", FinishReasonPart("stop"), UsagePart(4, 2)]


async def test_what_was_said_already_is_the_last_message() -> None:
    ai = FakeAI(SAID)
    assert [text async for text in ai.stream_completion("hi", continue_from="Oh. ")] == ["Hel", "lo"]
    assert [part async for part in ai.stream_parts("hi")][1] == TextPart("Hel")
    begun, anew = ai.calls
    assert (begun.continues, begun.begun) == (True, "Oh. ")
    assert (anew.continues, anew.begun) == (False, "")


async def test_output_and_tools_are_not_both() -> None:
    complete: Any = FakeAI(["{}"]).complete
    with pytest.raises(UsageError, match="not both"):
        await complete("hi", output=dict, tools=[ToolSpec("now")])


@pytest.mark.parametrize("word", ["temperatur", "schema"])
async def test_a_word_that_no_question_has_is_an_error_at_the_call(word: str) -> None:
    ai: Any = FakeAI(["x"])
    calls = (ai.stream_completion, ai.stream_parts, partial(ai.stream_object, dict), partial(ai.run_tools, tools=[]))
    for call in calls:
        with pytest.raises(TypeError, match=word):
            call("hi", **{word: 1})
    with pytest.raises(TypeError, match=word):
        await ai.complete("hi", **{word: 1})
    assert ai.calls == []


async def test_it_counts_for_who_asked() -> None:
    ai, meter = FakeAI(SAID), Meter()
    with metered(meter):
        answer = ai.stream_completion("hi")
    assert "".join([text async for text in answer]) == "Hello"
    assert meter.usage == Usage(4, 2, calls=1)
    await ai.complete("hi")
    assert meter.usage == Usage(4, 2, calls=1)


async def test_what_is_left_early_is_counted_as_far_as_it_was_told() -> None:
    meter = Meter()
    with metered(meter):
        async with aclosing(FakeAI(SAID).stream_completion("hi")) as texts:
            await anext(texts)
    assert meter.usage == Usage(4, 1, calls=1, uncounted=1)

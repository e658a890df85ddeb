"""Tools that are Python functions: what the model is told of them, and rounds over every kind of failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

import loom
from loom.model import limits
from loom.model.errors import InvalidInput, LimitExceeded, UsageError
from loom.model.parts import (
    FinishReasonPart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    UsagePart,
)
from loom.producers.llm.tools import Tool
from loom.testing import FakeAI, client

pytestmark = pytest.mark.anyio


class Place(msgspec.Struct):
    city: str
    country: str = "Norway"


class Window(BaseModel):
    days: int


def weather(city: str, days: int = 1) -> str:
    """What the weather will be.

    Of cities only.
    """
    return f"{city}: rain for {days}"


async def add(a: int, b: int) -> int:
    return a + b


def call(name: str, arguments: str, id: str = "a") -> ToolCallPart:
    return ToolCallPart(id, name, arguments)


async def parts_of(ai: FakeAI, *tools: Callable[..., Any], **options: Any) -> list[Part]:
    return [part async for part in ai.run_tools("hi", tools=tools, **options)]


async def result_of(tool: Callable[..., Any], arguments: str, name: str = "") -> ToolResultPart:
    ai = FakeAI([[call(name or tool.__name__, arguments)], ["ok"]])
    (result,) = [part for part in await parts_of(ai, tool) if isinstance(part, ToolResultPart)]
    return result


# --- what the model is told ------------------------------------------------------------------------------------------


def test_a_function_is_told_by_its_name_docstring_and_hints() -> None:
    spec = Tool(weather).spec
    assert (spec.name, spec.description) == ("weather", "What the weather will be.\n\nOf cities only.")
    assert spec.parameters == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
    }


def test_models_are_told_by_their_fields() -> None:
    def one(place: Place) -> None: ...
    def two(place: Place, others: list[Window]) -> None: ...

    assert Tool(one).spec.parameters["properties"].keys() == {"city", "country"}
    schema = Tool(two).spec.parameters
    assert (
        schema["properties"]["others"]["items"] == {"$ref": "#/$defs/Window"}
        or "properties" in (schema["properties"]["others"]["items"])
    )
    assert schema["properties"]["place"]["properties"].keys() == {"city", "country"}


def test_what_is_no_tool_is_refused() -> None:
    async def stream() -> AsyncIterator[int]:
        yield 1

    def with_context(ctx: loom.Context) -> None: ...
    def starred(*args: int) -> None: ...

    for function in stream, with_context, starred, lambda: None:
        with pytest.raises(UsageError):
            Tool(function)
    with pytest.raises(UsageError, match="two tools"):
        FakeAI([]).run_tools("hi", tools=[weather, weather])
    with pytest.raises(UsageError, match="max_rounds"):
        FakeAI([]).run_tools("hi", tools=[weather], max_rounds=0)


# --- rounds ----------------------------------------------------------------------------------------------------------


async def test_what_a_tool_gives_goes_back_to_the_model() -> None:
    asked = call("weather", '{"city": "Oslo"}')
    script = [["Let me look.", asked, FinishReasonPart("tool_calls"), UsagePart(5, 7)], ["Rain.", UsagePart(11, 2)]]
    ai = FakeAI(script)
    assert await parts_of(ai, weather, temperature=0.5) == [
        TextPart("Let me look."),
        asked,
        ToolResultPart("a", "weather", "Oslo: rain for 1"),
        TextPart("Rain."),
        FinishReasonPart("stop"),
        UsagePart(16, 9),
    ]
    first, second = ai.calls
    assert [tool.name for tool in first.tools] == ["weather"]
    assert second.temperature == 0.5
    assert first.messages == [{"role": "user", "content": "hi"}]
    function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    assert second.messages == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [{"id": "a", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "Oslo: rain for 1"},
    ]


async def test_reasoning_that_was_sealed_goes_back_as_it_was() -> None:
    thoughts = [ReasoningPart("Two "), ReasoningPart("and"), ReasoningPart("", "seal"), ReasoningPart("", "x", True)]
    ai = FakeAI([[*thoughts, call("add", '{"a": 2, "b": 2}')], ["4"]])
    await parts_of(ai, add)
    assert ai.calls[1].messages[1]["thinking_blocks"] == [
        {"type": "thinking", "thinking": "Two and", "signature": "seal"},
        {"type": "redacted_thinking", "data": "x"},
    ]


@pytest.mark.parametrize(
    ("function", "arguments", "content"),
    [
        (weather, '{"city": "Oslo", "days": 3}', "Oslo: rain for 3"),
        (add, '{"a": 1, "b": 2}', "3"),
        (lambda: None, "{}", "null"),
        (lambda: {"a": [1]}, "", '{"a":[1]}'),
        (lambda: Window(days=2), "{}", '{"days":2}'),
    ],
)
async def test_results(function: Callable[..., Any], arguments: str, content: str) -> None:
    function.__name__ = "tool" if function.__name__ == "<lambda>" else function.__name__
    assert await result_of(function, arguments or "{}") == ToolResultPart("a", function.__name__, content)


async def test_a_model_as_argument_is_made() -> None:
    def where(place: Place, window: Window) -> str:
        return f"{place.city}, {place.country}, {window.days}"

    result = await result_of(where, '{"place": {"city": "Oslo"}, "window": {"days": 2}}')
    assert result.content == "Oslo, Norway, 2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"a": 1, "b": "2"}', "b: Expected `int`, got `str`"),
        ('{"a": 1}', "b: missing"),
        ('{"a": 1, "b": 2, "c": 3}', "c: add has no such parameter"),
        ('{"a": 1, "b"', "not JSON"),
        ("[1, 2]", "object"),
    ],
)
async def test_wrong_arguments_are_told_to_the_model(arguments: str, said: str) -> None:
    result = await result_of(add, arguments)
    assert result.is_error
    assert result.content.startswith("Error: wrong arguments: ")
    assert said in result.content


async def test_exceptions_are_told_to_the_model() -> None:
    def broken() -> None:
        raise KeyError("no such city")

    def stops() -> None:
        raise StopIteration

    def leaves() -> None:
        raise SystemExit(3)

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def cancels_itself() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done"

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    async def mute() -> None:
        raise Mute

    async def refuses() -> None:
        raise InvalidInput("its own")

    class Secret(BaseException):
        def __repr__(self) -> str:
            raise ValueError

    def secret() -> None:
        raise Secret

    async def secret_too() -> None:
        raise Secret

    async def leaves_too() -> None:
        raise SystemExit(3)

    assert (await result_of(refuses, "{}")).content == "Error: InvalidInput: its own"
    assert "Mute" in (await result_of(mute, "{}")).content
    for tool, said in (
        (broken, "KeyError"),
        (stops, "StopIteration"),
        (leaves, "SystemExit: 3"),
        (leaves_too, "SystemExit: 3"),
        (cancelled, "cancelled"),
        (cancels_itself, "cancelled"),
        (secret, "Secret"),
        (secret_too, "Secret"),
    ):
        result = await result_of(tool, "{}")
        assert result.is_error
        assert said in result.content
    assert (await result_of(add, "{}", name="sub")).content == "Error: there is no tool named 'sub'"
    assert "cannot be sent" in (await result_of(_gives_an_object, "{}")).content


async def test_text_that_utf8_cannot_carry_is_no_result() -> None:
    def half() -> str:
        return "\ud800"

    result = await result_of(half, "{}")
    assert result.is_error
    assert "UnicodeEncodeError" in result.content


def _gives_an_object() -> object:
    return object()


async def test_an_error_is_told_as_such() -> None:
    ai = FakeAI([[call("add", "{}")], ["sorry"]])
    await parts_of(ai, add)
    assert ai.calls[1].messages[-1]["is_error"] is True


async def test_a_result_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AI_TOOL_RESULT_CHARACTERS", 10)
    assert "too long" in (await result_of(weather, '{"city": "Llanfairpwll"}')).content


async def test_calls_of_one_round_run_at_the_same_time_and_keep_their_order() -> None:
    met = asyncio.Barrier(3)
    ended = [asyncio.Event() for _ in range(3)]
    threads = threading.Barrier(2)

    async def meets(n: int) -> int:
        await met.wait()
        if n < 2:
            await ended[n + 1].wait()
        ended[n].set()
        return n

    def waits(n: int) -> int:
        threads.wait(timeout=10)
        return n

    calls = [call("meets", f'{{"n": {n}}}', str(n)) for n in range(3)]
    calls += [call("waits", f'{{"n": {n}}}', str(n)) for n in (3, 4)]
    parts = await parts_of(FakeAI([calls, ["done"]]), meets, waits)
    assert [part.content for part in parts if isinstance(part, ToolResultPart)] == ["0", "1", "2", "3", "4"]


async def test_rounds_are_bounded_and_the_last_calls_are_not_made() -> None:
    made: list[int] = []

    def again() -> int:
        made.append(1)
        return 1

    ai = FakeAI([call("again", "{}")])
    with pytest.raises(LimitExceeded, match="number 3") as caught:
        await parts_of(ai, again, max_rounds=3)
    assert (len(ai.calls), len(made)) == (3, 2)
    assert not caught.value.retryable
    assert caught.value.details == {"max_rounds": 3}


async def test_an_answer_that_was_cut_calls_nothing() -> None:
    ai = FakeAI([["x", call("again", "{}"), FinishReasonPart("length")]])
    parts = await parts_of(ai, add)
    assert parts[-1] == FinishReasonPart("length")
    assert not any(isinstance(part, ToolResultPart) for part in parts)


# --- ends ------------------------------------------------------------------------------------------------------------


async def test_closing_cancels_what_runs() -> None:
    gone = asyncio.Event()

    async def quick() -> str:
        return "quick"

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    ai = FakeAI([[call("quick", "{}", "q"), call("slow", "{}", "s")], ["never"]])
    async with aclosing(ai.run_tools("hi", tools=[quick, slow])) as parts:
        async for part in parts:
            if isinstance(part, ToolResultPart):
                break
    assert gone.is_set()
    assert len(ai.calls) == 1


async def test_cancelling_a_run_cancels_its_tools_and_waits_for_threads() -> None:
    app = loom.App(ai=FakeAI([[call("slow", "{}", "s"), call("busy", "{}", "b")], ["never"]]))
    began, gone = asyncio.Event(), asyncio.Event()
    busy_began, release, busy_ended = threading.Event(), threading.Event(), threading.Event()

    async def slow() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
            release.set()

    def busy() -> None:
        busy_began.set()
        release.wait(10)
        busy_ended.set()

    @app.actor
    async def agent(ctx: loom.Context) -> AsyncIterator[Part]:
        async with aclosing(ctx.ai.run_tools("hi", tools=[slow, busy])) as parts:
            async for part in parts:
                yield part

    async with client(app) as runs:
        run = await runs.start(agent)
        await began.wait()
        await asyncio.to_thread(busy_began.wait, 10)
        await run.cancel(wait=True, timeout=10)
        assert gone.is_set()
        assert busy_ended.is_set()
        assert (await run.status()).state == "cancelled"

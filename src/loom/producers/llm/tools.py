"""Tools that are Python functions: told to a model by their type hints, called as it asks, round by round."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import re
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec

from loom.engine.declare.schemas import schema_of
from loom.engine.declare.signature import make_producer
from loom.model import limits
from loom.model.errors import InvalidInput, LimitExceeded, RemoteProtocolError, UsageError
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
from loom.tasks import cancel_and_wait, spawn, wait_out
from loom.wire import json
from loom.wire.failure import info_of

from .ask import Ask
from .calls import CUT_SHORT

__all__ = ["Answering", "Tool", "Toolbox", "run_rounds"]

AI_TOOLS_AT_ONCE = 16
"""Tools of one round that run at the same time; sync ones take a thread each."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What OpenAI and Anthropic take for a tool's name."""

_log = logging.getLogger("loom.ai")

Answering = Callable[[Ask], AsyncGenerator[Part, None]]
"""A model's `answer`."""


class Tool:
    """A function that a model may call: a coroutine function, or a plain one, which gets a thread of its own.

    Its name, docstring and parameters' hints are what the model is told. Raises `UsageError` for what is no such
    function, or has a parameter that cannot be read from JSON.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        name = getattr(function, "__name__", type(function).__name__)
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"{name}: a tool needs a name of letters, digits, _ and -, at most 64")
        self._producer = make_producer(name.lstrip("_-") or "tool", function)
        if self._producer.driver.kind not in ("coroutine", "function"):
            raise UsageError(f"{name}: a tool returns what it found, it does not yield")
        if self._producer.driver.looks_back:
            raise UsageError(f"{name}: a tool is called by the model, which has no Context: use one from around it")
        self.spec = ToolSpec(name, inspect.getdoc(function) or "", self._schema())

    def _schema(self) -> dict[str, Any]:
        for parameter in self._producer.inputs.parameters:
            schema_of(parameter.type)  # what has none could not be asked for
        return self._producer.inputs.schema

    def decode(self, arguments: str) -> dict[str, Any]:
        """What to call the function with. Raises `InvalidInput` and `RemoteProtocolError` for what does not fit."""
        return self._producer.inputs.decode(arguments.encode(errors="replace"))

    async def call(self, values: dict[str, Any]) -> Any:
        """What the function returns. Cancelling ends it: a coroutine at its next await; a thread is waited for."""
        if not self._producer.driver.threaded:
            return await self._producer(**values)
        return await _in_thread(partial(self._producer, **values), f"loom-tool {self.spec.name}")


class Toolbox:
    """Some tools, by name. Raises `UsageError` where two have one name."""

    def __init__(self, functions: Iterable[Callable[..., Any]]) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in map(Tool, functions):
            if tool.spec.name in self._tools:
                raise UsageError(f"two tools are named {tool.spec.name!r}")
            self._tools[tool.spec.name] = tool
        self._room = asyncio.Semaphore(AI_TOOLS_AT_ONCE)

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(tool.spec for tool in self._tools.values())

    async def result_of(self, call: ToolCallPart) -> ToolResultPart:
        """What the model is told of its call: the result, or what went wrong, which is for the model to mend."""
        tool = self._tools.get(call.name)
        if tool is None:
            return _failed(call, f"there is no tool named {call.name[:80]!r}")
        try:
            values = tool.decode(call.arguments)
        except (InvalidInput, RemoteProtocolError) as error:
            return _failed(call, f"wrong arguments: {error}")
        try:
            async with self._room:
                return _told(call, await tool.call(values))
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):  # nor is the end of the loop the tool's
            raise
        except BaseException as error:  # user code: whatever it raises, SystemExit too, the model is told
            _log.warning("tool %r failed", call.name, exc_info=error)
            return _failed(call, info_of(error).message)


def _told(call: ToolCallPart, value: Any) -> ToolResultPart:
    content = value if isinstance(value, str) else json.encode(value).decode()
    content.encode()  # half a surrogate pair is no text that could be passed on
    if len(content) > limits.AI_TOOL_RESULT_CHARACTERS:
        return _failed(call, f"its result of {len(content)} characters is too long")
    return ToolResultPart(call.id, call.name, content)


def _failed(call: ToolCallPart, why: str) -> ToolResultPart:
    return ToolResultPart(call.id, call.name, f"Error: {why}"[: limits.ERROR_CHARACTERS], is_error=True)


async def _in_thread(function: Callable[[], Any], name: str) -> Any:
    """Call `function` in a daemon thread (one that hangs must not hold up the process's exit). A cancel waits for it:
    what has been cancelled is really gone."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def main() -> None:
        try:
            tell = partial(_settle, done, context.run(function), None)
        except BaseException as error:  # user code: it becomes the result of the call
            tell = partial(_settle, done, None, error)
        try:
            loop.call_soon_threadsafe(tell)
        except RuntimeError:
            return  # the loop is gone, and with it everybody who could hear of it

    threading.Thread(target=main, name=name, daemon=True).start()
    try:
        await wait_out(done)
    except asyncio.CancelledError:
        done.exception()  # seen: the cancel is what counts
        raise
    return done.result()


def _settle(done: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if error is None:
        done.set_result(value)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        done.set_exception(error)
    else:  # a future takes no StopIteration, and SystemExit would take the loop down
        done.set_exception(RuntimeError(info_of(error).message))


class _Round:
    """One answer of the model, as it is told back to it."""

    def __init__(self) -> None:
        self.calls: list[ToolCallPart] = []
        self.finish: FinishReasonPart | None = None
        self.usage: UsagePart | None = None
        self._text: list[str] = []
        self._thoughts: list[dict[str, Any]] = []
        self._thought: list[str] = []

    def take(self, part: Part) -> bool:
        """Keep what is needed of it; whether it is for the reader too, rather than for the end."""
        match part:
            case TextPart():
                self._text.append(part.text)
            case ReasoningPart():
                self._think(part)
            case ToolCallPart():
                self.calls.append(part)
            case UsagePart():
                self.usage = part
            case FinishReasonPart():
                self.finish = part
        return not isinstance(part, UsagePart | FinishReasonPart)

    def _think(self, part: ReasoningPart) -> None:
        if part.redacted:
            self._thoughts.append({"type": "redacted_thinking", "data": part.signature})
        elif part.signature:
            thought = "".join(self._thought)
            self._thoughts.append({"type": "thinking", "thinking": thought, "signature": part.signature})
            self._thought = []
        else:
            self._thought.append(part.text)

    @property
    def asks(self) -> bool:
        """Whether results are waited for. An answer that was cut is an end: its calls may not be all."""
        return bool(self.calls) and (self.finish is None or self.finish.reason not in CUT_SHORT)

    def message(self) -> dict[str, Any]:
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.calls
        ]
        message = {"role": "assistant", "content": "".join(self._text) or None, "tool_calls": calls}
        return {**message, "thinking_blocks": self._thoughts} if self._thoughts else message


async def run_rounds(answer: Answering, ask: Ask, tools: Toolbox, most: int) -> AsyncGenerator[Part, None]:
    """Ask, call what the model asks for, tell it the results, ask again, until it asks for nothing more.

    All parts of all rounds in order, results in the order of their calls; one finish reason and one sum of the usage
    at the end. Raises `LimitExceeded` when the model's answer number `most` still asks for tools, which are not called.
    """
    messages = list(ask.messages)
    used: list[UsagePart] = []
    for number in range(1, most + 1):
        turn = _Round()
        async with aclosing(answer(_with(ask, messages, tools))) as parts:
            async for part in parts:
                if turn.take(part):
                    yield part
        used += [turn.usage] if turn.usage else []
        if not turn.asks:
            for part in _ending(turn, used):
                yield part
            return
        if number == most:
            break
        messages.append(turn.message())
        async with aclosing(_results(tools, turn.calls)) as results:
            async for result in results:
                messages.append(_result_message(result))
                yield result
    raise LimitExceeded(
        f"the model still asks for tools in its answer number {most}", retryable=False, details={"max_rounds": most}
    )


def _with(ask: Ask, messages: list[dict[str, Any]], tools: Toolbox) -> Ask:
    return msgspec.structs.replace(ask, messages=list(messages), tools=tools.specs)


def _ending(turn: _Round, used: Sequence[UsagePart]) -> list[Part]:
    ending: list[Part] = [turn.finish or FinishReasonPart("unknown")]
    if used:
        sent, said = sum(part.input_tokens for part in used), sum(part.output_tokens for part in used)
        ending.append(UsagePart(sent, said, used[0].details if len(used) == 1 else {}))
    return ending


async def _results(tools: Toolbox, calls: Sequence[ToolCallPart]) -> AsyncGenerator[ToolResultPart, None]:
    """All at the same time; each given as soon as those before it are there."""
    tasks = [spawn(tools.result_of(call), f"loom-tool {call.name}") for call in calls]
    try:
        for call, task in zip(calls, tasks, strict=True):
            await asyncio.wait([task])
            yield _failed(call, "it was cancelled from inside") if task.cancelled() else task.result()
    finally:
        await cancel_and_wait(*tasks)


def _result_message(result: ToolResultPart) -> dict[str, Any]:
    message = {"role": "tool", "tool_call_id": result.id, "content": result.content}
    return {**message, "is_error": True} if result.is_error else message

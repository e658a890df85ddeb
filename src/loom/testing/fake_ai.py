"""A model that says what the test scripted, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from loom.model.errors import StartOver
from loom.model.parts import FinishReasonPart, Part, TextPart, ToolCallPart, UsagePart
from loom.producers.llm import Ask, Model

__all__ = ["FakeAI", "Line"]

Line = str | Part | BaseException | type[BaseException] | asyncio.Event
"""One line of a script: a token, a part, an exception to raise, or an event to wait for before going on."""


class FakeAI(Model):
    """The `AI` port from a script: a list of lines (`Line`), said in every call, or a list of such lists, one a call.

    An answer ends with a `FinishReasonPart` (``stop``, or ``tool_calls`` behind one) unless the script has its own; a
    `UsagePart` that the script ends with comes behind it. A call beyond the script's last raises `AssertionError`. It
    gives way to the loop before each line, as a model does.

    Each round of `run_tools` is a call, and so is each structured answer, whose JSON the script says. An answer that
    was begun it goes on from, saying its lines; without `continues` it raises `StartOver`.
    """

    def __init__(self, script: Sequence[Any], *, continues: bool = True) -> None:
        self._script = script
        self._continues = continues
        self._one_for_all = not script or not isinstance(script[0], list | tuple)
        self.calls: list[Ask] = []
        """What it was asked, in order: `.prompt`, `.messages`, `.model`, `.temperature`, `.max_tokens`, `.tools`,
        `.schema`, `.continues`."""
        self.stopped = 0
        """Answers that were cancelled, closed or failed before their end."""
        self.closed = False

    async def answer(self, ask: Ask) -> AsyncGenerator[Part, None]:
        self.calls.append(ask)
        finished = False
        try:
            if ask.continues and not self._continues:
                raise StartOver("this model does not go on from an answer that was begun")
            async with aclosing(_perform(self._lines())) as parts:
                async for part in parts:
                    yield part
            finished = True
        finally:
            self.stopped += not finished

    def _lines(self) -> Sequence[Line]:
        if self._one_for_all:
            return self._script
        number = len(self.calls)
        if number > len(self._script):
            raise AssertionError(f"call {number} of a FakeAI whose script has {len(self._script)}")
        lines: Sequence[Line] = self._script[number - 1]
        return lines

    async def aclose(self) -> None:
        self.closed = True


async def _perform(lines: Sequence[Line]) -> AsyncGenerator[Part, None]:
    reason = "stop"
    finished = any(isinstance(line, FinishReasonPart) for line in lines)
    for place, line in enumerate(lines, 1):
        await asyncio.sleep(0)
        if isinstance(line, asyncio.Event):
            await line.wait()
        elif isinstance(line, BaseException | type):
            raise line
        else:
            if isinstance(line, UsagePart) and place == len(lines) and not finished:
                finished = True
                yield FinishReasonPart(reason)
            yield TextPart(line) if isinstance(line, str) else line
            reason = "tool_calls" if isinstance(line, ToolCallPart) else reason
    if not finished:
        yield FinishReasonPart(reason)

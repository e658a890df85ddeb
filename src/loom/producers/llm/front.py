"""What every provider of a language model shares: the `AI` port over one method.

It knows no provider. A provider is a `Model` with `answer(ask)`; everything else that a model can be asked for follows
from it, and is promised by the port.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, Unpack, overload

from loom.engine.run.usage import Meter, current_meter
from loom.model import limits
from loom.model.ai import AI, Asking
from loom.model.errors import LimitExceeded, UsageError
from loom.model.parts import FinishReasonPart, ObjectPart, Part, TextPart, ToolSpec, Usage, UsagePart

from .ask import Ask
from .objects import Form, read_object
from .tools import Toolbox, run_rounds

__all__ = ["Model"]

T = TypeVar("T")


class Model(AI):
    """The `AI` port over one method, `answer`. Wrong arguments raise at the call, before anything is sent.

    What an answer uses is counted for the run that asks (`Chunk.usage`).
    """

    @abstractmethod
    def answer(self, ask: Ask) -> AsyncGenerator[Part, None]:
        """The answer's parts, as `AI.stream_parts` promises them. Closing the generator stops the model at once."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close what is held. Idempotent; answers still streaming end with an error."""

    @overload
    async def complete(
        self, prompt: str | None = None, *, tools: Sequence[ToolSpec] = (), **asking: Unpack[Asking]
    ) -> str: ...
    @overload
    async def complete(self, prompt: str | None = None, *, output: type[T], **asking: Unpack[Asking]) -> T: ...
    async def complete(
        self,
        prompt: str | None = None,
        *,
        output: Any = None,
        tools: Sequence[ToolSpec] = (),
        **asking: Unpack[Asking],
    ) -> Any:
        if output is None:
            return await _gather(_texts(self._ask(Ask.make(prompt, **_known(asking), tools=tools))))
        if tools:
            raise UsageError("give a model either output= or tools=, and not both")
        return await _last(self.stream_object(output, prompt, **asking))

    def stream_completion(
        self,
        prompt: str | None = None,
        *,
        tools: Sequence[ToolSpec] = (),
        continue_from: str = "",
        **asking: Unpack[Asking],
    ) -> AsyncGenerator[str, None]:
        return _texts(self.stream_parts(prompt, tools=tools, continue_from=continue_from, **asking))

    def stream_parts(
        self,
        prompt: str | None = None,
        *,
        tools: Sequence[ToolSpec] = (),
        continue_from: str = "",
        **asking: Unpack[Asking],
    ) -> AsyncGenerator[Part, None]:
        return self._ask(Ask.make(prompt, **_known(asking), tools=tools, continue_from=continue_from))

    def stream_object(
        self, type: type[T], prompt: str | None = None, **asking: Unpack[Asking]
    ) -> AsyncGenerator[ObjectPart[T], None]:
        form = Form(type)
        return read_object(self._ask(Ask.make(prompt, **_known(asking), schema=form.schema)), form)

    def run_tools(
        self,
        prompt: str | None = None,
        *,
        tools: Sequence[Callable[..., Any]],
        max_rounds: int = limits.AI_ROUNDS,
        **asking: Unpack[Asking],
    ) -> AsyncGenerator[Part, None]:
        if max_rounds < 1:
            raise UsageError(f"max_rounds={max_rounds!r}: a whole number, at least 1")
        return run_rounds(self._ask, Ask.make(prompt, **_known(asking)), Toolbox(tools), max_rounds)

    def _ask(self, ask: Ask) -> AsyncGenerator[Part, None]:
        meter = current_meter()
        return self.answer(ask) if meter is None else _counted(self.answer(ask), meter)


def _known(asking: Asking) -> Asking:
    """The same. Raises `TypeError` for a word that no question has, as any call does: an `Ask` knows more of them."""
    if strange := asking.keys() - Asking.__optional_keys__:
        raise TypeError(f"got an unexpected keyword argument {min(strange)!r}")
    return asking


async def _counted(parts: AsyncGenerator[Part, None], meter: Meter) -> AsyncGenerator[Part, None]:
    """The same, with what it used added to the meter, however it ends."""
    told, finished = UsagePart(0, 0), False
    counted = False
    try:
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, UsagePart):
                    told, counted = part, finished
                elif isinstance(part, FinishReasonPart):
                    finished = True
                yield part
    finally:
        meter.add(Usage(told.input_tokens, told.output_tokens, 1, int(not counted)))


async def _last(parts: AsyncGenerator[ObjectPart[T], None]) -> T | None:
    value = None
    async with aclosing(parts):
        async for part in parts:
            value = part.value
    return value


async def _texts(parts: AsyncGenerator[Part, None]) -> AsyncGenerator[str, None]:
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part, TextPart):
                yield part.text


async def _gather(pieces: AsyncGenerator[str, None]) -> str:
    said: list[str] = []
    length = 0
    async with aclosing(pieces):
        async for piece in pieces:
            said.append(piece)
            length += len(piece)
            if length > limits.AI_ANSWER_CHARACTERS:
                raise LimitExceeded(
                    f"the answer is longer than {limits.AI_ANSWER_CHARACTERS} characters", code="too_large"
                )
    return "".join(said)

"""What every provider of a language model shares: the `AI` port over one method.

It knows no provider. A provider is a `Model` with `answer(ask)`; everything else that a model can be asked for follows
from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar, overload

from loom.engine.usage import Meter, current_meter
from loom.model import limits
from loom.model.errors import LimitExceeded, UsageError
from loom.model.parts import ChatMessage, FinishReasonPart, ObjectPart, Part, TextPart, ToolSpec, Usage, UsagePart

from .ask import Ask
from .objects import Form, read_object
from .tools import Toolbox, run_rounds

__all__ = ["Model"]

T = TypeVar("T")


class Model(ABC):
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
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> str: ...
    @overload
    async def complete(
        self,
        prompt: str | None = None,
        *,
        output: type[T],
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> T: ...
    async def complete(
        self,
        prompt: str | None = None,
        *,
        output: Any = None,
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Any:
        """The whole answer's text, or with `output` the value of that type that it is; then raises as `stream_object`.

        Raises `LimitExceeded` (code ``too_large``) beyond `limits.AI_ANSWER_CHARACTERS`.
        """
        given = _given(model, temperature, max_tokens)
        if output is None:
            ask = Ask.make(prompt, messages, **given, tools=tools)
            return await _gather(_texts(self._ask(ask)))
        if tools:
            raise UsageError("give a model either output= or tools=, and not both")
        return await _last(
            self.stream_object(
                output, prompt, messages=messages, model=model, temperature=temperature, max_tokens=max_tokens
            )
        )

    def stream_completion(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolSpec] = (),
        continue_from: str = "",
    ) -> AsyncGenerator[str, None]:
        """The answer's text, as it comes; no piece is empty. `continue_from`: what of it was said already."""
        ask = Ask.make(
            prompt,
            messages,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            tools=tools,
            continue_from=continue_from,
        )
        return _texts(self._ask(ask))

    def stream_parts(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolSpec] = (),
        continue_from: str = "",
    ) -> AsyncGenerator[Part, None]:
        """Everything the model says, as it comes; exactly one `FinishReasonPart`, at the end."""
        ask = Ask.make(
            prompt,
            messages,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            tools=tools,
            continue_from=continue_from,
        )
        return self._ask(ask)

    def stream_object(
        self,
        type: type[T],
        prompt: str | None = None,
        *,
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> AsyncGenerator[ObjectPart[T], None]:
        """A value of `type` (msgspec, pydantic, dataclass, TypedDict, builtins), as it comes; the last part is whole
        and checked, or an error says why there is none."""
        form = Form(type)
        ask = Ask.make(
            prompt, messages, model=model, temperature=temperature, max_tokens=max_tokens, schema=form.schema
        )
        return read_object(self._ask(ask), form)

    def run_tools(
        self,
        prompt: str | None = None,
        *,
        tools: Sequence[Callable[..., Any]],
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        max_rounds: int = limits.AI_ROUNDS,
    ) -> AsyncGenerator[Part, None]:
        """Everything the model says while it uses Python functions, and what they gave (`ToolResultPart`)."""
        if max_rounds < 1:
            raise UsageError(f"max_rounds={max_rounds!r}: a whole number, at least 1")
        ask = Ask.make(prompt, messages, **_given(model, temperature, max_tokens))
        return run_rounds(self._ask, ask, Toolbox(tools), max_rounds)

    def _ask(self, ask: Ask) -> AsyncGenerator[Part, None]:
        meter = current_meter()
        return self.answer(ask) if meter is None else _counted(self.answer(ask), meter)


def _given(model: str | None, temperature: float | None, max_tokens: int | None) -> dict[str, Any]:
    """What every call takes."""
    return {"model": model, "temperature": temperature, "max_tokens": max_tokens}


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

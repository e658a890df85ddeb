"""What every provider of a language model shares: the question as one value, and the `AI` port over one method.

It knows no provider. A provider is a `Model` with `answer(ask)`; complete and stream_completion follow from it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from loom.model import limits
from loom.model.errors import InvalidInput, LimitExceeded, UsageError
from loom.model.parts import ChatMessage, Part, TextPart, ToolSpec

__all__ = ["Ask", "Model", "text_of"]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One question to a model, checked: what a provider is given, and what a fake records."""

    messages: list[dict[str, Any]]
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    tools: tuple[ToolSpec, ...] = ()

    @property
    def prompt(self) -> str:
        """The text of the last message of the user; "" if there is none."""
        said = (text_of(message) for message in reversed(self.messages) if message["role"] == "user")
        return next(said, "")

    @property
    def begun(self) -> str:
        """The text of an answer that is begun and to be continued: a last message of the assistant's, else ""."""
        last = self.messages[-1]
        return text_of(last) if last["role"] == "assistant" else ""

    @classmethod
    def make(
        cls,
        prompt: str | None,
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None,
        *,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Ask:
        """Raises `UsageError` unless either prompt or messages is given, `InvalidInput` naming what is amiss."""
        if (prompt is None) == (messages is None):
            raise UsageError("give a model either a prompt or messages, and not both")
        if max_tokens is not None and max_tokens < 1:
            raise InvalidInput(f"max_tokens: {max_tokens} is less than 1", details={"field": "max_tokens"})
        if temperature is not None and not 0 <= temperature < math.inf:
            raise InvalidInput(f"temperature: {temperature} is no number from 0 up", details={"field": "temperature"})
        return cls(
            messages=[{"role": "user", "content": prompt}] if messages is None else _conversation(messages),
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            tools=tuple(tools),
        )


def _conversation(messages: Sequence[ChatMessage | Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not messages:
        raise InvalidInput("messages: at least one is needed", details={"field": "messages"})
    return [_message(message, place) for place, message in enumerate(messages)]


def _message(message: ChatMessage | Mapping[str, Any], place: int) -> dict[str, Any]:
    given: Any = msgspec.to_builtins(message) if isinstance(message, ChatMessage) else message
    if not isinstance(given, Mapping) or not isinstance(given.get("role"), str):
        where = f"messages[{place}].role"
        raise InvalidInput(f"{where}: a message needs a role, such as 'user'", details={"field": where})
    return dict(given)


def text_of(message: Mapping[str, Any]) -> str:
    """A message's text: its content, or the text among its content parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part.get("text", "") for part in parts if isinstance(part, Mapping) and part.get("type") == "text")


class Model(ABC):
    """The `AI` port over one method, `answer`. Wrong arguments raise at the call, before anything is sent."""

    @abstractmethod
    def answer(self, ask: Ask) -> AsyncGenerator[Part, None]:
        """The answer's parts, as `AI.stream_parts` promises them. Closing the generator stops the model at once."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close what is held. Idempotent; answers still streaming end with an error."""

    async def complete(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> str:
        """The whole answer's text. Raises `LimitExceeded` (code ``too_large``) beyond `limits.AI_ANSWER_CHARACTERS`."""
        ask = Ask.make(prompt, messages, model=model, temperature=temperature, max_tokens=max_tokens, tools=tools)
        return await _gather(_texts(self.answer(ask)))

    def stream_completion(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncGenerator[str, None]:
        """The answer's text, as it comes; no piece is empty."""
        ask = Ask.make(prompt, messages, model=model, temperature=temperature, max_tokens=max_tokens, tools=tools)
        return _texts(self.answer(ask))

    def stream_parts(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[ChatMessage | Mapping[str, Any]] | None = None,
        model: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncGenerator[Part, None]:
        """Everything the model says, as it comes; exactly one `FinishReasonPart`, at the end."""
        ask = Ask.make(prompt, messages, model=model, temperature=temperature, max_tokens=max_tokens, tools=tools)
        return self.answer(ask)


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

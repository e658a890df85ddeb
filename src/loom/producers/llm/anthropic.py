"""Anthropic's Messages, and servers that speak them. What is said on the line is in `messages`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Unpack

from loom.model.errors import UsageError
from loom.model.parts import Part, TextPart

from .ask import Ask
from .http import Connecting, HttpModel, Question
from .messages import ANTHROPIC, MessageAnswer, message_body
from .schemas import OutputMode

__all__ = ["ANTHROPIC_URL", "Anthropic"]

AI_MAX_TOKENS = 16_384
"""The longest answer asked of a provider that must be told one: what every model since 2025 can give."""

ANTHROPIC_URL = "https://api.anthropic.com"

_VERSION = "2023-06-01"


class Anthropic(HttpModel):
    """A model behind Anthropic's Messages. What `HttpModel` says holds.

    `base_url` ends before ``/v1``, as in Anthropic's own clients. `max_tokens` is the longest answer of a call that
    does not say: the interface wants a number.
    """

    refusals = ANTHROPIC
    base_hint = "base URLs of this kind end before /v1"
    models_path = "v1/models"
    modes = ("json_schema", "tool", "prompt")

    def __init__(
        self,
        base_url: str = ANTHROPIC_URL,
        *,
        max_tokens: int = AI_MAX_TOKENS,
        **connecting: Unpack[Connecting],
    ) -> None:
        super().__init__(base_url, **connecting)
        self._max_tokens = max_tokens

    def _authority(self) -> dict[str, str]:
        key = {"x-api-key": self._key} if self._key else {}
        return {"anthropic-version": _VERSION, **key}

    async def answer(self, ask: Ask) -> AsyncGenerator[Part, None]:
        spaces = _trailing_space(ask.begun) if ask.continues else ""
        async with aclosing(super().answer(ask)) as parts:
            async for part in parts:
                if spaces and isinstance(part, TextPart):
                    part, spaces = _without(part, spaces)
                    if not part.text:
                        continue
                yield part

    async def _question(self, ask: Ask, mode: OutputMode) -> Question:
        body = message_body(ask, await self._named(ask), self._max_tokens, mode=mode)
        return Question("v1/messages", body, MessageAnswer(by_tool=ask.schema is not None and mode == "tool"))

    async def _named(self, ask: Ask) -> str:
        model = ask.model or self._model
        if model is None:
            raise UsageError(f"name a model: model=, or ANTHROPIC_MODEL; {self._place} has many")
        return model


def _trailing_space(text: str) -> str:
    return text[len(text.rstrip()) :]


def _without(part: TextPart, spaces: str) -> tuple[TextPart, str]:
    """The part without the white space that the answer had reached already, and what of it is still to come.

    It could not be sent (Anthropic refuses a beginning that ends in it), so the model says it once more.
    """
    same = 0
    while same < min(len(part.text), len(spaces)) and part.text[same] == spaces[same]:
        same += 1
    whole = same == len(part.text)
    return TextPart(part.text[same:]), spaces[same:] if whole else ""

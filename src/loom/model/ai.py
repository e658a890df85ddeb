"""The port to language models: what `ctx.ai` is. What they say are `parts`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Protocol, TypedDict, TypeVar, Unpack, overload

from . import limits
from .parts import ChatMessage, ObjectPart, Part, ToolSpec

__all__ = ["AI", "NO_MODEL", "Asking"]

NO_MODEL = (
    "ctx.ai has no model: set OPENAI_BASE_URL or OPENAI_API_KEY, or ANTHROPIC_API_KEY, where the worker runs, "
    "or give App(ai=...); tests give it loom.testing.FakeAI"
)
"""The message of the error that using `ctx.ai` raises where no model is set."""

T = TypeVar("T")


class Asking(TypedDict, total=False):
    """What every question takes beside its prompt, by keyword."""

    messages: Sequence[ChatMessage | Mapping[str, Any]] | None
    """The conversation so far, instead of a prompt."""
    model: str | None
    """Whom to ask, as the provider calls it; the provider's own choice if left out."""
    temperature: float | None
    """How freely it chooses its words, from 0 up; the provider's own if left out."""
    max_tokens: int | None
    """The longest answer, at least 1; the provider's own if left out."""


class AI(Protocol):
    """`ctx.ai`: a language model. Give a `prompt` or `messages`, not both. Cancelling closes the upstream connection.

    Raises `Unavailable` (after retries, which only happen before the first token), `Unauthorized`, `LimitExceeded`
    (code ``context_length`` for a question too long), `InvalidInput` (code ``content_filter`` for one that the
    provider refuses), `RemoteProtocolError`.
    """

    @overload
    async def complete(
        self, prompt: str | None = None, *, tools: Sequence[ToolSpec] = (), **asking: Unpack[Asking]
    ) -> str:
        """The whole answer's text. Raises `LimitExceeded` (``too_large``) beyond `limits.AI_ANSWER_CHARACTERS`."""
        ...

    @overload
    async def complete(self, prompt: str | None = None, *, output: type[T], **asking: Unpack[Asking]) -> T:
        """The answer as a value of the type `output`, checked. Raises as `stream_object`."""
        ...

    def stream_completion(
        self,
        prompt: str | None = None,
        *,
        tools: Sequence[ToolSpec] = (),
        continue_from: str = "",
        **asking: Unpack[Asking],
    ) -> AsyncGenerator[str, None]:
        """The answer's text, as it comes; no piece is empty. Closing the iterator stops the model at once.

        `continue_from`: what of the answer was said already; only what follows it comes. A model that cannot go on from
        there raises `StartOver`, which a producer that continues lets pass: its next attempt begins anew.
        """
        ...

    def stream_parts(
        self,
        prompt: str | None = None,
        *,
        tools: Sequence[ToolSpec] = (),
        continue_from: str = "",
        **asking: Unpack[Asking],
    ) -> AsyncGenerator[Part, None]:
        """Everything the model says, typed, as it comes; a `FinishReasonPart` comes exactly once (at the end, perhaps
        followed by a `UsagePart`): a stream cut before it raises `Unavailable`."""
        ...

    def stream_object(
        self, type: type[T], prompt: str | None = None, **asking: Unpack[Asking]
    ) -> AsyncGenerator[ObjectPart[T], None]:
        """A value of `type` (msgspec, pydantic, dataclass, TypedDict, builtins), each time that more of it is known;
        the last part is `done` and has the `value`.

        Raises `RemoteProtocolError` when the answer does not fit, `LimitExceeded` (``too_large``) when it was cut at
        `max_tokens`, `InvalidInput` (``content_filter``) when the model refuses, `UsageError` for a type that has no
        schema.
        """
        ...

    def run_tools(
        self,
        prompt: str | None = None,
        *,
        tools: Sequence[Callable[..., Any]],
        max_rounds: int = limits.AI_ROUNDS,
        **asking: Unpack[Asking],
    ) -> AsyncGenerator[Part, None]:
        """Ask, call the Python functions that the model asks for, tell it what they gave, and again, until it asks for
        nothing more. Everything comes as a part; a `FinishReasonPart` exactly once, at the end, perhaps followed by a
        `UsagePart` that is the sum.

        Calls of one answer run at the same time, sync functions in threads; `ToolResultPart` come in the order of the
        calls. Wrong arguments and exceptions are told to the model. Cancelling, or closing the iterator, cancels what
        runs. Raises `LimitExceeded` when the model's answer number `max_rounds` asks for tools again.
        """
        ...

    async def aclose(self) -> None: ...

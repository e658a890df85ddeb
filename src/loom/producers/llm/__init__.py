"""What a language model says as it is said: one front, and a file for each provider behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .builtin import MarkovWriter
from .environment import ai_from_environment
from .front import Ask, Model

if TYPE_CHECKING:
    from .openai import OpenAICompatible

__all__ = ["Ask", "MarkovWriter", "Model", "OpenAICompatible", "ai_from_environment"]


def __getattr__(name: str) -> Any:
    if name == "OpenAICompatible":  # its HTTP client takes 0.1 s to import
        from .openai import OpenAICompatible

        return OpenAICompatible
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What a language model says as it is said: one front, and a file for each provider behind it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .ask import Ask
from .builtin import MarkovWriter
from .environment import ai_from_environment
from .front import Model

if TYPE_CHECKING:
    from .anthropic import Anthropic
    from .openai import OpenAICompatible

__all__ = ["Anthropic", "Ask", "MarkovWriter", "Model", "OpenAICompatible", "ai_from_environment"]

_OVER_HTTP = {"Anthropic": ".anthropic", "OpenAICompatible": ".openai"}


def __getattr__(name: str) -> Any:
    if name in _OVER_HTTP:  # the HTTP client takes 0.1 s to import
        return getattr(import_module(_OVER_HTTP[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

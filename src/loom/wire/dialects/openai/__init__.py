"""OpenAI's Chat Completions, as its clients speak it (API reference, "Chat"; tried with `openai` of PyPI and npm)."""

from .dialect import OPENAI

__all__ = ["OPENAI"]

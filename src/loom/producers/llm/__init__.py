"""What a language model says as it is said: one front, and a file for each provider behind it."""

from .builtin import MarkovWriter
from .environment import ai_from_environment
from .front import Ask, Model

__all__ = ["Ask", "MarkovWriter", "Model", "ai_from_environment"]

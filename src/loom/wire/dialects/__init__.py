"""Other people's wire formats, a package each of one shape: `request` in, `answer` out, `errors`, `dialect`. Pure."""

from loom.wire.dialect import Dialect

from .openai import OPENAI

__all__ = ["DIALECTS"]

DIALECTS: tuple[Dialect, ...] = (OPENAI,)
"""The dialects that every server speaks."""

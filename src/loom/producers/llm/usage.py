"""A provider's count of tokens as a part, whatever it has sent. Pure."""

from __future__ import annotations

import math
from typing import Any

from loom.model.parts import UsagePart

from .surrogates import sound_value

__all__ = ["usage_part"]


def usage_part(usage: dict[str, Any], sent: str, said: str) -> UsagePart:
    """The part; `sent` and `said` name the counts of the prompt and of the answer. All else goes into its details."""
    rest = {name: value for name, value in usage.items() if name not in (sent, said)}
    return UsagePart(_count(usage.get(sent)), _count(usage.get(said)), sound_value(rest))


def _count(value: Any) -> int:
    """Zero for what is no number, or not finite."""
    if isinstance(value, float):
        value = int(value) if math.isfinite(value) else 0
    return max(0, int(value)) if isinstance(value, int) else 0

"""Durations as people write them in URLs and on command lines."""

from __future__ import annotations

import re

from loom.model.errors import UsageError

__all__ = ["DURATION", "parse_duration"]

DURATION = r"^[0-9]{1,12}(\.[0-9]{1,9})?(ms|s|m|h)?$"
"""Their form, for schemas."""

_FORM = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|s|m|h)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def parse_duration(text: str, field: str = "duration") -> float:
    """Seconds: ``50ms``, ``2s``, ``1.5m``, ``1h``, or a plain number of seconds. Raises `UsageError` naming `field`."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{field}: {text[:40]!r} is no duration (50ms, 2s, 1m, 1h, or seconds)", details={"field": field}
        )
    return float(match[1]) * _SECONDS[match[2]]

"""What HTTP headers say, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

__all__ = ["AHEAD", "OWS", "retry_after"]

AHEAD = "loom-ahead"
"""In the answer to a reader that says itself how far it has read: the run is kept so many chunks ahead of it."""

OWS = b" \t"
"""Blanks around a field's value are no part of it (RFC 9110, section 5.5); not every server takes them off."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The pause in seconds that an answer asks for, if any (RFC 9110, section 10.2.3; OpenAI's ``retry-after-ms``).

    A date is taken relative to the answer's own Date, so that no clock of ours matters.
    """
    if (exact := _number(headers.get("retry-after-ms"))) is not None:
        return exact / 1000
    given = headers.get("retry-after", "")
    if (seconds := _number(given)) is not None:
        return seconds
    try:
        pause = parsedate_to_datetime(given) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError, OverflowError):  # no dates, impossible ones, one of both without a zone
        return None
    return max(0.0, pause.total_seconds())


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text.strip(), re.ASCII) else None

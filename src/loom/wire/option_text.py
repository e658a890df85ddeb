"""Options as text: how queries and command lines write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from loom.model.errors import UsageError
from loom.model.options import COUNT, DELAY, KEPT, LABELS, SPAN, Kind, Labels, Option

from .duration import DURATION, parse_duration

__all__ = ["QUERY", "SHELL", "labels_in", "option_in", "schema_in_query"]

QUERY = ":"
"""The separator of a label's name and value in a query, as ``label=user:42``."""

SHELL = "="
"""The same on a command line, as ``--label user=42``."""


def labels_in(texts: Sequence[str], separator: str, field: str = "label") -> Labels:
    """Labels of which each stands in a text of its own. Raises `UsageError`."""
    labels: Labels = {}
    for text in texts:
        name, found, value = text.partition(separator)
        if not found or not name:
            raise UsageError(f"{field}: {text[:80]!r} is no name{separator}value", details={"field": field})
        if labels.setdefault(name, value) != value:
            raise UsageError(f"{field}: {name[:80]!r} is given twice", details={"field": field})
    return labels


def option_in(kind: Kind, texts: Sequence[str], separator: str, field: str) -> Any:
    """The value that `texts` say, the last one where only one is meant. Raises `UsageError`."""
    if kind is LABELS:
        return labels_in(texts, separator, field)
    read = _READERS.get(kind)
    return texts[-1] if read is None else read(texts[-1], field)


def _whole(text: str, field: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{field}: {text[:80]!r} is no whole number", details={"field": field}) from None


_READERS: dict[Kind, Callable[[str, str], Any]] = {
    SPAN: parse_duration, KEPT: parse_duration, DELAY: parse_duration, COUNT: _whole,
}  # fmt: skip
"""Of the kinds whose values are no text."""


def schema_in_query(option: Option) -> dict[str, Any]:
    """The JSON Schema of the option in a query."""
    if option.kind is LABELS:
        return {"type": "array", "items": {"type": "string", "pattern": f"^[^{QUERY}]+{QUERY}"}}
    if _READERS.get(option.kind) is parse_duration:
        return {"type": "string", "pattern": DURATION}
    return msgspec.json.schema(option.kind.json)

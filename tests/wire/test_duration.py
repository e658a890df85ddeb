"""Durations as people write them."""

from __future__ import annotations

import pytest

from loom.model.errors import UsageError
from loom.wire.duration import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("50ms", 0.05), ("2s", 2.0), ("1m", 60.0), ("1.5m", 90.0), ("1h", 3600.0), ("3", 3.0), ("0.25", 0.25), ("0", 0.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1 s", "1e3", "1d", "inf", "nan", "٣s", "1s\n", ".5s", "5.s", "9" * 13]
)
def test_anything_else_is_refused_naming_the_field(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_duration(text, "wait")
    assert refused.value.details == {"field": "wait"}

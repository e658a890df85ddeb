"""Headers in the forms that servers write them."""

from __future__ import annotations

import pytest

from loom.wire.headers import retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "Fri, 21 Nov 2025 08:00:09 GMT", "date": "Fri, 21 Nov 2025 08:00:00 GMT"}, 9.0),
        ({"retry-after": "Fri, 21 Nov 2025 08:00:00 GMT", "date": "Fri, 21 Nov 2025 08:00:09 GMT"}, 0.0),
        ({"retry-after": "Fri, 21 Nov 2025 08:00:09 GMT"}, None),
        ({"retry-after": f"Fri, 21 Nov {'9' * 20} 08:00:09 GMT", "date": "Fri, 21 Nov 2025 08:00:00 GMT"}, None),
        ({"retry-after": f"Fri, 21 Nov 2025 08:00:09 +{'9' * 20}", "date": "Fri, 21 Nov 2025 08:00:00 GMT"}, None),
        ({"retry-after": "Fri, 21 Nov 2025 08:00:09", "date": "Fri, 21 Nov 2025 08:00:00 GMT"}, None),
    ],
)
def test_the_pause_that_an_answer_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds

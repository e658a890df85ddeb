"""A URL names a store or a server; what names none is told at once, and what is secret in it is not shown."""

from __future__ import annotations

import pytest

import loom
from loom.connect import open_store


@pytest.mark.parametrize(
    "url",
    ["", "runs.db", "redis://u:secret@h", "http://u:secret@[::1", "sqlite://h/x", "sqlite:///", "sqlite:///a%00b"],
)
def test_what_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(loom.UsageError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_what_is_no_url_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(loom.UsageError, match="no URL"):
        loom.connect("http://[::1")

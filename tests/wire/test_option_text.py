"""Options as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from loom.model.errors import UsageError
from loom.model.options import OPTIONS
from loom.wire.option_text import QUERY, SHELL, labels_in, option_in


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        ([], {}),
        (["user:42"], {"user": "42"}),
        (["user:42", "user:42"], {"user": "42"}),
        (["at:12:30", "empty:"], {"at": "12:30", "empty": ""}),
    ],
)
def test_a_label_is_a_name_and_a_value(texts: Sequence[str], labels: dict[str, str]) -> None:
    assert labels_in(texts, QUERY) == labels


@pytest.mark.parametrize(
    ("texts", "separator"),
    [(["user"], QUERY), ([":42"], QUERY), (["user=42"], QUERY), (["user:42"], SHELL), (["a:1", "a:2"], QUERY)],
)
def test_what_is_no_label_is_refused(texts: Sequence[str], separator: str) -> None:
    with pytest.raises(UsageError) as raised:
        labels_in(texts, separator)
    assert raised.value.details == {"field": "label"}


@pytest.mark.parametrize(
    ("name", "texts", "value"),
    [
        ("key", ["a", "b"], "b"),
        ("timeout", ["2m"], 120.0),
        ("ahead", ["5"], 5),
        ("priority", ["high"], "high"),
        ("labels", ["user:42", "team:a"], {"user": "42", "team": "a"}),
    ],
)
def test_each_kind_is_read(name: str, texts: Sequence[str], value: Any) -> None:
    assert option_in(OPTIONS[name].kind, texts, QUERY, name) == value


@pytest.mark.parametrize(("name", "text"), [("timeout", "soon"), ("ahead", "few"), ("labels", "user")])
def test_what_cannot_be_read_is_named(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=name):
        option_in(OPTIONS[name].kind, [text], QUERY, name)

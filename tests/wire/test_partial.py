"""JSON that has not all come: every beginning gives a value, which only grows."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.wire.partial import UNKNOWN, PartialJson

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
DOCUMENTS = st.lists(VALUES, max_size=4) | st.dictionaries(TEXT, VALUES, max_size=4)


def begins(part: Any, whole: Any) -> bool:
    """Whether `part` is `whole` as far as it had come."""
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    if isinstance(part, list) and isinstance(whole, list):
        pairs = list(zip(part, whole, strict=False))
        return len(part) <= len(whole) and all(a == b for a, b in pairs[:-1]) and all(begins(*pair) for pair in pairs)
    if isinstance(part, dict) and isinstance(whole, dict):
        keys = list(part)
        settled = all(part[key] == whole[key] for key in keys[:-1])
        return keys == list(whole)[: len(keys)] and settled and all(begins(part[key], whole[key]) for key in keys)
    return type(part) is type(whole) and bool(part == whole)


def fed(*pieces: str) -> PartialJson:
    partial = PartialJson()
    for piece in pieces:
        partial.feed(piece)
    return partial


@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 1]))
def test_each_beginning_is_a_beginning_of_the_whole(document: Any, ascii: bool, indent: int | None) -> None:
    text = json.dumps(document, ensure_ascii=ascii, indent=indent)
    partial = PartialJson()
    before: Any = UNKNOWN
    for character in text:
        partial.feed(character)
        value = partial.value
        assert begins(value, document), (value, document)
        assert before is UNKNOWN or begins(before, value), (before, value)
        before = value
    assert partial.complete
    assert partial.value == document
    assert partial.text == text


@given(DOCUMENTS, st.lists(st.integers(0, 200), max_size=4), st.booleans())
def test_where_it_is_cut_changes_nothing(document: Any, cuts: list[int], ascii: bool) -> None:
    text = json.dumps(document, ensure_ascii=ascii)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    partial = fed(*pieces)
    assert (partial.complete, partial.value, partial.text) == (True, document, text)
    for place in places[1:-1]:
        whole = fed(text[:place])
        assert fed(*text[:place]).value == whole.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", UNKNOWN),
        ("Sure: ", UNKNOWN),
        ("{", {}),
        ('{"na', {}),
        ('{"name"', {}),
        ('{"name": ', {}),
        ('{"name": "', {"name": ""}),
        ('{"name": "An', {"name": "An"}),
        ('{"name": "An\\', {"name": "An"}),
        ('{"name": "An\\u00', {"name": "An"}),
        ('{"name": "\\ud83c', {"name": ""}),
        ('{"name": "\\ud83c\\udf0a', {"name": "🌊"}),
        ('{"name": "Ann", "age": 4', {"name": "Ann"}),
        ('{"name": "Ann", "age": 42,', {"name": "Ann", "age": 42}),
        ('{"ok": tru', {}),
        ('{"ok": true}', {"ok": True}),
        ('[[1, {"a": [', [[1, {"a": []}]]),
        ('```json\n{"a": 1}\n```', {"a": 1}),
    ],
)
def test_what_is_known(text: str, value: Any) -> None:
    assert fed(text).value == value
    assert fed(*text).value == value


def test_what_stands_around_it_is_no_part_of_it() -> None:
    partial = fed("Here:\n```json\n", '{"a": ', "1}\n", "``` {}")
    assert partial.text == '{"a": 1}'
    assert partial.complete


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, b: 2}', {"a": 1}),
        ('{"a" 1}', {}),
        ("[1 2]", [1]),
        ("[1}", [1]),
        ("[01, 2]", []),
        ("[1, wrong, 2]", [1]),
        (r'["a\x", 2]', ["a"]),
        (r'["a\u12x4", 2]', ["a"]),
    ],
)
def test_from_what_is_no_json_on_nothing_more_is_known(text: str, value: Any) -> None:
    for partial in fed(text), fed(*text):
        assert not partial.complete
        assert partial.value == value


def test_half_a_pair_is_told_as_such() -> None:
    assert fed(r'["\ud83c", "\udf0a", "\ud83cx"]').value == ["\ufffd", "\ufffd", "\ufffdx"]


def test_a_value_is_the_receivers_own() -> None:
    partial = fed('{"a": [1, ')
    first = partial.value
    partial.feed("2], ")
    assert first == {"a": [1]}
    assert partial.value == {"a": [1, 2]}


def test_too_deep_is_not_followed() -> None:
    partial = fed("[" * 100_000)
    assert not partial.complete


def test_the_time_is_linear() -> None:
    def seconds(items: int) -> float:
        text = json.dumps([{"name": "An" * 10, "age": n} for n in range(items)])
        partial = PartialJson()
        began = time.process_time()
        for at in range(0, len(text), 4):
            partial.feed(text[at : at + 4])
        assert partial.complete
        return time.process_time() - began

    few = min(seconds(500) for _ in range(3))
    assert seconds(5000) < 40 * few

"""What a value of a type is written as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Optional

import msgspec
import pytest

from loom.engine.declare.hints import bare, is_model, is_union, takes_null, takes_object
from tests.engine.producers import Item, Model, Movie, Point


def test_constraints_are_left_out() -> None:
    assert bare(Annotated[int, msgspec.Meta(gt=0)]) is int
    assert bare(int) is int


def test_a_union_in_either_way_of_writing_it() -> None:
    assert is_union(int | str)
    assert is_union(Optional[int])  # noqa: UP045
    assert not is_union(list[int])


@pytest.mark.parametrize("model", [Item, Point, Movie, Model])
def test_a_model_has_named_fields(model: Any) -> None:
    assert is_model(model)
    assert is_model(Annotated[model, "noted"])
    assert not is_model(model | None)


@pytest.mark.parametrize("plain", [int, str, list[Item], dict[str, int], Any])
def test_other_types_are_no_models(plain: Any) -> None:
    assert not is_model(plain)


@pytest.mark.parametrize(
    ("hint", "null", "object"),
    [
        (int, False, False),
        (int | None, True, False),
        (Any, True, True),
        (dict[str, int], False, True),
        (Mapping[str, int], False, True),
        (Item | None, True, True),
        (list[int], False, False),
    ],
)
def test_what_it_takes(hint: Any, null: bool, object: bool) -> None:
    assert (takes_null(hint), takes_object(hint)) == (null, object)

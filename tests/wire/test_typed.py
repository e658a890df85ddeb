"""Types nested to a depth, and values of them, through their JSON."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import HealthCheck, given, settings

from loom.model.errors import UsageError
from loom.wire.codec import Codec, same
from loom.wire.data import canonical, encode_value
from loom.wire.json import decode

from .typed import BASES, MOMENTS, Strict, Typed, typed


def check(drawn: Typed) -> None:
    try:
        codec = Codec(drawn.hint)
    except UsageError:  # refused where it is declared
        return
    if codec.fault(drawn.value) is not None:  # refused where it is said
        return
    data = encode_value(drawn.value)
    read = codec.read(decode(data))
    assert same(drawn.value, read)
    assert canonical(read) == canonical(drawn.value)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(typed())
def test_a_value_of_a_type_that_is_accepted_comes_back(drawn: Typed) -> None:
    check(drawn)


@settings(deadline=None)
@given(MOMENTS)
def test_any_moment_comes_back_wherever_it_stands(moment: dt.datetime) -> None:
    check(Typed(dt.datetime, moment))
    check(Typed(dict[dt.datetime, list[dt.datetime]], {moment: [moment]}))
    check(Typed(Strict, Strict(at=moment, pair=(1, "a"))))


@pytest.mark.parametrize("hint", BASES, ids=str)
def test_every_base_type_is_accepted(hint: object) -> None:
    assert Codec(hint).ambiguous == (hint is Strict)  # which refuses the fields of its subclasses

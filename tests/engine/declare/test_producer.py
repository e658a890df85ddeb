"""A producer: called plainly, renamed, with options, and what is told of it."""

from __future__ import annotations

import datetime

import pytest

from loom.engine.declare.options import Retry
from loom.model.errors import InvalidInput
from loom.model.options import Options
from tests.engine.producers import Item, Streams, function, generator, producer


def test_called_plainly_it_is_the_function() -> None:
    assert producer(function)(3) == 3
    assert list(producer(generator)(3)) == [3]
    assert repr(producer(function)) == "<Producer 'p': function>"


def test_a_class_is_made_anew_for_each_call() -> None:
    class Counting:
        def __init__(self) -> None:
            self.count = 0

        def execute(self) -> int:
            self.count += 1
            return self.count

    made = producer(Counting)
    assert (made(), made()) == (1, 1)


def described(a: int, b: Item, c: str = "x") -> None:
    """Does it.

    At length.
    """


def test_what_others_are_told() -> None:
    info = producer(described).info()
    assert (info.name, info.description) == ("p", "Does it.")
    schema = info.input_schema
    assert schema["required"] == ["a", "b"]
    assert schema["properties"]["a"] == {"type": "integer"}
    assert schema["additionalProperties"] is False


def test_a_class_is_told_of_by_its_own_words() -> None:
    assert producer(Streams).info().description == "Streams."


def test_using_gives_options_for_one_run() -> None:
    made = producer(function)
    bound = made.using(key="k", timeout=datetime.timedelta(minutes=1))
    assert bound.producer is made
    assert bound.options == Options(key="k", timeout=datetime.timedelta(minutes=1))


def test_renamed_is_the_same_under_another_name() -> None:
    made = producer(function, retry=Retry(mode="continue"), max_crashes=7, requires=("db",))
    other = made.renamed("q")
    assert other.name == "q"
    assert (other.target, other.retry, other.max_crashes, other.requires, other.continues) == (
        made.target, made.retry, 7, ("db",), True,
    )  # fmt: skip
    assert other.info().name == "q"
    assert (made.name, made.info().name) == ("p", "p")
    with pytest.raises(InvalidInput, match=r"^x: q has no such parameter$"):
        other.inputs.bind((), {"n": 1, "x": 2})


@pytest.mark.parametrize("name", ["", "a b"])
def test_a_new_name_must_be_one(name: str) -> None:
    with pytest.raises(InvalidInput):
        producer(function).renamed(name)

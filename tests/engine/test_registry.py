"""Producers by name."""

from __future__ import annotations

import pytest

from loom.engine.registry import Registry
from loom.model.errors import UnknownProducer, UsageError

from .producers import function, generator, producer


def test_names_are_unique_and_found() -> None:
    registry = Registry()
    made = producer(function)
    registry.add(made)
    assert registry.get("p") is registry.find("p") is made
    assert list(registry) == [made]
    assert len(registry) == 1
    with pytest.raises(UsageError, match="'p'"):
        registry.add(producer(generator))


def test_an_unknown_name_is_told_what_there_is() -> None:
    registry = Registry()
    with pytest.raises(UnknownProducer, match="none"):
        registry.get("x")
    registry.add(producer(function))
    with pytest.raises(UnknownProducer, match="there are: p") as raised:
        registry.get("x" * 1000)
    assert len(raised.value.details["actor"]) <= 80
    assert registry.find("x") is None

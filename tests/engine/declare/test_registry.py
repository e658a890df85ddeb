"""Producers by name."""

from __future__ import annotations

import pytest

from loom.engine.declare.registry import Registry
from loom.engine.declare.signature import make_producer
from loom.model.errors import InvalidInput, UnknownProducer, UsageError
from tests.engine.producers import function, generator, producer


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


def test_a_worker_serves_the_default_queue_and_the_declared_ones() -> None:
    registry = Registry()
    served = [registry.queues]
    for name, queue in (("a", "jobs"), ("b", None), ("c", "default"), ("d", "gpu"), ("e", "jobs")):
        registry.add(make_producer(name, function, queue=queue))
        served.append(registry.queues)
    assert (served[0], served[-1]) == (("default",), ("default", "gpu", "jobs"))


@pytest.mark.parametrize("queue", ["loom.published", "cli.mine", "a b", ""])
def test_a_queue_that_no_worker_can_serve_is_no_declaration(queue: str) -> None:
    with pytest.raises((UsageError, InvalidInput), match="queue"):
        make_producer("a", function, queue=queue)

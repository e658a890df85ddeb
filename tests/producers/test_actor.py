"""`@app.actor`: a function or class becomes a named producer."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from loom.engine.declare.options import Retry
from loom.engine.declare.producer import Producer
from loom.model.errors import InvalidInput, UsageError
from loom.producers.actor import ActorDecorator, decorator


@pytest.fixture
def added() -> list[Producer[..., Any]]:
    return []


@pytest.fixture
def actor(added: list[Producer[..., Any]]) -> ActorDecorator:
    """A decorator as an app's."""
    return decorator(added.append)


def test_it_takes_the_function_s_name_or_the_given_one(actor: ActorDecorator, added: list[Producer[..., Any]]) -> None:
    @actor()
    async def chat(prompt: str) -> AsyncIterator[str]:
        yield prompt

    @actor("other")
    def work() -> None: ...

    @actor()
    class Agent:
        async def execute(self) -> None: ...

    assert [producer.name for producer in added] == ["chat", "other", "Agent"]
    assert added == [chat, work, Agent]


def test_what_is_declared_is_kept(actor: ActorDecorator) -> None:
    retry = Retry(attempts=2, mode="continue")

    @actor("a", retry=retry, max_crashes=9, queue="slow", requires=["db"])
    async def work() -> None: ...

    assert (work.retry, work.max_crashes, work.options.given["queue"], work.requires) == (retry, 9, "slow", ("db",))
    assert work.continues


def test_a_decorated_function_is_called_as_before(actor: ActorDecorator) -> None:
    @actor()
    def double(n: int) -> int:
        """Twice."""
        return 2 * n

    assert double(4) == 8
    assert double.__doc__ == "Twice."


def test_types_local_to_where_it_stands_are_found(actor: ActorDecorator) -> None:
    class Order(msgspec.Struct):
        size: int

    @actor()
    async def coroutine(order: Order) -> Order:
        return order

    @actor()
    def function(order: Order) -> Order:
        return order

    for producer in (coroutine, function):
        assert producer.inputs.parameters[0].type is Order
        assert producer.returns.hint is Order


def test_what_has_no_name_must_be_given_one(actor: ActorDecorator, added: list[Producer[..., Any]]) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    with pytest.raises(UsageError, match="give it one"):
        actor()(functools.partial(add, b=1))
    with pytest.raises(InvalidInput):
        actor()(lambda: None)
    with pytest.raises(UsageError):
        actor("again")(actor("once")(add))
    assert [producer.name for producer in added] == ["once"]

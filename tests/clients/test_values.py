"""Values keep their types across every boundary, by the producer's hints: in, out, and as the result."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

import loom
from loom.testing import FakeAI

from .places import Connected

pytestmark = pytest.mark.anyio


class Struct(msgspec.Struct):
    name: str
    sizes: list[int] = []


@dataclass
class Data:
    name: str
    inner: Struct | None = None


class Typed(TypedDict):
    name: str
    count: int


class Model(pydantic.BaseModel):
    name: str
    tags: dict[str, float] = {}


VALUES: list[tuple[Any, Any]] = [
    (Struct, Struct("a", [1, 2])),
    (Data, Data("a", Struct("b"))),
    (Typed, Typed(name="a", count=3)),
    (Model, Model(name="a", tags={"x": 1.5})),
    (str, "naïve ☃ \x00 \ud7ff"),
    (int, 2**53),
    (float, 0.1),
    (bool, False),
    (list[Struct], [Struct("a"), Struct("b")]),
    (dict[str, Data], {"k": Data("a")}),
    (Struct | None, None),
    (tuple[int, str], (1, "a")),
    (bytes, b"\x00\xff"),
]


@pytest.mark.parametrize(("type", "value"), VALUES, ids=[str(type) for type, _ in VALUES])
async def test_a_value_comes_back_as_its_type(connected: Connected, type: Any, value: Any) -> None:
    """Given as input, it is of its type within the producer, in the chunk, and as the result."""
    app = loom.App()
    inside: list[Any] = []

    async def echo(value, ctx):  # type: ignore[no-untyped-def]
        inside.append(value)
        yield value
        yield loom.Result(value)

    async def give(value):  # type: ignore[no-untyped-def]
        return value

    echo.__annotations__ = {"value": type, "ctx": loom.Context, "return": AsyncIterator[type | loom.Result[type]]}
    give.__annotations__ = {"value": type, "return": type}
    producer, coroutine = app.actor(echo), app.actor(give)
    async with connected(app) as client:
        run = await client.start(producer, value=value)
        (chunk,) = [chunk async for chunk in run.chunks() if chunk.type == "data"]
        assert inside == [value]
        assert chunk.data == value
        assert chunk.data.__class__ is value.__class__
        assert [value async for value in run.values()] == [value]
        result = await client.execute(coroutine, value=value)
        assert result == value
        assert result.__class__ is value.__class__
        if value is not None:
            assert await run.result() == value


async def test_what_is_known_by_name_comes_as_plain_json(connected: Connected) -> None:
    app = loom.App()

    @app.actor
    async def structs(name: str) -> AsyncIterator[Struct]:
        yield Struct(name, [1])

    async with connected(app) as client:
        run = await client.start("structs", "a")
        assert [value async for value in run.values()] == [{"name": "a", "sizes": [1]}]


async def test_a_sole_model_takes_the_object(connected: Connected) -> None:
    app = loom.App()

    @app.actor
    async def sizes(what: Struct) -> int:
        return sum(what.sizes)

    async with connected(app) as client:
        assert await client.execute(sizes, Struct("a", [1, 2])) == 3
        assert await client.execute("sizes", {"name": "a", "sizes": [4]}) == 4
        assert await client.execute("sizes", name="a", sizes=[5]) == 5


# --- results ---------------------------------------------------------------------------------------------------------


def speaking() -> loom.App:
    app = loom.App()

    @app.actor
    async def words(n: int) -> AsyncIterator[str]:
        for i in range(n):
            yield f"w{i} "

    @app.actor
    async def parts() -> AsyncIterator[Any]:
        yield loom.Progress(1, 3, "thinking")
        yield loom.Chunk("stdout", "no text of the run")
        yield "a"
        yield loom.Chunk("text-delta", "b")
        yield {"not": "text"}
        yield loom.Result({"answer": 42})

    @app.actor
    async def nothing() -> None: ...

    @app.actor
    def threaded(n: int) -> Iterator[int]:
        yield from range(n)

    @app.actor
    def plain(n: int) -> int:
        return n * n

    @app.actor
    class Shouter:
        """Says it loudly."""

        async def stream(self, text: str) -> AsyncIterator[str]:
            yield text.upper()

    return app


async def test_results(connected: Connected) -> None:
    async with connected(speaking()) as client:
        assert await client.execute("words", 3) == "w0 w1 w2 "
        assert await client.execute("words", 0) is None
        assert await client.execute("parts") == {"answer": 42}
        assert await client.execute("nothing") is None
        assert await client.execute("threaded", 3) == [0, 1, 2]
        assert await client.execute("plain", 7) == 49
        assert await client.execute("Shouter", "hey") == "HEY"


async def test_text(connected: Connected) -> None:
    async with connected(speaking()) as client:
        run = await client.start("words", 3)
        assert await run.text() == "w0 w1 w2 "
        run = await client.start("parts")
        assert await run.text() == "ab"


async def test_kinds_of_chunks(connected: Connected) -> None:
    async with connected(speaking()) as client:
        run = await client.start("parts")
        chunks = [chunk async for chunk in run.chunks()]
        values = [value async for value in run.values()]
    assert [chunk.type for chunk in chunks] == [
        "start", "progress", "stdout", "data", "text-delta", "data", "complete",
    ]  # fmt: skip
    assert chunks[1].progress == loom.Progress(1, 3, "thinking")
    assert chunks[-1].data == {"answer": 42}
    assert values == ["a", {"not": "text"}]


async def test_actors_are_listed(connected: Connected) -> None:
    async with connected(speaking()) as client:
        actors = {actor.name: actor for actor in await client.actors()}
    assert list(actors) == sorted(["words", "parts", "nothing", "threaded", "plain", "Shouter"])
    assert actors["Shouter"].description == "Says it loudly."
    assert actors["words"].input_schema["properties"] == {"n": {"type": "integer"}}


# --- input -----------------------------------------------------------------------------------------------------------


WRONG: list[tuple[str, Any, str]] = [
    ("words", "three", "n"),
    ("words", {"m": 3}, "m"),
    ("words", {}, "n"),
    ("words", {"n": 3, "more": 1}, "more"),
    ("plain", {"n": 1.5}, "n"),
    ("nothing", {"n": 1}, "n"),
    ("nothing", 7, "input"),
]


@pytest.mark.parametrize(("actor", "given", "field"), WRONG)
async def test_wrong_input_names_the_field_and_changes_nothing(
    connected: Connected, actor: str, given: Any, field: str
) -> None:
    async with connected(speaking()) as client:
        with pytest.raises(loom.InvalidInput) as caught:
            await client.start(actor, given)
        assert caught.value.details == {"field": field}
        assert caught.value.message.startswith(field)
        assert await client.runs() == []


async def test_a_field_deep_inside_is_named(connected: Connected) -> None:
    app = loom.App()
    ran: list[Any] = []

    @app.actor
    async def take(items: list[Data]) -> None:
        ran.append(items)

    async with connected(app) as client:
        with pytest.raises(loom.InvalidInput) as caught:
            await client.start("take", [{"name": "a"}, {"name": "b", "inner": {"name": 1}}])
        assert caught.value.details == {"field": "items[1].inner.name"}
    assert ran == []


async def test_a_call_that_does_not_fit_the_signature(connected: Connected) -> None:
    app = loom.App()

    @app.actor
    async def pair(a: int, b: int) -> int:
        return a + b

    untyped: Any = pair
    async with connected(app) as client:
        for args, kwargs, field in [((1,), {}, "b"), ((1, 2), {"a": 1}, "a"), ((1, 2), {"c": 1}, "c")]:
            with pytest.raises(loom.InvalidInput) as caught:
                await client.start(untyped, *args, **kwargs)
            assert caught.value.details == {"field": field}
        with pytest.raises(loom.InvalidInput):
            await client.start(untyped, 1, 2, 3)
        assert await client.runs() == []


async def test_an_actor_that_nobody_knows(connected: Connected) -> None:
    async with connected(speaking()) as client:
        with pytest.raises(loom.UnknownProducer) as caught:
            await client.start("wrods", 3)
        assert "words" in caught.value.message
        assert await client.runs() == []


async def test_what_is_no_actor_at_all(connected: Connected) -> None:
    async with connected(speaking()) as client:
        untyped: Any = client
        with pytest.raises(loom.UsageError):
            await untyped.start(print, 3)
        with pytest.raises(loom.UsageError):
            await client.start("words", 1, 2)
        with pytest.raises(loom.InvalidInput):
            await client.start("words", object())


async def test_what_the_models_used_comes_with_the_end(connected: Connected) -> None:
    answer: list[Any] = ["Hi", loom.FinishReasonPart("stop"), loom.UsagePart(3, 1)]
    app = loom.App(ai=FakeAI(answer))

    @app.actor
    async def chat(ctx: loom.Context, fail: bool) -> AsyncIterator[str]:
        async for token in ctx.ai.stream_completion("hi"):
            yield token
        if fail:
            raise ValueError

    @app.actor
    async def plain() -> int:
        return 1

    async with connected(app) as client:
        for fail in False, True:
            run = await client.start(chat, fail)
            assert await run.usage() == loom.Usage(3, 1, calls=1)
            chunks = [chunk async for chunk in run.chunks(raise_errors=False)]
            assert chunks[-1].usage == loom.Usage(3, 1, calls=1)
        assert await (await client.start(plain)).usage() is None

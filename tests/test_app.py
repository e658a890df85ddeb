"""The app: what users declare, and what its runs share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest

import loom
from loom.model.errors import InvalidInput, UnknownProducer, UsageError
from loom.model.options import Options
from loom.testing import FakeAI

pytestmark = pytest.mark.anyio


async def nothing() -> None: ...


class Trace:
    """Lifespans that note when they open and close."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def lifespan(self, name: str, value: Any = None) -> Callable[[loom.App], AbstractAsyncContextManager[Any]]:
        @asynccontextmanager
        async def lifespan(app: loom.App) -> AsyncIterator[Any]:
            self.events.append(f"open {name}")
            try:
                yield value
            finally:
                self.events.append(f"close {name}")

        return lifespan


class Model(FakeAI):
    """A model that notes when it is closed."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(["answer"])
        self._trace = trace
        trace.events.append("made")

    async def aclose(self) -> None:
        self._trace.events.append("closed")


# --- actors ----------------------------------------------------------------------------------------------------------


def test_bare_named_and_with_options() -> None:
    app = loom.App()

    @app.actor
    async def bare() -> None: ...

    @app.actor("named")
    async def other() -> None: ...

    @app.actor(queue="slow", timeout=timedelta(seconds=5), idle_timeout=1.5, ahead=3, max_crashes=1)
    async def optioned() -> None: ...

    assert [producer.name for producer in app.registry] == ["bare", "named", "optioned"]
    assert optioned.options == Options(queue="slow", timeout=5.0, idle_timeout=1.5, ahead=3)
    assert optioned.max_crashes == 1


def test_what_no_actor_declares_is_refused() -> None:
    wrong: dict[str, Any] = {"colour": "red"}
    for unknown in (wrong, {"key": "k"}):
        with pytest.raises(TypeError, match=next(iter(unknown))):
            loom.App().actor("a", **unknown)


def test_a_name_that_is_taken_is_refused() -> None:
    app = loom.App()
    app.actor("a")(nothing)
    with pytest.raises(UsageError, match="'a'"):
        app.actor("a")(nothing)


def test_types_local_to_where_it_stands_are_found() -> None:
    class Local(msgspec.Struct):
        pass

    app = loom.App()

    @app.actor
    def bare(item: Local | None = None) -> Local | None:
        return item

    @app.actor("named")
    async def named(item: Local | None = None) -> None: ...

    assert len(app.registry) == 2


# --- including -------------------------------------------------------------------------------------------------------


def test_included_producers_have_their_names_behind_the_prefix() -> None:
    app, tools, inner = loom.App(), loom.App(), loom.App()
    inner.actor("deep")(nothing)
    tools.actor("one")(nothing)
    tools.include(inner, prefix="in.")
    app.include(tools, prefix="tools.")
    assert sorted(producer.name for producer in app.registry) == ["tools.in.deep", "tools.one"]


@pytest.mark.parametrize(("prefix", "error"), [("", UsageError), ("no/name/", InvalidInput), ("x" * 200, InvalidInput)])
def test_a_name_that_does_not_fit_takes_nothing_over(prefix: str, error: type[Exception]) -> None:
    app, tools = loom.App(), loom.App()
    tools.actor("one")(nothing)
    tools.actor("two")(nothing)
    app.actor("two")(nothing)
    with pytest.raises(error):
        app.include(tools, prefix=prefix)
    assert [producer.name for producer in app.registry] == ["two"]


def test_a_circle_is_refused() -> None:
    app, tools = loom.App(), loom.App()
    app.include(tools)
    with pytest.raises(UsageError):
        tools.include(app, prefix="x.")
    with pytest.raises(UsageError):
        app.include(app, prefix="x.")


# --- resources -------------------------------------------------------------------------------------------------------


async def test_the_lifespan_surrounds_the_runs_and_is_found_by_them() -> None:
    trace = Trace()
    app = loom.App(lifespan=trace.lifespan("app", {"db": 7}))

    @app.actor(requires=["db"])
    async def work(ctx: loom.Context) -> int:
        trace.events.append("run")
        db: int = ctx.resources["db"]
        return db

    async with loom.testing.client(app) as client:
        assert await client.execute(work) == 7
    assert trace.events == ["open app", "run", "close app"]


async def test_each_app_s_lifespan_opens_once_and_its_producers_see_their_own() -> None:
    trace = Trace()
    shared = loom.App(lifespan=trace.lifespan("shared", "shared"))
    left, right = loom.App(lifespan=trace.lifespan("left", "left")), loom.App()
    app = loom.App(lifespan=trace.lifespan("app", "app"))
    for owner, name in ((shared, "s"), (left, "l"), (right, "r"), (app, "a")):
        owner.actor(name)(nothing)
    left.include(shared, prefix="left.")
    right.include(shared, prefix="right.")
    app.include(left)
    app.include(right)
    async with app.resources() as resources:
        assert trace.events == ["open app", "open left", "open shared"]
        assert resources.values == {
            "a": "app", "l": "left", "r": None, "left.s": "shared", "right.s": "shared",
        }  # fmt: skip
    assert trace.events[3:] == ["close shared", "close left", "close app"]


class Pool:
    def __init__(self) -> None:
        self.db = 1


@pytest.mark.parametrize(
    ("value", "there"), [({"db": 1}, True), (Pool(), True), ({}, False), (None, False), (7, False)]
)
async def test_what_is_required_must_be_provided(value: Any, there: bool) -> None:
    trace = Trace()
    app = loom.App(lifespan=trace.lifespan("app", value))
    app.actor("needy", requires=["db"])(nothing)
    if there:
        async with app.resources() as resources:
            assert resources.values["needy"] is value
    else:
        with pytest.raises(UsageError, match=r"'needy' requires the resource 'db'"):
            async with app.resources():
                raise AssertionError("it must not start")
    assert trace.events == ["open app", "close app"]


async def test_a_default_actor_that_is_none_is_told_at_the_start() -> None:
    app = loom.App(default_actor="nobody")
    with pytest.raises(UnknownProducer, match="no actor is named 'nobody'"):
        async with app.resources():
            pass


async def test_a_lifespan_that_fails_closes_what_was_open() -> None:
    trace = Trace()

    @asynccontextmanager
    async def failing(app: loom.App) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    app = loom.App(lifespan=trace.lifespan("app"))
    app.include(loom.App(lifespan=failing))
    with pytest.raises(OSError, match="no database"):
        async with app.resources():
            raise AssertionError("it must not start")
    assert trace.events == ["open app", "close app"]


# --- the model -------------------------------------------------------------------------------------------------------


async def test_the_default_model_is_made_when_asked_for_once_and_closed() -> None:
    trace = Trace()
    app, other = loom.App(), loom.App()
    app.actor("a")(nothing)
    other.actor("b")(nothing)
    app.include(other)
    async with app.resources(lambda: Model(trace)) as resources:
        lend_a, lend_b = resources.ais["a"], resources.ais["b"]
        assert lend_a is not None
        assert lend_b is not None
        assert trace.events == []
        assert lend_a() is lend_b() is lend_a()
        assert trace.events == ["made"]
    assert trace.events == ["made", "closed"]


async def test_a_default_model_nobody_asked_for_is_not_made() -> None:
    trace = Trace()
    app = loom.App()
    app.actor("a")(nothing)
    async with app.resources(lambda: Model(trace)):
        pass
    assert trace.events == []


async def test_an_app_s_own_model_is_used_and_stays_open() -> None:
    trace = Trace()
    own = Model(trace)
    app, other = loom.App(), loom.App(ai=own)
    app.actor("a")(nothing)
    other.actor("b")(nothing)
    app.include(other)
    async with app.resources() as resources:
        lend_a, lend_b = resources.ais["a"], resources.ais["b"]
        assert lend_a is not None
        with pytest.raises(UsageError, match="OPENAI_API_KEY"):
            lend_a()
        assert lend_b is not None
        assert lend_b() is own
    assert trace.events == ["made"]


async def test_a_function_makes_the_model_once_for_all_of_its_apps_and_it_is_closed() -> None:
    trace = Trace()

    def make() -> Model:
        return Model(trace)

    app, other = loom.App(ai=make), loom.App(ai=make)
    app.actor("a")(nothing)
    other.actor("b")(nothing)
    app.include(other)
    for _ in range(2):  # as two event loops, one behind the other
        trace.events.clear()
        async with app.resources(lambda: pytest.fail("the environment is not asked")) as resources:
            lends = [resources.ais[name] for name in "ab"]
            assert trace.events == []
            assert lends[0] is not None
            assert lends[1] is not None
            assert lends[0]() is lends[1]()
        assert trace.events == ["made", "closed"]


@pytest.mark.parametrize("ai", ["sk-a-secret-key", 7, object()])
def test_what_is_no_model_is_refused_at_declaration_and_not_shown(ai: Any) -> None:
    with pytest.raises(UsageError, match=r"App\(ai=...\) takes a loom.AI.*not (str|int|object)$") as raised:
        loom.App(ai=ai)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("made", ["sk-a-secret-key", object()])
async def test_a_function_that_makes_no_model_is_refused_each_time(made: Any) -> None:
    app = loom.App(ai=lambda: made)

    @app.actor
    async def support(ctx: loom.Context) -> str:
        return await ctx.ai.complete("hi")

    async with app.resources() as resources:
        model = resources.ais["support"]
        assert model is not None
        for _ in range(2):
            with pytest.raises(UsageError, match=r"a function that returns one, not (str|object)$"):
                model()


async def test_without_a_model_the_run_fails_and_names_the_ways_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    without_providers(monkeypatch)
    app = loom.App()

    @app.actor
    async def support(question: str, ctx: loom.Context) -> AsyncIterator[str]:
        async for token in ctx.ai.stream_completion(question):
            yield token

    async with loom.testing.client(app) as client:
        run = await client.start(support, "Where is my refund?")
        with pytest.raises(loom.RunFailed, match=r"OPENAI_BASE_URL.*ANTHROPIC_API_KEY.*App\(ai=.*FakeAI") as raised:
            await run.result(timeout=10)
        assert [chunk.type async for chunk in run.chunks(raise_errors=False)] == ["start", "error"]
    assert not raised.value.retryable


@pytest.mark.parametrize("url", [None, "localhost:11434"])
async def test_an_app_whose_actor_requires_a_model_does_not_start_without_one(
    monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    without_providers(monkeypatch)
    if url is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
    app = loom.App()
    app.actor("support", requires=["ctx.ai"])(nothing)
    with pytest.raises(UsageError, match=r"actor 'support' requires ctx.ai: .*(OPENAI_API_KEY|base URL)"):
        async with loom.testing.client(app):
            raise AssertionError("it must not start")
    app.ai = loom.testing.FakeAI([])
    async with loom.testing.client(app):
        pass


def without_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)

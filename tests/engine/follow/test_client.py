"""The client: what a call means as a request, and what becomes of it when its caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta
from typing import Any, cast

import pytest

import loom
from loom.engine.declare.producer import Producer
from loom.engine.follow.client import Client, new_id
from loom.engine.follow.transport import StoreTransport
from loom.model.errors import (
    Conflict,
    HandleClosed,
    InvalidInput,
    LimitExceeded,
    RunCancelled,
    UnknownProducer,
    UsageError,
)
from loom.model.options import DECLARABLE, DeclaredOptions
from loom.model.run import Head, Meta
from loom.stores.memory import MemoryStore
from loom.tasks import cancel_and_wait, spawn
from loom.wire.json import decode
from tests.engine.kit import running, turns, until
from tests.faults.store import FaultStore

pytestmark = pytest.mark.anyio


class Place:
    """A client without a worker: what is started stays queued."""

    def __init__(self) -> None:
        self.store = FaultStore(MemoryStore())
        self.app = loom.App()
        self.client = Client(StoreTransport(self.store, self.app.registry))

    async def started(self, producer: Any, *args: Any, **kwargs: Any) -> Head:
        return await (await self.client.start(producer, *args, **kwargs)).status(full=True)


@pytest.fixture
def place() -> Place:
    return Place()


def input_of(head: Head) -> Any:
    return decode(bytes(head.meta.input))


# --- requests --------------------------------------------------------------------------------------------------------


async def test_a_call_by_function_is_checked_by_its_signature(place: Place) -> None:
    @place.app.actor
    async def add(a: int, b: int = 1) -> int:
        return a + b

    assert input_of(await place.started(add, 2)) == {"a": 2}
    assert input_of(await place.started(add, a=2, b=3)) == {"a": 2, "b": 3}
    with pytest.raises(InvalidInput):
        await place.client.start(add)  # type: ignore[call-overload]
    with pytest.raises(InvalidInput):
        await place.client.start(add, "x")  # type: ignore[call-overload]
    assert len(await place.client.runs()) == 2


async def test_a_call_by_name_gives_the_input_or_its_fields(place: Place) -> None:
    @place.app.actor("add")
    async def add(a: int, b: int = 1) -> int:
        return a + b

    assert input_of(await place.started("add", {"a": 2})) == {"a": 2}
    assert input_of(await place.started("add", a=2, b=3)) == {"a": 2, "b": 3}
    for args, kwargs in (((1, 2), {}), ((1,), {"b": 2})):
        with pytest.raises(UsageError, match="one argument"):
            await place.client.start("add", *args, **kwargs)
    with pytest.raises(UsageError, match=r"'tiemout' is no option$"):
        await place.client.start("add", {"a": 1}, tiemout=3)
    with pytest.raises(UnknownProducer):
        await place.client.start("nobody", 1)


async def test_what_is_no_producer_is_refused(place: Place) -> None:
    async def plain() -> None: ...

    for what in (plain, 7, None):
        with pytest.raises(UsageError, match=r"@app\.actor"):
            await place.client.start(what)  # type: ignore[call-overload]


async def test_options_of_the_call_go_before_the_bound_and_the_declared(place: Place) -> None:
    @place.app.actor(queue="declared", timeout=10, ahead=1)
    async def work(n: int) -> int:
        return n

    bound = work.using(queue="bound", key="k", timeout=timedelta(seconds=20))
    meta = (await place.started(work, 1)).meta
    assert (meta.queue, meta.key, meta.timeout, meta.ahead, meta.owner_lease) == ("declared", None, 10.0, 1, None)
    meta = (await place.started(bound, 1)).meta
    assert (meta.queue, meta.key, meta.timeout, meta.ahead) == ("bound", "k", 20.0, 1)
    meta = (await place.started(bound, 1, queue="call", idle_timeout=3)).meta
    assert (meta.queue, meta.key, meta.timeout, meta.idle_timeout) == ("call", "k", 20.0, 3)


DECLARED: DeclaredOptions = {
    "queue": "jobs", "priority": "low", "timeout": 10, "idle_timeout": 5, "ahead": 3, "retention": 60,
    "labels": {"team": "a"},
}  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "queue": "default", "priority": "normal", "timeout": None, "idle_timeout": None, "ahead": None, "retention": None,
    "labels": {},
}  # fmt: skip


def declaring(app: loom.App) -> Producer[[int], Coroutine[Any, Any, int]]:
    """An actor of which every option is declared."""

    @app.actor("work", **DECLARED)
    async def work(n: int) -> int:
        return n

    return work


def options_of(meta: Meta) -> dict[str, Any]:
    return {name: getattr(meta, name) for name in DECLARABLE}


@pytest.mark.parametrize("option", DECLARABLE)
@pytest.mark.parametrize("how", ["function", "using", "name"])
async def test_an_option_that_is_given_wins_also_with_its_default(place: Place, how: str, option: str) -> None:
    work = declaring(place.app)
    declared = options_of((await place.started(work, 1)).meta)
    assert declared == DECLARED
    given = {option: DEFAULTS[option]}
    calls = {"function": (work, given), "using": (work.using(**given), {}), "name": ("work", given)}
    producer, kwargs = calls[how]
    head = await place.started(producer, 1, **kwargs)
    assert options_of(head.meta) == {**declared, **given}
    assert head.meta.assumed == ()


@pytest.mark.parametrize("option", ["id", "key", "delay"])
async def test_none_lifts_what_was_bound(place: Place, option: str) -> None:
    work = declaring(place.app)
    bound = work.using(**{option: {"id": "taken", "key": "k", "delay": 9}[option]})  # type: ignore[arg-type]
    meta = (await place.started(bound, 1, **{option: None})).meta
    assert (meta.run != "taken", meta.key, meta.not_before) == (True, None, None)


@pytest.mark.parametrize("option", ["queue", "priority"])
async def test_a_run_without_a_queue_or_a_priority_there_is_none(place: Place, option: str) -> None:
    work = declaring(place.app)
    meta = (await place.started(work, 1, **{option: None})).meta
    assert (meta.queue, meta.priority) == ("jobs", "low")


async def test_an_actor_lifts_its_app_s_retention(place: Place) -> None:
    app = loom.App(retention=60)
    client = Client(StoreTransport(place.store, app.registry))

    @app.actor
    async def brief() -> None: ...

    @app.actor(retention=None)
    async def usual() -> None: ...

    kept = [(await (await client.start(actor)).status()).meta.retention for actor in (brief, usual)]
    assert kept == [60.0, None]


async def test_a_client_without_an_app_knows_a_function_and_what_it_declares(place: Place) -> None:
    work = declaring(loom.App())
    client = Client(StoreTransport(place.store))
    for wrong in ((), ("x",), (1, 2)):
        with pytest.raises(InvalidInput):
            await client.start(cast(Any, work), *wrong)
    assert await client.runs() == []
    meta = (await (await client.start(work.using(queue="default", timeout=None), 1)).status()).meta
    assert options_of(meta) == {**DECLARED, "queue": "default", "timeout": None}
    assert meta.assumed == ()


async def test_a_client_without_an_app_says_what_it_assumed_of_a_name(place: Place) -> None:
    client = Client(StoreTransport(place.store))
    meta = (await (await client.start("work", 1, queue="jobs", timeout=None)).status()).meta
    assert options_of(meta) == {**DEFAULTS, "queue": "jobs"}
    assert meta.assumed == ("idle_timeout", "ahead", "priority", "retention", "labels")


async def test_a_parameter_that_is_named_like_an_option_is_the_parameter(place: Place) -> None:
    @place.app.actor
    async def find(id: str, key: str = "x") -> str:
        return id

    head = await place.started(find, id="an item", key="y", queue="slow")
    assert input_of(head) == {"id": "an item", "key": "y"}
    assert (head.meta.key, head.meta.queue) == (None, "slow")
    bound = await place.started(find.using(id="the-run"), id="an item")
    assert bound.meta.run == "the-run"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("id", "no/id"),
        ("key", ""),
        ("queue", "a b"),
        ("timeout", 0),
        ("timeout", "5s"),
        ("idle_timeout", -1),
        ("ahead", 0),
    ],
)
async def test_an_option_that_does_not_fit_is_named(place: Place, option: str, value: Any) -> None:
    @place.app.actor
    async def work() -> None: ...

    with pytest.raises(InvalidInput) as raised:
        await place.client.start(work.using(**{option: value}))
    assert raised.value.details == {"field": option}
    assert await place.client.runs() == []


async def test_an_input_that_is_too_large_is_refused(place: Place) -> None:
    @place.app.actor
    async def work(text: str) -> None: ...

    with pytest.raises(LimitExceeded):
        await place.client.start(work, "x" * (2 << 20))


async def test_an_id_makes_starting_twice_starting_once(place: Place) -> None:
    @place.app.actor
    async def work(n: int) -> int:
        return n

    runs = [await place.client.start(work.using(id="mine"), 1) for _ in range(2)]
    assert [run.id for run in runs] == ["mine", "mine"]
    assert len(await place.client.runs()) == 1
    with pytest.raises(Conflict):
        await place.client.start(work.using(id="mine"), 2)


def test_ids_are_new_and_in_order_of_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [id[:11] for id in ids] == sorted(id[:11] for id in ids)


async def test_a_handle_needs_no_run(place: Place) -> None:
    assert place.client.run("nowhere").id == "nowhere"
    with pytest.raises(InvalidInput):
        place.client.run("no/id")
    assert sum(place.store.calls.values()) == 0


async def test_a_stream_that_is_not_entered_starts_nothing(place: Place) -> None:
    @place.app.actor
    async def work() -> None: ...

    place.client.stream(work)
    with pytest.raises(UsageError):
        place.client.stream(7)  # type: ignore[call-overload]
    assert await place.client.runs() == []


async def test_a_closed_client_says_so(place: Place) -> None:
    @place.app.actor
    async def work() -> None: ...

    async with place.client as client:
        run = await client.start(work)
    for use in (client.start(work), client.runs(), client.actors(), client.execute(work), run.status(), run.cancel()):
        with pytest.raises(HandleClosed):
            await use
    with pytest.raises(HandleClosed):
        client.run("x")


# --- with a worker ---------------------------------------------------------------------------------------------------


async def test_execute_is_start_wait_and_result(place: Place) -> None:
    @place.app.actor
    async def double(n: int) -> int:
        return 2 * n

    @place.app.actor
    async def write(text: str) -> AsyncIterator[str]:
        for letter in text:
            yield letter

    @place.app.actor
    async def fail() -> None:
        raise ValueError("bad")

    async with running(place.store, place.app) as client:
        assert await client.execute(double, 4) == 8
        assert await client.execute(write, "abc") == "abc"
        with pytest.raises(loom.RunFailed, match="bad"):
            await client.execute(fail)


async def test_cancelling_execute_cancels_the_run(place: Place) -> None:
    gone = asyncio.Event()

    @place.app.actor
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    async with running(place.store, place.app) as client:
        executing = spawn(client.execute(endless), "execute")
        await until(lambda: place.store.calls["append"] == 1)
        await turns()
        await cancel_and_wait(executing)
        await gone.wait()
        (head,) = await client.runs()
        with pytest.raises(RunCancelled):
            await client.run(head.meta.run).result()


async def test_a_detached_run_outlives_its_viewer_and_its_client(place: Place) -> None:
    go = asyncio.Event()

    @place.app.actor
    async def patient() -> str:
        await go.wait()
        return "done"

    async with running(place.store, place.app) as client:
        async with Client(StoreTransport(place.store, place.app.registry)) as other:
            run = await other.start(patient)
            watching = spawn(run.result(), "watch")
            await turns()
            await cancel_and_wait(watching)
        go.set()
        assert await client.run(run.id).result() == "done"

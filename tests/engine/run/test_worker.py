"""The worker: claims, renews, sweeps, drains; on virtual time, beside other workers on the same store."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from loom.engine.declare.context import Context
from loom.engine.declare.options import Retry
from loom.engine.declare.registry import Registry
from loom.engine.declare.signature import make_producer
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.attempt import Ending
from loom.engine.run.strangers import STRANGER_PAUSE
from loom.engine.run.worker import ATTEND_EVERY, CLAIM_WAIT, RENEWED_AT_ONCE, Worker
from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import Fenced, Unavailable
from loom.model.grammar import State
from loom.model.options import Options
from loom.model.run import Claim, Head, Meta, Start
from loom.stores.memory import MemoryStore
from loom.tasks import cancel_and_wait, spawn
from loom.wire.json import encode
from tests.engine.kit import chunks_in, data_in, grammatical, later, turns, types_in, until
from tests.engine.rig import LEASE, Driving, Rig
from tests.faults.store import FaultStore
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.anyio

CONTINUE = Retry(mode="continue", backoff=(1.0, 1.0))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualLoop}


class Place:
    """A store, producers, and any number of workers, each with its own way to the store."""

    def __init__(self, clock: Callable[[], float], stack: AsyncExitStack) -> None:
        self.clock = clock
        self.store = MemoryStore(clock=clock)
        self.registry = Registry()
        self.transport = StoreTransport(self.store)
        self._stack = stack

    def actor(self, target: Callable[..., Any], name: str = "actor", **options: Any) -> None:
        self.registry.add(make_producer(name, target, **options))

    async def start(
        self, run: str = "run", input: Any = None, actor: str = "actor", lease: float | None = None, **options: Any
    ) -> None:
        await self.transport.start(
            Start(run=run, actor=actor, input=msgspec.Raw(encode(input)), owner_lease=lease, options=Options(**options))
        )

    async def worker(
        self, name: str = "w", *, registry: Registry | None = None, **options: Any
    ) -> tuple[Worker, FaultStore]:
        """A worker that runs until the test ends (then it is drained within no time), and its way to the store."""
        store = FaultStore(self.store)
        options.setdefault("drain", 0.0)
        worker = Worker(store, self.registry if registry is None else registry, name=name, lease=LEASE, **options)
        await self._stack.enter_async_context(worker)
        return worker, store

    async def ended(self, run: str = "run") -> Head:
        """The run's head, once it has ended."""
        while not (head := await self.store.runs.get(run)).ended:
            page = await self.store.logs.read(run, head.latest, wait=10_000.0)
            assert page.batches
        assert grammatical(await chunks_in(self.store, run)) is State.ENDED
        return head


@pytest.fixture
async def place(virtual_time: Callable[[], float]) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        yield Place(virtual_time, stack)


class Gate:
    """A producer that says its attempt, and ends when the gate is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.running = 0
        self.most = 0
        self.began: list[Any] = []

    async def stream(self, ctx: Context, n: Any = None) -> AsyncIterator[Any]:
        self.began.append(ctx.run_id)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield ctx.attempt
            await self.open.wait()
        finally:
            self.running -= 1

    async def silent(self, ctx: Context) -> None:
        self.began.append(ctx.run_id)
        await self.open.wait()

    async def runs(self, count: int = 1) -> None:
        await later(lambda: self.running == count)


# --- actors that it does not know -------------------------------------------------------------------------------------


async def test_a_run_of_an_unknown_actor_waits_for_a_worker_that_has_it(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """As while a release is rolled out: it is an attempt of none but the new one. Others' runs are not held up."""
    gate = Gate()
    gate.open.set()
    place.actor(gate.stream, "old")
    await place.worker("earlier")
    await place.start("first", actor="new")
    await place.start("second", actor="new")
    await place.start("other", actor="old")
    assert (await place.ended("other")).state == "completed"
    await asyncio.sleep(limits.STRANGER_WAIT / 2)
    assert not (await place.store.runs.get("first")).epochs
    assert [record.message.split(":")[1] for record in caplog.records] == [" no actor is named 'new' here (run first)"]
    newer = Registry()
    newer.add(make_producer("new", gate.stream))
    await place.worker("later", registry=newer)
    for run in ("first", "second"):
        assert (await place.ended(run)).state == "completed"
        assert data_in(await chunks_in(place.store, run)) == [1]


async def test_a_run_is_left_to_whoever_has_its_actor_for_as_long_as_it_takes(place: Place) -> None:
    """It may have no room. One that drains, or serves another queue, is not waited for."""
    gate = Gate()
    newer = Registry()
    newer.add(make_producer("new", gate.stream))
    busy, _ = await place.worker("busy", registry=newer, concurrency=1)
    await place.start("first", actor="new")
    await gate.runs(1)
    await place.worker("stranger")
    await place.start("second", actor="new")
    await asyncio.sleep(3 * limits.STRANGER_WAIT)
    assert [(entry.run, entry.place) for entry in await place.store.queue.list_entries()] == [
        ("first", "leased"),
        ("second", "ready"),
    ]
    gate.open.set()
    assert (await place.ended("second")).state == "completed"
    await place.store.workers.request_drain("busy")
    await busy.wait_asked()
    await place.worker("elsewhere", registry=newer, queues=["other"])
    await place.start("third", actor="new")
    assert (await place.ended("third")).state == "failed"


async def test_a_run_whose_actor_no_worker_has_ends_with_a_clear_error(place: Place) -> None:
    """After a while; then its like do at once, until a worker has it."""
    await place.worker("one")
    began = place.clock()
    await place.start("first", actor="nobody")
    await place.start("second", actor="nobody")
    error = (await place.ended("first")).error
    assert error is not None
    assert error.code == "unknown_producer"
    waited = place.clock() - began
    assert limits.STRANGER_WAIT <= waited <= limits.STRANGER_WAIT + 2 * STRANGER_PAUSE
    await place.ended("second")
    await place.start("third", actor="nobody")
    await place.ended("third")
    assert place.clock() - began - waited < 1.0


async def test_that_it_is_not_known_who_has_an_actor_ends_nothing(place: Place) -> None:
    worker, store = await place.worker("one")
    store.refuse("list_workers", times=1_000_000)
    await place.start("run", actor="nobody")
    await asyncio.sleep(3 * limits.STRANGER_WAIT)
    assert not (await place.store.runs.get("run")).ended
    assert len(worker) == 0


# --- claiming --------------------------------------------------------------------------------------------------------


async def test_what_is_started_is_driven_and_acknowledged(place: Place) -> None:
    gate = Gate()
    gate.open.set()
    place.actor(gate.stream)
    worker, store = await place.worker()
    await place.start()
    assert (await place.ended()).state == "completed"
    await until(lambda: store.calls["ack"] == 1)
    assert len(worker) == 0
    assert await place.store.queue.claim(["default"], "other", lease=1, wait=0) is None


async def test_only_so_many_at_a_time(place: Place) -> None:
    gate = Gate()
    place.actor(gate.stream)
    await place.worker(concurrency=3)
    for n in range(10):
        await place.start(f"run{n}")
    await gate.runs(3)
    await turns(100)
    gate.open.set()
    for n in range(10):
        await place.ended(f"run{n}")
    assert gate.most == 3


async def test_runs_of_one_key_go_one_at_a_time_in_order(place: Place) -> None:
    order: list[tuple[str, str]] = []

    async def work(ctx: Context) -> None:
        order.append(("begin", ctx.run_id))
        await asyncio.sleep(1)
        order.append(("end", ctx.run_id))

    place.actor(work)
    await place.worker("w1")
    await place.worker("w2")
    for n in range(5):
        await place.start(f"run{n}", key="k")
    for n in range(5):
        await place.ended(f"run{n}")
    assert order == [(what, f"run{n}") for n in range(5) for what in ("begin", "end")]


async def test_a_worker_takes_from_its_own_queues_only(place: Place) -> None:
    gate = Gate()
    gate.open.set()
    place.actor(gate.stream)
    await place.worker(queues=["mine", "also-mine"])
    await place.start("other", queue="default")
    await place.start("mine", queue="mine")
    await place.start("also", queue="also-mine")
    await place.ended("mine")
    await place.ended("also")
    assert (await place.store.runs.get("other")).state == "queued"


async def test_one_that_never_suspends_does_not_starve_the_others(place: Place) -> None:
    ended = asyncio.Event()

    async def busy() -> AsyncIterator[int]:
        while not ended.is_set():
            yield 1

    async def short() -> int:
        return 1

    place.actor(busy, "busy")
    place.actor(short, "short")
    await place.worker()
    await place.start("busy", actor="busy")
    await until(lambda: place.store)
    await place.start("short", actor="short")
    await place.ended("short")
    assert not (await place.store.runs.get("busy")).ended
    ended.set()
    await place.ended("busy")


@pytest.mark.parametrize("error", [Unavailable, ZeroDivisionError])
@pytest.mark.parametrize(("call", "times"), [("claim", 3), ("sweep", 3), ("renew", 1)])
async def test_a_store_that_fails_for_a_while_leaves_a_worker_at_work(
    place: Place, call: str, times: int, error: type[Exception]
) -> None:
    gate = Gate()
    place.actor(gate.stream)
    _, store = await place.worker()
    store.refuse(call, error("by test"), times=times)
    await place.start()
    await gate.runs()
    await asyncio.sleep(3 * LEASE)
    assert store.calls[call] > times
    gate.open.set()
    assert (await place.ended()).attempt == 1


async def test_a_run_that_no_queue_holds_is_found(place: Place) -> None:
    gate = Gate()
    gate.open.set()
    place.actor(gate.stream)
    await place.worker()
    await turns()
    await place.store.runs.create(Meta(run="run", actor="actor"))
    before = place.clock()
    await place.ended()
    assert place.clock() - before <= limits.SWEEP_EVERY + CLAIM_WAIT


# --- leases ----------------------------------------------------------------------------------------------------------


async def test_a_lease_is_renewed_while_the_run_goes_on(place: Place) -> None:
    gate = Gate()
    place.actor(gate.silent)
    _, store = await place.worker("w1")
    await place.start()
    await until(lambda: gate.began)
    _, other = await place.worker("w2")
    await asyncio.sleep(10 * LEASE)
    gate.open.set()
    head = await place.ended()
    assert head.attempt == 1
    assert store.calls["renew"] >= 10 * limits.RENEW_FRACTION - 1
    assert other.calls["fence"] == 0


@pytest.mark.parametrize("retry", [None, CONTINUE])
async def test_who_cannot_renew_stops_at_the_lease_s_end_and_another_takes_over(
    place: Place, retry: Retry | None
) -> None:
    gate = Gate()
    place.actor(gate.stream, retry=retry)
    _, store = await place.worker("w1")
    await place.start()
    await gate.runs()
    store.out = True
    cut = place.clock()
    await later(lambda: not gate.running)
    assert place.clock() - cut <= LEASE + 0.2
    appended = len(store.appended)
    await place.worker("w2")
    if retry is not None:
        await gate.runs()
        gate.open.set()
    head = await place.ended()
    assert place.clock() - cut <= LEASE + LEASE / limits.RENEW_FRACTION + CLAIM_WAIT
    assert len(store.appended) == appended
    assert head.state == ("lost" if retry is None else "completed")
    assert data_in(await chunks_in(place.store)) == ([1] if retry is None else [1, 2])


@pytest.mark.parametrize("at", [0.0, 0.3, LEASE / 2, LEASE])
async def test_workers_that_stood_still_together_keep_their_claims(place: Place, at: float) -> None:
    """A machine that was suspended, a loop that was blocked: nobody is taken for lost, and no attempt is counted."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)

    async def patient(ctx: Context) -> AsyncIterator[int]:
        yield ctx.attempt
        await asyncio.sleep(20 * LEASE)

    place.actor(patient)
    await place.worker("w1")
    await place.worker("w2")
    await place.start()
    await asyncio.sleep(at)
    for _ in range(3):
        loop.stand_still(3 * LEASE)
        await asyncio.sleep(LEASE)
    head = await place.ended()
    assert data_in(await chunks_in(place.store)) == [1]
    assert head.error is None


async def test_a_paused_worker_that_wakes_up_late_adds_nothing(place: Place) -> None:
    """The runner without its worker renews nothing and looks at no clock: it is the store that refuses."""
    gate, late = Gate(), asyncio.Event()

    async def stream(ctx: Context) -> AsyncIterator[str]:
        yield f"attempt {ctx.attempt}"
        await (late if ctx.attempt == 1 else gate.open).wait()
        yield f"late {ctx.attempt}"

    place.actor(stream, retry=CONTINUE)
    await place.start()
    rig = Rig(place.clock)
    rig.store, rig.registry = FaultStore(place.store), place.registry
    paused = Driving(rig, await rig.claim("paused"))
    await rig.said("attempt 1")
    _, store = await place.worker("w2")
    await rig.said("attempt 2")
    late.set()
    assert await paused() is Ending.GIVEN_UP
    assert [batch.epoch for batch, _ in rig.store.appended[-1:]] != [store.appended[-1][0].epoch]
    with pytest.raises(Fenced):
        await place.store.queue.renew(paused.claim)
    with pytest.raises(Fenced):
        await place.store.queue.ack(paused.claim)
    gate.open.set()
    await place.ended()
    assert data_in(await chunks_in(place.store)) == ["attempt 1", "attempt 2", "late 2"]


async def test_a_worker_that_lost_a_run_stops_its_producer_at_the_next_renewal(place: Place) -> None:
    gate = Gate()
    place.actor(gate.silent, "actor", retry=CONTINUE)
    worker, store = await place.worker("w1")
    await place.start()
    await until(lambda: gate.began)
    store.refuse("renew", Fenced("another has it"))
    await asyncio.sleep(LEASE / limits.RENEW_FRACTION + 0.1)
    await until(lambda: not len(worker))
    assert store.calls["ack"] == store.calls["release"] == 0


async def test_a_lost_run_is_stopped_once_however_long_its_clean_up_takes(place: Place) -> None:
    cleaning, cleaned, disturbed = asyncio.Event(), asyncio.Event(), 0

    async def work() -> None:
        nonlocal disturbed
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            try:
                await asyncio.sleep(LEASE * 0.9)
                cleaned.set()
            except asyncio.CancelledError:
                disturbed += 1
                raise

    place.actor(work)
    _, store = await place.worker("w1")
    await place.start()
    store.refuse("renew", Fenced("another has it"), times=100)
    await cleaning.wait()
    await cleaned.wait()
    assert disturbed == 0


async def test_renewals_are_spread_and_none_is_late(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many runs a worker holds, a few at a time are renewed, each of them every third of a lease."""
    gate, count, period = Gate(), 3 * RENEWED_AT_ONCE, LEASE / limits.RENEW_FRACTION
    place.actor(gate.silent)
    _, store = await place.worker("w1", concurrency=count)
    renew_all, renewed = store.queue.renew_all, defaultdict[str, list[float]](list)

    async def noted(claims: Sequence[Claim]) -> list[bool]:
        for claim in claims:
            renewed[claim.run].append(place.clock())
        return await renew_all(claims)

    monkeypatch.setattr(store.queue, "renew_all", noted)
    for number in range(count):
        await place.start(f"run{number}")
    await until(lambda: len(gate.began) == count)
    began = place.clock()
    await asyncio.sleep(5 * LEASE)
    assert len(renewed) == count
    for at in renewed.values():
        assert at[0] - began <= 2 * period
        assert all(after - before <= period + 0.01 for before, after in pairwise(at))
    at_once = Counter(round(moment, 2) for at in renewed.values() for moment in at)
    assert max(at_once.values()) <= RENEWED_AT_ONCE


async def test_a_run_that_lapsed_and_came_back_to_the_same_worker_is_kept(place: Place) -> None:
    gate = Gate()
    place.actor(gate.stream, retry=CONTINUE)
    _, store = await place.worker("w1")
    await place.start()
    await gate.runs()
    for call in range(limits.RENEW_FRACTION):
        store.hold("renew", skip=call)  # for ever: the claim lapses, and the worker itself claims the run again
    await later(lambda: gate.began == ["run", "run"])
    await asyncio.sleep(10 * LEASE)
    assert gate.running == 1
    gate.open.set()
    head = await place.ended()
    assert head.attempt == 2
    assert data_in(await chunks_in(place.store)) == [1, 2]


async def test_one_renewal_that_hangs_holds_up_no_other(place: Place) -> None:
    gate = Gate()
    place.actor(gate.stream, retry=CONTINUE)
    _, store = await place.worker("w1")
    await place.start("hung")
    await gate.runs(1)
    await place.start("fine")
    await gate.runs(2)
    held = store.hold("renew")
    await held.arrived.wait()
    await asyncio.sleep(5 * LEASE)
    gate.open.set()
    await place.ended("hung")
    assert (await place.ended("fine")).attempt == 1


async def test_a_claim_that_is_given_up_lapses_and_ends_in_the_end(place: Place) -> None:
    gate = Gate()
    place.actor(gate.stream)
    _, store = await place.worker()
    store.refuse("fence", ZeroDivisionError("a store's bug"), times=limits.CRASHES + 1)
    await place.start()
    head = await place.ended()
    assert head.state == "dead"
    assert store.calls["fence"] == limits.CRASHES + 2


async def test_an_owned_run_whose_owner_vanishes_is_cancelled_within_its_lease(place: Place) -> None:
    gate = Gate()
    place.actor(gate.stream)
    await place.worker()
    await place.start(lease=6.0)
    await gate.runs()
    before = place.clock()
    assert (await place.ended()).state == "cancelled"
    assert place.clock() - before <= 6.0 + 2.0


# --- at most so many of an actor -------------------------------------------------------------------------------------


async def test_of_an_actor_no_more_than_it_declares(place: Place) -> None:
    """On each worker; others behind it go on, and the next follows as soon as one has ended."""
    few, many = Gate(), Gate()
    place.actor(few.stream, "few", concurrency=2)
    place.actor(many.stream, "many")
    await place.worker("w1")
    for n in range(6):
        await place.start(f"few{n}", actor="few")
    await place.start("many", actor="many")
    await many.runs()
    await few.runs(2)
    assert few.began == ["few0", "few1"]
    await place.worker("w2")
    await few.runs(4)
    before = place.clock()
    few.open.set()
    for n in range(6):
        await place.ended(f"few{n}")
    assert few.most == 4
    assert place.clock() - before < 1.0, "room was noticed at once, not when a claim had waited in vain"


async def test_a_claim_is_given_up_only_for_an_actor_that_had_no_room(place: Place) -> None:
    """The end of any other run lets nothing in that it left out."""
    few, others = Gate(), Gate()
    place.actor(few.stream, "few", concurrency=1)
    place.actor(others.stream, "others")
    _, store = await place.worker()
    await place.start("few", actor="few")
    await few.runs()
    others.open.set()
    await turns()
    before = store.calls["claim"]
    for n in range(5):
        await place.start(f"run{n}", actor="others")
        await place.ended(f"run{n}")
        await turns()
    assert store.calls["claim"] - before == 5
    few.open.set()
    await place.ended("few")


async def test_a_producer_that_does_not_stop_keeps_its_actors_room(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, began = asyncio.Event(), []

    async def stubborn(ctx: Context) -> None:
        began.append(ctx.run_id)
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                continue

    place.actor(stubborn, concurrency=1)
    worker, _ = await place.worker()
    for n in range(2):
        await place.start(f"run{n}")
    await until(lambda: began)
    await place.transport.cancel("run0")
    assert (await place.ended("run0")).error.details == {"abandoned": True}  # type: ignore[union-attr]
    await asyncio.sleep(3 * CLAIM_WAIT)
    assert (worker.abandoned, began) == (1, ["run0"])
    stop.set()
    await place.ended("run1")
    assert began == ["run0", "run1"]


# --- the register ----------------------------------------------------------------------------------------------------


async def test_a_worker_tells_of_itself(place: Place) -> None:
    gate = Gate()
    place.actor(gate.stream)
    worker, store = await place.worker("w1", queues=("default", "slow"), concurrency=7)
    await place.start()
    await gate.runs()
    store.refuse("register", times=2)
    await asyncio.sleep(ATTEND_EVERY)
    (info,) = await place.store.workers.list_workers()
    assert (info.name, info.queues, info.concurrency, info.running) == ("w1", ("default", "slow"), 7, 1)
    assert info.pid == os.getpid()
    gate.open.set()
    await worker.drain()
    assert await place.store.workers.list_workers() == []


async def test_a_worker_that_is_asked_drains(place: Place) -> None:
    """As if told so where it lives: who left it in charge need not do anything."""
    gate = Gate()
    place.actor(gate.stream, retry=CONTINUE)
    worker, _ = await place.worker("w1")
    await place.start()
    await gate.runs()
    await place.store.workers.request_drain("w1")
    await worker.wait_asked()
    await until(lambda: len(worker) == 0)
    await place.start("other")
    await place.worker("w2")
    gate.open.set()
    assert (await place.ended()).attempt == 2
    await place.ended("other")
    assert [info.name for info in await place.store.workers.list_workers()] == ["w2"]
    assert (await worker.drain()).handed_over == ()


async def test_a_register_that_cannot_be_reached_stops_nobody(place: Place) -> None:
    gate = Gate()
    gate.open.set()
    place.actor(gate.stream)
    worker, store = await place.worker()
    store.refuse("register", times=10**6)
    store.refuse("deregister", times=10**6)
    await place.start()
    assert (await place.ended()).state == "completed"
    await worker.drain()


async def test_an_entry_in_another_line_than_its_log_says_is_put_right(place: Place) -> None:
    """Two starts of one id with different keys: the log is the winner's, the entry was the loser's."""
    gate = Gate()
    place.actor(gate.stream)
    await place.store.queue.put(Meta(run="first", actor="actor", key="winner"))
    await place.store.runs.create(Meta(run="run", actor="actor", key="winner"))
    await place.store.queue.put(Meta(run="run", actor="actor", key="loser"))
    await place.worker()
    await gate.runs()
    await until(lambda: gate.began == ["first"])
    await asyncio.sleep(1.0)
    entries = {entry.run: (entry.key, entry.place) for entry in await place.store.queue.list_entries()}
    assert entries == {"first": ("winner", "leased"), "run": ("winner", "behind")}
    gate.open.set()
    assert (await place.ended()).meta.key == "winner"


# --- settling --------------------------------------------------------------------------------------------------------


async def test_an_acknowledgement_that_is_refused_is_repeated(place: Place) -> None:
    gate = Gate()
    gate.open.set()
    place.actor(gate.stream)
    _, store = await place.worker()
    store.refuse("ack", times=3)
    await place.start()
    await place.ended()
    await asyncio.sleep(5)
    assert store.calls["ack"] == 4


async def test_a_renewal_that_comes_after_the_acknowledgement_is_nobodys_takeover(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    place.actor(gate.stream)
    _, store = await place.worker()
    await place.start()
    await gate.runs()
    renewal = store.hold("renew")
    await renewal.arrived.wait()
    store.lose_reply("ack")
    gate.open.set()
    await place.ended()
    await until(lambda: store.calls["ack"] == 1)
    await turns()
    renewal.let_go()
    await later(lambda: store.calls["ack"] == 2)
    assert caplog.messages == []


async def test_an_acknowledgement_that_is_lost_costs_nothing(place: Place) -> None:
    gate = Gate()
    gate.open.set()
    place.actor(gate.stream)
    _, store = await place.worker()
    store.refuse("ack", Fenced("not here"))
    await place.start()
    await place.ended()
    await asyncio.sleep(3 * LEASE)
    assert store.calls["ack"] == 2
    assert gate.began == ["run"]
    assert types_in(await chunks_in(place.store)) == ["start", "data", "complete"]


# --- draining --------------------------------------------------------------------------------------------------------


async def test_draining_hands_over_what_continues_at_once(place: Place) -> None:
    gate = Gate()
    place.actor(gate.stream, retry=CONTINUE)
    worker, store = await place.worker("w1")
    await place.start()
    await gate.runs()
    before = place.clock()
    assert worker.running == {"run": True}
    drained = await worker.drain(100.0)
    assert (drained.finished, drained.handed_over, drained.lost) == ((), ("run",), ())
    assert place.clock() == before
    assert store.calls["release"] == 1
    claim = await place.store.queue.claim(["default"], "other", lease=1, wait=0)
    assert claim is not None
    assert claim.crashes == 0


async def test_draining_lets_the_others_finish(place: Place) -> None:
    async def work() -> str:
        await asyncio.sleep(5)
        return "done"

    place.actor(work)
    worker, _ = await place.worker()
    await place.start()
    await until(lambda: len(worker))
    drained = await worker.drain(20.0)
    assert drained.finished == ("run",)
    assert (await place.ended()).state == "completed"


async def test_draining_keeps_the_leases_of_those_that_finish(place: Place) -> None:
    async def work() -> str:
        await asyncio.sleep(5 * LEASE)
        return "done"

    place.actor(work)
    worker, _ = await place.worker("w1")
    await place.start()
    await until(lambda: len(worker))
    await place.worker("w2")
    drained = await worker.drain(10 * LEASE)
    assert drained.finished == ("run",)
    assert (await place.ended()).attempt == 1


@pytest.mark.parametrize(
    ("target", "retry", "fate"),
    [("stream", None, "lost"), ("stream", Retry(), "handed_over"), ("silent", None, "handed_over")],
)
async def test_what_is_left_is_released_if_it_may_be_tried_again(
    place: Place, target: str, retry: Retry | None, fate: str
) -> None:
    gate = Gate()
    place.actor(getattr(gate, target), retry=retry)
    worker, _ = await place.worker()
    await place.start()
    await until(lambda: gate.began)
    await turns()
    before = place.clock()
    drained = await worker.drain(7.0)
    assert place.clock() - before == pytest.approx(7.0)
    assert getattr(drained, fate) == ("run",)
    assert (await place.store.runs.get("run")).state == ("lost" if fate == "lost" else "running")


async def test_draining_takes_nothing_new(place: Place) -> None:
    gate = Gate()
    place.actor(gate.stream)
    worker, _ = await place.worker()
    await turns()
    draining = spawn(worker.drain(), "drain")
    await place.start()
    await draining
    assert gate.began == []
    assert await place.store.queue.claim(["default"], "other", lease=1, wait=0) is not None


async def test_draining_twice_is_draining_once(place: Place) -> None:
    worker, _ = await place.worker()
    await asyncio.gather(worker.drain(), worker.drain())
    await worker.drain()


async def test_draining_while_the_store_is_out_comes_to_an_end(place: Place) -> None:
    gate = Gate()
    place.actor(gate.stream)
    before = asyncio.all_tasks()
    worker, store = await place.worker()
    await place.start()
    await gate.runs()
    store.out = True
    began = place.clock()
    await worker.drain(5.0)
    assert place.clock() - began <= 5.0 + limits.ABANDON_AFTER + 2
    assert gate.running == 0
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("moment", range(1, 40))
async def test_a_drain_that_is_cancelled_leaves_nothing_behind(place: Place, moment: int) -> None:
    gate = Gate()
    place.actor(gate.stream, "kept", retry=CONTINUE)
    place.actor(gate.stream, "lost")
    before = asyncio.all_tasks()
    worker, store = await place.worker()
    await place.start("one", actor="kept")
    await place.start("two", actor="lost")
    await gate.runs(2)
    store.pace = 1
    draining = spawn(worker.drain(5.0), "drain")
    await turns(moment)
    await cancel_and_wait(draining)
    assert gate.running == 0
    assert len(worker) == 0
    assert asyncio.all_tasks() == before


# --- abandoned producers ---------------------------------------------------------------------------------------------


async def test_an_abandoned_producer_keeps_its_slot_while_it_runs(place: Place) -> None:
    go, started = asyncio.Event(), asyncio.Event()

    async def deaf() -> None:
        started.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    gate = Gate()
    gate.open.set()
    place.actor(deaf, "deaf")
    place.actor(gate.stream)
    worker, _ = await place.worker(concurrency=1)
    await place.start("deaf", actor="deaf")
    await started.wait()
    await place.start("next")
    await place.transport.cancel("deaf")
    assert (await place.ended("deaf")).error.details == {"abandoned": True}  # type: ignore[union-attr]
    await asyncio.sleep(10)
    assert worker.abandoned == 1
    assert gate.began == []
    go.set()
    await place.ended("next")
    assert worker.abandoned == 0


async def test_an_abandoned_thread_keeps_its_slot_while_it_runs(place: Place) -> None:
    go, started = threading.Event(), threading.Event()

    def deaf() -> None:
        started.set()
        go.wait()

    gate = Gate()
    gate.open.set()
    place.actor(deaf, "deaf")
    place.actor(gate.stream)
    worker, _ = await place.worker(concurrency=1)
    await place.start("deaf", actor="deaf")
    await until(started.is_set)
    await place.start("next")
    await place.transport.cancel("deaf")
    await place.ended("deaf")
    await turns(100)
    assert worker.abandoned == 1
    assert gate.began == []
    go.set()
    await place.ended("next")
    assert worker.abandoned == 0


async def test_what_an_abandoned_producer_says_later_is_not_heard(place: Place) -> None:
    go, outcome = asyncio.Event(), []

    async def deaf(ctx: Context) -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        try:
            await ctx.emit(Chunk("data", "late"))
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    place.actor(deaf)
    worker, _ = await place.worker()
    await place.start()
    await until(lambda: len(worker))
    await turns()
    await place.transport.cancel("run")
    await place.ended()
    await until(lambda: worker.abandoned == 1)
    go.set()
    await until(lambda: worker.abandoned == 0)
    assert outcome == ["cancelled"]
    assert types_in(await chunks_in(place.store)) == ["start", "error"]


async def test_abandoned_threads_keep_no_run_waiting_for_theirs(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A claimed run could never begin here, and no other worker would get it. A worker that holds nothing else takes
    nothing, and logs it."""
    monkeypatch.setattr("loom.engine.run.slots.THREADS", 1)
    go = threading.Event()
    place.actor(go.wait, "deaf")
    place.actor(lambda: "done", "short")
    worker, _ = await place.worker(concurrency=2)
    try:
        await place.start("first", actor="deaf", timeout=0.1)
        await place.ended("first")
        await place.start("next", actor="short")
        assert (await place.ended("next")).state == "completed"
        assert "takes nothing new" not in caplog.text
        await place.start("second", actor="deaf", timeout=0.1)
        await place.ended("second")
        await until(lambda: worker.abandoned == 2)
        assert "takes nothing new" in caplog.text
    finally:
        go.set()
    await until(lambda: worker.abandoned == 0)
    await place.start("last", actor="short")
    assert (await place.ended("last")).state == "completed"


async def test_a_run_cancelled_while_it_waits_for_a_thread_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loom.engine.run.slots.THREADS", 1)
    go, ran = threading.Event(), []

    def holds() -> None:
        ran.append("first")
        go.wait()

    def short() -> str:
        ran.append("later")
        return "done"

    place.actor(holds, "holds")
    place.actor(short)
    worker, _ = await place.worker(concurrency=3)
    await place.start("first", actor="holds")
    await until(lambda: ran)
    await place.start("waits")
    await until(lambda: len(worker) == 2)
    await turns(100)
    await place.transport.cancel("waits")
    assert (await place.ended("waits")).state == "cancelled"
    assert ran == ["first"]
    go.set()
    await place.ended("first")
    await place.start("next")
    assert (await place.ended("next")).state == "completed"
    assert ran == ["first", "later"]
    assert worker.abandoned == 0

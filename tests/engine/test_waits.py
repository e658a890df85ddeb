"""Runs that wait, on whole workers and in virtual time: others go on in their slots, and nothing waits in vain."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

import loom
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.slots import Slots
from loom.engine.run.worker import CLAIM_WAIT, Worker
from loom.model import limits
from loom.stores.memory import MemoryStore
from loom.tasks import TaskSet, cancel_and_wait, spawn
from tests.faults.store import FaultStore
from tests.virtual import VirtualLoop

from .kit import later, turns, until

pytestmark = pytest.mark.anyio

LEASE = 10.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualLoop}


class House:
    """A store, a client, an app, and workers until the test ends."""

    def __init__(self, clock: Callable[[], float], stack: AsyncExitStack) -> None:
        self.clock = clock
        self.store = MemoryStore(clock=clock)
        self.app = loom.App()
        self.gate = asyncio.Event()
        self.active: list[str] = []
        self.most = 0
        self._stack = stack
        self.app.actor("asks", retry=loom.Retry(attempts=5, mode="continue"))(self._asks)
        self.app.actor("asks-alone", concurrency=1)(self._asks)
        self.app.actor("works")(self._works)

    async def _asks(self, ctx: loom.Context) -> Any:
        """Waits for a message, and works until the gate is open."""
        answer = await ctx.receive("answer")
        await self._work(ctx)
        return answer.data

    async def _works(self, ctx: loom.Context) -> None:
        await self._work(ctx)

    async def _work(self, ctx: loom.Context) -> None:
        self.active.append(ctx.run_id)
        self.most = max(self.most, len(self.active))
        try:
            await self.gate.wait()
        finally:
            self.active.remove(ctx.run_id)

    async def worker(self, name: str = "w", **options: Any) -> tuple[Worker, FaultStore]:
        store = FaultStore(self.store)
        options = {"drain": 0.0, "lease": LEASE, **options}
        resources = await self._stack.enter_async_context(self.app.resources())
        worker = Worker(store, self.app.registry, name=name, resources=resources, **options)
        return await self._stack.enter_async_context(worker), store

    async def client(self) -> Client:
        return await self._stack.enter_async_context(Client(StoreTransport(self.store, self.app.registry)))


@pytest.fixture
async def house(virtual_time: Callable[[], float]) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        yield House(virtual_time, stack)


async def asking(client: Client, worker: Worker, count: int, actor: str = "asks") -> list[loom.Run[Any, Any]]:
    """So many runs that wait for a message."""
    runs = [await client.start(actor, id=f"{actor}{n}") for n in range(count)]
    await later(lambda: worker._slots.waiting == count)
    return runs


# --- for what a run waits --------------------------------------------------------------------------------------------


async def test_runs_that_wait_for_messages_let_others_go_on(house: House) -> None:
    worker, _ = await house.worker(concurrency=1)
    client = await house.client()
    runs = await asking(client, worker, 5)
    assert len(worker) == len(worker.running) == 5
    house.gate.set()
    await client.execute("works")
    for n, run in enumerate(runs):
        await run.send("answer", n)
    assert [await run.result() for run in runs] == [0, 1, 2, 3, 4]
    assert house.most == 1
    assert worker._slots.waiting == 0


async def test_runs_that_sleep_sleep_together(house: House) -> None:
    @house.app.actor
    async def sleeper(ctx: loom.Context) -> None:
        await ctx.sleep(60)

    await house.worker(concurrency=1)
    client = await house.client()
    before = house.clock()
    runs = [await client.start("sleeper") for _ in range(10)]
    for run in runs:
        await run.wait()
    assert house.clock() - before < 70


async def test_a_message_that_is_there_costs_no_slot(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "give_back", lambda *args: pytest.fail("it was given back"))
    client = await house.client()
    run = await client.start("asks")
    await run.send("answer", 1)
    house.gate.set()
    await house.worker()
    assert await run.result() == 1


async def test_a_message_that_came_in_time_is_given_when_there_is_a_slot(house: House) -> None:
    @house.app.actor
    async def asks_soon(ctx: loom.Context) -> Any:
        return (await ctx.receive("answer", timeout=5.0)).data

    worker, _ = await house.worker(concurrency=1)
    client = await house.client()
    (run,) = await asking(client, worker, 1, "asks_soon")
    await client.start("works")
    await until(lambda: house.active)
    await run.send("answer", 1)
    await asyncio.sleep(10)
    house.gate.set()
    assert await run.result() == 1


async def test_a_producer_that_works_keeps_its_slot_while_a_task_of_it_listens(house: House) -> None:
    @house.app.actor
    async def listens(ctx: loom.Context) -> str:
        listening = asyncio.create_task(ctx.receive("stop"))
        await house._work(ctx)
        return str((await listening).data)

    await house.worker(concurrency=1)
    client = await house.client()
    runs = [await client.start("listens") for _ in range(2)]
    for run in runs:
        await run.send("stop", "now")
    await until(lambda: house.active)
    await asyncio.sleep(3 * CLAIM_WAIT)
    assert house.most == 1
    house.gate.set()
    assert [await run.result() for run in runs] == ["now", "now"]
    assert house.most == 1


# --- who goes on when ------------------------------------------------------------------------------------------------


async def test_a_run_that_goes_on_comes_before_new_ones(house: House) -> None:
    worker, _ = await house.worker(concurrency=1)
    client = await house.client()
    (run,) = await asking(client, worker, 1)
    await client.start("works", id="first")
    await until(lambda: house.active == ["first"])
    for n in range(3):
        await client.start("works", id=f"later{n}")
    await run.send("answer")
    await turns()
    await client.run("first").cancel()
    await later(lambda: house.active == ["asks0"])
    house.gate.set()
    for n in range(3):
        await client.run(f"later{n}").wait()
    assert house.most == 1


async def test_it_does_not_wait_for_a_claim_that_waits_for_runs(house: House) -> None:
    worker, _ = await house.worker(concurrency=1)
    client = await house.client()
    (run,) = await asking(client, worker, 1)
    await turns()
    before = house.clock()
    house.gate.set()
    await run.send("answer", 7)
    assert await run.result() == 7
    assert house.clock() - before < 0.1


async def test_an_actor_s_own_limit_holds_for_those_that_go_on(house: House) -> None:
    worker, _ = await house.worker()
    client = await house.client()
    runs = await asking(client, worker, 4, "asks-alone")
    for run in runs:
        await run.send("answer", 1)
    await until(lambda: house.active)
    more = await client.start("asks-alone")
    await more.send("answer", 1)
    await asyncio.sleep(3 * CLAIM_WAIT)
    house.gate.set()
    for run in [*runs, more]:
        assert await run.result() == 1
    assert house.most == 1


async def test_with_many_that_wait_a_worker_takes_none_of_their_actors(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WAITING", 3)
    worker, _ = await house.worker(concurrency=2)
    client = await house.client()
    runs = await asking(client, worker, 3)
    more = await client.start("asks")
    house.gate.set()
    await client.execute("works")
    await asyncio.sleep(3 * CLAIM_WAIT)
    assert (await more.status()).state == "queued"
    before = house.clock()
    await runs[1].send("answer", 1)
    await runs[1].result()
    await later(lambda: worker._slots.waiting == 3)
    assert house.clock() - before < 1.0, "it is claimed at once, not when a claim had waited in vain"
    await more.cancel(wait=True)


# --- what ends a run that waits --------------------------------------------------------------------------------------


async def test_a_cancel_is_prompt_while_it_waits_and_while_it_waits_for_its_slot(house: House) -> None:
    worker, _ = await house.worker(concurrency=1)
    client = await house.client()
    first, second = await asking(client, worker, 2)
    works = await client.start("works")
    await until(lambda: house.active == [works.id])
    await second.send("answer")
    await turns()
    before = house.clock()
    for run in (first, second):
        await run.cancel(wait=True)
        assert (await run.status()).state == "cancelled"
    assert house.clock() - before < 0.1
    assert house.active == [works.id]
    house.gate.set()
    await works.wait()
    await client.execute("works")


async def test_a_time_out_is_prompt_while_it_waits_for_its_slot(house: House) -> None:
    worker, _ = await house.worker(concurrency=1)
    client = await house.client()
    run = await client.start("asks", timeout=5.0, id="asks0")
    await later(lambda: worker._slots.waiting == 1)
    await client.start("works")
    await until(lambda: house.active)
    await run.send("answer")
    before = house.clock()
    head = await run.wait()
    assert head.error is not None
    assert head.error.code == "deadline_exceeded"
    assert house.clock() - before < 5.1


async def test_leases_are_renewed_while_runs_wait(house: House) -> None:
    worker, _ = await house.worker("w1", concurrency=1)
    client = await house.client()
    (run,) = await asking(client, worker, 1)
    await house.worker("w2")
    await asyncio.sleep(10 * LEASE)
    house.gate.set()
    await run.send("answer", 1)
    assert len((await run.wait()).epochs) == 1
    (info,) = [info for info in await client.workers() if info.name == "w1"]
    assert info.running == 1, "as it told last"


async def test_a_worker_that_drains_hands_over_what_waits(house: House) -> None:
    worker, _ = await house.worker("w1", concurrency=1)
    client = await house.client()
    runs = await asking(client, worker, 3)
    heir, _ = await house.worker("w2", concurrency=1)
    drained = await worker.drain()
    assert sorted(drained.handed_over) == ["asks0", "asks1", "asks2"]
    await later(lambda: heir._slots.waiting == 3)
    house.gate.set()
    for run in runs:
        await run.send("answer", 1)
        assert await run.result() == 1


async def test_runs_that_wait_are_taken_over_from_a_lost_worker(house: House) -> None:
    worker, store = await house.worker("w1", concurrency=1)
    client = await house.client()
    runs = await asking(client, worker, 3)
    heir, _ = await house.worker("w2", concurrency=1)
    store.refuse("renew", times=100_000)
    store.refuse("claim", times=100_000)
    await later(lambda: heir._slots.waiting == 3)
    assert len(worker) == 0
    house.gate.set()
    for run in runs:
        await run.send("answer", 1)
        assert await run.result() == 1


async def waits_somehow(ctx: loom.Context, depth: int, seed: int) -> None:
    """One of the ways in which a run can wait, or be broken off while it does."""
    draw = random.Random(seed)
    child = {"depth": depth + 1, "seed": draw.randrange(10**9)}
    with contextlib.suppress(TimeoutError, loom.RunError):
        match draw.randrange(7 if depth < 3 else 3):
            case 0:
                await ctx.sleep(draw.random())
            case 1:
                await ctx.receive("never", timeout=draw.random())
            case 2:
                async with TaskSet() as tasks:
                    tasks.spawn(ctx.receive("never"), "listening")
                    await asyncio.sleep(draw.random())
            case 3:
                await ctx.client.execute("stormy", child)
            case 4:
                async with asyncio.timeout(draw.random()):
                    await ctx.client.execute("stormy", child)
            case 5:
                several = [ctx.client.execute("stormy", {**child, "seed": seed + n}) for n in range(3)]
                await asyncio.gather(*several, return_exceptions=True)
            case 6:
                async with ctx.client.stream("stormy", child) as run:
                    async for _ in run:
                        if draw.random() < 0.5:
                            break


@pytest.mark.parametrize("seed", range(5))
async def test_after_a_storm_of_waits_and_cancels_every_slot_is_free(house: House, seed: int) -> None:
    draw = random.Random(seed)

    @house.app.actor(timeout=20)
    async def stormy(depth: int, seed: int, ctx: loom.Context) -> AsyncIterator[int]:
        for step in range(random.Random(seed).randrange(4)):
            await waits_somehow(ctx, depth, seed + step)
            yield step

    worker, _ = await house.worker(concurrency=4)
    client = await house.client()
    runs = [await client.start(stormy, 0, draw.randrange(10**9)) for _ in range(60)]
    for run in draw.sample(runs, 20):
        await asyncio.sleep(draw.random() / 4)
        await run.cancel()
    for run in runs:
        await run.wait()
    await later(lambda: not len(worker))
    slots = worker._slots
    assert all(head.ended for head in await client.runs(limit=1000))
    assert (slots._free + slots._reserved, slots.threads._value) == (4, 4)
    assert (slots.waiting, len(slots._held), len(slots._waiting), len(slots._returning)) == (0, 0, 0, 0)


async def test_an_attempt_that_fails_beside_a_task_that_waits_has_its_slot_for_the_next(house: House) -> None:
    left: list[asyncio.Task[Any]] = []

    @house.app.actor(retry=loom.Retry(attempts=2, backoff=(1.0, 1.0)))
    async def forgetful(ctx: loom.Context) -> int:
        if ctx.attempt == 1:
            left.append(asyncio.create_task(ctx.client.execute("works")))
            await asyncio.sleep(1)
            assert not left[0].done()
            raise OSError
        return ctx.attempt

    worker, _ = await house.worker(concurrency=2)
    client = await house.client()
    assert await client.execute("forgetful") == 2
    with pytest.raises(loom.HandleClosed):
        await left[0]
    assert worker._slots.waiting == 0


async def test_a_child_runs_that_a_run_s_task_started_after_its_own(house: House) -> None:
    @house.app.actor
    async def same(value: int) -> int:
        return value

    @house.app.actor
    async def parent(ctx: loom.Context) -> int:
        beside = asyncio.create_task(ctx.client.execute("same", 1))
        return sum([await ctx.client.execute("same", 2), await beside])

    await house.worker(concurrency=1)
    client = await house.client()
    assert await (await client.start("parent", timeout=600)).result() == 3


async def test_tasks_that_share_a_queue_of_children_do_not_wait_for_ever(house: House) -> None:
    """One of them sits at the empty queue, with the slot that the child of the other needs."""

    @house.app.actor
    async def parent(ctx: loom.Context) -> int:
        queue: asyncio.Queue[float] = asyncio.Queue()
        done: list[Any] = []

        async def work() -> None:
            while True:
                done.append(await ctx.client.execute("sleepy", await queue.get()))
                queue.task_done()

        for seconds in range(5):
            queue.put_nowait(seconds)
        async with TaskSet() as tasks:
            tasks.spawn(work(), "work")
            tasks.spawn(work(), "work")
            await queue.join()
        return len(done)

    @house.app.actor
    async def sleepy(seconds: float) -> None:
        await asyncio.sleep(seconds)

    worker, _ = await house.worker(concurrency=1)
    client = await house.client()
    assert await (await client.start("parent", timeout=600)).result() == 5
    assert worker._slots.waiting == 0


async def test_a_thread_that_joins_another_one_does_not_wait_for_ever(house: House) -> None:
    @house.app.actor
    async def same(value: int) -> int:
        return value

    @house.app.actor
    def parent(ctx: loom.Context) -> int:
        values: list[int] = []
        started = threading.Event()

        def work() -> None:
            run = ctx.client_sync.start("same", 1)
            started.set()
            values.append(run.result())

        first, beside = ctx.client_sync.start("same", 2), threading.Thread(target=work)
        beside.start()
        started.wait()
        values.append(first.result())
        beside.join()
        return sum(values)

    await house.worker(concurrency=1)
    client = await house.client()
    assert await (await client.start("parent", timeout=600)).result() == 3


@pytest.mark.parametrize("actor", ["says", "says-in-a-thread", "says-in-tasks"])
async def test_a_run_that_waits_for_its_reader_lets_it_go_on(house: House, actor: str) -> None:
    """The reader is its parent, which goes on in its slot."""

    @house.app.actor(ahead=2)
    async def says() -> AsyncIterator[int]:
        for n in range(10):
            yield n

    @house.app.actor("says-in-a-thread", ahead=2)
    def says_in_a_thread(ctx: loom.Context) -> Iterator[int]:
        for n in range(10):
            ctx.sleep_sync(0)
            yield n

    @house.app.actor("says-in-tasks", ahead=2)
    async def says_in_tasks(ctx: loom.Context) -> None:
        await asyncio.gather(*(ctx.emit(n) for n in range(10)))

    @house.app.actor
    async def parent(ctx: loom.Context) -> list[int]:
        return [value async for value in (await ctx.client.start(actor)).values()]

    worker, _ = await house.worker(concurrency=1)
    client = await house.client()
    assert await (await client.start("parent", timeout=600)).result() == [*range(10)]
    await later(lambda: not len(worker))
    assert (worker._slots.waiting, worker._slots.threads._value) == (0, 1)


async def test_tasks_that_outlive_their_run_take_nothing_from_the_worker(house: House) -> None:
    """One of them ends while another still waits."""
    left: list[asyncio.Task[Any]] = []

    @house.app.actor
    async def sleepy(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @house.app.actor
    async def forgetful(ctx: loom.Context) -> None:
        runs = [await ctx.client.start("sleepy", seconds) for seconds in (5, 50)]
        left.extend(spawn(_follow_out(run), "left") for run in runs)
        await asyncio.sleep(1)

    async def _follow_out(run: loom.Run[Any, Any]) -> None:
        with contextlib.suppress(loom.HandleClosed):
            async for _ in run:
                pass

    worker, _ = await house.worker(concurrency=4)
    client = await house.client()
    await client.execute("forgetful")
    await asyncio.sleep(10)
    slots = worker._slots
    assert (slots.waiting, slots._held, slots._free + slots._reserved) == (0, {"sleepy": 1}, 3)
    await cancel_and_wait(*left)


# --- children --------------------------------------------------------------------------------------------------------


async def test_what_is_started_outlives_its_parent_and_what_is_owned_does_not(house: House) -> None:
    @house.app.actor
    async def parent(ctx: loom.Context) -> None:
        await ctx.client.start("works", id="detached")
        await ctx.client.execute("works", id="owned")

    await house.worker()
    client = await house.client()
    run = await client.start("parent")
    await until(lambda: sorted(house.active) == ["detached", "owned"])
    await run.cancel(wait=True)
    assert (await client.run("owned").wait()).state == "cancelled"
    assert house.active == ["detached"]
    house.gate.set()
    assert (await client.run("detached").wait()).state == "completed"


async def test_a_parent_that_is_tried_again_finds_its_child_by_its_id(house: House) -> None:
    @house.app.actor(retry=loom.Retry(attempts=2))
    async def parent(ctx: loom.Context) -> Any:
        run = await ctx.client.start("asks", id=f"{ctx.run_id}.child")
        if ctx.attempt == 1:
            raise OSError
        await run.send("answer", ctx.attempt)
        return await run

    await house.worker()
    client = await house.client()
    house.gate.set()
    assert await client.execute("parent", id="p") == 2
    assert [head.meta.run for head in await client.runs(parent="p")] == ["p.child"]


async def test_a_child_s_queue_that_nobody_serves_is_refused_where_nobody_can_come() -> None:
    app = loom.App()

    @app.actor
    async def parent(ctx: loom.Context) -> None:
        await ctx.client.start("parent", queue="elsewhere")

    async with loom.connect("memory://", app=app, worker=True, drain=0) as client:
        with pytest.raises(loom.RunError, match="no worker serves 'elsewhere'"):
            await client.execute("parent")


async def test_children_of_a_command_s_run_stay_with_the_command(house: House) -> None:
    @house.app.actor
    async def parent(ctx: loom.Context) -> None:
        await ctx.client.execute("works", queue="elsewhere")

    await house.worker(queues=["cli.mine"])
    client = await house.client()
    house.gate.set()
    await client.execute("parent", queue="cli.mine", id="p")
    (child,) = await client.runs(parent="p")
    assert child.meta.queue == "cli.mine"


async def test_what_a_run_publishes_is_its_child(house: House) -> None:
    @house.app.actor
    async def parent(ctx: loom.Context) -> None:
        async with ctx.client.publisher("published") as publisher:
            await publisher.publish("hello")

    await house.worker()
    client = await house.client()
    await client.execute("parent", id="p")
    assert [head.meta.run for head in await client.runs(root="p")] == ["published"]


async def test_without_an_app_s_resources_there_is_no_client(house: House) -> None:
    @house.app.actor
    async def parent(ctx: loom.Context) -> None:
        await ctx.client.start("works")

    client = await house.client()
    async with Worker(house.store, house.app.registry, drain=0):
        with pytest.raises(loom.RunError, match=r"ctx\.client"):
            await client.execute("parent")


async def test_the_client_is_the_run_s_until_it_is_over(house: House) -> None:
    kept: list[Client] = []

    @house.app.actor
    async def parent(ctx: loom.Context) -> None:
        kept.extend([ctx.client, ctx.client])

    worker, _ = await house.worker()
    client = await house.client()
    await client.execute("parent")
    await later(lambda: len(worker) == 0)
    assert kept[0] is kept[1]
    with pytest.raises(loom.HandleClosed):
        await kept[0].start("works")


async def test_a_client_that_was_first_asked_for_after_the_run_is_closed(house: House) -> None:
    kept: list[loom.Context] = []

    @house.app.actor
    async def parent(ctx: loom.Context) -> None:
        kept.append(ctx)

    await house.worker()
    client = await house.client()
    await client.execute("parent")
    with pytest.raises(loom.HandleClosed):
        await kept[0].client.start("works")


async def test_an_async_producer_is_told_not_to_use_the_blocking_client(house: House) -> None:
    @house.app.actor
    async def parent(ctx: loom.Context) -> None:
        ctx.client_sync.start("works")

    await house.worker()
    client = await house.client()
    with pytest.raises(loom.RunError, match="is for threads"):
        await client.execute("parent")

"""The runner: every way in which a run begins, fails, is tried again, is stopped and ends. On virtual time."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from loom.engine.declare.context import Context
from loom.engine.declare.options import Retry
from loom.engine.declare.standing import HISTORY_BYTES
from loom.engine.run.attempt import Ending, Resources, Stop
from loom.model import limits
from loom.model.chunk import CANCEL, Chunk, Message, Progress, Result
from loom.model.errors import (
    ErrorInfo,
    LimitExceeded,
    LogNotFound,
    RemoteProtocolError,
    RunFailed,
    StartOver,
    Unavailable,
)
from loom.model.parts import FinishReasonPart, ToolCallPart, Usage, UsagePart
from loom.model.ports import Notice
from loom.model.run import Meta
from loom.tasks import cancel_and_wait
from loom.testing.author import Author
from loom.testing.fake_ai import FakeAI
from tests.engine.kit import data_in, turns, types_in, until
from tests.engine.rig import LEASE, Rig
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.anyio

CONTINUE = Retry(mode="continue", backoff=(1.0, 1.0))
RESTART = Retry(mode="restart", backoff=(1.0, 1.0))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def rig(virtual_time: Callable[[], float]) -> Rig:
    return Rig(virtual_time)


class Part:
    """A producer that says `items`, then waits to be let go on: ends, or fails with `error`."""

    def __init__(self, *items: Any, error: BaseException | None = None) -> None:
        self.items = items
        self.error = error
        self.contexts: list[Context] = []
        self.waiting = asyncio.Event()
        self.go = asyncio.Event()
        self.trace: list[str] = []

    async def stream(self, ctx: Context) -> AsyncIterator[Any]:
        self.contexts.append(ctx)
        try:
            for item in self.items:
                yield item
            self.waiting.set()
            await self.go.wait()
            if self.error is not None:
                raise self.error
        except asyncio.CancelledError:
            self.trace.append("cancelled")
            raise
        finally:
            self.trace.append("closed")

    async def waits(self) -> None:
        await self.waiting.wait()
        self.waiting.clear()


# --- a plain run -----------------------------------------------------------------------------------------------------


async def test_a_run_begins_says_and_ends(rig: Rig) -> None:
    async def stream(n: int) -> AsyncIterator[Any]:
        for i in range(n):
            yield i
        yield Result("sum")

    rig.actor(stream)
    await rig.start({"n": 2})
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), 0, 1, ("complete", "sum")]
    start = (await rig.log())[0]
    assert start.data == {"attempt": 1, "actor": "actor", "kept_through": 0}
    assert start.error is None


async def test_the_exception_that_ends_a_run_is_given_to_an_observer(rig: Rig) -> None:
    """Once, as it was raised, with its traceback; not one after which the run is tried again."""
    raised: list[tuple[str, BaseException]] = []
    error = ValueError("kaputt")
    part = Part(error=error)
    part.go.set()
    rig.resources = Resources()
    rig.resources.on_failure = lambda run, failure: raised.append((run, failure))
    rig.actor(part.stream, retry=Retry(attempts=2, backoff=(1.0, 1.0)))
    await rig.start()
    assert await rig.go() is Ending.ENDED
    assert len(part.contexts) == 2
    assert raised == [("run", error)]
    assert raised[0][1].__traceback__ is not None


async def test_the_producer_gets_its_context(rig: Rig) -> None:
    part = Part()
    part.go.set()
    ai = FakeAI(["x"])
    rig.resources = Resources({"actor": {"db": 1}}, {"actor": lambda: ai})
    rig.actor(part.stream)
    await rig.start(key="k")
    await rig.go()
    (ctx,) = part.contexts
    assert (ctx.run_id, ctx.actor, ctx.attempt, ctx.key) == ("run", "actor", 1, "k")
    assert ctx.resources == {"db": 1}
    assert ctx.ai is ai
    assert list(ctx.previous) == []


async def test_a_run_that_has_ended_is_not_driven_again(rig: Rig) -> None:
    part = Part()
    rig.actor(part.stream)
    await rig.start()
    await rig.cancel()
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("error", "cancelled")]
    assert part.contexts == []
    assert (await rig.store.runs.get("run")).attempt == 0


async def test_the_log_s_meta_is_the_truth(rig: Rig) -> None:
    async def stream(n: int) -> AsyncIterator[int]:
        yield n

    rig.actor(stream)
    await rig.start({"n": 1})
    claim = await rig.claim()
    await rig.store.queue.ack(claim)
    await rig.start({"n": 2})  # the queue's entry now carries another request
    await rig.go()
    assert (await rig.story())[1] == 1


async def test_whoever_claims_makes_the_log_when_it_is_missing(rig: Rig) -> None:
    part = Part("x")
    part.go.set()
    rig.actor(part.stream)
    await rig.start()
    claim = await rig.claim()
    await rig.store.runs.drop("run")
    await rig.store.queue.put(claim.meta)
    await rig.go()
    assert await rig.story() == [("start", 1, 0), "x", ("complete", None)]


# --- refusals --------------------------------------------------------------------------------------------------------


@dataclass
class Fussy:
    n: int

    def __post_init__(self) -> None:
        raise KeyError("a validator's own bug")


@pytest.mark.parametrize(
    ("hint", "input", "code"),
    [(int, {"n": "x"}, "invalid_input"), (int, {}, "invalid_input"), (Fussy, {"n": 1}, "invalid_input")],
)
async def test_input_that_does_not_fit_ends_the_run_before_anything_runs(
    rig: Rig, hint: Any, input: Any, code: str
) -> None:
    ran = False

    async def work(n: Any) -> None:
        nonlocal ran
        ran = True

    work.__annotations__["n"] = hint
    rig.actor(work)
    await rig.start(input)
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("error", code)]
    assert not ran


async def test_an_actor_nobody_knows_ends_the_run(rig: Rig) -> None:
    await rig.start()
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("error", "unknown_producer")]


# --- retries ---------------------------------------------------------------------------------------------------------


class Failing:
    """Says its attempt and the number of chunks that stand, and fails until the attempt `until`."""

    def __init__(self, until: int, error: Callable[[], BaseException] = ValueError) -> None:
        self.until = until
        self.error = error
        self.previous: list[list[Any]] = []

    async def stream(self, ctx: Context) -> AsyncIterator[Any]:
        self.previous.append([chunk.data for chunk in ctx.previous])
        yield f"{ctx.attempt}a"
        yield f"{ctx.attempt}b"
        if ctx.attempt < self.until:
            raise self.error()


async def test_restart_takes_back_what_was_said_and_tells_why(rig: Rig) -> None:
    failing = Failing(3, lambda: OSError("gone"))
    rig.actor(failing.stream, retry=RESTART)
    await rig.start()
    await rig.go()
    assert await rig.story() == [
        ("start", 1, 0), "1a", "1b", ("start", 2, 0), "2a", "2b", ("start", 3, 0), "3a", "3b", ("complete", None),
    ]  # fmt: skip
    assert failing.previous == [[], [], []]
    causes = [chunk.error for chunk in await rig.log() if chunk.type == "start"]
    assert causes[0] is None
    assert [cause.message for cause in causes[1:] if cause] == ["OSError: gone"] * 2


async def test_continue_keeps_what_was_said_and_hands_it_on(rig: Rig) -> None:
    failing = Failing(3)
    rig.actor(failing.stream, retry=CONTINUE)
    await rig.start()
    await rig.go()
    assert await rig.story() == [
        ("start", 1, 0), "1a", "1b", ("start", 2, 3), "2a", "2b", ("start", 3, 6), "3a", "3b", ("complete", None),
    ]  # fmt: skip
    assert failing.previous == [[], ["1a", "1b"], ["1a", "1b", "2a", "2b"]]


async def test_previous_leaves_out_what_earlier_restarts_took_back(rig: Rig) -> None:
    failing = Failing(0)
    rig.actor(failing.stream, retry=CONTINUE)
    await rig.start()
    author = await Author.take(rig.store.logs, "run", "1")
    await author.say(Chunk("start", {"attempt": 1, "kept_through": 0}), Chunk("data", "lost"))
    author = await Author.take(rig.store.logs, "run", "2")
    await author.say(Chunk("start", {"attempt": 2, "kept_through": 0}), Chunk("data", "kept"), Chunk("data", "back"))
    author = await Author.take(rig.store.logs, "run", "3")
    await author.say(Chunk("start", {"attempt": 3, "kept_through": 4}), Chunk("data", "also kept"))
    await rig.go()
    assert failing.previous == [["kept", "also kept"]]
    assert (await rig.story())[-4:] == [("start", 4, 7), "4a", "4b", ("complete", None)]


async def test_of_a_trimmed_log_what_is_left_is_previous(rig: Rig) -> None:
    failing = Failing(0)
    rig.actor(failing.stream, retry=CONTINUE)
    await rig.start()
    author = await Author.take(rig.store.logs, "run", "1")
    await author.say(Chunk("start", {"attempt": 1}), Chunk("data", "trimmed"))
    await author.say(Chunk("data", "left"))
    await rig.store.logs.trim("run", 3)
    await rig.go()
    assert failing.previous == [["left"]]


@pytest.mark.parametrize("mode", ["restart", "continue"])
async def test_attempts_bound_the_producer_s_own_errors(rig: Rig, mode: Any) -> None:
    rig.actor(Failing(99).stream, retry=Retry(attempts=3, mode=mode, backoff=(1.0, 1.0)))
    await rig.start()
    assert await rig.go() is Ending.ENDED
    story = await rig.story()
    assert [item[1] for item in story if item[0] == "start"] == [1, 2, 3]
    assert story[-1] == ("error", "run_failed")


async def test_attempts_are_counted_over_workers(rig: Rig) -> None:
    class Alternating(Failing):
        """Fails at once in odd attempts; in even ones its worker is lost."""

        async def stream(self, ctx: Context) -> AsyncIterator[Any]:
            yield ctx.attempt
            if ctx.attempt % 2:
                raise ValueError
            await asyncio.Event().wait()

    rig.actor(Alternating(0).stream, retry=Retry(attempts=3, mode="continue", backoff=(1.0, 1.0)))
    await rig.start()
    for lost in (2, 4):
        driving = await rig.drive()
        await rig.said(lost)
        await driving.lose()
    assert await rig.go() is Ending.ENDED
    assert (await rig.story())[-2:] == [5, ("error", "run_failed")]


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (OSError, 3),
        (ConnectionError, 3),
        (lambda: ExceptionGroup("g", [OSError(), TimeoutError()]), 3),
        (ValueError, 1),
        (lambda: ExceptionGroup("g", [OSError(), ValueError()]), 1),
        (lambda: SystemExit(1), 1),
        (GeneratorExit, 1),
    ],
)
async def test_only_after_errors_of_these_types(rig: Rig, error: Callable[[], BaseException], tries: int) -> None:
    rig.actor(Failing(99, error).stream, retry=Retry(attempts=3, on=(OSError,), backoff=(1.0, 1.0)))
    await rig.start()
    await rig.go()
    assert sum(item[0] == "start" for item in await rig.story()) == tries


async def test_the_pauses_between_tries_are_the_author_s(rig: Rig, virtual_time: Callable[[], float]) -> None:
    rig.actor(Failing(4).stream, retry=Retry(backoff=(100.0, 300.0)))
    await rig.start()
    before = virtual_time()
    await rig.go()
    assert (100 + 200 + 300) / 2 <= virtual_time() - before <= 600


# --- lost workers ----------------------------------------------------------------------------------------------------


async def test_one_that_has_said_nothing_is_simply_tried_again(rig: Rig) -> None:
    part = Part()
    rig.actor(part.stream)
    await rig.start()
    for _ in range(2):
        driving = await rig.drive()
        await part.waits()
        await driving.lose()
    part.go.set()
    await rig.go()
    assert await rig.story() == [("start", 1, 0), ("start", 2, 0), ("start", 3, 0), ("complete", None)]


@pytest.mark.parametrize(
    ("retry", "then"),
    [
        (None, [("error", "run_lost")]),
        (RESTART, [("start", 2, 0), "a", ("complete", None)]),
        (CONTINUE, [("start", 2, 2), "a", ("complete", None)]),
    ],
)
async def test_after_output_it_is_the_author_s_choice(rig: Rig, retry: Retry | None, then: list[Any]) -> None:
    part = Part("a")
    rig.actor(part.stream, retry=retry)
    await rig.start()
    driving = await rig.drive()
    await part.waits()
    await driving.lose()
    part.go.set()
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), "a", *then]


@pytest.mark.parametrize("output", [(), ("a",)])
async def test_too_many_lost_workers_end_it(rig: Rig, output: tuple[str, ...]) -> None:
    part = Part(*output)
    rig.actor(part.stream, retry=CONTINUE, max_crashes=2)
    await rig.start()
    for _ in range(3):
        driving = await rig.drive()
        await part.waits()
        await driving.lose()
    assert await rig.go() is Ending.ENDED
    story = await rig.story()
    assert [item[1] for item in story if item[0] == "start"] == [1, 2, 3]
    assert story[-1] == ("error", "run_lost")
    assert "3 times" in (await rig.log())[-1].error.message  # type: ignore[union-attr]
    assert (await rig.store.runs.get("run")).state == "dead"


async def test_a_hand_over_is_no_crash(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream, retry=CONTINUE, max_crashes=0)
    await rig.start()
    for _ in range(3):
        driving = await rig.drive()
        await part.waits()
        driving.runner.stop(Stop.HAND_OVER)
        assert await driving() is Ending.RELEASED
        await rig.store.queue.release(driving.claim)
    part.go.set()
    assert await rig.go() is Ending.ENDED
    assert data_in(await rig.log()) == ["a"] * 4


async def test_a_log_that_workers_crash_on_ends_all_the_same(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream, retry=CONTINUE, max_crashes=0)
    await rig.start()
    driving = await rig.drive()
    await part.waits()
    await driving.lose()
    rig.store.refuse("read", RemoteProtocolError("unreadable"), skip=1, times=1000)  # all but the inbox's first
    assert await rig.go() is Ending.ENDED
    assert (await rig.store.runs.get("run")).state == "dead"


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_a_cancel_before_the_claim_needs_no_producer(rig: Rig) -> None:
    part = Part()
    rig.actor(part.stream)
    await rig.start()
    await rig.cancel()
    assert await rig.story() == [("error", "cancelled")]
    assert await rig.go() is Ending.ENDED
    assert part.contexts == []


async def test_a_cancel_between_claim_and_first_chunk_needs_no_producer(rig: Rig) -> None:
    part = Part()
    rig.actor(part.stream)
    await rig.start()
    held = rig.store.hold("read")  # of the inbox, which comes before anything is said
    driving = await rig.drive()
    await held.arrived.wait()
    await rig.transport._send("run", Message(CANCEL, sender=CANCEL, id=CANCEL))
    held.let_go()
    assert await driving() is Ending.ENDED
    assert await rig.story() == [("error", "cancelled")]
    assert part.contexts == []


async def test_a_cancel_in_mid_stream_keeps_what_was_said(rig: Rig) -> None:
    part = Part("a", "b")
    rig.actor(part.stream, retry=CONTINUE)
    await rig.start()
    driving = await rig.drive()
    await part.waits()
    await rig.cancel()
    assert await driving() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), "a", "b", ("error", "cancelled")]
    assert part.trace == ["cancelled", "closed"]
    assert part.contexts[0].cancelled


async def test_what_was_said_in_the_same_breath_is_kept(rig: Rig) -> None:
    async def stream() -> AsyncIterator[str]:
        yield "a"
        await rig.cancel()
        yield "b"
        await asyncio.Event().wait()

    rig.actor(stream)
    await rig.start()
    await rig.go()
    assert data_in(await rig.log()) == ["a", "b"]


async def test_a_cancel_in_the_pause_before_a_retry_is_heard_at_once(
    rig: Rig, virtual_time: Callable[[], float]
) -> None:
    rig.actor(Failing(99).stream, retry=Retry(backoff=(1000.0, 1000.0)))
    await rig.start()
    driving = await rig.drive()
    await until(lambda: rig.store.calls["append"] == 2)
    await turns()
    before = virtual_time()
    await rig.cancel()
    assert await driving() is Ending.ENDED
    assert virtual_time() - before < 1
    assert (await rig.story())[-1] == ("error", "cancelled")


async def test_a_cancel_while_the_store_is_out_holds_after_it(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream)
    await rig.start()
    driving = await rig.drive()
    await part.waits()
    rig.store.deaf = True
    await rig.cancel()
    rig.store.deaf = False
    with rig.store.outage():
        rig.store.tell_all(Notice())
        await asyncio.sleep(5)
        assert not driving.task.done()
    assert await driving() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), "a", ("error", "cancelled")]


async def test_a_cancel_is_heard_while_an_append_hangs(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream)
    await rig.start()
    held = rig.store.hold("append", skip=1)
    driving = await rig.drive()
    await held.arrived.wait()
    await rig.cancel()
    await until(lambda: part.trace == ["cancelled", "closed"])
    assert not driving.task.done()
    held.let_go()
    assert await driving() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), "a", ("error", "cancelled")]


async def test_an_earlier_cancel_holds_for_the_next_worker(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream, retry=CONTINUE)
    await rig.start()
    driving = await rig.drive()
    await part.waits()
    rig.store.deaf = True
    await rig.cancel()
    await driving.lose()
    rig.store.deaf = False
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), "a", ("error", "cancelled")]
    assert len(part.contexts) == 1


async def test_a_cancel_is_confirmed_when_the_producer_is_really_gone(rig: Rig) -> None:
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    async def stream() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await cleaned.wait()

    rig.actor(stream)
    await rig.start()
    driving = await rig.drive()
    await until(lambda: rig.store.calls["append"] == 2)
    await rig.cancel()
    await cleaning.wait()
    await turns()
    await rig.log(ended=False)
    cleaned.set()
    await driving()
    assert await rig.story() == [("start", 1, 0), "a", ("error", "cancelled")]
    assert (await rig.log())[-1].error.details == {}  # type: ignore[union-attr]


async def swallow_and_return() -> AsyncIterator[str]:
    yield "a"
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return


async def swallow_and_go_on() -> AsyncIterator[str]:
    while True:
        yield "a"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


async def yield_in_finally() -> AsyncIterator[str]:
    try:
        yield "a"
        await asyncio.Event().wait()
    finally:
        yield "in finally"


async def fail_in_finally() -> AsyncIterator[str]:
    try:
        yield "a"
        await asyncio.Event().wait()
    finally:
        raise ZeroDivisionError


async def swallow_and_return_a_result(ctx: Context) -> str:
    await ctx.emit("a")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return "partial"
    return "whole"


async def swallow_and_emit(ctx: Context) -> None:
    await ctx.emit("a")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await ctx.emit("late")


STUBBORN = [
    swallow_and_return, swallow_and_go_on, yield_in_finally, fail_in_finally, swallow_and_return_a_result,
    swallow_and_emit,
]  # fmt: skip


@pytest.mark.parametrize("target", STUBBORN)
async def test_whatever_a_producer_does_about_it_the_run_is_cancelled(rig: Rig, target: Callable[..., Any]) -> None:
    rig.actor(target)
    await rig.start()
    driving = await rig.drive()
    await until(lambda: rig.store.calls["append"] == 2)
    await rig.cancel()
    assert await driving() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), "a", ("error", "cancelled")]
    assert driving.runner.abandoned is None


@pytest.mark.parametrize("target", STUBBORN)
async def test_whatever_a_producer_does_about_it_the_run_is_handed_over(rig: Rig, target: Callable[..., Any]) -> None:
    rig.actor(target, retry=CONTINUE)
    await rig.start()
    driving = await rig.drive()
    await until(lambda: rig.store.calls["append"] == 2)
    driving.runner.stop(Stop.HAND_OVER)
    assert await driving() is Ending.RELEASED
    assert await rig.story(ended=False) == [("start", 1, 0), "a"]


async def test_one_that_does_not_stop_is_abandoned_and_told(rig: Rig, virtual_time: Callable[[], float]) -> None:
    go = asyncio.Event()

    async def deaf() -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    rig.actor(deaf)
    await rig.start()
    driving = await rig.drive()
    await turns()
    before = virtual_time()
    await rig.cancel()
    assert await driving() is Ending.ENDED
    assert virtual_time() - before == pytest.approx(limits.ABANDON_AFTER)
    error = (await rig.log())[-1].error
    assert error is not None
    assert error.code == "cancelled"
    assert error.details == {"abandoned": True}
    abandoned = driving.runner.abandoned
    assert abandoned is not None
    assert not abandoned.done()
    go.set()
    await asyncio.wait({abandoned})


async def test_the_bound_is_read_when_it_is_needed(
    rig: Rig, virtual_time: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ABANDON_AFTER", 3.0)
    await test_one_that_does_not_stop_is_abandoned_and_told(rig, virtual_time)


async def test_a_thread_that_does_not_stop_is_abandoned_and_told(rig: Rig) -> None:
    started, go = threading.Event(), threading.Event()

    def deaf() -> None:
        started.set()
        go.wait()

    rig.actor(deaf)
    await rig.start()
    driving = await rig.drive()
    await until(started.is_set)
    await rig.cancel()
    assert await driving() is Ending.ENDED
    error = (await rig.log())[-1].error
    assert error is not None
    assert error.details == {"abandoned": True}
    go.set()
    assert driving.runner.abandoned is not None
    await asyncio.wait({driving.runner.abandoned})


@pytest.mark.parametrize("option", ["timeout", "idle_timeout"])
async def test_a_time_out_waits_for_no_thread(rig: Rig, virtual_time: Callable[[], float], option: str) -> None:
    """Nothing can interrupt it; it is told as abandoned, and what it says later is not heard."""
    go = threading.Event()

    def deaf() -> Iterator[int]:
        go.wait()
        yield 1

    rig.actor(deaf)
    await rig.start(**{option: 1.0})
    began = virtual_time()
    driving = await rig.drive()
    assert await driving() is Ending.ENDED
    assert virtual_time() - began < 2.0
    error = (await rig.log())[-1].error
    assert error is not None
    assert error.code == {"timeout": "deadline_exceeded", "idle_timeout": "idle_timeout"}[option]
    assert error.details == {"abandoned": True}
    go.set()
    assert driving.runner.abandoned is not None
    await asyncio.wait({driving.runner.abandoned})
    assert len(await rig.log()) == 2


async def test_a_thread_that_stops_at_its_time_out_is_not_abandoned(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.engine.run.attempt.STOP_AT_ONCE", None)  # a real thread needs real time

    def patient(ctx: Context) -> Iterator[int]:
        ctx.receive_sync("never")
        yield 1

    rig.actor(patient)
    await rig.start(timeout=1.0)
    driving = await rig.drive()
    assert await driving() is Ending.ENDED
    error = (await rig.log())[-1].error
    assert error is not None
    assert (error.code, error.details) == ("deadline_exceeded", {})


async def test_a_time_out_leaves_a_coroutine_its_time_to_clean_up(rig: Rig, virtual_time: Callable[[], float]) -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(limits.ABANDON_AFTER - 1)
            cleaned.append(1)

    rig.actor(work)
    await rig.start(timeout=1.0)
    assert await rig.go() is Ending.ENDED
    error = (await rig.log())[-1].error
    assert error is not None
    assert (error.code, error.details, cleaned) == ("deadline_exceeded", {}, [1])


async def test_a_second_cancel_of_the_runner_does_not_leave_the_producer_alone(rig: Rig) -> None:
    cleaning, cleaned = asyncio.Event(), asyncio.Event()

    async def stream() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await cleaned.wait()
            cleaning.clear()

    rig.actor(stream)
    await rig.start()
    driving = await rig.drive()
    await until(lambda: rig.store.calls["append"] == 2)
    driving.task.cancel()
    await cleaning.wait()
    for _ in range(3):
        driving.task.cancel()
        await turns()
    assert not driving.task.done()
    cleaned.set()
    await asyncio.wait({driving.task})
    assert driving.task.cancelled()
    assert not cleaning.is_set()
    assert await rig.story(ended=False) == [("start", 1, 0), "a"]


# --- other stops -----------------------------------------------------------------------------------------------------


async def test_the_time_out_ends_it(rig: Rig, virtual_time: Callable[[], float]) -> None:
    part = Part("a")
    rig.actor(part.stream, retry=CONTINUE)
    await rig.start(timeout=30.0)
    before = virtual_time()
    assert await rig.go() is Ending.ENDED
    assert virtual_time() - before == pytest.approx(30.0)
    assert await rig.story() == [("start", 1, 0), "a", ("error", "deadline_exceeded")]


async def test_the_time_out_counts_from_the_first_attempt(rig: Rig, virtual_time: Callable[[], float]) -> None:
    part = Part("a")
    rig.actor(part.stream, retry=CONTINUE)
    await rig.start(timeout=30.0)
    before = virtual_time()
    driving = await rig.drive()
    await part.waits()
    await driving.lose()
    assert await rig.go() is Ending.ENDED
    assert virtual_time() - before == pytest.approx(30.0)


async def test_a_time_out_that_passed_meanwhile_ends_it_at_once(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream, retry=CONTINUE)
    await rig.start(timeout=5.0)
    driving = await rig.drive()
    await part.waits()
    await driving.lose()
    assert await rig.go() is Ending.ENDED
    assert (await rig.story())[-1] == ("error", "deadline_exceeded")


async def test_silence_ends_it_and_speaking_does_not(rig: Rig, virtual_time: Callable[[], float]) -> None:
    async def stream() -> AsyncIterator[Any]:
        for n in range(5):
            await asyncio.sleep(9)
            yield n
        await asyncio.Event().wait()

    rig.actor(stream)
    await rig.start(idle_timeout=10.0)
    before = virtual_time()
    assert await rig.go() is Ending.ENDED
    assert virtual_time() - before == pytest.approx(55.0)
    assert (await rig.story())[1:] == [0, 1, 2, 3, 4, ("error", "idle_timeout")]


@pytest.mark.parametrize("say", [Progress(1), Chunk("note", 1)])
async def test_whatever_is_said_is_no_silence(rig: Rig, say: Any) -> None:
    async def work(ctx: Context) -> None:
        for _ in range(3):
            await asyncio.sleep(9)
            await ctx.emit(say)

    rig.actor(work)
    await rig.start(idle_timeout=10.0)
    await rig.go()
    assert (await rig.story())[-1] == ("complete", None)


async def test_an_owned_run_is_cancelled_when_its_owner_is_silent(rig: Rig, virtual_time: Callable[[], float]) -> None:
    part = Part("a")
    rig.actor(part.stream)
    await rig.start(owner_lease=6.0)
    before = virtual_time()
    driving = await rig.drive()
    for _ in range(3):
        await asyncio.sleep(4)
        await rig.store.runs.heartbeat("run")
    assert await driving() is Ending.ENDED
    assert 12 + 6 <= virtual_time() - before <= 12 + 6 + 2
    assert await rig.story() == [("start", 1, 0), "a", ("error", "cancelled")]


async def test_whoever_watches_a_run_asks_for_neither_its_input_nor_its_result(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream, retry=CONTINUE)
    await rig.start(owner_lease=6.0, timeout=100.0)
    driving = await rig.drive()
    await part.waits()
    for _ in range(3):
        await asyncio.sleep(4)
        await rig.store.runs.heartbeat("run")
    await driving.lose()
    await rig.go()  # it reads what stands, and meanwhile the owner falls silent
    assert rig.store.calls["get"] > 6
    assert rig.store.full_heads == 0


async def test_an_owner_that_left_while_it_was_queued_gets_nothing_begun(rig: Rig) -> None:
    """Nor who goes on when its worker was lost: silence counts from when the owner was last heard, whoever claims."""
    part = Part("a")
    rig.actor(part.stream)
    await rig.start(owner_lease=6.0)
    await rig.store.runs.heartbeat("run")
    await asyncio.sleep(6.5)
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("error", "cancelled")]
    assert part.contexts == []


async def test_an_owner_that_was_never_heard_of_counts_from_the_start(
    rig: Rig, virtual_time: Callable[[], float]
) -> None:
    part = Part("a")
    rig.actor(part.stream)
    await rig.start(owner_lease=6.0)
    await asyncio.sleep(60)
    before = virtual_time()
    assert await rig.go() is Ending.ENDED
    assert virtual_time() - before <= 6.0 / 2 + 0.1, "others wait for the slot"
    assert await rig.story() == [("error", "cancelled")]


async def test_a_takeover_begins_nothing_for_an_owner_that_left(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream, retry=CONTINUE)
    await rig.start(owner_lease=6.0)
    driving = await rig.drive()
    await part.waits()
    await driving.lose()
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), "a", ("error", "cancelled")]


async def test_an_owner_that_was_silent_in_an_outage_is_heard_of_in_time(rig: Rig) -> None:
    """Or a clock was set: it seems to be gone, and the next heartbeat says that it is not."""
    part = Part("a")
    rig.actor(part.stream)
    await rig.start(owner_lease=6.0)
    await asyncio.sleep(60)
    driving = await rig.drive()
    await asyncio.sleep(6.0 / limits.RENEW_FRACTION)
    assert part.contexts == []
    await rig.store.runs.heartbeat("run")
    await part.waits()
    part.go.set()
    await rig.store.runs.heartbeat("run")
    assert await driving() is Ending.ENDED
    assert (await rig.story())[-1] == ("complete", None)


async def test_a_queued_run_is_drained_while_its_owner_is_waited_for(rig: Rig) -> None:
    rig.actor(Part("a").stream)
    await rig.start(owner_lease=6.0)
    await asyncio.sleep(60)
    driving = await rig.drive()
    await asyncio.sleep(1)
    driving.runner.stop(Stop.LAST_CALL)
    assert await driving() is Ending.RELEASED
    assert await rig.story(ended=False) == []


async def test_a_run_that_is_dropped_while_its_owner_is_waited_for_is_let_go(rig: Rig) -> None:
    rig.actor(Part("a").stream)
    await rig.start(owner_lease=6.0)
    await asyncio.sleep(60)
    driving = await rig.drive()
    await asyncio.sleep(1)
    await rig.store.runs.drop("run")
    async with asyncio.timeout(60):
        assert await driving() is Ending.ENDED


async def test_an_outage_is_not_the_owner_s_silence(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream)
    await rig.start(owner_lease=6.0)
    driving = await rig.drive()
    await part.waits()
    with rig.store.outage():
        await asyncio.sleep(60)
    await rig.store.runs.heartbeat("run")
    await asyncio.sleep(5)
    assert not driving.task.done()
    part.go.set()
    assert await driving() is Ending.ENDED
    assert (await rig.story())[-1] == ("complete", None)


@pytest.mark.parametrize(
    ("items", "retry", "ending", "last"),
    [
        ((), None, Ending.RELEASED, ("start", 1, 0)),
        (("a",), None, Ending.ENDED, ("error", "run_lost")),
        (("a",), RESTART, Ending.RELEASED, "a"),
        (("a",), CONTINUE, Ending.RELEASED, "a"),
    ],
)
async def test_the_last_call_releases_what_may_be_tried_again(
    rig: Rig, items: tuple[str, ...], retry: Retry | None, ending: Ending, last: Any
) -> None:
    part = Part(*items)
    rig.actor(part.stream, retry=retry)
    await rig.start()
    driving = await rig.drive()
    await part.waits()
    driving.runner.stop(Stop.LAST_CALL)
    assert await driving() is ending
    assert (await rig.story(ended=ending is Ending.ENDED))[-1] == last


async def test_a_stop_in_the_pause_before_a_retry_releases(rig: Rig) -> None:
    for stop in (Stop.HAND_OVER, Stop.LAST_CALL):
        rig.registry._producers.clear()
        rig.actor(Failing(99).stream, retry=Retry(mode="continue", backoff=(1000.0, 1000.0)))
        await rig.start()
        driving = await rig.drive()
        appends = rig.store.calls["append"]
        await until(lambda appends=appends: rig.store.calls["append"] == appends + 2)  # type: ignore[misc]
        await turns()
        driving.runner.stop(stop)
        assert await driving() is Ending.RELEASED
        await rig.store.queue.release(driving.claim)


async def test_the_first_reason_counts(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream, retry=CONTINUE)
    await rig.start()
    driving = await rig.drive()
    await part.waits()
    driving.runner.stop(Stop.HAND_OVER)
    driving.runner.stop(Stop.CANCEL)
    assert await driving() is Ending.RELEASED


async def test_one_that_ends_by_itself_at_that_moment_has_ended(rig: Rig) -> None:
    async def work() -> str:
        driving.runner.stop(Stop.CANCEL)
        return "done"

    rig.actor(work)
    await rig.start()
    driving = await rig.drive()
    assert await driving() is Ending.ENDED
    assert (await rig.story())[-1] == ("complete", "done")


# --- losing the run --------------------------------------------------------------------------------------------------


async def test_a_newer_attempt_stops_it_and_nothing_of_it_is_added(rig: Rig) -> None:
    part = Part("a", "b")
    rig.actor(part.stream)
    await rig.start()
    held = rig.store.hold("append", skip=1)
    driving = await rig.drive()
    await held.arrived.wait()
    await rig.store.logs.fence("run", "another")
    held.let_go()
    assert await driving() is Ending.GIVEN_UP
    assert part.trace == ["cancelled", "closed"]
    assert await rig.story(ended=False) == [("start", 1, 0)]


async def test_who_lost_the_right_before_it_began_gives_up(rig: Rig) -> None:
    part = Part()
    rig.actor(part.stream)
    await rig.start()
    driving = await rig.drive()
    rig.store.lose_reply("fence")
    await until(lambda: rig.store.calls["fence"] == 1)
    await rig.store.store.logs.fence("run", "another")
    assert await driving() is Ending.GIVEN_UP
    assert part.contexts == []


async def test_a_fence_whose_reply_was_lost_is_one_attempt(rig: Rig) -> None:
    part = Part()
    part.go.set()
    rig.actor(part.stream)
    await rig.start()
    rig.store.lose_reply("fence", times=3)
    await rig.go()
    assert await rig.story() == [("start", 1, 0), ("complete", None)]


async def test_a_dropped_run_stops_its_producer_at_once(rig: Rig, virtual_time: Callable[[], float]) -> None:
    part = Part("a")
    rig.actor(part.stream)
    await rig.start()
    driving = await rig.drive()
    await part.waits()
    before = virtual_time()
    await rig.store.runs.drop("run")
    assert await driving() is Ending.ENDED
    assert virtual_time() == before
    assert part.trace == ["cancelled", "closed"]
    with pytest.raises(LogNotFound):
        await rig.store.runs.get("run")


async def test_one_that_can_no_longer_be_told_anything_is_given_up(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream)
    await rig.start()
    driving = await rig.drive()
    await part.waits()
    rig.store.refuse("read", RemoteProtocolError("unreadable"))
    await rig.tell("note")
    with pytest.raises(RemoteProtocolError):
        await driving()
    assert part.trace == ["cancelled", "closed"]
    await rig.log(ended=False)


async def test_cancelling_the_runner_stops_the_producer_and_writes_nothing(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream)
    await rig.start()
    driving = await rig.drive()
    await part.waits()
    await driving.lose()
    assert part.trace == ["cancelled", "closed"]
    assert await rig.story(ended=False) == [("start", 1, 0), "a"]
    assert rig.store.watched == set()


async def test_an_outage_in_mid_run_is_waited_out(rig: Rig) -> None:
    part = Part("a")
    rig.actor(part.stream)
    await rig.start()
    driving = await rig.drive()
    await part.waits()
    with rig.store.outage():
        part.go.set()
        await asyncio.sleep(60)
        assert not driving.task.done()
    assert await driving() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), "a", ("complete", None)]


# --- errors ----------------------------------------------------------------------------------------------------------


async def before_the_first_yield() -> AsyncIterator[str]:
    if True:
        raise ValueError("bad")
    yield "never"


async def after_a_yield() -> AsyncIterator[str]:
    yield "a"
    raise ValueError("bad")


async def after_its_result() -> AsyncIterator[Any]:
    yield Result(1)
    raise ValueError("bad")


async def in_its_finally() -> AsyncIterator[str]:
    try:
        yield "a"
    finally:
        raise ValueError("bad")


async def in_a_coroutine() -> None:
    raise ValueError("bad")


def in_a_function() -> None:
    raise ValueError("bad")


def in_a_thread_s_generator() -> Iterator[str]:
    yield "a"
    raise ValueError("bad")


class InItsMaking:
    def __init__(self) -> None:
        raise ValueError("bad")

    async def stream(self) -> AsyncIterator[str]:
        yield "never"


@pytest.mark.parametrize(
    "target",
    [
        before_the_first_yield, after_a_yield, after_its_result, in_its_finally, in_a_coroutine, in_a_function,
        in_a_thread_s_generator, InItsMaking,
    ],
)  # fmt: skip
async def test_an_error_at_any_stage_ends_the_run_with_it(rig: Rig, target: Any) -> None:
    rig.actor(target)
    await rig.start()
    assert await rig.go() is Ending.ENDED
    error = (await rig.log())[-1].error
    assert error == ErrorInfo("run_failed", "ValueError: bad", False, {"type": "ValueError"})


@pytest.mark.parametrize("result", [object(), "lone \ud800", {1j: 2}], ids=["object", "surrogate", "key"])
async def test_a_result_that_cannot_be_sent_is_invalid_output(rig: Rig, result: Any) -> None:
    async def work() -> Any:
        return result

    rig.actor(work)
    await rig.start()
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), ("error", "invalid_output")]


async def test_an_item_that_cannot_be_sent_is_invalid_output(rig: Rig) -> None:
    part = Part("a", object())
    rig.actor(part.stream)
    await rig.start()
    await rig.go()
    assert await rig.story() == [("start", 1, 0), "a", ("error", "invalid_output")]
    assert part.trace == ["closed"]


async def test_an_item_that_must_not_be_sent_fails_the_run(rig: Rig) -> None:
    part = Part("a", Chunk("start"))
    rig.actor(part.stream)
    await rig.start()
    await rig.go()
    error = (await rig.log())[-1].error
    assert error is not None
    assert (error.code, error.details["code"]) == ("run_failed", "local_protocol_error")


LARGE = "x" * limits.CHUNK_BYTES
DEEP: list[Any] = functools.reduce(lambda inner, _: [inner], range(limits.JSON_DEPTH), [])


async def yields(ctx: Context) -> AsyncIterator[Any]:
    yield ctx.resources


def yields_in_a_thread(ctx: Context) -> Iterator[Any]:
    yield ctx.resources


async def returns(ctx: Context) -> Any:
    return ctx.resources


def returns_in_a_thread(ctx: Context) -> Any:
    return ctx.resources


async def ends_with(ctx: Context) -> AsyncIterator[Any]:
    yield Result(ctx.resources)


async def emits(ctx: Context) -> None:
    with pytest.raises(LimitExceeded, match=r"chunk.*(larger than 1044480|deep)"):
        await ctx.emit(ctx.resources)
    await ctx.emit(ctx.resources)


def emits_in_a_thread(ctx: Context) -> None:
    ctx.emit_sync(Chunk("log", ctx.resources))


async def progresses(ctx: Context) -> None:
    await ctx.progress(1, message=LARGE)


EMITTERS = [
    yields, yields_in_a_thread, returns, returns_in_a_thread, ends_with, emits, emits_in_a_thread, progresses,
]  # fmt: skip


@pytest.mark.parametrize("target", EMITTERS)
@pytest.mark.parametrize("value", [LARGE, DEEP], ids=["large", "deep"])
async def test_what_no_chunk_can_hold_ends_the_run_as_too_large(rig: Rig, target: Any, value: Any) -> None:
    rig.resources = Resources({"actor": value})
    rig.actor(target)
    await rig.start()
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), ("error", "too_large")]


@pytest.mark.parametrize("target", [yields, returns])
async def test_the_largest_chunk_that_an_event_can_hold_is_said(rig: Rig, target: Any) -> None:
    rig.resources = Resources({"actor": "x" * (limits.CHUNK_BYTES - 100)})
    rig.actor(target)
    await rig.start()
    await rig.go()
    assert types_in(await rig.log()) in (["start", "data", "complete"], ["start", "complete"])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x" * 3_000_000),
        RunFailed("x", details={"no": object()}),
        ValueError("lone \ud800"),
        ExceptionGroup("g", [ValueError(1), OSError(2)]),
        SystemExit(3),
        asyncio.CancelledError(),
    ],
    ids=["large", "details", "surrogate", "group", "exit", "cancelled from inside"],
)
async def test_whatever_is_raised_the_run_ends(rig: Rig, error: BaseException) -> None:
    part = Part("a", error=error)
    part.go.set()
    rig.actor(part.stream)
    await rig.start()
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), "a", ("error", "run_failed")]


async def test_what_the_model_met_is_told_as_the_run_s_failure(rig: Rig) -> None:
    async def work(ctx: Context) -> str:
        return await ctx.ai.complete("hi")

    ai = FakeAI([Unavailable("the provider is out of reach")])
    rig.resources = Resources({}, {"actor": lambda: ai})
    rig.actor(work)
    await rig.start()
    await rig.go()
    error = (await rig.log())[-1].error
    assert error == ErrorInfo(
        "run_failed",
        "Unavailable: the provider is out of reach",
        True,
        {"type": "Unavailable", "code": "unavailable"},
    )


# --- what it is told -------------------------------------------------------------------------------------------------


async def test_each_attempt_gets_its_messages_from_the_first_on(rig: Rig) -> None:
    received: list[Any] = []

    async def work(ctx: Context) -> None:
        received.append((ctx.attempt, [(await ctx.receive()).data for _ in range(2)]))
        if ctx.attempt < 2:
            await asyncio.Event().wait()

    rig.actor(work)
    await rig.start()
    driving = await rig.drive()
    await rig.tell("note", 1, id="1")
    await rig.tell("note", 2, id="2")
    await until(lambda: len(received) == 1)
    await driving.lose()
    await rig.go()
    assert received == [(1, [1, 2]), (2, [1, 2])]


async def test_a_retry_in_the_same_worker_gets_its_messages_from_the_first_on(rig: Rig) -> None:
    received: list[Any] = []

    async def work(ctx: Context) -> None:
        received.append((ctx.attempt, (await ctx.receive()).data))
        if ctx.attempt < 2:
            raise ValueError

    rig.actor(work, retry=RESTART)
    await rig.start()
    await rig.tell("note", 1)
    assert await rig.go() is Ending.ENDED
    assert received == [(1, 1), (2, 1)]


# --- readers ---------------------------------------------------------------------------------------------------------


async def test_ahead_holds_the_producer_back(rig: Rig) -> None:
    made = 0

    async def stream() -> AsyncIterator[int]:
        nonlocal made
        while made < 100:
            made += 1
            yield made

    rig.actor(stream)
    await rig.start(ahead=10)
    await rig.store.logs.commit_position("run", "reader", 0)
    driving = await rig.drive()
    await turns(200)
    assert made <= 11
    await rig.store.logs.commit_position("run", "reader", 50)
    await turns(200)
    assert 50 <= made <= 61
    await rig.store.logs.commit_position("run", "reader", None)
    assert await driving() is Ending.ENDED
    assert types_in(await rig.log())[-1] == "complete"


async def test_who_waits_for_readers_can_be_cancelled(rig: Rig) -> None:
    async def stream() -> AsyncIterator[int]:
        while True:
            yield 1

    rig.actor(stream)
    await rig.start(ahead=1)
    await rig.store.logs.commit_position("run", "reader", 0)
    driving = await rig.drive()
    await turns(200)
    await rig.cancel()
    assert await driving() is Ending.ENDED
    assert (await rig.story())[-1] == ("error", "cancelled")
    assert rig.store.watched == set()


# --- threads, which take their real time -----------------------------------------------------------------------------


class TestThreads:
    """On the real clock."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def rig(self) -> Rig:
        return Rig(time.monotonic)

    async def test_a_sync_generator_is_cancelled_at_its_next_yield(self, rig: Rig) -> None:
        trace: list[str] = []
        looked = threading.Event()

        def stream(ctx: Context) -> Iterator[str]:
            yield "a"
            try:
                while not ctx.cancelled:
                    looked.set()
                yield "late"
                trace.append("never")
            finally:
                trace.append("closed")

        rig.actor(stream)
        await rig.start()
        driving = await rig.drive()
        await until(lambda: looked.is_set() and rig.store.calls["append"] == 2)
        await rig.cancel()
        assert await driving() is Ending.ENDED
        assert await rig.story() == [("start", 1, 0), "a", ("error", "cancelled")]
        assert trace == ["closed"]

    async def test_a_sync_function_that_waits_for_a_message_is_cancelled(self, rig: Rig) -> None:
        waiting = threading.Event()
        raised: list[str] = []

        def work(ctx: Context) -> None:
            waiting.set()
            try:
                ctx.receive_sync("never")
            except asyncio.CancelledError:
                raised.append("cancelled")
                raise

        rig.actor(work)
        await rig.start()
        driving = await rig.drive()
        await until(waiting.is_set)
        await rig.cancel()
        assert await driving() is Ending.ENDED
        assert raised == ["cancelled"]
        assert driving.runner.abandoned is None


# --- starting over ---------------------------------------------------------------------------------------------------


async def test_a_continuing_producer_may_start_over(rig: Rig) -> None:
    async def stream(ctx: Context) -> AsyncIterator[str]:
        if ctx.attempt == 1:
            yield "a"
            raise OSError
        if ctx.said():
            yield "in vain"
            raise StartOver("cannot go on")
        yield "b"

    rig.actor(stream, retry=Retry(mode="continue", attempts=2, on=(OSError,), backoff=(0.001, 0.001)))
    await rig.start()
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [
        ("start", 1, 0), "a", ("start", 2, 2), "in vain", ("start", 3, 0), "b", ("complete", None),
    ]  # fmt: skip
    causes = [chunk.error.code if chunk.error else None for chunk in await rig.log() if chunk.type == "start"]
    assert causes == [None, "run_failed", "start_over"]


async def test_parts_are_gone_on_from_as_long_as_they_are_text(rig: Rig) -> None:
    async def chat(ctx: Context) -> AsyncIterator[Any]:
        async for part in ctx.ai.stream_parts("hi", continue_from=ctx.said()):
            yield part

    call = ToolCallPart("a", "add", "{}")
    ai = FakeAI([["Hel", Unavailable("cut")], ["lo", call, Unavailable("cut")], ["Bye"]])
    rig.resources = Resources({}, {"actor": lambda: ai})
    rig.actor(chat, retry=Retry(mode="continue", backoff=(0.001, 0.001)))
    await rig.start()
    assert await rig.go() is Ending.ENDED
    starts = [entry for entry in await rig.story() if "start" in entry]
    assert starts == [("start", 1, 0), ("start", 2, 2), ("start", 3, 5), ("start", 4, 0)]
    assert [ask.begun for ask in ai.calls] == ["", "Hel", ""]


async def test_starting_over_with_nothing_to_take_back_is_a_failure(rig: Rig) -> None:
    async def stream() -> AsyncIterator[str]:
        raise StartOver("never content")
        yield ""

    rig.actor(stream, retry=Retry(mode="continue", attempts=3, on=(OSError,), backoff=(0.001, 0.001)))
    await rig.start()
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), ("error", "start_over")]


async def test_starting_over_does_not_count_as_a_failure(rig: Rig) -> None:
    async def stream(ctx: Context) -> AsyncIterator[str]:
        if ctx.said():
            raise StartOver("cannot go on")
        yield "a"
        if ctx.attempt < 5:
            raise OSError

    rig.actor(stream, retry=Retry(mode="continue", attempts=3, backoff=(0.001, 0.001)))
    await rig.start()
    assert await rig.go() is Ending.ENDED
    story = await rig.story()
    assert [entry for entry in story if entry[0] == "start"] == [
        ("start", 1, 0), ("start", 2, 2), ("start", 3, 0), ("start", 4, 5), ("start", 5, 0),
    ]  # fmt: skip
    assert story[-1] == ("complete", None)


# --- usage -----------------------------------------------------------------------------------------------------------


async def test_it_is_summed_over_attempts_and_told_at_each_start(rig: Rig) -> None:
    async def chat(prompt: str, ctx: Context) -> AsyncIterator[str]:
        async for token in ctx.ai.stream_completion(prompt, continue_from=ctx.said()):
            yield token

    said: list[Any] = ["Hel", FinishReasonPart("stop"), UsagePart(10, 2)]
    lost = asyncio.Event()
    ai = FakeAI([[*said, Unavailable("gone")], ["x", lost], said])
    rig.resources = Resources({}, {"actor": lambda: ai})
    rig.actor(chat, retry=Retry(mode="continue", backoff=(0.001, 0.001)))
    await rig.start({"prompt": "hi"})
    driving = await rig.drive("first")
    await rig.said("x")
    await driving.lose()
    await rig.go("second")
    log = await rig.log()
    assert [chunk.usage for chunk in log if chunk.type == "start"] == [None, Usage(10, 2, 1), Usage(10, 2, 1)]
    assert log[-1].usage == Usage(20, 4, calls=2), "what the lost worker's attempt used is not known"


# --- what attempts hold of what was said before them -----------------------------------------------------------------


@pytest.mark.parametrize("in_file", [False, True])
async def test_attempts_that_continue_at_once_share_a_bounded_room(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, in_file: bool
) -> None:
    """Beyond it what they find lies in a file; they find all the same."""
    monkeypatch.setattr("loom.engine.declare.standing.HISTORY_BYTES", 0 if in_file else 10_000)
    rig.resources = Resources()
    room, seen, go = rig.resources.room, list[tuple[int, int]](), asyncio.Event()

    async def work(ctx: Context) -> AsyncIterator[str]:
        if ctx.attempt == 1:
            for number in range(50):
                yield f"{number:02}" * 20
            await asyncio.sleep(1000)
        seen.append((room.left, sum(chunk.data == f"{place:02}" * 20 for place, chunk in enumerate(ctx.previous))))
        await go.wait()

    rig.actor(work, retry=CONTINUE)
    runs = [f"run-{number}" for number in range(8)]
    for run in runs:
        await rig.store.queue.put(Meta(run=run, actor="actor"))
    first = [await rig.drive() for _ in runs]
    await asyncio.sleep(1)
    assert [(await rig.store.runs.get(run)).tail for run in runs] == [51] * len(runs)
    await cancel_and_wait(*(one.task for one in first))
    await asyncio.sleep(LEASE + 1)
    again = [await rig.drive() for _ in runs]
    await asyncio.sleep(1)
    assert [found for _, found in seen] == [50] * len(runs)
    assert 0 <= room.left < 5000
    go.set()
    assert [await one() for one in again] == [Ending.ENDED] * len(runs)
    assert room.left == (0 if in_file else 10_000)


async def test_what_was_said_is_not_held_for_who_cannot_look_at_it(rig: Rig) -> None:
    left: list[int] = []

    async def work() -> AsyncIterator[str]:
        left.append(rig.resources.room.left)
        yield "a"
        await asyncio.sleep(5)

    rig.actor(work, retry=CONTINUE)
    await rig.start()
    driving = await rig.drive()
    await rig.said("a")
    await driving.lose()
    assert await rig.go() is Ending.ENDED
    assert left == [HISTORY_BYTES] * 2

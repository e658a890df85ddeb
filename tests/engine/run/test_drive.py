"""Driving a producer: every kind, its items, its result, its end; in tasks and in threads."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from loom.engine.declare.signature import make_producer
from loom.engine.run.drive import Voice, drive
from loom.engine.run.readers import Readers
from loom.engine.run.slots import ThreadSlot
from loom.engine.run.writer import BATCH_BYTES, Writer
from loom.model import limits
from loom.model.chunk import Chunk, Progress, Result
from loom.model.errors import ErrorInfo, LimitExceeded, LocalProtocolError, LoomError, RunFailed
from loom.stores.memory import MemoryStore
from loom.tasks import cancel_and_wait, spawn
from loom.testing import context
from tests.engine.kit import chunks_in, data_in, turns, types_in, until, writer_of
from tests.faults.store import FaultStore

pytestmark = pytest.mark.anyio


class Stage:
    """A run's outbox, on which producers are driven."""

    def __init__(self, store: FaultStore, writer: Writer) -> None:
        self.store = store
        self.writer = writer
        self.voice = Voice(writer)
        self.threads = asyncio.Semaphore(2)

    async def drive(self, target: Callable[..., Any], **arguments: Any) -> Any:
        slot = ThreadSlot(self.threads)
        return await drive(make_producer("p", target), arguments, context(), self.voice, slot)

    async def said(self) -> list[Chunk[Any]]:
        await self.writer.flush()
        return (await chunks_in(self.store))[1:]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    store = FaultStore(MemoryStore())
    writer = await writer_of(store)
    yield Stage(store, writer)
    await writer.aclose()


# --- items -----------------------------------------------------------------------------------------------------------


async def stream(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


def stream_sync(items: list[Any]) -> Iterator[Any]:
    yield from items


async def emitting(items: list[Any], voice: Any) -> None:
    for item in items:
        await voice.emit(item)


@pytest.fixture(params=["yield", "yield in a thread", "emit"])
def say(request: pytest.FixtureRequest, stage: Stage) -> Callable[[list[Any]], Any]:
    """Every way to say something."""

    def say(items: list[Any]) -> Any:
        if request.param == "yield":
            return stage.drive(stream, items=items)
        if request.param == "emit":
            return stage.drive(emitting, items=items, voice=stage.voice)
        return stage.drive(stream_sync, items=items)

    return say


async def test_items_become_chunks(stage: Stage, say: Callable[[list[Any]], Any]) -> None:
    info = ErrorInfo("x", "y")
    items = [1, "two", None, [3], Progress(1, 4, "a"), Chunk("stdout", "line", source="sh"), Chunk("note", error=info)]
    await say(items)
    chunks = await stage.said()
    assert data_in(chunks) == [1, "two", None, [3]]
    progress, stdout, note = chunks[4:]
    assert (progress.type, progress.progress) == ("progress", Progress(1, 4, "a"))
    assert (stdout.type, stdout.data, stdout.source) == ("stdout", "line", "sh")
    assert note.error == info
    assert all(chunk.time > 1e9 for chunk in chunks)


async def test_position_and_time_are_not_the_author_s_to_say(stage: Stage, say: Callable[[list[Any]], Any]) -> None:
    await say([Chunk("data", "x", seq=99, epoch=99, time=1.0)])
    (chunk,) = await stage.said()
    assert chunk.seq == 2
    assert chunk.time > 1e9


@pytest.mark.parametrize("type", ["start", "complete", "error"])
async def test_reserved_types_are_refused_naming_the_right_form(
    stage: Stage, say: Callable[[list[Any]], Any], type: str
) -> None:
    right = {"start": "Retry", "complete": "Result", "error": "raise an exception"}[type]
    with pytest.raises(LocalProtocolError, match=right):
        await say(["before", Chunk(type)])
    assert data_in(await stage.said()) == ["before"]


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (object(), RunFailed),
        ("lone \ud800", RunFailed),
        ("x" * limits.CHUNK_BYTES, LimitExceeded),
        (Chunk("no word"), LocalProtocolError),
        (Progress("step one"), LocalProtocolError),  # type: ignore[arg-type]
        (Progress(float("nan")), LocalProtocolError),
        (Progress(1, 2, 3), LocalProtocolError),  # type: ignore[arg-type]
        (Chunk("x", progress=0.5), LocalProtocolError),  # type: ignore[arg-type]
        (Chunk("x", source=7), LocalProtocolError),  # type: ignore[arg-type]
        (Chunk("x", error="bad"), LocalProtocolError),  # type: ignore[arg-type]
        (Chunk("x", error=ErrorInfo("x", object())), RunFailed),  # type: ignore[arg-type]
    ],
    ids=range(11),
)
async def test_what_nobody_could_read_is_refused(
    stage: Stage, say: Callable[[list[Any]], Any], item: Any, error: type[LoomError]
) -> None:
    with pytest.raises(error):
        await say(["before", item])
    assert data_in(await stage.said()) == ["before"]


# --- results ---------------------------------------------------------------------------------------------------------


async def test_a_result_is_no_chunk(stage: Stage, say: Callable[[list[Any]], Any]) -> None:
    assert await say(["a", Result({"n": 1})]) == {"n": 1}
    assert data_in(await stage.said()) == ["a"]


@pytest.mark.parametrize("item", ["more", Result(2), Progress(1)])
async def test_nothing_follows_a_result(stage: Stage, say: Callable[[list[Any]], Any], item: Any) -> None:
    with pytest.raises(LocalProtocolError, match="nothing may follow"):
        await say([Result(1), item])
    assert await stage.said() == []


async def coroutine(value: Any) -> Any:
    return value


def function(value: Any) -> Any:
    return value


def generator(value: Any) -> Generator[str, None, Any]:
    yield "a"
    return value


@pytest.mark.parametrize("target", [coroutine, function, generator])
@pytest.mark.parametrize("value", [5, {"a": [1]}, "text", None])
async def test_what_is_returned_is_the_result(stage: Stage, target: Callable[..., Any], value: Any) -> None:
    assert await stage.drive(target, value=value) == value
    assert await stage.drive(target, value=Result(value)) == value


async def test_a_generator_without_a_result_has_none(stage: Stage) -> None:
    assert await stage.drive(stream, items=[1]) is None


async def test_a_function_that_returns_an_iterator_is_iterated(stage: Stage) -> None:
    def numbers() -> Iterator[int]:
        return iter([1, 2])

    await stage.drive(numbers)
    assert data_in(await stage.said()) == [1, 2]


async def test_a_function_that_returns_an_async_iterator_is_iterated(stage: Stage) -> None:
    def wrapped(items: list[Any]) -> AsyncIterator[Any]:
        return stream(items)

    class Bare:
        """An async iterator that need not be closed."""

        def __init__(self) -> None:
            self.left = [3, 4]

        def __aiter__(self) -> Bare:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    def bare() -> AsyncIterator[int]:
        return Bare()

    await stage.drive(wrapped, items=[1, 2])
    await stage.drive(bare)
    assert data_in(await stage.said()) == [1, 2, 3, 4]


# --- errors ----------------------------------------------------------------------------------------------------------


async def failing_stream(error: Any) -> AsyncIterator[Any]:
    yield "before"
    raise error


async def failing(error: Any) -> None:
    raise error


def failing_function(error: Any) -> None:
    raise error


def failing_generator(error: Any) -> Iterator[Any]:
    yield "before"
    raise error


FAILING = [failing_stream, failing, failing_function, failing_generator]


@pytest.mark.parametrize("target", FAILING)
@pytest.mark.parametrize("error", [ValueError("x"), ExceptionGroup("g", [OSError()]), RunFailed("x", code="mine")])
async def test_what_a_producer_raises_comes_as_it_is(
    stage: Stage, target: Callable[..., Any], error: BaseException
) -> None:
    with pytest.raises(type(error)) as raised:
        await stage.drive(target, error=error)
    assert raised.value is error


@pytest.mark.parametrize("target", FAILING)
async def test_a_system_exit_ends_the_run_and_not_the_process(stage: Stage, target: Callable[..., Any]) -> None:
    with pytest.raises(RunFailed, match="SystemExit: 3"):
        await spawn(stage.drive(target, error=SystemExit(3)), "drive")


class Mute(BaseException):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("error", [Mute(), SystemExit(Mute())])
async def test_in_a_thread_even_what_cannot_be_told_ends_the_run(stage: Stage, error: BaseException) -> None:
    with pytest.raises(RunFailed, match="its text cannot be had"):
        await stage.drive(failing_function, error=error)


async def test_a_function_that_raises_stop_iteration_has_failed(stage: Stage) -> None:
    with pytest.raises(RuntimeError):
        await stage.drive(failing_function, error=StopIteration(3))


# --- giving way ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_readers", [False, True])
async def test_who_never_suspends_gives_way_to_others(stage: Stage, with_readers: bool) -> None:
    readers = Readers(stage.store.logs, "run", 10)
    stage.voice = Voice(stage.writer, readers if with_readers else None)
    count = 4 * limits.YIELD_EVERY
    seen: list[int] = []

    async def busy() -> AsyncIterator[int]:
        for n in range(count):
            yield n

    driving = spawn(stage.drive(busy), "drive")
    while not driving.done():
        await asyncio.sleep(0)
        seen.append(stage.writer.seq)
    steps = [after - before for before, after in itertools.pairwise(seen)]
    readers.close()
    assert max(steps) <= limits.YIELD_EVERY
    assert len(await stage.said()) == count


async def test_a_full_writer_holds_the_generator(stage: Stage) -> None:
    held = stage.store.hold("append")
    made = 0

    async def busy() -> AsyncIterator[str]:
        nonlocal made
        while made < 100:
            made += 1
            yield "x" * 10_000

    driving = spawn(stage.drive(busy), "drive")
    await held.arrived.wait()
    await turns(300)
    assert made * 10_000 < 2 * BATCH_BYTES + 20_000
    held.let_go()
    await driving
    assert made == 100


async def test_a_full_writer_holds_the_thread(stage: Stage) -> None:
    held = stage.store.hold("append")
    made = 0

    def busy() -> Iterator[str]:
        nonlocal made
        for _ in range(20 * limits.YIELD_EVERY):
            made += 1
            yield "x" * 1000

    driving = spawn(stage.drive(busy), "drive")
    await held.arrived.wait()
    await until(lambda: stage.writer.full)
    await turns(300)
    assert made * 1000 < 2 * BATCH_BYTES + 3 * limits.YIELD_EVERY * 1000
    held.let_go()
    await driving
    assert len(await stage.said()) == 20 * limits.YIELD_EVERY


# --- being cancelled -------------------------------------------------------------------------------------------------


async def test_a_cancel_reaches_the_generator_and_its_clean_up_runs(stage: Stage) -> None:
    trace: list[str] = []

    async def patient() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            trace.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            trace.append("cleaned up")

    driving = spawn(stage.drive(patient), "drive")
    await turns()
    await cancel_and_wait(driving)
    assert driving.cancelled()
    assert trace == ["cancelled", "cleaned up"]


async def test_a_generator_that_waits_for_room_is_closed(stage: Stage) -> None:
    stage.store.hold("append")
    trace: list[str] = []

    async def busy() -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "x" * 10_000
        finally:
            trace.append("closed")

    driving = spawn(stage.drive(busy), "drive")
    await until(lambda: stage.writer.full)
    await turns()
    await cancel_and_wait(driving)
    assert trace == ["closed"]


async def test_after_its_voice_was_closed_a_producer_is_cancelled_by_speaking(stage: Stage) -> None:
    stage.voice.close()
    with pytest.raises(asyncio.CancelledError):
        await stage.drive(stream, items=[1])
    assert await stage.said() == []


async def test_a_thread_is_stopped_at_its_next_yield(stage: Stage) -> None:
    trace: list[str] = []
    first = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
                first.set()
        finally:
            trace.append("closed")

    driving = spawn(stage.drive(endless), "drive")
    await until(first.is_set)
    await cancel_and_wait(driving)
    assert driving.cancelled()
    assert trace == ["closed"]


async def test_a_thread_is_waited_for_however_often_one_asks(stage: Stage) -> None:
    started, go = threading.Event(), threading.Event()

    def stubborn() -> int:
        started.set()
        go.wait()
        return 1

    driving = spawn(stage.drive(stubborn), "drive")
    await until(started.is_set)
    for _ in range(3):
        driving.cancel()
        await turns()
    assert not driving.done()
    go.set()
    await asyncio.wait({driving})
    assert driving.cancelled()


async def test_only_so_many_threads_run_at_a_time(stage: Stage) -> None:
    go = threading.Event()
    lock = threading.Lock()
    running = most = 0

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait()
        with lock:
            running -= 1

    driving = [spawn(stage.drive(work), "drive") for _ in range(5)]
    await until(lambda: running == 2)
    await turns(50)
    go.set()
    await asyncio.wait(driving)
    assert most == 2


# --- threads ---------------------------------------------------------------------------------------------------------


async def test_context_variables_reach_the_thread(stage: Stage) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("seen")

    def seen() -> str:
        return variable.get()

    assert await stage.drive(seen) == "seen"


async def test_emits_and_yields_of_a_thread_keep_their_order(stage: Stage) -> None:
    held = stage.store.hold("append")

    def both() -> Iterator[str]:
        for n in range(limits.YIELD_EVERY * 3):
            yield f"{n} {'x' * 2000}"
            stage.voice.emit_sync(f"{n} emitted")

    driving = spawn(stage.drive(both), "drive")
    await held.arrived.wait()
    await until(lambda: stage.writer.full)
    held.let_go()
    await driving
    said = [(int(text.split()[0]), "emitted" in text) for text in data_in(await stage.said())]
    assert said == [(n, emitted) for n in range(limits.YIELD_EVERY * 3) for emitted in (False, True)]


async def test_a_stopped_thread_that_emits_is_cancelled(stage: Stage) -> None:
    started, go, raised = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait()
        try:
            stage.voice.emit_sync("late")
        except asyncio.CancelledError:
            raised.set()
            raise

    driving = spawn(stage.drive(work), "drive")
    await until(started.is_set)
    driving.cancel()
    await turns()
    go.set()
    await asyncio.wait({driving})
    assert raised.is_set()
    assert await stage.said() == []


async def test_threads_are_daemons_with_telling_names(stage: Stage) -> None:
    found: list[threading.Thread] = []
    await stage.drive(lambda: found.append(threading.current_thread()))
    assert found[0].daemon
    assert found[0].name == "loom-producer p"
    await until(lambda: not found[0].is_alive())


async def test_lines_of_a_thread_that_are_refused_stop_it(stage: Stage) -> None:
    def work() -> Iterator[Any]:
        while True:
            yield Chunk("no word")

    with pytest.raises(LocalProtocolError):
        await stage.drive(work)
    assert types_in(await stage.said()) == []

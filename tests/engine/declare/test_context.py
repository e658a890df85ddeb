"""What a producer is handed; from threads too, and also while it is being stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from loom.engine.declare import context as context_module
from loom.engine.declare.context import Context, Previous
from loom.engine.declare.standing import Room, Standing
from loom.model.chunk import Batch, Chunk, Message, Progress
from loom.model.errors import InvalidInput, RemoteProtocolError, StartOver, UsageError
from loom.model.parts import (
    FinishReasonPart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    UsagePart,
)
from loom.tasks import spawn
from loom.testing import context
from loom.testing.fake_ai import FakeAI
from loom.wire.codec import convert
from loom.wire.json import decode_batch, make_batch
from tests.engine.kit import turns, until

pytestmark = pytest.mark.anyio


class Approval(msgspec.Struct):
    yes: bool


class Desk:
    """A context, with what it emitted and what it will receive."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, **more: Any) -> None:
        self.said: list[Any] = []
        self.messages: asyncio.Queue[Message[Any]] = asyncio.Queue()
        self.waiting = asyncio.Event()
        options: dict[str, Any] = {"previous": (), "resources": None, "ai": None, **more}
        self.ctx = Context(
            run_id="run",
            actor="actor",
            attempt=1,
            key=None,
            emit=self._emit,
            receive=self._receive,
            convert=convert,
            loop=loop or asyncio.get_running_loop(),
            **options,
        )

    async def _emit(self, item: Any) -> None:
        self.said.append(item)

    async def _receive(self, type: str | None, timeout: float | None) -> Message[Any]:
        self.waiting.set()
        async with asyncio.timeout(timeout):
            return await self.messages.get()


async def in_thread(work: Callable[[], Any]) -> Any:
    """`work` in a thread of its own; what it raises comes here, `CancelledError` included."""
    outcome: asyncio.Future[tuple[Any, BaseException | None]] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def run() -> None:
        value, error = None, None
        try:
            value = work()
        except BaseException as raised:
            error = raised
        loop.call_soon_threadsafe(outcome.set_result, (value, error))

    threading.Thread(target=run, daemon=True).start()
    value, error = await outcome
    if error is not None:
        raise error
    return value


# --- previous --------------------------------------------------------------------------------------------------------


def standing(*batches: Batch, room: int = 0) -> Standing:
    found = Standing(Room(room))
    for batch in batches:
        found.append(batch)
    return found


def previous() -> Previous:
    return Previous(
        standing(
            make_batch(1, 2, [Chunk("data", "a"), Chunk("progress", progress=Progress(1))]),
            make_batch(2, 5, [Chunk("data", "b")]),
        )
    )


def test_previous_is_a_sequence_of_the_output_with_its_positions() -> None:
    found = previous()
    assert [(chunk.seq, chunk.epoch, chunk.type) for chunk in found] == [
        (2, 1, "data"),
        (3, 1, "progress"),
        (5, 2, "data"),
    ]
    assert len(found) == 3
    assert found[-1].data == "b"
    assert [chunk.data for chunk in found[::2]] == ["a", "b"]
    assert not Previous()


def test_previous_is_decoded_when_it_is_looked_at_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Previous(standing(Batch(1, 1, 1, b"no JSON\n"), room=100))
    assert len(broken) == 1
    with pytest.raises(RemoteProtocolError):
        broken[0]
    decoded: list[int] = []

    def counted(batch: Batch) -> list[Chunk[Any]]:
        decoded.append(batch.first)
        return decode_batch(batch)

    monkeypatch.setattr(context_module, "decode_batch", counted)
    found = previous()
    assert next(iter(found)).data == "a"
    assert decoded == [2]
    assert [found[place].seq for place in (0, 1, 0, 2, -1)] == [2, 3, 2, 5, 5]
    assert decoded == [2, 2, 5]
    for place in (3, -4):
        with pytest.raises(IndexError):
            found[place]
    assert [chunk.seq for chunk in found[1:]] == [3, 5]
    assert found[-1] in found


def test_said_is_the_text_that_stands() -> None:
    chunks = [
        Chunk("data", "He"),
        Chunk("progress"),
        Chunk("data", {"a": 1}),
        Chunk("text-delta", "l"),
        Chunk("x", "y"),
    ]
    assert context(previous=chunks).said() == "Hel"
    assert context().said() == ""


def parts_said(*parts: Part) -> str:
    """As they come from the log."""
    stored = Previous(standing(make_batch(1, 1, [Chunk("data", part) for part in parts])))
    return context(previous=stored).said()


def test_said_is_the_text_of_parts_too() -> None:
    assert parts_said(ReasoningPart("hm"), TextPart("Hel"), UsagePart(3, 0), TextPart("lo")) == "Hello"
    assert parts_said(UsagePart(3, 0)) == ""


@pytest.mark.parametrize(
    "part",
    [
        ToolCallPart("a", "add", "{}"),
        ToolResultPart("a", "add", "3"),
        RefusalPart("I would rather not"),
        FinishReasonPart("stop"),
    ],
)
def test_what_no_text_goes_on_from_starts_over(part: Part) -> None:
    with pytest.raises(StartOver):
        parts_said(TextPart("Hel"), part)


def test_reasoning_alone_starts_over() -> None:
    with pytest.raises(StartOver):
        parts_said(ReasoningPart("hm"))


# --- asynchronous ----------------------------------------------------------------------------------------------------


async def test_without_a_model_it_says_how_to_give_one() -> None:
    with pytest.raises(UsageError, match=r"App\(ai=...\)"):
        _ = Desk().ctx.ai


async def test_the_model_is_asked_for_when_it_is_used() -> None:
    ai = FakeAI(["x"])
    assert Desk(ai=lambda: ai).ctx.ai is ai


async def test_emit_and_progress_go_one_way() -> None:
    desk = Desk()
    await desk.ctx.emit("x")
    await desk.ctx.progress(1, 2, "half")
    assert desk.said == ["x", Progress(1, 2, "half")]


async def test_a_message_is_given_its_type() -> None:
    desk = Desk()
    desk.messages.put_nowait(Message("approve", {"yes": True}, "alice", "m1", 5.0))
    message = await desk.ctx.receive("approve", into=Approval)
    assert message == Message("approve", Approval(True), "alice", "m1", 5.0)


async def test_a_message_that_does_not_fit_names_the_field() -> None:
    desk = Desk()
    desk.messages.put_nowait(Message("approve", {"yes": "perhaps"}))
    with pytest.raises(InvalidInput) as raised:
        await desk.ctx.receive(into=Approval)
    assert raised.value.details["field"].endswith("yes")


async def test_receive_gives_up_after_its_timeout() -> None:
    with pytest.raises(TimeoutError, match=r"^no .*message within"):
        await Desk().ctx.receive(timeout=0.01)


# --- from a thread ---------------------------------------------------------------------------------------------------


async def test_a_thread_emits_and_receives() -> None:
    desk = Desk()
    desk.messages.put_nowait(Message("note", 5))

    def work() -> Any:
        desk.ctx.emit_sync("x")
        return desk.ctx.receive_sync().data

    assert await in_thread(work) == 5
    assert desk.said == ["x"]


async def test_a_thread_s_error_is_its_own() -> None:
    desk = Desk()
    with pytest.raises(TimeoutError):
        await in_thread(lambda: desk.ctx.receive_sync(timeout=0.01))


async def test_a_thread_that_waits_is_told_to_stop_and_leaves_no_task() -> None:
    desk = Desk()
    before = asyncio.all_tasks()
    waiting = spawn(in_thread(desk.ctx.receive_sync), "thread")
    await desk.waiting.wait()
    assert not desk.ctx.cancelled
    desk.ctx._cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    await until(lambda: asyncio.all_tasks() == before)


async def test_after_the_stop_nothing_is_begun() -> None:
    desk = Desk()
    desk.ctx._cancel()
    assert desk.ctx.cancelled
    for work in (lambda: desk.ctx.emit_sync("x"), desk.ctx.receive_sync):
        with pytest.raises(asyncio.CancelledError):
            await in_thread(work)
    assert desk.said == []


async def test_a_stop_does_not_disturb_calls_that_are_over() -> None:
    desk = Desk()
    await in_thread(lambda: desk.ctx.emit_sync("x"))
    desk.ctx._cancel()
    await turns()
    assert desk.said == ["x"]


async def test_a_thread_that_outlives_the_loop_is_told_to_stop() -> None:
    loop = asyncio.new_event_loop()
    desk = Desk(loop)
    loop.close()
    with pytest.raises(asyncio.CancelledError):
        await in_thread(lambda: desk.ctx.emit_sync("x"))


async def test_a_driven_thread_s_emits_go_its_own_way() -> None:
    handed: list[Any] = []
    desk = Desk(emit_sync=handed.append)
    desk.ctx.emit_sync("x")
    assert (handed, desk.said) == (["x"], [])

"""The writer: batches without waiting, repeats byte for byte, stops when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from loom.engine.run.writer import BATCH_BYTES, BATCH_CHUNKS, Writer, encode_chunk
from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.errors import (
    Conflict,
    Fenced,
    HandleClosed,
    LimitExceeded,
    LocalProtocolError,
    LogEnded,
    LogNotFound,
    LoomError,
    OutcomeUnknown,
    RunFailed,
    StoreFull,
    Unavailable,
)
from loom.model.ports import Commit, Notice
from loom.stores.memory import MemoryStore
from loom.tasks import spawn
from loom.wire.json import make_batch
from tests.engine.kit import chunks_in, data_in, open_log, turns, types_in, until, writer_of
from tests.faults.store import FaultStore

pytestmark = pytest.mark.anyio

COMPLETE = Chunk("complete", "result")
STOPPING = [Fenced("a newer attempt"), Conflict("another tail"), LogEnded("it has ended"), LogNotFound("dropped")]


def data(value: Any) -> Chunk[Any]:
    return Chunk("data", value)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.fixture
def store() -> FaultStore:
    return FaultStore(MemoryStore())


@pytest.fixture
async def writer(store: FaultStore) -> AsyncIterator[Writer]:
    """A writer that has said `start`."""
    writer = await writer_of(store)
    store.appended.clear()
    yield writer
    await writer.aclose()


def ranges(store: FaultStore) -> list[tuple[int, int]]:
    return [(batch.first, batch.last) for batch, _ in store.appended]


# --- batching --------------------------------------------------------------------------------------------------------


async def test_the_first_chunk_goes_out_at_once(store: FaultStore, writer: Writer) -> None:
    writer.put(data(1))
    await turns(2)
    assert ranges(store) == [(2, 2)]
    assert data_in(await chunks_in(store)) == [1]


async def test_what_is_said_while_an_append_is_under_way_is_the_next_batch(store: FaultStore, writer: Writer) -> None:
    held = store.hold("append")
    writer.put(data(0))
    await held.arrived.wait()
    for value in range(1, 6):
        writer.put(data(value))
    await turns()
    assert ranges(store) == [(2, 2)]
    held.let_go()
    await writer.flush()
    assert ranges(store) == [(2, 2), (3, 7)]
    assert data_in(await chunks_in(store)) == [0, 1, 2, 3, 4, 5]


async def test_what_is_said_in_one_turn_is_one_batch(store: FaultStore, writer: Writer) -> None:
    for value in range(10):
        writer.put(data(value))
    await writer.flush()
    assert ranges(store) == [(2, 11)]


async def test_flush_waits_for_what_was_put_and_no_longer(store: FaultStore, writer: Writer) -> None:
    writer.put(data(1))
    first = store.hold("append")
    flushed = spawn(writer.flush(), "flush")
    await first.arrived.wait()
    writer.put(data(2))
    second = store.hold("append")
    assert not flushed.done()
    first.let_go()
    await second.arrived.wait()
    await flushed
    assert (writer.acknowledged, writer.seq) == (2, 3)
    second.let_go()


async def test_a_flush_of_nothing_does_not_wait(store: FaultStore, writer: Writer) -> None:
    await writer.flush()
    assert store.appended == []


# --- bounds ----------------------------------------------------------------------------------------------------------


async def test_it_is_full_after_so_many_chunks(writer: Writer) -> None:
    for value in range(BATCH_CHUNKS):
        assert not writer.full
        writer.put(data(value))
    assert writer.full


async def test_it_is_full_after_so_many_bytes(writer: Writer) -> None:
    while not writer.full:
        writer.put(data("x" * 20_000))
    said = writer.seq - 1
    assert (said - 1) * 20_100 < BATCH_BYTES <= said * 20_100


async def test_room_holds_the_producer_until_the_store_has_taken_the_batch(store: FaultStore, writer: Writer) -> None:
    held = store.hold("append")
    writer.put(data(0))
    await held.arrived.wait()
    while not writer.full:
        writer.put(data(1))
    waiting = spawn(writer.room(), "room")
    await turns()
    assert not waiting.done()
    held.let_go()
    await waiting
    assert not writer.full


async def test_there_is_room_while_a_full_batch_is_under_way(store: FaultStore, writer: Writer) -> None:
    held = store.hold("append")
    while not writer.full:
        writer.put(data("x" * 1000))
    await asyncio.wait_for(writer.room(), 10)
    assert held.arrived.is_set()
    assert not writer.full
    assert writer.acknowledged == 1


async def test_room_with_room_does_not_wait(writer: Writer) -> None:
    writer.put(data(1))
    await asyncio.wait_for(writer.room(), 10)


@pytest.mark.parametrize("value", ["x" * limits.CHUNK_BYTES, nested(limits.JSON_DEPTH), nested(100_000)])
async def test_a_chunk_that_is_too_large_or_too_deep_is_not_said(writer: Writer, value: Any) -> None:
    writer.put(data("before"))
    with pytest.raises(LimitExceeded) as raised:
        writer.put(data(value))
    assert raised.value.code == "too_large"
    writer.put(data("after"))
    assert writer.seq == 3
    await writer.flush()


async def test_the_largest_and_deepest_chunk_may_be_said(store: FaultStore, writer: Writer) -> None:
    frame = len(encode_chunk(data("")))
    writer.put(data("x" * (limits.CHUNK_BYTES - frame)))
    writer.put(data(nested(limits.JSON_DEPTH - 1)))
    await writer.flush()
    assert types_in(await chunks_in(store)) == ["start", "data", "data"]


@pytest.mark.parametrize("value", [object(), {1j}, "lone \ud800", {"deep": [object()]}, float])
async def test_what_has_no_json_is_not_said(store: FaultStore, writer: Writer, value: Any) -> None:
    writer.put(data("before"))
    with pytest.raises(RunFailed) as raised:
        writer.put(data(value))
    assert raised.value.code == "invalid_output"
    writer.put(data("after"))
    await writer.flush()
    assert data_in(await chunks_in(store)) == ["before", "after"]


async def test_changing_an_object_after_it_was_said_changes_nothing(store: FaultStore, writer: Writer) -> None:
    value: dict[str, Any] = {"list": [1, 2], "name": "before"}
    held = store.hold("append")
    writer.put(data(value))
    value["name"] = "after"
    value["list"].append(3)
    await held.arrived.wait()
    value.clear()
    held.let_go()
    await writer.flush()
    assert data_in(await chunks_in(store)) == [{"list": [1, 2], "name": "before"}]


# --- the grammar -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["data", "complete", "stdout"])
async def test_a_new_log_begins_with_start_or_error(store: FaultStore, type: str) -> None:
    writer = Writer(store.logs, "run", await open_log(store))
    with pytest.raises(LocalProtocolError):
        writer.put(Chunk(type))
    assert writer.seq == 0
    writer.put(Chunk("error"))
    await writer.aclose()


async def test_a_later_attempt_goes_on_behind_the_tail(store: FaultStore, writer: Writer) -> None:
    writer.put(data(1))
    await writer.flush()
    later = Writer(store.logs, "run", await store.logs.fence("run", "later"))
    later.put(Chunk("start", {"attempt": 2}))
    await later.flush()
    assert [chunk.seq for chunk in await chunks_in(store)] == [1, 2, 3]
    await later.aclose()


@pytest.mark.parametrize("type", ["", "two words", "line\nend", "ü", "x" * 65, 'quo"te'])
async def test_a_type_is_a_word(writer: Writer, type: str) -> None:
    with pytest.raises(LocalProtocolError):
        writer.put(Chunk(type))
    assert writer.seq == 1


async def test_a_line_encoded_elsewhere_is_said_like_a_chunk(store: FaultStore, writer: Writer) -> None:
    writer.put(Chunk("stdout", "one", time=1.0))
    writer.put_line("stdout", encode_chunk(Chunk("stdout", "one", time=1.0)))
    await writer.flush()
    one, other = (await chunks_in(store))[1:]
    assert (one.type, one.data, one.time) == (other.type, other.data, other.time)
    with pytest.raises(LocalProtocolError):
        writer.put_line("no word", encode_chunk(Chunk("no word")))


@pytest.mark.parametrize(
    ("chunk", "error"),
    [
        (data(object()), RunFailed),
        (data(nested(100_000)), LimitExceeded),
        (data(nested(1000)), LimitExceeded),
        (data("x" * limits.CHUNK_BYTES), LimitExceeded),
    ],
)
def test_a_line_that_cannot_be_said_is_refused_where_it_is_encoded(chunk: Chunk[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        encode_chunk(chunk)


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_the_end_and_all_before_it_are_one_act(store: FaultStore, writer: Writer) -> None:
    told: list[Notice] = []
    store.logs.watch("run", told.append)
    writer.put(data(1))
    writer.put(data(2))
    await writer.end(COMPLETE)
    assert [(batch.first, batch.last, end) for batch, end in store.appended] == [(2, 4, True)]
    assert [notice.ended for notice in told] == [True]
    assert (await store.runs.get("run")).ended


async def test_the_end_waits_for_the_batch_under_way(store: FaultStore, writer: Writer) -> None:
    held = store.hold("append")
    writer.put(data(1))
    await held.arrived.wait()
    ending = spawn(writer.end(COMPLETE), "end")
    await turns()
    held.let_go()
    await ending
    assert [(batch.first, batch.last, end) for batch, end in store.appended] == [(2, 2, False), (3, 3, True)]


@pytest.mark.parametrize("lost", [OutcomeUnknown("?"), Unavailable("?")])
async def test_an_end_whose_reply_was_lost_is_repeated_and_stands_once(
    store: FaultStore, writer: Writer, lost: LoomError
) -> None:
    store.lose_reply("append", lost, times=3)
    await writer.end(COMPLETE)
    assert len({(batch, end) for batch, end in store.appended}) == 1
    assert len(store.appended) == 4
    assert types_in(await chunks_in(store)) == ["start", "complete"]


async def test_after_the_end_nothing_can_be_said(writer: Writer) -> None:
    await writer.end(COMPLETE)
    with pytest.raises(LocalProtocolError):
        writer.put(data(1))


async def test_an_end_that_cannot_be_sent_leaves_the_log_open(store: FaultStore, writer: Writer) -> None:
    with pytest.raises(RunFailed):
        await writer.end(Chunk("complete", object()))
    await writer.end(Chunk("error"))
    assert types_in(await chunks_in(store)) == ["start", "error"]


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply_lost", [True, False])
@pytest.mark.parametrize("error", [OutcomeUnknown("?"), Unavailable("out"), StoreFull("full")])
async def test_a_batch_is_sent_again_byte_for_byte(
    store: FaultStore, writer: Writer, error: LoomError, reply_lost: bool
) -> None:
    fault = store.lose_reply if reply_lost else store.refuse
    fault("append", error, times=3)
    held = store.hold("append", skip=3)
    writer.put(data("first"))
    await until(lambda: len(store.appended) == 2)
    writer.put(data("said meanwhile"))
    await held.arrived.wait()
    held.let_go()
    await writer.flush()
    batches = [batch for batch, _ in store.appended]
    assert batches[:4] == [batches[0]] * 4
    assert (batches[4].first, batches[4].last) == (3, 3)
    assert data_in(await chunks_in(store)) == ["first", "said meanwhile"]


@pytest.mark.parametrize("error", STOPPING, ids=lambda error: error.code)
async def test_a_refusal_for_good_stops_it(store: FaultStore, writer: Writer, error: LoomError) -> None:
    store.refuse("append", error)
    writer.put(data(1))
    for waiting in (writer.flush(), writer.end(COMPLETE)):
        with pytest.raises(type(error)):
            await waiting
    with pytest.raises(type(error)):
        writer.put(data(2))
    with pytest.raises(type(error)):
        writer.put_line("data", encode_chunk(data(2)))
    assert writer.on_broken.result() is error
    assert len(store.appended) == 1
    assert types_in(await chunks_in(store)) == ["start"]


async def test_who_waits_for_room_is_told_of_the_refusal(store: FaultStore, writer: Writer) -> None:
    held = store.hold("append")
    writer.put(data(1))
    await held.arrived.wait()
    while not writer.full:
        writer.put(data(2))
    waiting = spawn(writer.room(), "room")
    await turns()
    await store.logs.fence("run", "another")
    held.let_go()
    with pytest.raises(Fenced):
        await waiting


async def test_what_an_older_epoch_says_is_refused_by_the_store(store: FaultStore, writer: Writer) -> None:
    await store.logs.fence("run", "another")
    writer.put(data("late"))
    with pytest.raises(Fenced):
        await writer.flush()
    assert types_in(await chunks_in(store)) == ["start"]


async def test_it_never_adopts_a_tail(store: FaultStore, writer: Writer) -> None:
    epoch = (await store.runs.get("run")).epochs[-1][0]
    await store.logs.append("run", make_batch(epoch, 2, [data("not ours")]))
    writer.put(data("ours"))
    with pytest.raises(Conflict):
        await writer.flush()
    with pytest.raises(Conflict):
        writer.put(data("more"))
    await turns()
    assert ranges(store) == [(2, 2), (2, 2)]
    assert data_in(await chunks_in(store)) == ["not ours"]


async def test_a_store_s_own_fault_is_heard_of(store: FaultStore, writer: Writer) -> None:
    store.refuse("append", ZeroDivisionError("a bug"))
    writer.put(data(1))
    with pytest.raises(LoomError, match="ZeroDivisionError: a bug"):
        await writer.flush()


# --- closing ---------------------------------------------------------------------------------------------------------


async def test_closing_leaves_nobody_waiting(store: FaultStore, writer: Writer) -> None:
    store.hold("append")
    writer.put(data(1))
    waiting = spawn(writer.flush(), "flush")
    await turns()
    await writer.aclose()
    with pytest.raises(HandleClosed):
        await waiting
    with pytest.raises(HandleClosed):
        writer.put(data(2))


async def test_an_append_that_is_cancelled_from_within_the_store_is_heard_of(
    store: FaultStore, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancelled(log: str, batch: Batch, commit: Commit | None = None) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(store.logs, "append", cancelled)
    writer.put(data(1))
    with pytest.raises(HandleClosed):
        await writer.flush()


async def test_closing_twice_is_closing_once(writer: Writer) -> None:
    await writer.aclose()
    await writer.aclose()


async def test_who_stops_waiting_disturbs_nobody(store: FaultStore, writer: Writer) -> None:
    held = store.hold("append")
    writer.put(data(1))
    gone, staying = spawn(writer.flush(), "gone"), spawn(writer.flush(), "staying")
    await turns()
    gone.cancel()
    await turns()
    held.let_go()
    await staying


# --- a store that needs no waiting -----------------------------------------------------------------------------------


class AtOnce(MemoryStore):
    """Remembers what is appended, refuses when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.appended: list[tuple[int, int]] = []
        self.refusals: list[Exception] = []
        append = self.logs.append_nowait

        def append_nowait(log: str, batch: Batch, commit: Commit | None = None) -> bool:
            self.appended.append((batch.first, batch.last))
            if self.refusals:
                raise self.refusals.pop(0)
            return append(log, batch, commit)

        self.logs.append_nowait = append_nowait  # type: ignore[method-assign]


@pytest.fixture
async def at_once() -> AtOnce:
    return AtOnce()


@pytest.fixture
async def quick(at_once: AtOnce) -> AsyncIterator[Writer]:
    """A writer that has said `start`, and rests."""
    writer = await writer_of(at_once)
    await turns()
    at_once.appended.clear()
    yield writer
    await writer.aclose()


async def test_the_first_chunk_is_stored_when_it_was_put(at_once: AtOnce, quick: Writer) -> None:
    for value in range(3):
        quick.put(data(value))
        assert (quick.acknowledged, at_once.appended[-1]) == (2 + value, (2 + value, 2 + value))
        await turns(1)
    assert data_in(await chunks_in(at_once)) == [0, 1, 2]


async def test_what_follows_in_the_same_turn_is_the_next_batch(at_once: AtOnce, quick: Writer) -> None:
    for value in range(100):
        quick.put(data(value))
    assert at_once.appended == [(2, 2)]
    await turns(1)
    assert at_once.appended == [(2, 2), (3, 101)]
    for value in range(100, 200):
        quick.put(data(value))
    await quick.flush()
    assert at_once.appended == [(2, 2), (3, 101), (102, 201)]
    assert data_in(await chunks_in(at_once)) == list(range(200))


async def test_a_busy_producer_gives_way_before_the_batch_is_full(at_once: AtOnce, quick: Writer) -> None:
    said = 0
    for value in range(10 * limits.YIELD_EVERY):
        said += 1
        if quick.put(data(value)):
            assert said <= limits.YIELD_EVERY + 1
            said = 0
            await quick.room()
    await quick.end(COMPLETE)
    assert data_in(await chunks_in(at_once)) == list(range(10 * limits.YIELD_EVERY))


@pytest.mark.parametrize("error", [OutcomeUnknown("?"), Unavailable("out"), StoreFull("full")])
async def test_what_could_not_be_stored_at_once_is_stored_later_in_order(
    at_once: AtOnce, quick: Writer, error: LoomError
) -> None:
    at_once.refusals += [error] * 3
    quick.put(data(0))
    assert quick.acknowledged == 1
    quick.put(data(1))
    await until(lambda: not at_once.refusals)
    quick.put(data(2))
    await quick.end(COMPLETE)
    assert data_in(await chunks_in(at_once)) == [0, 1, 2]
    assert (await at_once.runs.get("run")).ended


@pytest.mark.parametrize("error", [*STOPPING, ZeroDivisionError("a bug")], ids=lambda error: type(error).__name__)
async def test_a_refusal_at_once_stops_it_too(at_once: AtOnce, quick: Writer, error: Exception) -> None:
    at_once.refusals.append(error)
    quick.put(data(0))
    broken = quick.on_broken.result()
    assert broken is error or "a bug" in str(broken)
    with pytest.raises(type(broken)):
        quick.put(data(1))
    await turns()
    assert at_once.appended == [(2, 2)]


async def test_once_closed_it_stores_nothing_more(at_once: AtOnce, quick: Writer) -> None:
    quick.put(data(0))
    quick.put(data(1))
    await quick.aclose()
    await turns()
    assert data_in(await chunks_in(at_once)) in ([0], [0, 1])
    with pytest.raises(HandleClosed):
        quick.put(data(2))

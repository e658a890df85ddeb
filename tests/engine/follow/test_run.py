"""The handle of a run: iterated, folded, awaited, told, cancelled; and owned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any, cast

import msgspec
import pytest

from loom.engine.follow.run import OwnedRun, Run
from loom.engine.follow.transport import StoreTransport
from loom.model import limits
from loom.model.chunk import Chunk, Message
from loom.model.cursor import Cursor
from loom.model.errors import (
    CursorExpired,
    ErrorInfo,
    LogEnded,
    LogNotFound,
    RemoteProtocolError,
    RunCancelled,
    RunError,
    RunFailed,
    RunLost,
    RunRestarted,
    Unavailable,
    UsageError,
)
from loom.model.ports import Notice
from loom.model.run import Start, inbox_of
from loom.stores.memory import MemoryStore
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import Author, read_all
from loom.wire.codec import codec_of
from loom.wire.json import decode_message
from tests.engine.kit import turns, types_in, until
from tests.faults.store import FaultStore
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.anyio


class Token(msgspec.Struct):
    text: str


class Place:
    """A run named "run", its author, and handles on it."""

    def __init__(self, store: FaultStore, author: Author) -> None:
        self.store = store
        self.author = author
        self.transport = StoreTransport(store)

    def run(self, yields: Any = Any, returns: Any = Any) -> Run[Any, Any]:
        return Run(self.transport, "run", yields=codec_of(yields), returns=codec_of(returns))

    async def restart(self, kept: int) -> None:
        self.author = await Author.take(self.store.logs, "run", f"t{kept}")
        await self.author.say(Chunk("start", {"attempt": 2, "kept_through": kept}))

    async def say(self, *data: Any) -> None:
        await self.author.say(*(Chunk("data", value) for value in data))

    async def complete(self, result: Any = None) -> None:
        await self.author.say(Chunk("complete", result))

    async def fail(self, code: str = "run_failed", **more: Any) -> None:
        await self.author.say(Chunk("error", error=ErrorInfo(code, f"{code} by test", **more)))


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    store = FaultStore(MemoryStore())
    author = await Author.start(store, input=msgspec.Raw(b'"an input"'))
    place = Place(store, author)
    yield place
    await place.transport.aclose()


async def gathered(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def following(items: AsyncIterator[Any]) -> Any:
    """The next item, as a coroutine."""
    return await anext(items)


async def first(items: AsyncGenerator[Any, None], count: int) -> list[Any]:
    """The first `count` items; then the iterator is closed."""
    found = []
    async with aclosing(items) as all_of_them:
        async for item in all_of_them:
            found.append(item)
            if len(found) == count:
                break
    return found


# --- chunks ----------------------------------------------------------------------------------------------------------


async def test_iterating_a_run_gives_its_chunks(place: Place) -> None:
    await place.say("a")
    await place.complete()
    chunks = await gathered(aiter(place.run()))
    assert types_in(chunks) == ["start", "data", "complete"]
    assert [str(chunk.cursor) for chunk in chunks] == [f"{place.author.epoch}-{seq}" for seq in (1, 2, 3)]


@pytest.mark.parametrize("as_text", [False, True])
async def test_any_chunk_s_cursor_resumes_behind_it(place: Place, as_text: bool) -> None:
    await place.say("a", "b")
    await place.restart(kept=3)
    await place.say("c")
    await place.complete()
    chunks = await gathered(place.run().chunks())
    for index, chunk in enumerate(chunks):
        after: Any = str(chunk.cursor) if as_text else chunk.cursor
        assert await gathered(place.run().chunks(after)) == chunks[index + 1 :]


async def test_chunks_come_as_they_are_said(place: Place) -> None:
    chunks = place.run().chunks()
    assert (await anext(chunks)).type == "start"
    waiting = spawn(following(chunks), "next")
    await turns()
    assert not waiting.done()
    await place.say("a")
    assert (await waiting).data == "a"
    await chunks.aclose()


@pytest.mark.parametrize(
    ("code", "error"),
    [("run_failed", RunFailed), ("cancelled", RunCancelled), ("run_lost", RunLost), ("mine", RunFailed),
     ("unavailable", RunFailed), ("invalid_input", RunFailed)],
)  # fmt: skip
async def test_the_end_with_an_error_raises_it(place: Place, code: str, error: type[RunError]) -> None:
    await place.say("a")
    await place.fail(code, details={"k": 1}, retryable=True)
    chunks = place.run().chunks()
    seen = [(await anext(chunks)).type, (await anext(chunks)).type]
    with pytest.raises(RunError) as raised:
        await anext(chunks)
    assert type(raised.value) is error
    assert (raised.value.code, raised.value.details, raised.value.retryable) == (code, {"k": 1}, True)
    assert raised.value.chunk is not None
    assert raised.value.chunk.seq == 3
    assert seen == ["start", "data"]


async def test_or_gives_its_chunk_if_asked(place: Place) -> None:
    await place.fail()
    assert types_in(await gathered(place.run().chunks(raise_errors=False))) == ["start", "error"]


@pytest.mark.parametrize("text", ["", "x", "1", "1-0", "1-2-3", "-1-2", "1-2 "])
async def test_a_text_that_is_no_cursor_is_refused(place: Place, text: str) -> None:
    with pytest.raises(UsageError):
        await anext(place.run().chunks(text))
    with pytest.raises(UsageError):
        await anext(place.run().values(text))


async def test_history_that_is_gone_is_told(place: Place) -> None:
    await place.say("a")
    await place.say("b")
    await place.store.logs.trim("run", 3)
    with pytest.raises(CursorExpired):
        await anext(place.run().chunks())
    with pytest.raises(CursorExpired):
        await anext(place.run().chunks(Cursor(12345, 1)))


async def test_a_run_that_is_not_there_is_told(place: Place) -> None:
    nowhere: Run[Any, Any] = Run(place.transport, "nowhere")
    for call in (gathered(nowhere.chunks()), nowhere.text(), nowhere.result(), nowhere.status(), nowhere.cancel()):
        with pytest.raises(LogNotFound):
            await call


async def test_an_ungrammatical_log_is_the_peer_s_fault() -> None:
    class Wrong:
        """A transport whose log begins in the middle."""

        def check_loop(self) -> None: ...

        async def follow(self, run: str, after: Cursor | None = None) -> AsyncIterator[Any]:
            store = MemoryStore()
            author = await Author.start(store)
            await author.say("data")
            yield await store.logs.read("run", Cursor(author.epoch, 1))

    with pytest.raises(RemoteProtocolError):
        await gathered(Run(cast(Any, Wrong()), "run").chunks())


class Stopping(StoreTransport):
    """Its pages stop before the run's end."""

    async def follow(self, run: str, after: Cursor | None = None, **options: Any) -> Any:
        async with aclosing(super().follow(run, after, **options)) as pages:
            if after is None:
                yield await anext(pages)


async def test_pages_that_stop_before_the_end_are_no_end(place: Place) -> None:
    await place.say("half")
    transport = Stopping(place.store)
    run: Run[Any, Any] = Run(transport, "run")
    values = run.values()
    assert await anext(values) == "half"
    with pytest.raises(RemoteProtocolError, match="stopped before"):
        await anext(values)
    with pytest.raises(RemoteProtocolError, match="has not ended"):
        await run.wait()
    await transport.aclose()


async def test_nothing_behind_the_end_is_an_end(place: Place) -> None:
    await place.say("a")
    await place.complete()
    *_, last = await gathered(place.run().chunks())
    assert await gathered(place.run().chunks(last.cursor)) == []


async def test_leaving_the_iteration_lets_go_of_the_log(place: Place) -> None:
    await place.say("a", "b")
    assert len(await first(place.run().chunks(), 2)) == 2
    (feed,) = place.transport.hub._feeds.values()
    assert feed.viewers == 0


# --- values ----------------------------------------------------------------------------------------------------------


async def test_values_are_the_data_of_the_data_chunks(place: Place) -> None:
    await place.author.say(Chunk("data", 1), Chunk("stdout", "x"), Chunk("data", None), Chunk("complete"))
    assert await gathered(place.run().values()) == [1, None]


async def test_values_have_the_producer_s_type(place: Place) -> None:
    await place.say({"text": "a"})
    await place.complete()
    assert await gathered(place.run(Token).values()) == [Token("a")]
    chunks = await gathered(place.run(Token).chunks())
    assert chunks[1].data == Token("a")
    assert chunks[1].cursor == Cursor(place.author.epoch, 2)


async def test_a_value_that_is_not_of_the_producer_s_type_is_not_the_reader_s_fault(place: Place) -> None:
    await place.say({"text": 1})
    await place.complete({"text": 2})
    with pytest.raises(RemoteProtocolError, match=r"data\.text"):
        await gathered(place.run(Token).values())
    with pytest.raises(RemoteProtocolError, match=r"result\.text"):
        await place.run(returns=Token).result()


async def test_values_that_are_taken_back_are_told(place: Place) -> None:
    values = place.run().values()
    await place.say("a", "b")
    assert [await anext(values), await anext(values)] == ["a", "b"]
    await place.restart(kept=2)
    with pytest.raises(RunRestarted) as raised:
        await anext(values)
    cursor = raised.value.details["cursor"]
    assert raised.value.details["kept_through"] == 2
    await place.say("c")
    await place.complete()
    assert await gathered(place.run().values(cursor)) == ["c"]


async def test_values_that_stand_go_on(place: Place) -> None:
    await place.say("a", "b")
    await place.restart(kept=3)
    await place.say("c")
    await place.complete()
    assert await gathered(place.run().values()) == ["a", "b", "c"]


async def test_values_that_were_given_before_are_told_as_well(place: Place) -> None:
    await place.say("a", "b")
    (*_, chunk) = await first(place.run().chunks(), 3)
    await place.restart(kept=0)
    with pytest.raises(RunRestarted):
        await gathered(place.run().values(chunk.cursor))
    with pytest.raises(RunRestarted):
        await gathered(place.run().values(str(chunk.cursor)))


async def test_a_restart_that_takes_nothing_back_is_passed_over(place: Place) -> None:
    await place.restart(kept=0)
    await place.say("a")
    await place.complete()
    assert await gathered(place.run().values()) == ["a"]


# --- text and result -------------------------------------------------------------------------------------------------


async def test_text_folds_what_stands(place: Place) -> None:
    await place.say("lost ")
    await place.restart(kept=0)
    await place.say("kept ", "taken back")
    await place.restart(kept=4)
    await place.author.say(Chunk("text-delta", "and on"), Chunk("data", 7), Chunk("stdout", "x"), Chunk("complete"))
    assert await place.run().text() == "kept and on"


async def test_text_of_a_trimmed_log_is_what_is_left(place: Place) -> None:
    await place.say("a")
    await place.say("b")
    await place.complete()
    await place.store.logs.trim("run", 3)
    assert await place.run().text() == "b"


@pytest.mark.parametrize(
    ("said", "returned", "result"),
    [
        (["a", "b"], None, "ab"),
        ([1, "b"], None, [1, "b"]),
        ([], None, None),
        (["a"], {"x": 1}, {"x": 1}),
        (["a"], "", ""),
        (["a"], 0, 0),
        (["a"], [], []),
    ],
)
async def test_the_result_is_what_was_returned_else_what_was_said(
    place: Place, said: list[Any], returned: Any, result: Any
) -> None:
    if said:
        await place.say(*said)
    await place.complete(returned)
    assert await place.run().result() == result
    assert await place.run() == result


async def test_what_restarts_took_back_is_no_result(place: Place) -> None:
    await place.say("lost")
    await place.restart(kept=0)
    await place.say("kept")
    await place.complete()
    assert await place.run().result() == "kept"


async def test_the_result_has_the_producer_s_type(place: Place) -> None:
    await place.complete({"text": "a"})
    assert await place.run(returns=Token).result() == Token("a")


async def test_the_result_is_waited_for(place: Place) -> None:
    waiting = spawn(place.run().result(), "result")
    await turns()
    await place.say("a")
    await turns()
    assert not waiting.done()
    await place.complete("done")
    assert await waiting == "done"


async def test_a_run_that_ended_with_an_error_has_no_result(place: Place) -> None:
    await place.say("a")
    await place.fail("cancelled")
    for call in (place.run().result(), place.run().text()):
        with pytest.raises(RunCancelled):
            await call
    head = await place.run().wait()
    assert head.state == "cancelled"


async def test_looking_at_a_run_leaves_its_input_and_result_in_the_store(place: Place) -> None:
    assert (await place.run().status()).result is None
    await place.complete("a result")
    for head in (await place.run().status(), await place.run().wait()):
        assert (head.state, bytes(head.meta.input), head.result) == ("completed", b"null", None)
    await place.run().usage()
    await following(place.run().chunks())
    await place.transport.commit_position("run", "reader", 1)
    assert place.store.full_heads == 0
    head = await place.run().status(full=True)
    assert (bytes(head.meta.input), bytes(head.result or b"")) == (b'"an input"', b'"a result"')


@pytest.mark.parametrize("timeout", [0.01, timedelta(milliseconds=10)])
async def test_waiting_is_bounded_and_the_run_goes_on(place: Place, timeout: Any) -> None:
    for call in (
        place.run().result(timeout),
        place.run().wait(timeout),
        place.run().cancel(wait=True, timeout=timeout),
    ):
        with pytest.raises(TimeoutError):
            await call
    await place.complete(1)
    assert await place.run().result(timeout=5) == 1


async def test_waiting_outlasts_an_outage(place: Place) -> None:
    waiting = spawn(place.run().wait(), "wait")
    await turns()
    with place.store.outage():
        place.store.tell_all(Notice())
        await turns()
        place.author.logs = place.store.store.logs
        await place.complete()
    assert (await waiting).state == "completed"


# --- telling ---------------------------------------------------------------------------------------------------------


async def told(place: Place) -> list[Message[Any]]:
    return [decode_message(line) for _, line in await read_all(place.store.logs, inbox_of("run"))]


async def test_what_is_sent_twice_with_one_id_is_sent_once(place: Place) -> None:
    run = place.run()
    await run.send("note", 1, id="m")
    await run.send("note", 1, id="m")
    await run.send("note", 1)
    await run.send("note", 1)
    ids = [message.id for message in await told(place)]
    assert ids[0] == "m"
    assert len(set(ids)) == len(ids) == 3


async def test_an_ended_run_is_told_nothing(place: Place) -> None:
    await place.complete()
    with pytest.raises(LogEnded):
        await place.run().send("note")
    await place.run().cancel()


async def test_cancel_can_wait_for_its_confirmation(place: Place) -> None:
    waiting = spawn(place.run().cancel(wait=True), "cancel")
    await until(lambda: place.store.calls["send"] == 1)
    assert not waiting.done()
    await place.fail("cancelled")
    await waiting


async def test_a_handle_shows_its_id(place: Place) -> None:
    assert repr(place.run()) == "<Run run>"


async def read_out(run: Run[Any, Any]) -> None:
    async for _ in run.chunks():
        pass


# --- owned -----------------------------------------------------------------------------------------------------------


class TestOwned:
    """On virtual time."""

    @pytest.fixture
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        return "asyncio", {"loop_factory": VirtualLoop}

    @pytest.fixture
    def owned(self, place: Place) -> Callable[[], OwnedRun[Any, Any]]:
        async def begin(lease: float) -> Run[Any, Any]:
            assert lease == limits.OWNER_LEASE
            await place.transport.start(Start(run="owned", actor="actor", owner_lease=lease))
            return Run(place.transport, "owned")

        return lambda: OwnedRun(begin, place.transport)

    async def test_leaving_the_block_cancels(self, place: Place, owned: Callable[[], OwnedRun[Any, Any]]) -> None:
        async with owned() as run:
            assert (await run.status()).state == "queued"
        assert (await run.status()).state == "cancelled"

    async def test_leaving_by_an_error_cancels(self, place: Place, owned: Callable[[], OwnedRun[Any, Any]]) -> None:
        with pytest.raises(ValueError):
            async with owned() as run:
                raise ValueError
        assert (await run.status()).state == "cancelled"

    async def test_leaving_when_it_has_ended_changes_nothing(
        self, place: Place, owned: Callable[[], OwnedRun[Any, Any]]
    ) -> None:
        async with owned() as run:
            author = await Author.take(place.store.logs, "owned")
            await author.say("start", Chunk("complete", 1))
            assert await run.result() == 1
        assert (await run.status()).state == "completed"

    @pytest.mark.parametrize(
        "look", [read_out, lambda run: run.result(), lambda run: run.wait(), lambda run: run.status()]
    )
    async def test_leaving_what_was_seen_to_end_sends_no_cancel(
        self,
        place: Place,
        owned: Callable[[], OwnedRun[Any, Any]],
        monkeypatch: pytest.MonkeyPatch,
        look: Callable[[Run[Any, Any]], Awaitable[Any]],
    ) -> None:
        cancelled: list[str] = []

        async def cancel(run: str) -> None:
            cancelled.append(run)

        monkeypatch.setattr(place.transport, "cancel", cancel)
        async with owned() as run:
            author = await Author.take(place.store.logs, "owned")
            await author.say(Chunk("start"), Chunk("complete", "done"))
            await look(run)
        assert cancelled == []
        async with owned():
            pass  # nobody looked
        assert cancelled == ["owned"]

    async def test_its_heart_beats(self, place: Place, owned: Callable[[], OwnedRun[Any, Any]]) -> None:
        async with owned() as run:
            place.store.refuse("heartbeat", Unavailable("out"), times=1)
            await asyncio.sleep(10 * limits.OWNER_LEASE)
            assert (await run.status()).beat >= 10 * limits.RENEW_FRACTION - 2
        beats = place.store.calls["heartbeat"]
        await asyncio.sleep(10 * limits.OWNER_LEASE)
        assert place.store.calls["heartbeat"] == beats

    async def test_iterating_it_is_short_for_the_block(
        self, place: Place, owned: Callable[[], OwnedRun[Any, Any]]
    ) -> None:
        chunks = aiter(owned())
        waiting = spawn(following(chunks), "next")
        await until(lambda: "owned" in place.transport.hub._feeds)
        author = await Author.take(place.store.logs, "owned")
        await author.say("start")
        assert (await waiting).type == "start"
        await chunks.aclose()
        messages = [decode_message(line) for _, line in await read_all(place.store.logs, inbox_of("owned"))]
        assert [message.type for message in messages] == ["cancel"]

    async def test_its_values_are_short_for_the_block(
        self, place: Place, owned: Callable[[], OwnedRun[Any, Any]]
    ) -> None:
        values = owned().values()
        waiting = spawn(following(values), "next")
        await until(lambda: "owned" in place.transport.hub._feeds)
        author = await Author.take(place.store.logs, "owned")
        await author.say("start", Chunk("data", "a"))
        assert await waiting == "a"
        await author.say("complete")
        assert await gathered(values) == []

    async def test_leaving_while_the_store_is_out_is_bounded(
        self, place: Place, owned: Callable[[], OwnedRun[Any, Any]]
    ) -> None:
        loop = asyncio.get_running_loop()
        async with owned():
            place.store.hold("cancel_unstarted")
            began = loop.time()
        assert loop.time() - began == pytest.approx(limits.OWNER_LEAVE)
        async with owned():
            place.store.out = True

    @pytest.mark.parametrize("moment", range(1, 12))
    async def test_leaving_that_is_cancelled_cancels_the_run_all_the_same(
        self, place: Place, owned: Callable[[], OwnedRun[Any, Any]], moment: int
    ) -> None:
        before = asyncio.all_tasks()
        block = owned()
        await block.__aenter__()
        place.store.pace = 1
        leaving = spawn(block.__aexit__(None, None, None), "leave")
        await turns(moment)
        await cancel_and_wait(leaving)
        assert (await place.store.runs.get("owned")).state == "cancelled"
        assert asyncio.all_tasks() == before

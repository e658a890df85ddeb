"""The transport of this process: what is checked before anything is stored, and what a call leaves behind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from loom.engine.declare.registry import Registry
from loom.engine.declare.signature import make_producer
from loom.engine.follow.transport import StoreTransport
from loom.model import limits
from loom.model.chunk import CANCEL, Message
from loom.model.errors import (
    Conflict,
    HandleClosed,
    InvalidInput,
    LimitExceeded,
    LogEnded,
    LogNotFound,
    StoreFull,
    Unavailable,
    UnknownProducer,
)
from loom.model.names import PRIVATE, PUBLISHED
from loom.model.options import DeclaredOptions, Options
from loom.model.ports import INBOX
from loom.model.run import Start, inbox_of
from loom.stores.memory import MemoryStore
from loom.testing.author import Author, read_all
from loom.wire.json import decode_message
from tests.engine.kit import chunks_in, types_in
from tests.faults.store import FaultStore

pytestmark = pytest.mark.anyio


async def double(n: int) -> int:
    return 2 * n


@pytest.fixture
def store() -> FaultStore:
    return FaultStore(MemoryStore())


@pytest.fixture
def transport(store: FaultStore) -> StoreTransport:
    registry = Registry()
    registry.add(make_producer("double", double))
    return StoreTransport(store, registry)


def asked(
    run: str = "run", actor: str = "double", input: bytes = b'{"n":1}', lease: float | None = None, **options: Any
) -> Start:
    return Start(run=run, actor=actor, input=msgspec.Raw(input), owner_lease=lease, options=Options(**options))


async def told(store: FaultStore, run: str = "run") -> list[Message[Any]]:
    return [decode_message(line) for _, line in await read_all(store.logs, inbox_of(run))]


async def nothing_stored(store: FaultStore) -> bool:
    return await store.runs.list_runs() == [] and await store.queue.claim(["default"], "w", lease=1, wait=0) is None


# --- starting --------------------------------------------------------------------------------------------------------


async def test_starting_queues_the_run_and_makes_its_logs(store: FaultStore, transport: StoreTransport) -> None:
    head = await transport.start(asked())
    assert (head.state, head.meta.actor) == ("queued", "double")
    assert head.meta.created > 1e9
    claim = await store.queue.claim(["default"], "w", lease=1, wait=0)
    assert claim is not None
    assert claim.meta == head.meta


SLOW: DeclaredOptions = {"queue": "slow", "timeout": timedelta(minutes=1), "idle_timeout": 5, "ahead": 3}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("slow", 60.0, 5, 3)),
        ({"queue": "other", "timeout": 2.0, "idle_timeout": 1.0, "ahead": 9}, ("other", 2.0, 1.0, 9)),
        ({"queue": "default", "timeout": None, "idle_timeout": None, "ahead": None}, ("default", None, None, None)),
    ],
)
async def test_what_a_start_leaves_open_is_as_the_producer_declares_it(
    store: FaultStore, given: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    registry = Registry()
    registry.add(make_producer("double", double, **SLOW))
    started = (await StoreTransport(store, registry).start(asked(**given))).meta
    assert (started.queue, started.timeout, started.idle_timeout, started.ahead) == expected
    assert started.assumed == ()


async def test_a_retry_keeps_what_was_given_and_takes_what_was_assumed_as_declared(store: FaultStore) -> None:
    registry = Registry()
    registry.add(make_producer("double", double, **SLOW))
    unaware, aware = StoreTransport(store), StoreTransport(store, registry)
    given: dict[str, Any] = {"priority": "low", "retention": None, "labels": {}}
    await unaware.start(asked(timeout=None, queue="default", **given))
    await unaware.start(asked("private", queue=f"{PRIVATE}x"))
    for run in ("run", "private"):
        await unaware.cancel(run)
    kept = (await unaware.retry("run", id="again")).meta
    assert kept.assumed == ("idle_timeout", "ahead")
    known = (await aware.retry("run", id="once-more")).meta
    assert (known.queue, known.timeout, known.idle_timeout, known.ahead, known.assumed) == ("default", None, 5, 3, ())
    assert (await aware.retry("private", id="public")).meta.queue == "slow"


async def test_starting_again_the_same_is_starting_once(store: FaultStore, transport: StoreTransport) -> None:
    first = await transport.start(asked())
    assert await transport.start(asked()) == first
    assert len(await store.runs.list_runs()) == 1
    assert await store.queue.claim(["default"], "w", lease=1, wait=0) is not None
    assert await store.queue.claim(["default"], "w", lease=1, wait=0) is None


async def test_starting_again_the_same_in_other_words_is_starting_once(
    store: FaultStore, transport: StoreTransport
) -> None:
    """Kept in one form, so that it is found again by who does not know the producer, as far as he can."""
    first = await transport.start(asked(input=b"1"))
    assert bytes(first.meta.input) == b'{"n":1}'
    assert await transport.start(asked(input=b'{"n":1}')) == first
    assert await StoreTransport(store).start(asked(input=b'{"n":1}')) == first


async def test_what_was_started_by_who_does_not_know_the_producer_is_found_again(
    store: FaultStore, transport: StoreTransport
) -> None:
    first = await StoreTransport(store).start(asked(input=b"1"))
    assert await transport.start(asked(input=b'{"n":1}')) == first
    with pytest.raises(Conflict):
        await transport.start(asked(input=b"2"))
    with pytest.raises(Conflict):
        await transport.start(asked(input=b"1", key="k"))


@pytest.mark.parametrize(
    "other", [asked(input=b'{"n":2}'), asked(key="k"), asked(actor="other")], ids=["input", "key", "actor"]
)
async def test_an_id_that_is_taken_by_another_request_is_a_conflict(store: FaultStore, other: Start) -> None:
    transport = StoreTransport(store)
    await transport.start(asked())
    with pytest.raises(Conflict) as raised:
        await transport.start(other)
    assert raised.value.details == {"run": "run"}
    meta = (await store.runs.get("run")).meta
    assert (meta.actor, meta.key, bytes(meta.input)) == ("double", None, b'{"n":1}')


@pytest.mark.parametrize(
    ("wrong", "error", "field"),
    [
        ({"run": "no/id"}, InvalidInput, "id"),
        ({"run": "x" * (limits.ID_LENGTH + 1)}, InvalidInput, "id"),
        ({"queue": "a b"}, InvalidInput, "queue"),
        ({"queue": PUBLISHED}, InvalidInput, "queue"),
        ({"key": ""}, InvalidInput, "key"),
        ({"timeout": 0.0}, InvalidInput, "timeout"),
        ({"idle_timeout": -1.0}, InvalidInput, "idle_timeout"),
        ({"lease": float("nan")}, InvalidInput, "owner_lease"),
        ({"ahead": 0}, InvalidInput, "ahead"),
        ({"delay": -1}, InvalidInput, "delay"),
        ({"input": b'{"n":"x"}'}, InvalidInput, "n"),
        ({"input": b'{"m":1}'}, InvalidInput, "m"),
        ({"input": b"{}"}, InvalidInput, "n"),
        ({"actor": "nobody"}, UnknownProducer, None),
        ({"input": b'"' + b"x" * limits.INPUT_BYTES + b'"'}, LimitExceeded, None),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_wrong_start_names_the_field_and_changes_nothing(
    store: FaultStore, transport: StoreTransport, wrong: dict[str, Any], error: type[Exception], field: str | None
) -> None:
    with pytest.raises(error) as raised:
        await transport.start(asked(**wrong))
    if field is not None:
        assert raised.value.details["field"] == field  # type: ignore[attr-defined]
    assert await nothing_stored(store)


async def test_without_a_registry_the_worker_judges_the_input(store: FaultStore) -> None:
    await StoreTransport(store).start(asked(actor="elsewhere", input=b'"anything"'))
    with pytest.raises(InvalidInput):
        await StoreTransport(store).start(asked(run="r2", actor="no/name"))


async def test_a_start_that_a_full_store_refuses_does_not_run_after_all(
    store: FaultStore, transport: StoreTransport
) -> None:
    store.refuse("create", StoreFull("full"))
    with pytest.raises(StoreFull):
        await transport.start(asked())
    assert await nothing_stored(store)
    assert (await transport.start(asked())).state == "queued"


async def test_what_has_ended_does_not_wait_for_another_start_of_it(
    store: FaultStore, transport: StoreTransport
) -> None:
    await transport.start(asked())
    await transport.cancel("run")
    claim = await store.queue.claim(["default"], "w", lease=10.0, wait=0.0)
    assert claim is not None
    await store.queue.ack(claim)
    assert (await transport.start(asked(delay=3600.0))).state == "cancelled"
    assert await store.queue.list_entries() == []


async def test_a_repeated_start_that_a_full_store_refuses_leaves_the_run_as_it_is(
    store: FaultStore, transport: StoreTransport
) -> None:
    await transport.start(asked())
    await (await Author.take(store.logs, "run")).say("start", "data")
    store.refuse("create", StoreFull("full"))
    assert (await transport.start(asked())).tail == 2
    store.refuse("create", StoreFull("full"))
    with pytest.raises(Conflict):
        await transport.start(asked(input=b'{"n":2}'))
    assert (await store.runs.get("run")).tail == 2


async def test_a_start_that_reaches_no_queue_is_put_by_a_sweep(
    store: FaultStore, transport: StoreTransport, caplog: pytest.LogCaptureFixture
) -> None:
    store.refuse("put", Unavailable("out"))
    await transport.start(asked())
    assert "run run: it waits for the next sweep of a worker: out" in caplog.text
    assert await store.queue.claim(["default"], "w", lease=1, wait=0) is None
    assert (await store.sweep()).requeued == 1
    assert await store.queue.claim(["default"], "w", lease=1, wait=0) is not None


async def test_a_start_that_failed_may_be_repeated(store: FaultStore, transport: StoreTransport) -> None:
    store.refuse("create", Unavailable("out"))
    store.lose_reply("create", Unavailable("out"), skip=1)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await transport.start(asked())
    await transport.start(asked())
    assert len(await store.runs.list_runs()) == 1
    claim = await store.queue.claim(["default"], "w", lease=1, wait=0)
    assert claim is not None
    await store.queue.ack(claim)
    assert await store.queue.claim(["default"], "w", lease=1, wait=0) is None


# --- telling ---------------------------------------------------------------------------------------------------------


async def test_a_message_is_stored_once_for_sender_and_id(store: FaultStore, transport: StoreTransport) -> None:
    await transport.start(asked())
    for data in (1, 1, 2):
        await transport.send("run", Message("note", data, "alice", "m1"))
    await transport.send("run", Message("note", 3, "bob", "m1"))
    messages = await told(store)
    assert [(message.data, message.sender) for message in messages] == [(1, "alice"), (3, "bob")]
    assert messages[0].time > 1e9


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Message("two words", 1, "s", "i"), "type"),
        (Message("note", 1, "", "i"), "sender"),
        (Message("note", 1, "s", "i d"), "id"),
        (Message("note", object(), "s", "i"), "data"),
        (Message("note", "lone \ud800", "s", "i"), "data"),
        (Message("note", [[]], CANCEL, CANCEL), "sender"),
    ],
)
async def test_a_wrong_message_names_the_field_and_is_not_stored(
    store: FaultStore, transport: StoreTransport, message: Message[Any], field: str
) -> None:
    await transport.start(asked())
    with pytest.raises(InvalidInput) as raised:
        await transport.send("run", message)
    assert raised.value.details == {"field": field}
    assert await told(store) == []


async def test_a_message_that_nests_too_deeply_is_the_sender_s_fault(transport: StoreTransport) -> None:
    await transport.start(asked())
    for depth in (limits.JSON_DEPTH + 1, 100_000):
        deep: Any = 1
        for _ in range(depth):
            deep = [deep]
        with pytest.raises(InvalidInput):
            await transport.send("run", Message("note", deep, "s", "i"))


async def test_a_message_that_is_too_large_is_refused(transport: StoreTransport) -> None:
    await transport.start(asked())
    with pytest.raises(LimitExceeded):
        await transport.send("run", Message("note", "x" * limits.MESSAGE_BYTES, "s", "i"))


async def test_a_run_that_has_ended_is_told_nothing_more(store: FaultStore, transport: StoreTransport) -> None:
    await transport.start(asked())
    author = await Author.take(store.logs, "run")
    await author.say("start", "complete")
    with pytest.raises(LogEnded):
        await transport.send("run", Message("note", 1, "s", "i"))
    with pytest.raises(LogNotFound):
        await transport.send("nowhere", Message("note", 1, "s", "i"))


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_a_cancel_before_any_attempt_ends_the_log(store: FaultStore, transport: StoreTransport) -> None:
    await transport.start(asked())
    await transport.cancel("run")
    await transport.cancel("run")
    (chunk,) = await chunks_in(store)
    assert chunk.error is not None
    assert (chunk.type, chunk.error.code) == ("error", "cancelled")
    assert (await store.runs.get("run")).state == "cancelled"


@pytest.mark.parametrize("by", ["cancel", "send"])
async def test_a_cancel_afterwards_is_a_message_and_sent_once(
    store: FaultStore, transport: StoreTransport, by: str
) -> None:
    await transport.start(asked())
    await (await Author.take(store.logs, "run")).say("start")
    for _ in range(3):
        if by == "cancel":
            await transport.cancel("run")
        else:
            await transport.send("run", Message(CANCEL, "why", "alice", "m1"))
    assert [message.type for message in await told(store)] == [CANCEL]
    assert types_in(await chunks_in(store)) == ["start"]


async def test_a_cancel_of_an_ended_run_does_nothing(store: FaultStore, transport: StoreTransport) -> None:
    await transport.start(asked())
    await (await Author.take(store.logs, "run")).say("start", "complete")
    await transport.cancel("run")
    assert types_in(await chunks_in(store)) == ["start", "complete"]


async def test_a_cancel_whose_reply_was_lost_may_be_repeated(store: FaultStore, transport: StoreTransport) -> None:
    await transport.start(asked())
    store.lose_reply("cancel_unstarted", Unavailable("out"))
    with pytest.raises(Unavailable):
        await transport.cancel("run")
    await transport.cancel("run")
    assert types_in(await chunks_in(store)) == ["error"]


async def test_a_run_whose_inbox_is_full_can_be_cancelled(
    store: FaultStore, transport: StoreTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loom.stores.memory.runs.INBOX", replace(INBOX, max_records=3))
    await transport.start(asked())
    await (await Author.take(store.logs, "run")).say("start")
    for n in range(3):
        await transport.send("run", Message("note", n, "s", f"m{n}"))
    with pytest.raises(LimitExceeded):
        await transport.send("run", Message("note", 3, "s", "m3"))
    await transport.cancel("run")
    assert (await told(store))[-1].type == CANCEL


# --- looking ---------------------------------------------------------------------------------------------------------


async def test_lists_and_pages_are_bounded(store: FaultStore, transport: StoreTransport) -> None:
    for n in range(3):
        await transport.start(asked(f"run{n}"))
    assert [head.meta.run for head in await transport.list_runs(limit=10**9)] == ["run2", "run1", "run0"]
    assert [head.meta.run for head in await transport.list_runs(limit=1, before="run1")] == ["run0"]
    page = await transport.read("run0", None, limit=10**9, wait=0)
    assert page.caught_up


async def test_what_can_be_started_is_told_by_name(transport: StoreTransport, store: FaultStore) -> None:
    assert [info.name for info in await transport.actors()] == ["double"]
    assert await StoreTransport(store).actors() == []


async def test_the_owner_s_heartbeat_counts(store: FaultStore, transport: StoreTransport) -> None:
    await transport.start(asked(lease=5.0))
    await transport.heartbeat("run")
    await transport.heartbeat("run")
    assert (await transport.head("run")).beat == 2


async def test_marks_are_only_for_open_runs_that_wait_for_readers(store: FaultStore, transport: StoreTransport) -> None:
    await transport.start(asked("plain"))
    await transport.commit_position("plain", "r", 1)
    assert await store.logs.positions("plain") == []
    await transport.start(asked("held", ahead=5))
    for reader in ("r1", "r2", "r1"):
        await transport.commit_position("held", reader, 1)
    await transport.commit_position("held", "r1", None)
    assert [mark.reader for mark in await store.logs.positions("held")] == ["r2"]
    assert store.calls["positions"] == 2, "a heartbeat asks for nobody else's mark"
    await transport.cancel("held")
    await transport.commit_position("held", "r2", 2)


async def test_a_closed_transport_says_so(transport: StoreTransport) -> None:
    await transport.start(asked())
    follower = transport.follow("run")
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(HandleClosed):
        await transport.head("run")
    with pytest.raises(HandleClosed):
        await anext(follower)

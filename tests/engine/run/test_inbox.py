"""The inbox: read from the start by each attempt, as it grows; a cancel is heard at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from loom.engine.run.inbox import Inbox
from loom.model import limits
from loom.model.chunk import CANCEL, Message
from loom.model.errors import LogNotFound
from loom.model.ports import Notice, message_producer
from loom.model.run import inbox_of
from loom.stores.memory import MemoryStore
from loom.tasks import cancel_and_wait, spawn
from loom.wire.json import encode
from tests.engine.kit import open_log, turns
from tests.faults.store import FaultStore

pytestmark = pytest.mark.anyio


class Followed:
    """An inbox that is followed, and how often it was told to cancel."""

    def __init__(self, store: FaultStore) -> None:
        self.store = store
        self.cancels = 0
        self.inbox = Inbox(store.logs, "run", self._cancel)
        self.task = spawn(self.inbox.follow(), "inbox")

    def _cancel(self) -> None:
        self.cancels += 1

    async def send(self, type: str, data: object = None, *, id: str) -> None:
        await self.store.logs.send(
            inbox_of("run"), encode(Message(type, data, "test", id)), message_producer("test", id)
        )


@pytest.fixture
async def followed() -> AsyncIterator[Followed]:
    store = FaultStore(MemoryStore())
    await open_log(store)
    followed = Followed(store)
    yield followed
    await cancel_and_wait(followed.task)
    assert store.watched == set()


async def test_messages_come_in_order_each_once(followed: Followed) -> None:
    for n in range(5):
        await followed.send("note", n, id=f"m{n}")
    assert [(await followed.inbox.receive(None)).data for _ in range(5)] == [0, 1, 2, 3, 4]


async def test_who_waits_is_woken(followed: Followed) -> None:
    waiting = spawn(followed.inbox.receive(None), "receive")
    await turns()
    assert not waiting.done()
    await followed.send("note", 1, id="m")
    assert (await waiting).data == 1


async def test_messages_of_other_types_stay(followed: Followed) -> None:
    await followed.send("a", 1, id="1")
    await followed.send("b", 2, id="2")
    await followed.send("a", 3, id="3")
    received = [(await followed.inbox.receive(type)).data for type in ("b", "a", None)]
    assert received == [2, 1, 3]


async def test_two_who_wait_for_different_types_each_get_theirs(followed: Followed) -> None:
    a, b = spawn(followed.inbox.receive("a"), "a"), spawn(followed.inbox.receive("b"), "b")
    await turns()
    await followed.send("b", 2, id="2")
    await followed.send("a", 1, id="1")
    assert ((await a).data, (await b).data) == (1, 2)


async def test_who_gives_up_waiting_takes_nothing(followed: Followed) -> None:
    waiting = spawn(followed.inbox.receive(None), "receive")
    await turns()
    await cancel_and_wait(waiting)
    await followed.send("note", 1, id="m")
    assert (await followed.inbox.receive(None)).data == 1


async def test_a_cancel_is_heard_and_is_no_message(followed: Followed) -> None:
    await followed.send(CANCEL, id="c")
    await followed.send("note", 1, id="m")
    assert (await followed.inbox.receive(None)).type == "note"
    assert followed.cancels == 1


async def test_what_was_sent_before_it_began_is_read_from_the_start(followed: Followed) -> None:
    await followed.send("note", 1, id="m")
    await followed.send(CANCEL, id="c")
    await followed.inbox.receive(None)
    later = Followed(followed.store)
    assert (await later.inbox.receive(None)).data == 1
    assert later.cancels == 1
    await cancel_and_wait(later.task)


async def test_more_than_a_page_is_read_whole(followed: Followed) -> None:
    count = limits.PAGE_CHUNKS + 10
    for n in range(count):
        await followed.send("note", n, id=f"m{n}")
    assert [(await followed.inbox.receive(None)).data for _ in range(count)] == list(range(count))


async def test_an_outage_is_waited_out(followed: Followed) -> None:
    await turns()
    followed.store.refuse("read", times=3)
    await followed.send("note", 1, id="m")
    async with asyncio.timeout(20):
        assert (await followed.inbox.receive(None)).data == 1
    assert followed.store.calls["read"] >= 4


async def test_no_wake_up_is_lost_while_a_read_is_under_way(followed: Followed) -> None:
    await turns()
    held = followed.store.hold("read")
    await followed.send("note", 1, id="1")
    await held.arrived.wait()
    await followed.send("note", 2, id="2")
    held.let_go()
    assert [(await followed.inbox.receive(None)).data for _ in range(2)] == [1, 2]
    await followed.send("note", 3, id="3")
    assert (await followed.inbox.receive(None)).data == 3


async def test_nothing_is_read_while_nothing_is_told(followed: Followed) -> None:
    await turns()
    calls = followed.store.calls["read"]
    await turns(100)
    assert followed.store.calls["read"] == calls


async def test_a_dropped_run_ends_it(followed: Followed) -> None:
    await turns()
    await followed.store.runs.drop("run")
    with pytest.raises(LogNotFound):
        await followed.task


async def test_the_end_of_the_run_does_not_disturb_it(followed: Followed) -> None:
    await turns()
    followed.store.tell(inbox_of("run"), Notice(ended=True))
    await turns()
    assert not followed.task.done()


async def test_a_new_attempt_gets_every_message_anew(followed: Followed) -> None:
    for n in range(3):
        await followed.send("note", n, id=f"m{n}")
    assert [(await followed.inbox.receive(None)).data for _ in range(2)] == [0, 1]
    followed.inbox.rewind()
    assert [(await followed.inbox.receive(None)).data for _ in range(3)] == [0, 1, 2]

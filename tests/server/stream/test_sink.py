"""One connection as frames are written to it: at once where it takes them, whatever its framing, else in its time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from loom.model.chunk import Batch, Chunk, Page
from loom.server.http.connection import CONNECTION
from loom.server.stream.sink import FrameSink, SendFailed
from loom.wire.json import make_batch
from tests.server.harness import PATIENCE, rig

pytestmark = pytest.mark.anyio

PAGE = Page((make_batch(100000001, 1, [Chunk("data", "x")]),), None, caught_up=True, ended=False)


class Fake:
    """A connection that takes frames or not, and an audience of one or more."""

    def __init__(self) -> None:
        self.alone = True
        self.takes = True
        self.written: list[bytes] = []
        self.sent: list[Message] = []
        self.fault: Exception | None = None
        self.sink = FrameSink(self, self.send, self.write)

    def render(self, batches: tuple[Batch, ...]) -> bytes | None:
        if self.fault is not None:
            raise self.fault
        return b"frames"

    def write(self, data: bytes) -> bool:
        if self.takes:
            self.written.append(data)
        return self.takes

    async def send(self, message: Message) -> None:
        self.sent.append(message)


async def test_a_page_is_written_where_it_is_delivered() -> None:
    fake = Fake()
    before = fake.sink.since
    assert fake.sink.deliver(PAGE)
    assert (fake.written, fake.sent) == ([b"frames"], [])
    assert fake.sink.since >= before


@pytest.mark.parametrize("why", ["in company", "slow", "sending", "a fault"])
async def test_a_page_that_is_not_written_is_left_to_the_iterator(why: str) -> None:
    fake = Fake()
    fake.alone = why != "in company"
    fake.takes = why != "slow"
    fake.sink.sending = why == "sending"
    fake.fault = ZeroDivisionError() if why == "a fault" else None
    assert not fake.sink.deliver(PAGE)
    assert (fake.written, fake.sent) == ([], [])


async def test_without_a_way_to_write_at_once_frames_are_sent() -> None:
    fake = Fake()
    sink = FrameSink(fake, fake.send, None)
    assert not sink.inline
    assert not sink.deliver(PAGE)
    assert not sink.write(b"frames", 1.0)
    await sink.send(b"frames")
    assert fake.sent == [{"type": "http.response.body", "body": b"frames", "more_body": True}]


async def test_frames_are_sent_as_asgi_has_it() -> None:
    fake = Fake()
    await fake.sink.send(b"one")
    await fake.sink.send(b"", more=False)
    assert [(message["body"], message["more_body"]) for message in fake.sent] == [(b"one", True), (b"", False)]


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("the handler is closed")])
async def test_a_send_that_fails_says_that_the_client_has_gone(error: Exception) -> None:
    async def send(message: Message) -> None:
        raise error

    sink = FrameSink(Fake(), send, None)
    with pytest.raises(SendFailed):
        await sink.send(b"frames")
    assert not sink.sending


async def test_connections_of_any_framing_are_written_the_same_rendered_frames() -> None:
    """As a WebSocket of our own would be: it gets frames, and puts them into its messages."""

    async def watch(got: asyncio.Queue[bytes], done: asyncio.Event) -> None:
        async def receive() -> Any:
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            pass

        def write(data: bytes) -> bool:
            got.put_nowait(data)
            return True

        await r.app(
            {
                "type": "http", "method": "GET", "path": "/runs/r/events", "query_string": b"",
                "headers": [(b"host", b"localhost")],
                "extensions": {CONNECTION: {"write": write, "abort": done.set, "hold": lambda: None}},
            },
            receive,
            send,
        )  # fmt: skip

    async with rig() as r, asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        await r.begin()
        done = asyncio.Event()
        one, two = asyncio.Queue[bytes](), asyncio.Queue[bytes]()
        for got in (one, two):
            tasks.create_task(watch(got, done))
        assert await one.get() == await two.get()
        for index in range(20):
            await r.say("r", Chunk("data", index))
            frame, same = await one.get(), await two.get()
            assert frame == same
            assert (frame[:4], frame[-2:]) == (b"id: ", b"\n\n"), "no chunk's size stands around it"
        assert frame is same, "rendered once"
        done.set()

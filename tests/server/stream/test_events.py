"""Event streams over a real socket: shape, time, resuming, slow and lost viewers, faults, the server's end."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest
from starlette.types import Message, Send

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.errors import CursorExpired, Unavailable
from loom.server.app import Times
from loom.server.http.connection import CONNECTION
from loom.server.stream import audience as module
from loom.server.stream.audience import SEND_BYTES
from loom.wire.json import decode
from loom.wire.sse import FAULT, HEARTBEAT, Framer
from tests.server.harness import PATIENCE, Viewer, rig

pytestmark = pytest.mark.anyio


def data(value: Any) -> Chunk[Any]:
    return Chunk("data", value, time=1.0)


async def test_each_chunk_arrives_before_the_next_is_said() -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            assert (await viewer.event()).type == "start"
            for index in range(50):
                cursor = await r.say("r", data(index))
                event = await viewer.event()
                assert (event.type, event.id, decode(event.data)["data"]) == ("data", str(cursor), index)
            cursor = await r.end()
            (last,) = await viewer.rest()
            assert (last.type, last.id) == ("complete", str(cursor))


async def test_the_headers() -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            reply = viewer.reply
    assert reply.status == 200
    assert reply.header("content-type") == "text/event-stream"
    assert reply.header("cache-control") == "no-cache, no-transform"
    assert reply.header("x-accel-buffering") == "no"
    assert reply.header("x-content-type-options") == "nosniff"
    assert reply.header("connection") is None
    assert reply.header("content-encoding") is None


async def test_what_is_ready_goes_out_in_one_piece() -> None:
    async with rig() as r:
        await r.begin()
        for index in range(200):
            await r.say("r", data(index))
        async with r.viewer("/runs/r/events") as viewer:
            assert len(viewer.decoder.feed(await viewer.piece())) == 201


async def test_a_page_goes_out_in_parts_of_bounded_size() -> None:
    async with rig() as r:
        await r.begin()
        await r.say("r", data("x" * 300_000))
        await r.say("r", *(data("y" * 1000) for _ in range(100)))
        await r.end()
        async with r.viewer("/runs/r/events") as viewer:
            sizes, events = [], 0
            while piece := await viewer.piece():
                sizes.append(len(piece))
                events += len(viewer.decoder.feed(piece))
        assert events == 103
        assert max(sizes) <= SEND_BYTES


async def test_without_event_names() -> None:
    async with rig() as r:
        await r.begin()
        await r.end()
        async with r.viewer("/runs/r/events?named=0") as viewer:
            events = await viewer.rest()
    assert [event.type for event in events] == ["message", "message"]
    assert [decode(event.data)["type"] for event in events] == ["start", "complete"]


async def test_a_queued_run_is_followed_as_empty() -> None:
    async with rig() as r:
        assert (await r.ask("POST", "/runs", {"actor": "a", "id": "r"})).status == 201
        async with r.viewer("/runs/r/events") as viewer:
            assert viewer.reply.status == 200
            await r.begin()
            assert (await viewer.event()).type == "start"


# --- resuming --------------------------------------------------------------------------------------------------------


async def test_resuming_from_every_place_gives_the_rest() -> None:
    async with rig() as r:
        cursors = [await r.begin()]
        cursors += [await r.say("r", data(index)) for index in range(5)]
        cursors.append(await r.end())
        for index, cursor in enumerate(cursors[:-1]):
            for path, headers in (
                (f"/runs/r/events?after={cursor}", {}),
                ("/runs/r/events", {"Last-Event-ID": str(cursor)}),
                ("/runs/r/events", {"Last-Event-ID": f"r:{cursor}"}),
                (f"/runs/r/events?after={cursors[0]}", {"Last-Event-ID": str(cursor)}),
            ):
                async with r.viewer(path, headers=headers) as viewer:
                    assert [event.id for event in await viewer.rest()] == [str(c) for c in cursors[index + 1 :]]


async def test_nothing_left_is_204_so_that_an_event_source_stops() -> None:
    async with rig() as r:
        await r.begin()
        cursor = await r.end()
        reply = await r.ask("GET", "/runs/r/events", headers={"Last-Event-ID": str(cursor)})
        assert (reply.status, reply.body) == (204, b"")
        assert (await r.ask("GET", f"/runs/r/events?after={cursor}")).status == 204


async def test_a_cursor_of_another_history_is_410() -> None:
    async with rig() as r:
        await r.begin()
        reply = await r.ask("GET", "/runs/r/events?after=7-1")
        assert (reply.status, reply.error["code"]) == (410, "cursor_expired")


async def test_trimmed_history_is_410_and_says_where_to_begin() -> None:
    async with rig() as r:
        await r.begin()
        for index in range(3):
            await r.say("r", data(index))
        first = await r.store.logs.trim("r", 3)
        reply = await r.ask("GET", "/runs/r/events")
        assert (reply.status, reply.error["code"]) == (410, "cursor_expired")
        async with r.viewer(f"/runs/r/events?after={reply.error['details']['earliest']}") as viewer:
            assert (await viewer.event()).id.endswith(f"-{first}")


async def test_head_tells_the_same_and_streams_nothing() -> None:
    async with rig() as r:
        await r.begin()
        reply = await r.ask("HEAD", "/runs/r/events")
        assert (reply.status, reply.body) == (200, b"")
        assert reply.header("content-type") == "text/event-stream"
        assert (await r.ask("HEAD", "/runs/none/events")).status == 404
        assert r.app.viewers == 0


# --- faults in mid-stream --------------------------------------------------------------------------------------------


async def test_a_history_that_goes_under_the_reader_ends_with_a_fault() -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            await viewer.event()
            r.transport.trouble["follow"] = CursorExpired("gone", details={"earliest": "7-1"})
            await r.say("r", data(1))
            (fault,) = await viewer.rest()
    assert fault.type == FAULT
    assert decode(fault.data)["error"] == {
        "code": "cursor_expired", "message": "gone", "retryable": False, "details": {"earliest": "7-1"},
    }  # fmt: skip
    assert fault.id.endswith("-1"), "a fault leaves the last event id alone"


async def test_a_dropped_run_ends_with_a_fault() -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events?named=0") as viewer:
            await viewer.event()
            await r.store.runs.drop("r")
            (fault,) = await viewer.rest()
    assert fault.type == "message"
    assert decode(fault.data)["error"]["code"] == "not_found"


async def test_our_own_fault_is_told_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            await viewer.event()
            r.transport.trouble["follow"] = ZeroDivisionError("a secret")
            await r.say("r", data(1))
            (fault,) = await viewer.rest()
    assert decode(fault.data)["error"]["code"] == "internal"
    assert b"secret" not in fault.data
    assert "ZeroDivisionError: a secret" in caplog.text


# --- viewers that are quiet, slow or gone ----------------------------------------------------------------------------


async def test_silence_is_filled_with_heartbeats() -> None:
    async with rig(times=Times(heartbeat=0.05)) as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            await viewer.piece()
            assert [await viewer.piece() for _ in range(3)] == [HEARTBEAT] * 3
            await r.say("r", data(1))
            while (piece := await viewer.piece()) == HEARTBEAT:
                pass
            assert b"event: data" in piece


async def test_a_busy_stream_has_no_heartbeats() -> None:
    async with rig(times=Times(heartbeat=3600.0)) as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            for _ in range(20):
                assert await viewer.piece() != HEARTBEAT
                await r.say("r", data(1))


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_viewer_that_leaves_is_let_go_at_once(how: str) -> None:
    async with rig() as r:
        await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            await viewer.event()
            assert (r.transport.following, r.app.viewers) == (1, 1)
            if how == "reset":
                sock = viewer.writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            viewer.writer.close()
            await asyncio.wait_for(r.transport.released.wait(), PATIENCE)
            assert r.transport.following == 0


async def gone(run: str) -> None:
    """Until the run's viewers were let go."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == f"loom-viewer {run}"]
    assert tasks
    await asyncio.wait_for(asyncio.wait(tasks), PATIENCE)


async def fill(r: Any, count: int) -> int:
    """Say `count` chunks of 60 kB, one a batch; the bytes."""
    for _ in range(count):
        await r.say("r", data("x" * 60_000))
    return count * 60_000


async def test_a_slow_viewer_holds_a_cursor_and_a_bounded_buffer() -> None:
    async with rig() as r:
        await r.begin()
        total = await fill(r, 150)
        async with r.viewer("/runs/r/events", receive_buffer=4096) as slow:
            async with r.viewer("/runs/r/events") as fast:
                for _ in range(151):
                    await fast.event()
            taken = sum(len(page) for page in drained(r.transport.pages))
            assert taken < 2 * 151, "the slow viewer was given everything"
            await r.end()
            events = await slow.rest()
        assert len(events) == 152
        assert sum(len(event.data) for event in events) > total


def drained(queue: asyncio.Queue[Any]) -> list[Any]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


async def test_a_viewer_that_takes_nothing_is_cut_and_resumes() -> None:
    async with rig(times=Times(stalled=0.2)) as r:
        await r.begin()
        await fill(r, 150)
        async with r.viewer("/runs/r/events", receive_buffer=4096) as viewer:
            await gone("r")
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError, ValueError)):
                await viewer.rest()
            last = viewer.decoder.last_event_id
        await r.end()
        async with r.viewer("/runs/r/events", headers={"Last-Event-ID": last} if last else {}) as again:
            seen = int(last.partition("-")[2] or 0)
            assert len(await again.rest()) == 152 - seen


async def test_a_viewer_that_takes_nothing_but_heartbeats_due_is_cut() -> None:
    """The buffer is full, and there is nothing more to say: it is the heartbeat that waits."""
    async with rig(times=Times(stalled=0.2, heartbeat=0.05)) as r:
        await r.begin()
        await fill(r, 100)
        async with r.viewer("/runs/r/events", receive_buffer=4096):
            await gone("r")


async def test_viewers_of_one_run_are_rendered_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = []

    class Counting(Framer):
        def frames(self, batch: Batch) -> bytes:
            rendered.append(batch.first)
            return super().frames(batch)

    monkeypatch.setattr(module, "Framer", Counting)
    async with rig() as r:
        await r.begin()
        viewers: list[Viewer] = []
        async with asyncio.TaskGroup() as group, asyncio.timeout(PATIENCE):
            done = asyncio.Event()
            arrived: asyncio.Queue[Viewer] = asyncio.Queue()

            async def view() -> None:
                async with r.viewer("/runs/r/events") as viewer:
                    await viewer.event()
                    arrived.put_nowait(viewer)
                    await done.wait()

            for _ in range(20):
                group.create_task(view())
            viewers = [await arrived.get() for _ in range(20)]
            rendered.clear()
            for index in range(10):
                await r.say("r", data(index))
                events = await asyncio.gather(*(viewer.event() for viewer in viewers))
                assert {decode(event.data)["data"] for event in events} == {index}
            done.set()
    assert set(rendered) == set(range(2, 12))
    assert len(rendered) <= 11, "the first viewer was alone at first"


# --- the server's end ------------------------------------------------------------------------------------------------


async def test_stopping_ends_streams_in_order_at_once_and_viewers_resume() -> None:
    async with rig() as r:
        cursor = await r.begin()
        async with r.viewer("/runs/r/events") as viewer:
            await viewer.event()
            r.app.end_streams()
            assert await viewer.rest() == []
            assert viewer.ended
            reply = await r.ask("GET", f"/runs/r/chunks?wait=1s&after={cursor}")
            assert (reply.status, reply.error["code"], reply.header("retry-after")) == (503, "unavailable", "1")
            assert reply.error["retryable"] is True


async def test_a_reader_that_comes_while_the_server_stops_is_sent_on() -> None:
    """An `EventSource` opens a stream that ended again, and gives up on any other status than 200."""
    async with rig() as r:
        cursor = await r.begin()
        r.app.end_streams()
        for path in (f"/runs/r/events?after={cursor}", "/actors/a/stream?input=1"):
            reply = await r.ask("GET", path)
            assert (reply.status, reply.header("content-type"), reply.body) == (200, "text/event-stream", b"")
            assert (await r.ask("HEAD", path)).status == 200
        assert (await r.ask("GET", "/runs/r/events?after=x")).status == 400
        reply = await r.ask("POST", "/actors/a/stream", {})
        assert (reply.status, reply.error["code"], reply.header("retry-after")) == (503, "unavailable", "1")
        assert len((await r.ask("GET", "/runs")).json["runs"]) == 1


async def test_an_outage_before_the_first_byte_is_a_status() -> None:
    async with rig() as r:
        r.transport.trouble["head"] = Unavailable("the store is away")
        reply = await r.ask("GET", "/runs/r")
        assert (reply.status, reply.header("retry-after")) == (503, "1")


# --- servers whose `send` fails --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("the handler is closed")])
async def test_a_send_that_fails_ends_the_stream(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Though `receive` never says that the client has gone."""

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise error

    scope = {
        "type": "http", "method": "GET", "path": "/runs/r/events", "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }  # fmt: skip
    async with rig(times=Times(heartbeat=0.05)) as r:
        await r.begin()
        async with asyncio.timeout(PATIENCE):
            await r.app(scope, receive, send)
        assert (r.transport.following, r.app.viewers) == (0, 0)
    assert not caplog.records


async def test_a_connection_that_cannot_even_be_cut_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINGER", 0.05)
    cut = asyncio.Event()

    async def never(message: Message | None = None) -> Message:
        if message is None or message["type"] == "http.response.body":
            await asyncio.Event().wait()
        return {}

    scope = {
        "type": "http", "method": "GET", "path": "/runs/r/events", "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "extensions": {CONNECTION: {"write": lambda data: False, "abort": cut.set, "hold": lambda: None}},
    }  # fmt: skip
    async with rig(times=Times(stalled=0.05)) as r:
        await r.begin()
        async with asyncio.timeout(PATIENCE):
            await r.app(scope, never, cast("Send", never))
        assert cut.is_set()
        assert (r.transport.following, r.app.viewers) == (0, 0)

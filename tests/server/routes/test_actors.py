"""Start and stream in one: owned or not, resumed and never started twice. Real producers, real worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from loom.app import App
from loom.model import limits
from loom.server.app import Times
from loom.wire.json import decode, encode
from tests.server.harness import PATIENCE, Rig, rig

pytestmark = pytest.mark.anyio


def counting() -> App:
    app = App()

    @app.actor("count")
    async def count(n: int) -> AsyncIterator[int]:
        """Counts."""
        for index in range(n):
            yield index

    @app.actor("forever")
    async def forever() -> AsyncIterator[str]:
        yield "here"
        await asyncio.Event().wait()

    return app


def query(value: object) -> str:
    return quote(encode(value).decode())


async def runs_of(r: Rig) -> list[str]:
    return [run["id"] for run in (await r.ask("GET", "/runs")).json["runs"]]


@pytest.mark.parametrize("base", ["/actors", "/actor"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_start_and_stream(base: str, method: str) -> None:
    async with rig(counting().registry, worker=True) as r:
        path = f"{base}/count/stream" + (f"?input={query({'n': 3})}" if method == "GET" else "")
        body = {"input": {"n": 3}} if method == "POST" else None
        async with r.viewer(path, method=method, body=body) as viewer:
            location = viewer.reply.header("location") or ""
            events = await viewer.rest()
        assert [event.type for event in events] == ["start", "data", "data", "data", "complete"]
        run = location.removeprefix("/runs/")
        cursors = [str(cursor) async for cursor in cursors_of(r, run)]
        assert [event.id for event in events] == [f"{run}:{cursor}" for cursor in cursors]
        assert (await r.ask("GET", location)).json["owner_lease"] == limits.LEAVE_GRACE


async def cursors_of(r: Rig, run: str) -> AsyncIterator[str]:
    for chunk in (await r.ask("GET", f"/runs/{run}/chunks")).json["chunks"]:
        yield chunk["cursor"]


async def test_a_bare_value_is_the_sole_parameter() -> None:
    async with rig(counting().registry, worker=True) as r, r.viewer("/actors/count/stream?input=2") as viewer:
        assert len(await viewer.rest()) == 4


async def test_the_run_is_known_before_it_says_anything() -> None:
    """A reconnect before the first chunk must not start a second run."""
    async with rig(counting().registry) as r:
        async with r.viewer("/actors/count/stream?input=2") as viewer:
            assert viewer.decoder.feed(await viewer.piece()) == []
            bookmark = viewer.decoder.last_event_id
        run = (viewer.reply.header("location") or "").removeprefix("/runs/")
        assert bookmark == f"{run}:"
        await r.begin(run, "count")
        async with r.viewer("/actors/count/stream?input=2", headers={"Last-Event-ID": bookmark}) as viewer:
            assert (await viewer.event()).id.startswith(bookmark)
        assert await runs_of(r) == [run]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_reconnect_resumes_and_never_starts(method: str) -> None:
    async with rig(counting().registry, worker=True) as r:
        async with r.viewer("/actors/count/stream?input=5") as viewer:
            events = await viewer.rest()
        for index, event in enumerate(events[:-1]):
            headers = {"Last-Event-ID": event.id}
            body = {"input": 5} if method == "POST" else None
            async with r.viewer("/actors/count/stream?input=5", method=method, headers=headers, body=body) as viewer:
                assert await viewer.rest() == events[index + 1 :]
        reply = await r.ask("GET", "/actors/count/stream?input=5", headers={"Last-Event-ID": events[-1].id})
        assert reply.status == 204
        assert len(await runs_of(r)) == 1


@pytest.mark.parametrize(
    ("last", "status", "code"),
    [
        ("nonsense", 400, "usage"),
        (":7-1", 400, "usage"),
        ("run:7", 400, "usage"),
        ("none:7-1", 404, "not_found"),
        ("other:7-1", 404, "not_found"),
        ("known:7-1", 410, "cursor_expired"),
    ],
)
async def test_ids_that_resume_nothing(last: str, status: int, code: str) -> None:
    async with rig(counting().registry) as r:
        await r.begin("known", "count")
        await r.begin("other", "forever")
        reply = await r.ask("GET", "/actors/count/stream?input=5", headers={"Last-Event-ID": last})
        assert (reply.status, reply.error["code"]) == (status, code)
        assert len(await runs_of(r)) == 2


async def test_leaving_cancels_after_the_grace() -> None:
    async with rig(counting().registry, worker=True, times=Times(leave_grace=0.3)) as r:
        async with r.viewer("/actors/forever/stream") as viewer:
            while (await viewer.event()).type != "data":
                pass
        async with r.viewer((viewer.reply.header("location") or "") + "/events") as watcher:
            last = (await watcher.rest())[-1]
        assert (last.type, decode(last.data)["error"]["code"]) == ("error", "cancelled")


async def test_leaving_with_requests_behind_the_stream_cancels_too() -> None:
    times = Times(leave_grace=0.3)
    async with rig(counting().registry, worker=True, times=times) as r:
        async with r.viewer("/actors/forever/stream?input=null") as viewer:
            await viewer.event()
            viewer.writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        (run,) = await runs_of(r)
        async with r.viewer(f"/runs/{run}/events") as watcher:
            events = await watcher.rest()
        assert events[-1].type == "error"


async def test_staying_renews() -> None:
    async with rig(counting().registry, times=Times(leave_grace=0.06)) as r, r.viewer("/actors/forever/stream"):
        touched = [await asyncio.wait_for(r.transport.touched.get(), PATIENCE) for _ in range(4)]
        assert touched == await runs_of(r) * 4


async def test_detached_is_not_owned_and_not_renewed() -> None:
    async with rig(counting().registry, worker=True, times=Times(leave_grace=0.06)) as r:
        async with r.viewer("/actors/forever/stream?detach=1") as viewer:
            while (event := await viewer.event()).type != "data":
                pass
        location = viewer.reply.header("location") or ""
        assert "owner_lease" not in (await r.ask("GET", location)).json
        headers = {"Last-Event-ID": event.id}
        async with r.viewer("/actors/forever/stream", headers=headers) as viewer:
            assert viewer.reply.status == 200
        assert r.transport.touched.empty()
        await r.ask("POST", f"{location}/cancel")


async def test_keys_of_the_query_and_the_body() -> None:
    async with rig(counting().registry) as r:
        for path, method, body in (
            ("/actors/count/stream?input=1&key=k1", "GET", None),
            ("/actors/count/stream?key=k1", "POST", {"input": 1}),
            ("/actors/count/stream", "POST", {"input": 1, "key": "k1"}),
        ):
            async with r.viewer(path, method=method, body=body) as viewer:
                assert (await r.ask("GET", viewer.reply.header("location") or "")).json["key"] == "k1"
        reply = await r.ask("POST", "/actors/count/stream?key=k1", {"input": 1, "key": "k2"})
        assert (reply.status, reply.error["details"]) == (422, {"field": "key"})


async def test_labels_of_the_query_and_the_body() -> None:
    labels = {"user": "42", "at": "12:30"}
    async with rig(counting().registry) as r:
        for path, method, body in (
            ("/actors/count/stream?input=1&label=user:42&label=at:12:30", "GET", None),
            ("/actors/count/stream?label=user%3A42&label=at:12:30", "POST", {"input": 1}),
            ("/actors/count/stream?label=user:42&label=at:12:30", "POST", {"input": 1, "labels": labels}),
            ("/actors/count/stream", "POST", {"input": 1, "labels": labels}),
        ):
            async with r.viewer(path, method=method, body=body) as viewer:
                assert (await r.ask("GET", viewer.reply.header("location") or "")).json["labels"] == labels
        reply = await r.ask("POST", "/actors/count/stream?label=user:7", {"input": 1, "labels": labels})
        assert (reply.status, reply.error["details"]) == (422, {"field": "labels"})


async def test_one_idempotency_key_is_one_run() -> None:
    async with rig(counting().registry, worker=True) as r:
        headers = {"Idempotency-Key": "abc"}
        seen = []
        for _ in range(2):
            async with r.viewer("/actors/count/stream", method="POST", body={"input": 2}, headers=headers) as viewer:
                seen.append([event.id for event in await viewer.rest()])
        assert seen[0] == seen[1]
        assert len(await runs_of(r)) == 1


async def test_head_starts_nothing() -> None:
    async with rig(counting().registry) as r:
        reply = await r.ask("HEAD", "/actors/count/stream?input=3")
        assert (reply.status, reply.body) == (200, b"")
        assert reply.header("content-type") == "text/event-stream"
        assert (await r.ask("HEAD", "/actors/nobody/stream")).status == 404
        assert await runs_of(r) == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/actors/nobody/stream", 404, "unknown_producer"),
        ("/actors/no%20body/stream", 404, "unknown_producer"),
        ("/actors/count/stream?input={", 400, "protocol_error"),
        ("/actors/count/stream?input=", 400, "protocol_error"),
        ("/actors/count/stream?input=" + "[" * 2000, 400, "protocol_error"),
        ("/actors/count/stream?input=%22x%22", 422, "invalid_input"),
        ("/actors/count/stream", 422, "invalid_input"),
        ("/actors/count/stream?input=1&key=a%20b", 400, "usage"),
        ("/actors/count/stream?input=1&label=user", 400, "usage"),
        ("/actors/count/stream?input=1&detach=maybe", 400, "usage"),
        ("/actors/count/stream?input=1&named=maybe", 400, "usage"),
    ],
)
async def test_wrong_requests_start_nothing(path: str, status: int, code: str) -> None:
    async with rig(counting().registry) as r:
        reply = await r.ask("GET", path)
        assert (reply.status, reply.error["code"]) == (status, code)
        assert await runs_of(r) == []


async def test_an_input_in_the_query_that_is_no_json_is_named_and_a_missing_one_too() -> None:
    async with rig(counting().registry) as r:
        error = (await r.ask("GET", "/actors/count/stream?input=hello")).error
        assert error["message"].startswith("input: not JSON: ")
        assert error["message"].endswith("as ?input=%22hello%22")
        assert error["details"] == {"field": "input"}
        error = (await r.ask("GET", "/actors/count/stream")).error
        assert (error["message"], error["details"]) == ("n: missing", {"field": "n"})


async def test_the_list() -> None:
    async with rig(counting().registry) as r:
        count, forever = (await r.ask("GET", "/actors")).json["actors"]
        assert (count["name"], count["description"], forever["name"]) == ("count", "Counts.", "forever")
        assert count["input_schema"]["properties"] == {"n": {"type": "integer"}}

"""A dialect from outside the package, by registration alone, over a real socket: what the server does for every one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import structs

import loom
from loom.app import App
from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import UsageError
from loom.model.run import ActorInfo
from loom.server.app import Times
from loom.wire.dialect import Catalog
from loom.wire.json import decode, make_batch
from tests.server.harness import PATIENCE, Reply, Rig, Viewer, gateway, rig, run_of, state_of, the_run, told_to
from tests.server.ndjson import ndjson

pytestmark = pytest.mark.anyio

SOON = Times(first_output=0.01)
"""The head comes at once, and the test writes the run itself."""

HI = {"text": "hi"}


def speaking() -> App:
    app = App()

    @app.actor("echo")
    async def echo(prompt: str) -> AsyncIterator[str]:
        yield prompt
        yield "bye"

    @app.actor("forever")
    async def forever(prompt: str) -> AsyncIterator[str]:
        yield "here"
        await asyncio.Event().wait()

    @app.actor("silent")
    async def silent(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
        await ctx.receive("speak")
        yield "at last"

    @app.actor("refuses")
    async def refuses(prompt: str) -> AsyncIterator[str]:
        if prompt == "hi":
            raise loom.LimitExceeded("too many", code="my_own_limit")
        yield "never"

    @app.actor("breaks")
    async def breaks(prompt: str) -> AsyncIterator[str]:
        yield "half"
        raise ValueError("ouch")

    return app


def asking(r: Rig, actor: str = "echo", **options: Any) -> Any:
    return r.viewer(f"/lines/{actor}", method="POST", body=HI, **options)


async def lines_of(viewer: Viewer) -> list[Any]:
    """All lines until the answer's orderly end."""
    data = b""
    while piece := await viewer.piece():
        data += piece
    return told(data)


async def line_of(viewer: Viewer) -> Any:
    """The next send, which holds one line."""
    (line,) = told(await viewer.piece())
    return line


def told(data: bytes) -> list[Any]:
    assert data.endswith(b"\n")
    return [decode(line) for line in data.splitlines() if line]


def refusal(reply: Reply) -> tuple[int, str]:
    assert reply.header("content-type") == "text/plain"
    return reply.status, reply.body.decode().partition(":")[0]


# --- what it offers --------------------------------------------------------------------------------------------------


async def test_it_is_described_by_its_own_data() -> None:
    async with rig(dialects=[ndjson(resumable=True)]) as r:
        document = (await r.ask("GET", "/openapi.json")).json
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert list(tags) == ["openai", "ndjson"]
    assert tags["ndjson"] == "Lines of JSON. A client that was cut off can read on."
    assert tags["openai"].endswith("It has no resumption.")
    described = document["paths"]["/lines/{actor}"]["post"]
    assert described["tags"] == ["ndjson"]
    assert [parameter["name"] for parameter in described["parameters"]] == ["actor", "Idempotency-Key"]
    assert described["responses"]["200"]["content"] == {"application/x-ndjson": {"itemSchema": {"type": "object"}}}
    error = described["responses"]["404"]["content"]["application/json"]["schema"]
    assert error == {"$ref": "#/components/schemas/Fault"}
    assert "get" in document["paths"]["/lines/runs/{run}"]
    assert "tags" not in document["paths"]["/runs"]["get"]


async def test_two_of_one_route_are_refused() -> None:
    twice = structs.replace(ndjson(), name="other")
    with pytest.raises(UsageError, match=r"POST /lines/\{actor\} is offered twice: by ndjson and by other"):
        async with gateway(dialects=[ndjson(), twice]):
            pass


async def test_two_paths_that_match_the_same_are_refused() -> None:
    """Only the first would ever be found, so that the other's methods were not offered."""
    route = ndjson().routes[0]._replace(method="GET", path="/runs/{run}", name="mine")
    with pytest.raises(UsageError, match=r"/runs/\{run\} of other is never found: loom offers /runs/\{id\}"):
        async with gateway(dialects=[structs.replace(ndjson(), name="other", routes=(route,))]):
            pass


async def test_it_is_guarded_and_refuses_in_its_own_form() -> None:
    async with rig(speaking().registry, keys=["secret"], dialects=[ndjson()]) as r:
        assert refusal(await r.ask("POST", "/lines/echo", HI)) == (401, "unauthorized")
        key = {"Authorization": "Bearer secret"}
        assert (await r.ask("GET", "/lines", headers=key)).json["names"][0] == "breaks"
        assert refusal(await r.ask("POST", "/lines/nobody", HI, headers=key)) == (404, "unknown_producer")
        assert refusal(await r.ask("POST", "/lines/echo", {}, headers=key)) == (422, "invalid_input")
        assert refusal(await r.ask("PUT", "/lines/echo", HI, headers=key)) == (405, "method_not_allowed")


def test_a_catalog_finds_the_default_actor_for_names_that_no_actor_has() -> None:
    actors = (ActorInfo(name="a"), ActorInfo(name="b"))
    assert Catalog(actors, "b", 0).find("x").name == "b"
    assert Catalog(actors, "b", 0).find("a").name == "a"
    with pytest.raises(loom.UnknownProducer, match=r"no model is named 'x' \(there are: a, b\)"):
        Catalog(actors, None, 0).find("x", "model")


# --- a run, told -----------------------------------------------------------------------------------------------------


async def test_a_stream_and_a_whole_answer() -> None:
    async with rig(speaking().registry, worker=True, dialects=[ndjson()]) as r:
        async with asking(r) as viewer:
            reply = viewer.reply
            lines = await lines_of(viewer)
        assert (reply.status, reply.header("content-type")) == (200, "application/x-ndjson")
        assert reply.header("cache-control") == "no-cache, no-transform"
        assert [line.get("text") for line in lines] == ["hi", "bye", None]
        assert lines[-1] == {"done": True}
        assert await state_of(r, run_of(reply)) == "completed"
        whole = await r.ask("POST", "/lines/echo?stream=0", HI)
        assert whole.header("content-type") == "application/x-ndjson"
        assert int(whole.header("content-length") or 0) == len(whole.body)
        assert [line.get("text") for line in told(whole.body)] == ["hi", "bye", None]


async def test_each_line_arrives_before_the_next_is_said_and_silence_has_its_heartbeat() -> None:
    times = Times(first_output=0.01, heartbeat=0.02)
    async with rig(speaking().registry, times=times, dialects=[ndjson()]) as r, asking(r) as viewer:
        run = run_of(viewer.reply)
        assert await viewer.piece() == b"\n", "its head did not wait for ever"
        await r.begin(run)
        await r.say(run, Chunk("progress"))
        for index in range(5):
            cursor = await r.say(run, Chunk("data", str(index)))
            while (piece := await viewer.piece()) == b"\n":
                pass
            assert told(piece) == [{"at": str(cursor), "text": str(index)}]
        while await viewer.piece() != b"\n":
            pass


async def test_a_whole_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMPLETION_BYTES", 20)
    async with rig(speaking().registry, worker=True, dialects=[ndjson()]) as r:
        reply = await r.ask("POST", "/lines/forever?stream=0", HI)
        assert refusal(reply) == (500, "invalid_output")
        assert await state_of(r, run_of(reply)) == "cancelled"


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?stream=0"])
async def test_a_failure_before_the_first_output_has_its_status(query: str) -> None:
    async with rig(speaking().registry, worker=True, dialects=[ndjson()]) as r:
        reply = await r.ask("POST", f"/lines/refuses{query}", HI)
        assert refusal(reply) == (500, "run_failed")
        assert await state_of(r, run_of(reply)) == "failed"


async def test_a_failure_after_it_is_in_the_stream() -> None:
    async with rig(speaking().registry, worker=True, dialects=[ndjson()]) as r:
        async with asking(r, "breaks") as viewer:
            lines = await lines_of(viewer)
        assert viewer.reply.status == 200
        assert lines[0]["text"] == "half"
        assert lines[1:] == [{"fault": "ValueError: ouch", "code": "run_failed"}]
        reply = await r.ask("POST", "/lines/breaks?stream=0", HI)
        assert refusal(reply) == (500, "run_failed"), "nothing was sent yet"


async def test_our_own_fault_is_told_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(speaking().registry, worker=True, dialects=[ndjson()]) as r:
        r.transport.trouble["follow"] = ZeroDivisionError("a secret")
        reply = await r.ask("POST", "/lines/forever", HI)
        assert (*refusal(reply), b"secret" in reply.body) == (500, "internal", False)
        r.transport.trouble.clear()
        assert await state_of(r, run_of(reply)) == "cancelled"


# --- leaving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", ["forever", "silent"])
@pytest.mark.parametrize("query", ["", "?stream=0"])
async def test_leaving_cancels_at_once(actor: str, query: str) -> None:
    """Also before there is a status, and of an answer that is not streamed."""
    async with rig(speaking().registry, worker=True, dialects=[ndjson()]) as r:
        waiting = asyncio.ensure_future(r.ask("POST", f"/lines/{actor}{query}", HI))
        run = await the_run(r)
        await r.transport.pages.get()
        waiting.cancel()
        assert await state_of(r, run) == "cancelled"


async def test_the_run_is_renewed_while_somebody_waits() -> None:
    app = speaking()
    async with rig(app.registry, worker=True, times=Times(leave_grace=0.05), dialects=[ndjson()]) as r:
        waiting = asyncio.ensure_future(r.ask("POST", "/lines/silent", HI))
        run = await the_run(r)
        for _ in range(6):
            assert await asyncio.wait_for(r.transport.touched.get(), PATIENCE) == run
        await r.ask("POST", f"/runs/{run}/inbox", {"type": "speak"})
        assert told((await waiting).body)[0]["text"] == "at last"


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_server_that_stops_says_so_to_those_who_cannot_read_on(resumable: bool) -> None:
    async with rig(speaking().registry, worker=True, dialects=[ndjson(resumable=resumable)]) as r:
        async with asking(r, "forever") as viewer:
            await viewer.piece()
            r.app.end_streams()
            lines = await lines_of(viewer) if not resumable else []
            if resumable:
                assert await viewer.piece() == b"", "it ends in order, and is read on elsewhere"
        if resumable:
            assert (await r.store.runs.get(run_of(viewer.reply))).state == "running"
        else:
            assert lines == [{"fault": "the server is stopping", "code": "unavailable"}]
            assert await state_of(r, run_of(viewer.reply)) == "cancelled"
        assert refusal(await r.ask("POST", "/lines/echo", HI)) == (503, "unavailable")


# --- restarts, and coming again --------------------------------------------------------------------------------------

KEY = {"Idempotency-Key": "once"}


async def test_a_later_attempt_that_takes_back_what_was_sent_ends_stream_and_run() -> None:
    async with rig(speaking().registry, times=SOON, dialects=[ndjson()]) as r:
        async with asking(r) as viewer:
            run = run_of(viewer.reply)
            assert await viewer.piece() == b"\n"
            await r.begin(run)
            await r.say(run, Chunk("data", "Hel"))
            assert (await line_of(viewer))["text"] == "Hel"
            await r.say(run, Chunk("start", {"attempt": 2, "kept_through": 0}), Chunk("data", "Other"))
            assert await lines_of(viewer) == [{"fault": "it began anew", "code": "run_restarted"}]
        assert b'"cancel"' in await told_to(r, run)


async def test_after_a_restart_a_repeated_request_is_told_what_stands() -> None:
    async with rig(speaking().registry, times=SOON, dialects=[ndjson()]) as r:
        async with asking(r, headers=KEY) as viewer:
            run = run_of(viewer.reply)
            assert await viewer.piece() == b"\n"
            await r.begin(run)
            await r.say(run, Chunk("data", "Hel"))
            await viewer.piece()
        fence = await r.store.logs.fence(run, "second")
        anew: list[Chunk[Any]] = [Chunk("start", {"attempt": 2, "kept_through": 0}), Chunk("data", "Hello")]
        await r.store.logs.append(run, make_batch(fence.epoch, 3, anew))
        async with asking(r, headers=KEY) as viewer:
            assert run_of(viewer.reply) == run
            assert (await line_of(viewer))["text"] == "Hello"
        assert (await r.store.logs.read(f"{run}/in", None)).batches == (), "it was never cancelled"
        other = await r.ask("POST", "/lines/echo", {"text": "another"}, headers=KEY)
        assert refusal(other) == (409, "conflict")


async def test_a_client_of_a_resumable_one_is_cut_off_and_reads_on() -> None:
    async with rig(speaking().registry, times=SOON, dialects=[ndjson(resumable=True)]) as r:
        async with asking(r) as viewer:
            run = run_of(viewer.reply)
            assert await viewer.piece() == b"\n"
            await r.begin(run)
            await r.say(run, Chunk("data", "one"))
            seen = (await line_of(viewer))["at"]
        await r.transport.released.wait()
        await r.say(run, Chunk("data", "two"))
        async with r.viewer(f"/lines/runs/{run}?after={seen}") as viewer:
            assert (await line_of(viewer))["text"] == "two"
            assert await asyncio.wait_for(r.transport.touched.get(), PATIENCE) == run
            await r.end(run)
            assert await lines_of(viewer) == [{"done": True}]
        async with r.viewer(f"/lines/runs/{run}") as viewer:
            assert [line.get("text") for line in await lines_of(viewer)] == ["one", "two", None]
        tail = (await r.store.logs.read(run, None)).cursor
        assert (await r.ask("GET", f"/lines/runs/{run}?after={tail}")).status == 204
        assert (await r.store.logs.read(f"{run}/in", None)).batches == (), "it was never cancelled"
        assert refusal(await r.ask("GET", "/lines/runs/nobody")) == (404, "not_found")
        assert refusal(await r.ask("GET", "/lines/runs/!")) == (404, "not_found")
        assert refusal(await r.ask("GET", f"/lines/runs/{run}?after=1-1")) == (410, "cursor_expired")


async def test_one_that_reads_on_from_the_beginning_is_told_what_stands() -> None:
    async with rig(speaking().registry, dialects=[ndjson(resumable=True)]) as r:
        await r.begin("r")
        await r.say("r", Chunk("data", "Hel"))
        fence = await r.store.logs.fence("r", "second")
        anew: list[Chunk[Any]] = [Chunk("start", {"attempt": 2, "kept_through": 0}), Chunk("data", "Hello")]
        await r.store.logs.append("r", make_batch(fence.epoch, 3, anew))
        async with r.viewer("/lines/runs/r") as viewer:
            assert (await line_of(viewer))["text"] == "Hello"


async def test_one_that_reads_on_is_told_that_what_it_was_sent_before_is_taken_back() -> None:
    async with rig(speaking().registry, dialects=[ndjson(resumable=True)]) as r:
        await r.begin("r")
        await r.say("r", Chunk("data", "Hel"))
        seen = (await r.store.logs.read("r", None)).cursor
        fence = await r.store.logs.fence("r", "second")
        anew: list[Chunk[Any]] = [Chunk("start", {"attempt": 2, "kept_through": 0}), Chunk("data", "Hello")]
        await r.store.logs.append("r", make_batch(fence.epoch, 3, anew))
        async with r.viewer(f"/lines/runs/r?after={seen}") as viewer:
            assert await lines_of(viewer) == [{"fault": "it began anew", "code": "run_restarted"}]


async def test_a_resumable_one_that_nobody_comes_back_to_is_cancelled_when_its_lease_lapses() -> None:
    dialects = [ndjson(resumable=True)]
    async with rig(speaking().registry, worker=True, times=Times(leave_grace=0.05), dialects=dialects) as r:
        async with asking(r, "forever") as viewer:
            await viewer.piece()
        assert await state_of(r, run_of(viewer.reply)) == "cancelled"


# --- by way of the app -----------------------------------------------------------------------------------------------


async def test_an_app_brings_its_dialects_to_its_server() -> None:
    app = App(dialects=[ndjson()])
    mounted = loom.asgi("memory://", app=app, worker=True)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async with mounted.lifespan():
        scope = {"type": "http", "method": "GET", "path": "/lines", "query_string": b"", "headers": []}
        await mounted({**scope, "headers": [(b"host", b"localhost")]}, receive, send)
    assert (sent[0]["status"], sent[1]["body"]) == (200, b'{"names":[]}')

"""OpenAI's routes over a real socket: shapes, statuses, silence, leaving, repeating, the server's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import loom
from loom.app import App
from loom.model.chunk import Chunk
from loom.model.errors import ErrorInfo
from loom.model.ports import Commit
from loom.server.app import Times
from loom.wire.json import decode, make_batch
from loom.wire.sse import HEARTBEAT, Event
from tests.server.harness import PATIENCE, Reply, Rig, Viewer, rig, run_of, state_of, the_run, told_to

pytestmark = pytest.mark.anyio

COMPLETIONS = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


def chat(model: str = "echo", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": HI, **fields}


def talking() -> App:
    app = App(default_actor="echo")

    @app.actor("echo")
    async def echo(
        messages: list[loom.ChatMessage], model: str = "none", provider: str = "none", temperature: float = 1.0
    ) -> AsyncIterator[str]:
        yield f"{provider}/{model}@{temperature}:"
        yield str(messages[-1].content)

    @app.actor("shout")
    async def shout(prompt: str) -> str:
        return prompt.upper()

    @app.actor("forever")
    async def forever(prompt: str) -> AsyncIterator[str]:
        yield "here"
        await asyncio.Event().wait()

    @app.actor("silent")
    async def silent(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
        await ctx.receive("speak")
        yield "at last"

    @app.actor("refuses")
    async def refuses(prompt: str, ctx: loom.Context) -> AsyncIterator[str]:
        await ctx.emit(loom.Progress(1, 2))
        if prompt == "hi":
            raise loom.LimitExceeded("too many", details={"retry_after": 2.5})
        yield "never"

    @app.actor("breaks")
    async def breaks(prompt: str) -> AsyncIterator[str]:
        yield "half"
        raise ValueError("ouch")

    @app.actor("count")
    async def count(n: int) -> AsyncIterator[int]:
        yield n

    return app


def refusal(reply: Reply) -> dict[str, Any]:
    """The error, which has OpenAI's form."""
    (key,) = reply.json
    assert key == "error"
    error: dict[str, Any] = reply.json["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return error


def told(events: list[Event]) -> list[Any]:
    return [event.text if event.data == b"[DONE]" else decode(event.data) for event in events]


def text(chunks: list[Any]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if "choices" in chunk)


def streaming(r: Rig, path: str = COMPLETIONS, body: Any = None, **options: Any) -> Any:
    return r.viewer(path, method="POST", body=body or chat(stream=True), **options)


# --- what is said ----------------------------------------------------------------------------------------------------


async def test_a_stream() -> None:
    async with rig(talking().registry, worker=True) as r:
        async with streaming(r, body=chat(stream=True, temperature=0.5)) as viewer:
            reply = viewer.reply
            events = await viewer.rest()
        assert reply.status == 200
        assert reply.header("content-type") == "text/event-stream"
        assert reply.header("cache-control") == "no-cache, no-transform"
        assert (viewer.decoder.last_event_id, viewer.decoder.retry) == ("", None)
        chunks = told(events)
        assert text(chunks[:-1]) == "none/none@0.5:hi"
        assert chunks[-1] == "[DONE]"
        assert {chunk["id"] for chunk in chunks[:-1]} == {f"chatcmpl-{run_of(reply)}"}
        assert {chunk["model"] for chunk in chunks[:-1]} == {"echo"}
        assert await state_of(r, run_of(reply)) == "completed"


async def test_a_whole_answer() -> None:
    async with rig(talking().registry, worker=True) as r:
        reply = await r.ask("POST", COMPLETIONS, chat())
        assert reply.status == 200
        assert reply.json["id"] == f"chatcmpl-{run_of(reply)}"
        assert reply.json["choices"][0]["message"]["content"] == "none/none@1.0:hi"
        reply = await r.ask("POST", COMPLETIONS, chat("shout"))
        assert reply.json["choices"][0]["message"]["content"] == "HI"


@pytest.mark.parametrize("model", ["@cf/meta/llama-4-scout", "gpt-4o", "a/b/c:d@e", "é"])
async def test_a_model_that_no_actor_is_called_goes_to_the_default_one_as_it_is(model: str) -> None:
    async with rig(talking().registry, worker=True, default_actor="echo") as r:
        reply = await r.ask("POST", COMPLETIONS, chat(model))
        assert reply.json["model"] == model
        assert reply.json["choices"][0]["message"]["content"] == f"none/{model}@1.0:hi"
        assert (await r.ask("POST", COMPLETIONS, chat("shout"))).json["model"] == "shout"


async def test_the_actor_in_the_path() -> None:
    async with rig(talking().registry, worker=True, default_actor="echo") as r:
        async with streaming(r, "/api/shout/chat", {"messages": HI}) as viewer:
            assert viewer.reply.header("content-type") == "text/event-stream"
            assert text(told(await viewer.rest())[:-1]) == "HI"
        body = {"messages": HI, "model": "@cf/m", "temperature": 0, "max_tokens": 5, "stream": False}
        reply = await r.ask("POST", "/api/cloudflare/chat", body)
        assert reply.json["choices"][0]["message"]["content"] == "cloudflare/@cf/m@0.0:hi"
        assert reply.json["model"] == "@cf/m"


async def test_the_models() -> None:
    app = talking()
    async with rig(app.registry) as r:
        listed = (await r.ask("GET", "/v1/models")).json
        assert listed["object"] == "list"
        assert [model["id"] for model in listed["data"]] == sorted(producer.name for producer in app.registry)
        one = (await r.ask("GET", "/v1/models/echo")).json
        assert one in listed["data"]
        assert (one["id"], one["object"], one["owned_by"]) == ("echo", "model", "loom")
        missing = await r.ask("GET", "/v1/models/@cf/meta/llama")
        assert (missing.status, refusal(missing)["code"]) == (404, "model_not_found")
    async with rig(app.registry, default_actor="echo") as r:
        assert (await r.ask("GET", "/v1/models/@cf/meta/llama")).json["id"] == "@cf/meta/llama"


# --- what is wrong ---------------------------------------------------------------------------------------------------

WRONG: list[tuple[Any, int, str, str | None]] = [
    (chat("nobody"), 404, "model_not_found", "model"),
    (chat("count"), 400, "invalid_input", "messages"),
    (chat(temperature="hot"), 400, "invalid_input", "temperature"),
    (chat(messages=[]), 400, "invalid_input", "messages"),
    (chat("shout", messages=[{"role": "system", "content": "x"}]), 400, "invalid_input", "messages"),
    ({"messages": HI}, 400, "invalid_input", "model"),
    (chat(n=2), 400, "invalid_input", "n"),
    (b"{", 400, "protocol_error", None),
    (b"", 400, "invalid_input", "messages"),
    (b"[" * 300, 400, "protocol_error", None),
    (chat(messages=[{"role": "user", "content": "x" * (1 << 20)}]), 413, "too_large", None),
    (b"x" * (3 << 20), 413, "too_large", None),
]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(("body", "status", "code", "param"), WRONG)
async def test_wrong_requests(body: Any, status: int, code: str, param: str | None, streams: bool) -> None:
    if isinstance(body, dict):
        body = {**body, "stream": streams}
    async with rig(talking().registry) as r:
        reply = await r.ask("POST", COMPLETIONS, body)
        error = refusal(reply)
        assert (reply.status, error["code"], error["param"]) == (status, code, param)
        assert error["type"] == "invalid_request_error"
        assert reply.header("x-should-retry") == "false"
        assert await r.store.runs.list_runs() == []


async def test_only_json_is_read() -> None:
    async with rig(talking().registry) as r:
        reply = await r.ask("POST", COMPLETIONS, b"{}", headers={"Content-Type": "text/plain"})
        assert (reply.status, refusal(reply)["code"]) == (415, "unsupported_media_type")


async def test_who_may_not_is_told_in_the_same_form() -> None:
    async with rig(talking().registry, keys=["secret"]) as r:
        for path, method in ((COMPLETIONS, "POST"), ("/api/echo/chat", "POST"), ("/v1/models", "GET")):
            reply = await r.ask(method, path, chat() if method == "POST" else None)
            assert (reply.status, refusal(reply)["code"]) == (401, "invalid_api_key")
            assert (reply.header("www-authenticate") or "").startswith("Bearer")
        reply = await r.ask("GET", "/v1/models", headers={"Authorization": "Bearer secret"})
        assert reply.status == 200
        reply = await r.ask("GET", "/v1/models", headers={"Host": "evil.example"})
        assert (reply.status, refusal(reply)["code"]) == (403, "forbidden")
        assert (await r.ask("GET", "/runs")).error["code"] == "unauthorized"


async def test_a_wrong_method() -> None:
    async with rig(talking().registry) as r:
        reply = await r.ask("GET", COMPLETIONS)
        assert (reply.status, refusal(reply)["code"], reply.header("allow")) == (405, "method_not_allowed", "POST")


# --- failures of the run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [False, True])
async def test_a_failure_before_any_output_has_its_status(streams: bool) -> None:
    async with rig(talking().registry, worker=True) as r:
        reply = await r.ask("POST", COMPLETIONS, chat("refuses", stream=streams))
        assert (reply.status, refusal(reply)["code"]) == (429, "rate_limit_exceeded")
        assert (reply.header("retry-after"), reply.header("x-should-retry")) == ("3", "true")
        assert await state_of(r, run_of(reply)) == "failed"


async def test_a_failure_in_mid_stream_is_an_event_and_nothing_is_done() -> None:
    async with rig(talking().registry, worker=True) as r:
        async with streaming(r, body=chat("breaks", stream=True)) as viewer:
            chunks = told(await viewer.rest())
        assert text(chunks) == "half"
        assert chunks[-1]["error"] == {
            "message": "ValueError: ouch", "type": "server_error", "param": None, "code": "run_failed",
        }  # fmt: skip
        reply = await r.ask("POST", COMPLETIONS, chat("breaks"))
        assert (reply.status, refusal(reply)["code"], reply.header("x-should-retry")) == (500, "run_failed", "false")


async def test_a_cancel_from_elsewhere_is_told() -> None:
    async with rig(talking().registry, worker=True) as r, streaming(r, body=chat("forever", stream=True)) as viewer:
        await viewer.event()
        assert (await r.ask("POST", f"/runs/{run_of(viewer.reply)}/cancel")).status == 202
        assert told(await viewer.rest())[-1]["error"]["code"] == "cancelled"


async def test_our_own_fault_is_told_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    async with rig(talking().registry, worker=True) as r:
        r.transport.trouble["follow"] = ZeroDivisionError("a secret")
        reply = await r.ask("POST", COMPLETIONS, chat("forever", stream=True))
        assert (reply.status, refusal(reply)["message"]) == (500, "internal error")
        assert await state_after(r, run_of(reply)) == "cancelled"


async def state_after(r: Rig, run: str) -> str:
    r.transport.trouble.clear()
    return await state_of(r, run)


# --- attempts --------------------------------------------------------------------------------------------------------

SOON = Times(first_output=0.01)
"""The head comes at once, and the test writes the run itself."""


async def test_a_later_attempt_that_keeps_everything_goes_on() -> None:
    async with rig(talking().registry, times=SOON) as r, streaming(r) as viewer:
        run = run_of(viewer.reply)
        await r.begin(run)
        cursor = await r.say(run, Chunk("data", "Hel"))
        first = await viewer.event()
        await r.say(run, Chunk("start", {"attempt": 2, "kept_through": cursor.seq}), Chunk("data", "lo"))
        await r.end(run)
        assert text(told([first, *await viewer.rest()])[:-1]) == "Hello"


async def test_a_later_attempt_that_takes_back_what_was_sent_ends_the_stream_and_the_run() -> None:
    async with rig(talking().registry, times=SOON) as r:
        async with streaming(r) as viewer:
            run = run_of(viewer.reply)
            await r.begin(run)
            await r.say(run, Chunk("data", "Hel"))
            first = await viewer.event()
            await r.say(run, Chunk("start", {"attempt": 2, "kept_through": 0}), Chunk("data", "Other"))
            chunks = told([first, *await viewer.rest()])
        assert text(chunks) == "Hel"
        assert chunks[-1]["error"]["code"] == "run_restarted"
        assert b'"cancel"' in await told_to(r, run)


# --- silence, in time ------------------------------------------------------------------------------------------------


async def test_each_token_arrives_before_the_next_is_said() -> None:
    async with rig(talking().registry, times=SOON) as r, streaming(r) as viewer:
        run = run_of(viewer.reply)
        await r.begin(run)
        for index in range(20):
            await r.say(run, Chunk("data", str(index)))
            assert text(told([await viewer.event()])) == str(index)


async def test_a_long_silence_is_filled_with_comments() -> None:
    times = Times(first_output=0.01, heartbeat=0.02)
    asked = chat("silent", stream=True)
    async with rig(talking().registry, worker=True, times=times) as r, streaming(r, body=asked) as viewer:
        for _ in range(5):
            assert await viewer.piece() == HEARTBEAT
        reply = await r.ask("POST", f"/runs/{run_of(viewer.reply)}/inbox", {"type": "speak"})
        assert reply.status == 202
        assert text(told(await viewer.rest())[:-1]) == "at last"


async def test_a_failure_after_a_long_silence_is_an_event() -> None:
    async with rig(talking().registry, times=SOON) as r, streaming(r) as viewer:
        run = run_of(viewer.reply)
        await r.begin(run)
        await r.say(run, Chunk("error", error=ErrorInfo("run_failed", "ouch")), end=True)
        (last,) = told(await viewer.rest())
        assert last["error"]["message"] == "ouch"


async def test_what_has_no_place_here_sends_nothing() -> None:
    async with rig(talking().registry, times=SOON) as r, streaming(r) as viewer:
        run = run_of(viewer.reply)
        assert await viewer.piece() == HEARTBEAT
        await r.begin(run)
        for kind in ("progress", "stdout"):
            await r.say(run, Chunk(kind))
        await r.say(run, Chunk("data", "x"))
        assert text(told([await viewer.event()])) == "x"


# --- leaving and coming again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["forever", "silent"])
@pytest.mark.parametrize("streams", [False, True])
async def test_leaving_cancels_at_once(model: str, streams: bool) -> None:
    """Also before there is a status, and of an answer that is not streamed."""
    async with rig(talking().registry, worker=True) as r:
        asking = asyncio.ensure_future(r.ask("POST", COMPLETIONS, chat(model, stream=streams)))
        run = await the_run(r)
        await r.transport.pages.get()
        asking.cancel()
        assert await state_of(r, run) == "cancelled"


async def test_the_run_is_renewed_while_somebody_waits() -> None:
    async with rig(talking().registry, worker=True, times=Times(leave_grace=0.05)) as r:
        asking = asyncio.ensure_future(r.ask("POST", COMPLETIONS, chat("silent")))
        run = await the_run(r)
        for _ in range(6):
            assert await asyncio.wait_for(r.transport.touched.get(), PATIENCE) == run
        assert not asking.done()
        await r.ask("POST", f"/runs/{run}/inbox", {"type": "speak"})
        assert (await asking).json["choices"][0]["message"]["content"] == "at last"


KEY = {"Idempotency-Key": "once"}


async def test_a_request_with_a_key_can_be_repeated() -> None:
    async with rig(talking().registry, times=SOON) as r:
        async with streaming(r, headers=KEY) as viewer:
            run = run_of(viewer.reply)
            await r.begin(run)
            await r.say(run, Chunk("data", "begun "))
            await viewer.event()
        await r.transport.released.wait()
        await r.say(run, *(Chunk("data", "x") for _ in range(200)))
        await r.end(run)
        async with streaming(r, headers=KEY) as viewer:
            assert run_of(viewer.reply) == run
            pieces = [piece async for piece in pieces_of(viewer)]
        assert len(pieces) == 1, "what is ready goes out at once"
        events = told(viewer.decoder.feed(b"".join(pieces)))
        assert text(events[:-1]) == "begun " + "x" * 200
        again = await r.ask("POST", COMPLETIONS, chat(), headers=KEY)
        assert again.json["id"] == f"chatcmpl-{run}"
        other = await r.ask("POST", COMPLETIONS, chat(temperature=0.1), headers=KEY)
        assert (other.status, refusal(other)["code"]) == (409, "conflict")
        assert len(await r.store.runs.list_runs()) == 1
        assert (await r.store.logs.read(f"{run}/in", None)).batches == ()


async def test_after_a_restart_a_repeated_request_is_told_what_stands() -> None:
    async with rig(talking().registry, times=SOON) as r:
        async with streaming(r, headers=KEY) as viewer:
            run = run_of(viewer.reply)
            await r.begin(run)
            await r.say(run, Chunk("data", "Hel"))
            first = await viewer.event()
            fence = await r.store.logs.fence(run, "second")
            start = Chunk("start", {"attempt": 2, "kept_through": 0})
            await r.store.logs.append(run, make_batch(fence.epoch, 3, [start, Chunk("data", "Hello")]))
            assert told([first, *await viewer.rest()])[-1]["error"]["code"] == "run_restarted"
        async with streaming(r, headers=KEY) as viewer:
            first = await viewer.event()
            await r.store.logs.append(run, make_batch(fence.epoch, 5, [Chunk("complete")]), Commit(state="completed"))
            chunks = told([first, *await viewer.rest()])
        assert text(chunks[:-1]) == "Hello"
        assert chunks[-1] == "[DONE]"


async def pieces_of(viewer: Viewer) -> AsyncIterator[bytes]:
    while piece := await viewer.piece():
        yield piece


# --- the server's end ------------------------------------------------------------------------------------------------


async def test_a_server_that_stops_says_so_and_cancels() -> None:
    async with rig(talking().registry, worker=True) as r:
        waiting = asyncio.ensure_future(r.ask("POST", COMPLETIONS, chat("silent")))
        silent = await the_run(r)
        async with streaming(r, body=chat("forever", stream=True)) as viewer:
            await viewer.event()
            r.app.end_streams()
            (last,) = told(await viewer.rest())
            assert last["error"]["code"] == "unavailable"
            assert await state_of(r, run_of(viewer.reply)) == "cancelled"
        reply = await waiting
        assert (reply.status, refusal(reply)["code"]) == (503, "unavailable")
        assert await state_of(r, silent) == "cancelled"
        reply = await r.ask("POST", COMPLETIONS, chat())
        assert (reply.status, refusal(reply)["code"]) == (503, "unavailable")
        assert r.app.viewers == 0

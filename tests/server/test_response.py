"""A run as the answer of somebody else's route, under plain uvicorn: as on our own, wherever the client is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import loom
from loom.blocking import SyncClient
from loom.model.chunk import Page
from loom.model.errors import UsageError
from loom.server.app import create_app
from loom.server.http.address import Address
from loom.server.serve import serving
from loom.wire.json import decode
from loom.wire.sse import HEARTBEAT, Event
from tests.clients.places import PLACES, Connected, connected, served, url_of
from tests.echo import Echo
from tests.frameworks import served_by_uvicorn

from . import harness
from .harness import PATIENCE

pytestmark = pytest.mark.anyio

Answer = Callable[[Request], Any]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Any) -> Connected:
    return connected(request.param, tmp_path, url_of(request, tmp_path))


def page_of(answer: Answer, **options: Any) -> Starlette:
    """An app of one page, which answers so."""

    async def page(request: Request) -> Response:
        made = answer(request)
        return cast("Response", await made if isinstance(made, Awaitable) else made)

    return Starlette(routes=[Route("/page", page, methods=["GET", "POST"])], **options)


def serve(answer: Answer, **options: Any) -> AbstractAsyncContextManager[Address]:
    return served_by_uvicorn(page_of(answer, **options))


def view(address: Address, path: str = "/page", **options: Any) -> AbstractAsyncContextManager[harness.Viewer]:
    return harness.viewer(address, path, **options)


async def rest_of(viewer: harness.Viewer) -> list[tuple[str, str, Any]]:
    return [shape(event) for event in await viewer.rest()]


def shape(event: Event) -> tuple[str, str, Any]:
    return event.type, event.id, decode(event.data).get("data")


# --- as our own route ------------------------------------------------------------------------------------------------


async def test_bytes_and_headers_are_those_of_our_own_route(place: Connected) -> None:
    echo = Echo(asyncio.Event())
    async with place(echo.app) as client:
        run = await client.start(echo.actor)
        await run.send("say", "a")
        await run.send("say", "b")
        await run.send("stop")
        head = await run.wait(20)
        first = (await anext(aiter(run))).cursor
        own = create_app(client.transport)
        async with (
            serving(own, port=0) as ours,
            serve(lambda request: loom.EventSourceResponse(run, request)) as theirs,
        ):
            for headers in ({}, {"Last-Event-ID": str(first)}, {"Last-Event-ID": f"{run.id}:{first}"}):
                async with (
                    view(ours, f"/runs/{run.id}/events", headers=headers) as expected,
                    view(theirs, headers=headers) as given,
                ):
                    assert framing_apart(given.reply) == framing_apart(expected.reply)
                    assert await whole(given) == await whole(expected)
            for headers in (
                {"Last-Event-ID": str(head.latest)},
                {"Last-Event-ID": "7-1"},
                {"Last-Event-ID": "nonsense"},
                {"Accept": "text/html"},
            ):
                expected_reply = await harness.ask(ours, "GET", f"/runs/{run.id}/events", headers=headers)
                reply = await harness.ask(theirs, "GET", "/page", headers=headers)
                assert (reply.status, reply.body) == (expected_reply.status, expected_reply.body)
                assert framing_apart(reply) == framing_apart(expected_reply)


def framing_apart(reply: harness.Reply) -> dict[str, str]:
    """The headers, without those that are the server's own."""
    return {name: value for name, value in reply.headers if name not in ("date", "server", "connection")}


async def whole(viewer: harness.Viewer) -> bytes:
    pieces = []
    while piece := await viewer.piece():
        pieces.append(piece)
    return b"".join(pieces)


async def test_statuses(place: Connected) -> None:
    echo = Echo(asyncio.Event())
    async with place(echo.app) as client:
        run = await client.start(echo.actor)
        await run.send("stop")
        head = await run.wait(20)

        def answer(request: Request) -> Response:
            id = request.query_params.get("run", run.id)
            return loom.EventSourceResponse(client.run(id), request, after=request.query_params.get("after"))

        async with serve(answer) as address:
            for query, headers, status, code in (
                ("?run=none", {}, 404, "not_found"),
                ("?after=7-1", {}, 410, "cursor_expired"),
                ("?after=x", {}, 400, "usage"),
                ("?after=x", {"Last-Event-ID": str(head.latest)}, 204, None),
                (f"?after={head.latest}", {}, 204, None),
                ("?after=", {"Accept": "application/json"}, 406, "not_acceptable"),
            ):
                reply = await harness.ask(address, "GET", f"/page{query}", headers=headers)
                assert reply.status == status, query
                assert code is None or reply.error["code"] == code
            reply = await harness.ask(address, "HEAD", "/page")
            assert (reply.status, reply.body, reply.header("content-type")) == (200, b"", "text/event-stream")


async def test_each_event_arrives_before_the_next_is_said(place: Connected) -> None:
    echo = Echo(asyncio.Event())
    async with place(echo.app) as client:
        run = await client.start(echo.actor)
        async with serve(lambda request: loom.EventSourceResponse(run, request)) as address, view(address) as viewer:
            assert (await viewer.event()).type == "start"
            for index in range(20):
                await run.send("say", index)
                assert decode((await viewer.event()).data)["data"] == index
            await run.send("stop")
            assert [type for type, _, _ in await rest_of(viewer)] == ["complete"]


async def test_a_reader_that_was_cut_goes_on_behind_what_it_has(place: Connected) -> None:
    echo = Echo(asyncio.Event())
    async with place(echo.app) as client:
        run = await client.start(echo.actor)
        async with serve(lambda request: loom.EventSourceResponse(run, request)) as address:
            seen: list[Any] = []
            last = ""
            for index in range(5):
                await run.send("say", index)
                async with view(address, headers={"Last-Event-ID": last} if last else {}) as viewer:
                    event = await viewer.event()
                    while event.type != "data":
                        event = await viewer.event()
                    seen.append(decode(event.data)["data"])
                    last = event.id
            await run.send("stop")
            assert seen == list(range(5))
            assert not echo.gone.is_set() or (await run.status()).state == "completed"


async def test_what_is_ready_goes_out_in_one_piece() -> None:
    app = loom.App()

    @app.actor
    async def many() -> AsyncIterator[int]:
        for index in range(200):
            yield index

    async with loom.connect("memory://", app=app, worker=True) as client:
        run = await client.start(many)
        await run.wait(20)
        async with serve(lambda request: loom.EventSourceResponse(run, request)) as address, view(address) as viewer:
            assert len(viewer.decoder.feed(await viewer.piece())) == 202


async def test_silence_is_filled_with_heartbeats() -> None:
    echo = Echo(asyncio.Event())
    async with loom.connect("memory://", app=echo.app, worker=True, drain=0) as client:
        run = await client.start(echo.actor)
        every = timedelta(milliseconds=50)
        async with (
            serve(lambda request: loom.EventSourceResponse(run, request, heartbeat=every)) as address,
            view(address) as viewer,
        ):
            pieces = [await viewer.piece() for _ in range(5)]
            assert pieces.count(HEARTBEAT) >= 3


async def test_without_event_names() -> None:
    echo = Echo(asyncio.Event())
    async with loom.connect("memory://", app=echo.app, worker=True) as client:
        run = await client.start(echo.actor)
        await run.send("stop")
        async with (
            serve(lambda request: loom.EventSourceResponse(run, request, named=False)) as address,
            view(address) as viewer,
        ):
            assert {type for type, _, _ in await rest_of(viewer)} == {"message"}


# --- leaving ---------------------------------------------------------------------------------------------------------


async def test_leaving_ends_the_viewer_and_never_the_run(place: Connected) -> None:
    echo = Echo(asyncio.Event())
    async with place(echo.app) as client:
        run = await client.start(echo.actor)
        async with serve(lambda request: loom.EventSourceResponse(run, request)) as address:
            async with view(address) as viewer:
                await viewer.event()
                watching = watchers(run.id)
                assert watching
            await asyncio.wait_for(asyncio.wait(watching), PATIENCE)
            assert not watchers(run.id)
            await run.send("say", "still here")
            await run.send("stop")
            assert await run.result(20) == "still here"


def watchers(run: str) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == f"loom-viewer {run}"]


async def test_leaving_an_owned_run_cancels_it(place: Connected) -> None:
    echo = Echo(asyncio.Event())
    async with (
        place(echo.app) as client,
        serve(lambda request: loom.EventSourceResponse(client.stream(echo.actor), request)) as address,
    ):
        async with view(address) as viewer:
            event = await viewer.event()
            run = client.run(event.id.rpartition(":")[0])
            await run.send("say", 1)
            assert decode((await viewer.event()).data)["data"] == 1
        assert (await run.wait(20)).state == "cancelled"
        assert echo.gone.is_set()
        assert len(await client.runs()) == 1


async def test_an_owned_run_that_is_seen_to_its_end_is_completed(place: Connected) -> None:
    app = loom.App()

    @app.actor
    async def three() -> AsyncIterator[int]:
        for index in range(3):
            yield index

    async with place(app) as client:
        async with (
            serve(lambda request: loom.EventSourceResponse(client.stream(three), request)) as address,
            view(address) as viewer,
        ):
            events = await rest_of(viewer)
        assert [data for type, _, data in events if type == "data"] == [0, 1, 2]
        assert [head.state for head in await client.runs()] == ["completed"]


async def test_an_owned_runs_reconnect_starts_nothing() -> None:
    """Also when nothing but the opening was seen."""
    echo = Echo(asyncio.Event())
    async with loom.connect("memory://", app=echo.app, worker=True, drain=0) as client:

        def answer(request: Request) -> Response:
            return loom.EventSourceResponse(client.stream(echo.actor.using(delay=1000)), request)

        async with serve(answer) as address:
            assert (await harness.ask(address, "HEAD", "/page")).status == 200
            assert await client.runs() == []
            async with view(address) as viewer:
                viewer.decoder.feed(await viewer.piece())
                last = viewer.decoder.last_event_id
            (head,) = await client.runs()
            assert last == f"{head.meta.run}:"
            reply = await harness.ask(address, "GET", "/page", headers={"Last-Event-ID": last})
            assert reply.status == 204
            assert len(await client.runs()) == 1


async def test_an_owned_run_that_cannot_be_started_is_a_status(place: Connected) -> None:
    app = loom.App()

    @app.actor
    async def count(n: int) -> AsyncIterator[int]:
        yield n

    async with (
        place(app) as client,
        serve(lambda request: loom.EventSourceResponse(client.stream("count", "x"), request)) as address,
    ):
        reply = await harness.ask(address, "GET", "/page")
        assert (reply.status, reply.error["code"]) == (422, "invalid_input")


# --- in a stack ------------------------------------------------------------------------------------------------------


class Timing(BaseHTTPMiddleware):
    """As everybody writes them."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["X-Seen"] = "1"
        return response


async def test_through_middlewares_in_time_and_leaving_is_seen() -> None:
    echo = Echo(asyncio.Event())
    stack = [Middleware(GZipMiddleware, minimum_size=1), Middleware(CORSMiddleware), Middleware(Timing)]
    async with loom.connect("memory://", app=echo.app, worker=True, drain=0) as client:
        run = await client.start(echo.actor)
        async with serve(lambda request: loom.EventSourceResponse(run, request), middleware=stack) as address:
            async with view(address, headers={"Accept-Encoding": "gzip"}) as viewer:
                assert viewer.reply.header("content-encoding") is None
                assert viewer.reply.header("x-seen") == "1"
                await viewer.event()
                for index in range(3):
                    await run.send("say", index)
                    assert decode((await viewer.event()).data)["data"] == index
                watching = watchers(run.id)
            await asyncio.wait_for(asyncio.wait(watching), PATIENCE)


async def test_a_route_that_reads_a_body_first() -> None:
    echo = Echo(asyncio.Event())
    async with loom.connect("memory://", app=echo.app, worker=True, drain=0) as client:

        async def answer(request: Request) -> Response:
            given = await request.json()
            run = await client.start(echo.actor, id=given["id"])
            return loom.EventSourceResponse(run, request)

        async with serve(answer) as address, view(address, method="POST", body={"id": "mine"}) as viewer:
            assert (await viewer.event()).type == "start"
            watching = watchers("mine")
            viewer.writer.close()
            await asyncio.wait_for(asyncio.wait(watching), PATIENCE)


async def test_headers_cookies_and_background() -> None:
    echo = Echo(asyncio.Event())
    done = asyncio.Event()

    async def note() -> None:
        done.set()

    async with loom.connect("memory://", app=echo.app, worker=True) as client:
        run = await client.start(echo.actor)
        await run.send("stop")

        def answer(request: Request) -> Response:
            made = loom.EventSourceResponse(
                run, request, headers={"X-Mine": "1", "Cache-Control": "no-store"}, background=BackgroundTask(note)
            )
            made.set_cookie("seen", "yes")
            return made

        async with serve(answer) as address, view(address) as viewer:
            await viewer.rest()
            assert viewer.reply.header("x-mine") == "1"
            assert viewer.reply.header("cache-control") == "no-store"
            assert "seen=yes" in (viewer.reply.header("set-cookie") or "")
            await asyncio.wait_for(done.wait(), PATIENCE)


# --- the server's end ------------------------------------------------------------------------------------------------


async def test_a_server_that_is_told_to_stop_ends_streams_in_order_and_viewers_resume() -> None:
    """uvicorn would wait for them for ever."""
    echo = Echo(asyncio.Event())
    async with loom.connect("memory://", app=echo.app, worker=True, drain=0) as client:
        run = await client.start(echo.actor)

        def answer(request: Request) -> Response:
            return loom.EventSourceResponse(run, request)

        server = AsyncExitStack()
        async with view(await server.enter_async_context(serve(answer))) as viewer:
            last = (await viewer.event()).id
            stopping = asyncio.ensure_future(server.aclose())
            assert await rest_of(viewer) == []
            await asyncio.wait_for(stopping, PATIENCE)
        await run.send("stop")
        async with serve(answer) as address, view(address, headers={"Last-Event-ID": last}) as viewer:
            assert [type for type, _, _ in await rest_of(viewer)] == ["complete"]


async def test_a_reader_that_comes_while_the_server_stops_is_sent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """An `EventSource` opens a stream that ended again, and gives up on any other status than 200."""
    echo = Echo(asyncio.Event())
    async with loom.connect("memory://", app=echo.app, worker=True, drain=0) as client:
        run = await client.start(echo.actor)
        handle: dict[str, Any] = {"/page": run, "/page?owned": client.stream(echo.actor)}

        def answer(request: Request) -> Response:
            return loom.EventSourceResponse(handle["/page?owned" if request.url.query else "/page"], request)

        async with serve(answer) as address:
            monkeypatch.setattr("loom.server.response.told_to_stop", lambda: True)
            for path in handle:
                reply = await harness.ask(address, "GET", path, headers={"Last-Event-ID": "1-1"})
                assert (reply.status, reply.header("content-type"), reply.body) == (200, "text/event-stream", b"")
                assert (await harness.ask(address, "HEAD", path)).status == 200
                posted = await harness.ask(address, "POST", path, {})
                assert (posted.status, posted.error["code"], posted.header("retry-after")) == (503, "unavailable", "1")
        assert len(await client.runs()) == 1


# --- faults ----------------------------------------------------------------------------------------------------------


async def test_a_client_that_is_closed_ends_its_streams_in_order(place: Connected) -> None:
    """The app stops: no fault is told, viewers resume elsewhere; who comes now is told to come again."""
    echo = Echo(asyncio.Event())
    async with Closing(place(echo.app)) as closing:
        run = await closing.client.start(echo.actor)
        async with serve(lambda request: loom.EventSourceResponse(run, request)) as address:
            async with view(address) as viewer:
                await viewer.event()
                await closing.client.aclose()
                assert await rest_of(viewer) == []
            reply = await harness.ask(address, "GET", "/page")
            assert (reply.status, reply.error["code"], reply.header("retry-after")) == (503, "unavailable", "1")


class Closing:
    def __init__(self, connecting: AbstractAsyncContextManager[loom.Client]) -> None:
        self._connecting = connecting

    async def __aenter__(self) -> Closing:
        self.client = await self._connecting.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._connecting.__aexit__(None, None, None)


async def test_a_server_that_refuses_the_apps_key_is_no_fault_of_the_viewer(caplog: pytest.LogCaptureFixture) -> None:
    """A page that gets 401 shows its login."""
    echo = Echo(asyncio.Event())
    async with served(echo.app, keys=["right"]) as url, loom.connect(url, api_key="wrong") as client:

        async def start(request: Request) -> Response:
            run = await client.start("echo")
            return loom.EventSourceResponse(run, request)

        handlers: Any = {loom.LoomError: loom.error_response}
        for answer in (lambda request: loom.EventSourceResponse(client.run("r"), request), start):
            caplog.clear()
            async with serve(answer, exception_handlers=handlers) as address:
                reply = await harness.ask(address, "GET", "/page")
                assert (reply.status, reply.error["message"]) == (500, "internal error")
            assert "what this app is a client of refuses it" in caplog.text


async def test_what_a_route_raises_is_answered_with_its_status() -> None:
    echo = Echo(asyncio.Event())
    async with loom.connect("memory://", app=echo.app, worker=True) as client:

        async def answer(request: Request) -> Response:
            return loom.EventSourceResponse(await client.start("nobody"), request)

        handlers: Any = {loom.LoomError: loom.error_response}
        async with serve(answer, exception_handlers=handlers) as address:
            reply = await harness.ask(address, "GET", "/page")
            assert (reply.status, reply.error["code"]) == (404, "unknown_producer")


async def test_what_is_no_error_of_ours_is_not_answered() -> None:
    """A handler that was registered for more is told so, with what it was given."""
    fault = ZeroDivisionError("a secret")
    with pytest.raises(loom.UsageError, match="not ZeroDivisionError") as caught:
        await loom.error_response(Request({"type": "http"}), fault)
    assert caught.value.__cause__ is fault


async def test_a_fault_of_ours_is_told_without_its_details(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    echo = Echo(asyncio.Event())
    async with loom.connect("memory://", app=echo.app, worker=True) as client:

        async def read(*_: Any, **__: Any) -> Page:
            raise ZeroDivisionError("a secret")

        monkeypatch.setattr(client.transport, "read", read)
        async with serve(lambda request: loom.EventSourceResponse(client.run("r"), request)) as address:
            reply = await harness.ask(address, "GET", "/page")
    assert (reply.status, reply.error["code"]) == (500, "internal")
    assert b"secret" not in reply.body
    assert "ZeroDivisionError: a secret" in caplog.text


async def test_what_cannot_be_answered_with() -> None:
    request = Request({"type": "http", "method": "GET", "headers": []})
    echo = Echo(asyncio.Event())
    async with loom.connect("memory://", app=echo.app, worker=True) as client:
        for heartbeat in (0, -1.0, timedelta(0)):
            with pytest.raises(UsageError, match="heartbeat"):
                loom.EventSourceResponse(client.run("r"), request, heartbeat=heartbeat)
        with pytest.raises(UsageError, match="sse_events"):
            loom.EventSourceResponse(cast(Any, SyncClient(cast(Any, None), client).run("r")), request)

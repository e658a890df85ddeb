"""The whole server in other people's apps: their lifespan, their paths, who may use it there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import fastapi
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

import loom
from loom.model.errors import UsageError
from loom.server.app import Times
from loom.wire.json import decode
from tests.frameworks import served_by_uvicorn
from tests.server import harness

pytestmark = pytest.mark.anyio


def echoing() -> loom.App:
    app = loom.App()

    @app.actor
    async def echo(ctx: loom.Context) -> AsyncIterator[Any]:
        while (message := await ctx.receive()).type != "stop":
            yield message.data

    return app


def mounted_app(**options: Any) -> loom.asgi:
    return loom.asgi("memory://", app=echoing(), worker=True, drain=0, **options)


class Outer:
    """Somebody's app around ours, with a lifespan of its own."""

    def __init__(self, inner: loom.asgi, kind: str, **options: Any) -> None:
        self.clients: list[loom.Client] = []
        self.told: list[str] = []

        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
            self.told.append("opened")
            async with inner.lifespan() as client:
                self.clients.append(client)
                yield {"client": client}
            self.told.append("closed")

        self.app: Starlette
        if kind == "fastapi":
            self.app = fastapi.FastAPI(lifespan=lifespan, **options)
            self.app.mount("/loom", inner)
        else:
            self.app = Starlette(lifespan=lifespan, routes=[Mount("/loom", inner)], **options)


@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
async def test_mounted_with_the_outer_apps_lifespan(kind: str) -> None:
    outer = Outer(mounted_app(), kind)
    async with served_by_uvicorn(outer.app) as address:
        started = await harness.ask(address, "POST", "/loom/runs", {"actor": "echo", "id": "r"})
        assert (started.status, started.header("location")) == (201, "/loom/runs/r")
        async with harness.viewer(address, "/loom/runs/r/events") as viewer:
            assert (await viewer.event()).type == "start"
            await outer.clients[0].run("r").send("say", "by the app's own client")
            assert decode((await viewer.event()).data)["data"] == "by the app's own client"
            assert (await harness.ask(address, "POST", "/loom/runs/r/cancel")).status == 202
            assert [event.type for event in await viewer.rest()] == ["error"]
        document = (await harness.ask(address, "GET", "/loom/openapi.json")).json
        assert document["servers"] == [{"url": "/loom"}]
        assert "/runs" in document["paths"]
        assert (await harness.ask(address, "GET", "/loom/nothing")).error["code"] == "route_not_found"
        assert (await harness.ask(address, "GET", "/runs")).status == 404
        async with loom.connect(f"{address.url}/loom") as client:
            assert [head.meta.run for head in await client.runs()] == ["r"]
    assert outer.told == ["opened", "closed"]
    with pytest.raises(loom.HandleClosed):
        await outer.clients[0].runs()


@pytest.mark.parametrize("kind", ["fastapi", "starlette"])
async def test_behind_a_proxy_that_takes_a_prefix_off_and_says_so(kind: str) -> None:
    outer = Outer(mounted_app(), kind)
    async with served_by_uvicorn(outer.app, root_path="/api") as address:
        started = await harness.ask(address, "POST", "/loom/runs", {"actor": "echo", "id": "r"})
        assert (started.status, started.header("location")) == (201, "/api/loom/runs/r")
        assert (await harness.ask(address, "GET", "/loom/runs/r")).json["id"] == "r"
        document = (await harness.ask(address, "GET", "/loom/openapi.json")).json
        assert document["servers"] == [{"url": "/api/loom"}]


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_a_root_path_that_is_told_but_not_in_the_path(prefix: str) -> None:
    """As middlewares for proxies set it: whether or not the proxy took it off the path."""
    outer = Outer(mounted_app(), "fastapi")

    async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
        await outer.app({**scope, "root_path": "/api"}, receive, send)

    async with served_by_uvicorn(proxied) as address:
        started = await harness.ask(address, "POST", f"{prefix}/loom/runs", {"actor": "echo", "id": "r"})
        assert (started.status, started.header("location")) == (201, "/api/loom/runs/r")


async def test_a_forgotten_lifespan_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette(routes=[Mount("/loom", mounted_app())])
    async with served_by_uvicorn(app) as address:
        reply = await harness.ask(address, "GET", "/loom/healthz")
    assert (reply.status, reply.error["code"]) == (500, "internal")
    assert "'/loom'" in reply.error["message"]
    assert "async with loom_app.lifespan()" in reply.error["message"]
    assert "async with loom_app.lifespan()" in caplog.text


async def test_a_websocket_before_it_is_opened_is_refused() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await mounted_app()({"type": "websocket", "path": "/"}, cast(Any, None), send)
    assert sent == [{"type": "websocket.close", "code": 1011}]


async def test_who_may_use_it_is_its_own_affair() -> None:
    guarded = mounted_app(keys=["secret"], allowed_hosts=["app.example"], allowed_origins=["https://pages.example"])
    async with served_by_uvicorn(Outer(guarded, "fastapi").app) as address:

        async def ask(**headers: str) -> int:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            return (await harness.ask(address, "GET", "/loom/runs", headers=given)).status

        key = {"Authorization": "Bearer secret", "Host": "app.example"}
        assert await ask(**key) == 200
        assert await ask(Host="app.example") == 401
        assert await ask(**{**key, "Host": "localhost"}) == 403
        assert await ask(**key, Origin="https://evil.example") == 403
        assert await ask(**key, Origin="https://pages.example") == 200
        assert await ask(**key, Origin="https://app.example") == 200, "the page of the app around it"
        ready = await harness.ask(address, "GET", "/loom/readyz", headers={"Host": "app.example"})
        assert ready.status == 200


async def test_run_alone_by_any_asgi_server() -> None:
    async with served_by_uvicorn(mounted_app()) as address:
        assert (await harness.ask(address, "POST", "/runs", {"actor": "echo"})).status == 201
        assert (await harness.ask(address, "GET", "/openapi.json")).json["servers"] == [{"url": "/"}]


async def test_the_default_actor_of_the_app_answers_there_too() -> None:
    app = loom.App(default_actor="named")

    @app.actor
    async def named(prompt: str, model: str) -> str:
        return f"{model}: {prompt}"

    asked = {"model": "some/model@1", "messages": [{"role": "user", "content": "hi"}]}
    async with served_by_uvicorn(loom.asgi("memory://", app=app, worker=True, drain=0)) as address:
        reply = await harness.ask(address, "POST", "/v1/chat/completions", asked)
    assert reply.json["choices"][0]["message"]["content"] == "some/model@1: hi"


async def test_leaving_the_lifespan_ends_streams_in_order_and_it_opens_again() -> None:
    app = mounted_app(times=Times(heartbeat=3600.0))
    sent: asyncio.Queue[Any] = asyncio.Queue()

    async def receive() -> Any:
        await asyncio.Event().wait()

    for _ in range(2):
        async with app.lifespan() as client:
            with pytest.raises(UsageError, match="open already"):
                async with app.lifespan():
                    pass
            run = await client.start("echo")
            headers = [(b"host", b"localhost")]
            scope = {"type": "http", "method": "GET", "path": f"/runs/{run.id}/events", "query_string": b""}
            asking = asyncio.ensure_future(app({**scope, "headers": headers}, receive, sent.put))
            assert (await sent.get())["status"] == 200
            assert b"event: start" in (await sent.get())["body"]
        last = await sent.get()
        assert (last["body"], last["more_body"]) == (b"", False)
        asking.cancel()
        await asyncio.wait([asking])


async def test_two_lifespans_at_once() -> None:
    """The second is refused, though the first has not opened anything yet; and one that fails can be entered again."""
    opening, go_on = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def slow(_: loom.App) -> AsyncIterator[None]:
        opening.set()
        await go_on.wait()
        if not failed:
            failed.append("once")
            raise ValueError("once")
        yield

    failed: list[str] = []
    app = loom.asgi("memory://", app=loom.App(lifespan=slow), worker=True, drain=0)

    async def enter() -> None:
        async with app.lifespan():
            pass

    first = asyncio.ensure_future(enter())
    await opening.wait()
    with pytest.raises(UsageError, match="open already"):
        await enter()
    go_on.set()
    with pytest.raises(ValueError, match="once"):
        await first
    await enter()


def test_what_is_wrong_is_told_when_it_is_made() -> None:
    for url, options, match in (
        ("nowhere", {}, "no store"),
        ("memory://", {}, "worker=True"),
        ("sqlite:///runs.db", {"allowed_origins": ["*"]}, "allowed_origins"),
        ("sqlite:///runs.db", {"keys": [""]}, "key"),
    ):
        with pytest.raises(UsageError, match=match):
            loom.asgi(url, **cast(Any, options))

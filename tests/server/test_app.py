"""The app in other people's hands: mounted, under another server's lifespan, asked for what it does not speak."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.routing import Mount

from loom.engine.follow.transport import StoreTransport
from loom.model.errors import Unavailable, UsageError
from loom.server.app import Gateway, create_app
from loom.stores.memory import MemoryStore
from loom.wire.sse import Decoder

from .harness import rig

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def mounted() -> AsyncIterator[AsyncClient]:
    async with MemoryStore() as store:
        transport = StoreTransport(store)
        app = Starlette(routes=[Mount("/loom", create_app(transport))])
        async with AsyncClient(transport=ASGITransport(app), base_url="http://localhost") as client:
            yield client
        await transport.aclose()


async def test_mounted_in_another_app() -> None:
    async with mounted() as client:
        started = await client.post("/loom/runs", json={"actor": "a", "id": "r"})
        assert (started.status_code, started.headers["location"]) == (201, "/loom/runs/r")
        assert (await client.get(started.headers["location"])).json()["id"] == "r"
        assert (await client.get("/loom/")).json()["links"]["openapi"] == "openapi.json"
        assert (await client.get("/loom/nothing")).json()["error"]["code"] == "route_not_found"
        assert (await client.delete("/loom/runs")).status_code == 405
        assert (await client.get("/loom/runs", headers={"Origin": "http://evil.example"})).status_code == 403
        assert (await client.get("/loom/healthz")).json() == {"status": "ok"}


async def test_a_stream_through_another_apps_stack() -> None:
    async with mounted() as client:
        await client.post("/loom/runs", json={"actor": "a", "id": "r"})
        await client.post("/loom/runs/r/cancel")
        answer = await client.get("/loom/runs/r/events")
        assert [event.type for event in Decoder().feed(answer.content)] == ["error"]


async def test_the_asgi_lifespan() -> None:
    told: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Gateway) -> AsyncIterator[None]:
        told.append("opened")
        yield
        told.append("closed")

    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async with MemoryStore() as store:
        transport = StoreTransport(store)
        await create_app(transport, lifespan=lifespan)({"type": "lifespan", "state": {}}, receive, send)
        await transport.aclose()
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert told == ["opened", "closed"]


async def test_websockets_are_refused() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async with MemoryStore() as store:
        transport = StoreTransport(store)
        scope = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b""}
        await create_app(transport)(scope, receive, send)
        await transport.aclose()
    assert sent == [{"type": "websocket.close", "code": 1000}]


async def test_ready_and_alive() -> None:
    async with rig() as r:
        assert (await r.ask("GET", "/readyz")).json == {"status": "ready"}
        r.transport.trouble["list_runs"] = Unavailable("the disk is gone")
        assert (await r.ask("GET", "/healthz")).status == 200
        reply = await r.ask("GET", "/readyz")
        assert (reply.status, reply.error["code"]) == (503, "unavailable")
        del r.transport.trouble["list_runs"]
        r.app.end_streams()
        assert (await r.ask("GET", "/readyz")).status == 503
        assert (await r.ask("GET", "/healthz")).status == 200


async def test_wrong_options_are_told_when_the_app_is_made() -> None:
    async with MemoryStore() as store:
        transport = StoreTransport(store)
        with pytest.raises(UsageError, match="allowed_origins"):
            create_app(transport, allowed_origins=["*"])
        await transport.aclose()

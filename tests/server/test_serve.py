"""Serving: the lifespan around it, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn

from loom.server.app import Gateway
from loom.server.serve import PRIVATE_PARTS_BEFORE, PRIVATE_PARTS_SINCE, serving

from .harness import PATIENCE, connection, gateway, read_head, rig

pytestmark = pytest.mark.anyio


async def test_the_lifespan_is_open_while_it_serves() -> None:
    told: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Gateway) -> AsyncIterator[None]:
        told.append("opened")
        yield
        told.append("closed")

    async with gateway(lifespan=lifespan) as app:
        async with serving(app, port=0):
            assert told == ["opened"]
        assert told == ["opened", "closed"]


async def test_a_failing_lifespan_is_told_as_it_is() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Gateway) -> AsyncIterator[None]:
        raise ZeroDivisionError("no database")
        yield

    async with gateway(lifespan=lifespan) as app:
        with pytest.raises(ZeroDivisionError, match="no database"):
            async with serving(app, port=0):
                pass


async def test_an_error_in_the_block_stops_the_server() -> None:
    async with gateway() as app:
        with pytest.raises(ZeroDivisionError):
            async with serving(app, port=0) as address:
                raise ZeroDivisionError
        with pytest.raises(OSError):
            await asyncio.open_connection(address.host, address.port)


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_stopping_ends_streams_in_order_and_takes_no_new_connections() -> None:
    async with contextlib.AsyncExitStack() as server, contextlib.AsyncExitStack() as clients:
        r = await server.enter_async_context(rig())
        await r.begin()
        viewer = await clients.enter_async_context(r.viewer("/runs/r/events"))
        await viewer.event()
        async with connection(r.address) as (idle, _):
            stopping = asyncio.ensure_future(server.aclose())
            assert await viewer.rest() == []
            with pytest.raises(OSError):
                await asyncio.open_connection(r.address.host, r.address.port)
            assert await idle.read() == b""
            await asyncio.wait_for(stopping, PATIENCE)


async def test_stopping_lets_requests_finish() -> None:
    async with rig() as r:
        head = b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n"
        async with connection(r.address) as (reader, writer):
            writer.write(head)
            await r.ask("GET", "/healthz")
            r.app.end_streams()
            writer.write(b'{"actor":  "a"}')
            assert (await asyncio.wait_for(read_head(reader), PATIENCE)).status == 201


async def test_stopping_does_not_wait_for_what_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loom.server.serve.SHUTDOWN", 0.1)
    async with contextlib.AsyncExitStack() as clients:
        async with rig() as r:
            reader, writer = await clients.enter_async_context(connection(r.address))
            writer.write(b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
            await r.ask("GET", "/healthz")
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""


# --- another uvicorn -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.34.3", "0.55.0", "1.0.0", "next"])
async def test_a_uvicorn_that_is_not_known_serves_by_its_own_http(
    version: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so in one line; runs are told as ever, and their streams end in order."""
    monkeypatch.setattr(uvicorn, "__version__", version)
    with caplog.at_level(logging.WARNING, "loom.server"):
        async with contextlib.AsyncExitStack() as server, contextlib.AsyncExitStack() as clients:
            r = await server.enter_async_context(rig())
            await r.begin()
            viewer = await clients.enter_async_context(r.viewer("/runs/r/events"))
            await viewer.event()
            stopping = asyncio.ensure_future(server.aclose())
            assert await viewer.rest() == []
            await asyncio.wait_for(stopping, PATIENCE)
            with pytest.raises(OSError):
                await asyncio.open_connection(r.address.host, r.address.port)
    (line,) = [record.getMessage() for record in caplog.records if "uvicorn" in record.getMessage()]
    assert line.startswith(f"uvicorn {version} is not known (before 0.55 is)")


async def test_the_uvicorn_that_is_installed_is_known(caplog: pytest.LogCaptureFixture) -> None:
    async with rig():
        pass
    assert not [record for record in caplog.records if "uvicorn" in record.getMessage()]


def test_the_bound_is_the_one_of_the_dependency() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (wanted,) = [line for line in project["dependencies"] if line.startswith("uvicorn")]
    since, before = re.findall(r"(\d+)\.(\d+)", wanted)
    assert (tuple(map(int, since)), tuple(map(int, before))) == (PRIVATE_PARTS_SINCE, PRIVATE_PARTS_BEFORE)

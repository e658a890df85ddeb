"""Where a client can be: each place is a whole Loom, with a worker, behind the URL that makes it different."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path
from typing import Any

import pytest

import loom
from loom.blocking import SyncClient
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Worker
from loom.portal import Portal
from loom.server.app import create_app
from loom.server.serve import serving
from loom.stores.memory import MemoryStore
from tests.servers.fixtures import TOPOLOGIES, own

PLACES = ["memory", "sqlite", "http", *TOPOLOGIES]

Connected = Callable[..., AbstractAsyncContextManager[loom.Client]]
"""Enter it, with an app, for a client, beside which a worker drives the app's runs; its options are the worker's."""

ConnectedSync = Callable[[loom.App], AbstractContextManager[SyncClient]]
"""The same, for code that blocks."""


def url_of(request: pytest.FixtureRequest, path: Path) -> str:
    """Of the place that a test is for; but for the server, which has none before it is started."""
    place: str = request.param
    return own(request.getfixturevalue(place).url()) if place in TOPOLOGIES else _url(place, path)


def _url(place: str, path: Path) -> str:
    return {"memory": "memory://", "sqlite": f"sqlite:///{path / 'runs.db'}", "http": ""}[place]


def connected(place: str, path: Path, url: str | None = None) -> Connected:
    """`url`: of a place that needs fixtures to be there."""
    url = _url(place, path) if url is None else url

    def enter(app: loom.App, **options: Any) -> AbstractAsyncContextManager[loom.Client]:
        if not url:
            return _through_a_server(app, options)
        return loom.connect(url, app=app, worker=True, drain=0, **options)

    return enter


def connected_sync(place: str, path: Path, url: str | None = None) -> ConnectedSync:
    """As `connected`."""
    url = _url(place, path) if url is None else url

    def enter(app: loom.App) -> AbstractContextManager[SyncClient]:
        if not url:
            return _through_a_server_apart(app)
        return loom.connect_sync(url, app=app, worker=True, drain=0)

    return enter


@asynccontextmanager
async def served(
    app: loom.App, *, port: int = 0, worker: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[str]:
    """A server and a worker over a memory store; its URL."""
    async with MemoryStore() as store, app.resources() as resources:
        transport = StoreTransport(store, app.registry)
        gateway = create_app(transport, **options)
        driving = Worker(store, app.registry, resources=resources, drain=0, **worker or {})
        async with driving, serving(gateway, port=port) as address:
            yield address.url
        await transport.aclose()


@asynccontextmanager
async def _through_a_server(app: loom.App, worker: dict[str, Any]) -> AsyncIterator[loom.Client]:
    async with served(app, worker=worker) as url, loom.connect(url) as client:
        yield client


@contextmanager
def _through_a_server_apart(app: loom.App) -> Iterator[SyncClient]:
    """The server lives on a loop in a thread of its own."""
    portal = Portal()
    stack = AsyncExitStack()
    try:
        with loom.connect_sync(portal.call(stack.enter_async_context(served(app)))) as client:
            yield client
    finally:
        portal.call(stack.aclose())
        portal.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port

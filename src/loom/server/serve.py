"""Serving the app with uvicorn: on a socket of its own, within bounds, until told to stop.

The bounds stand on private parts of uvicorn. A release of which these are not known serves by its own HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import uvicorn

from loom.model import limits
from loom.tasks import cancel_and_wait, spawn, wait_out

from .app import Gateway
from .http.address import Address, adopt, listen

__all__ = ["serving"]

SHUTDOWN = 5.0
"""Requests under way may take this long to finish when the server stops; event streams end at once."""

PRIVATE_PARTS_SINCE, PRIVATE_PARTS_BEFORE = (0, 35), (0, 55)
"""The releases of uvicorn whose private parts are known: the first, and the first that is not. As in pyproject.toml."""

log = logging.getLogger("loom.server")

_TICK = 1.0  # uvicorn renews its Date header so often, and a cut request may take so long to notice


_STARTED_POLL = 0.02  # a server that is not known tells by a flag alone that it has started


@asynccontextmanager
async def serving(
    app: Gateway, *, host: str = "127.0.0.1", port: int = 8700, sock: socket.socket | None = None
) -> AsyncIterator[Address]:
    """Serve in this event loop for as long as the block lasts; `sock` is a listening socket to be used and closed.

    Leaving stops: no new connections, event streams end at once, other requests have `SHUTDOWN` seconds. No
    signal is handled here. With a release of uvicorn that is not known (`PRIVATE_PARTS_BEFORE`) it warns once that the
    bounds on HTTP are missing. Raises `UsageError` when the address cannot be had, and beyond loopback without keys.
    """
    with sock or listen(host, port, keyed=app.keyed) as listener:
        address = adopt(listener, keyed=app.keyed)
        async with app.lifespan():
            server = _Server(app) if _is_known(uvicorn.__version__) else _PlainServer(app)
            task = spawn(server.serve([listener]), "loom-server")
            try:
                await server.wait_started(task)
                yield address
            finally:
                server.stop()
                await wait_out(task)
            task.result()


def _is_known(version: str) -> bool:
    """True for a release whose private parts `_Server` and the modules below it may use."""
    try:
        release = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        return False
    return PRIVATE_PARTS_SINCE <= release < PRIVATE_PARTS_BEFORE


def _config(app: Gateway, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ws="none",
        loop="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=limits.KEEP_ALIVE,
        **options,
    )


class _PlainServer(uvicorn.Server):
    """uvicorn's server by what it documents alone: no bound of ours on heads, framing, pipelining or connections."""

    def __init__(self, app: Gateway) -> None:
        super().__init__(_config(app, timeout_graceful_shutdown=int(SHUTDOWN)))
        self._app = app
        last = f"{PRIVATE_PARTS_BEFORE[0]}.{PRIVATE_PARTS_BEFORE[1]}"
        log.warning(
            "uvicorn %s is not known (before %s is): it serves by its own HTTP, without Loom's bounds; put a proxy"
            " before it, or install another (docs/http.md)",
            uvicorn.__version__,
            last,
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they belong to who runs the loop

    async def wait_started(self, task: asyncio.Task[None]) -> None:
        """Until connections are accepted, or the server has failed."""
        while not self.started and not task.done():
            await asyncio.wait({task}, timeout=_STARTED_POLL)
        if task.done():
            await task

    def stop(self) -> None:
        self.should_exit = True
        self._app.end_streams()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        await self._app.wait_streams()


class _Server(uvicorn.Server):
    """uvicorn's server without its signals, its polling, and its patience with event streams."""

    def __init__(self, app: Gateway) -> None:
        # They import what another release may not have.
        from .http.connections import Connections
        from .http.protocol import BoundedProtocol

        super().__init__(_config(app, http=BoundedProtocol))
        self.server_state = self._state = Connections()
        self._app = app
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they belong to who runs the loop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started.set()

    async def wait_started(self, task: asyncio.Task[None]) -> None:
        """Until connections are accepted, or the server has failed."""
        started = spawn(self._started.wait(), "loom-server-start")
        await asyncio.wait({started, task}, return_when=asyncio.FIRST_COMPLETED)
        await cancel_and_wait(started)
        if task.done():
            await task

    async def main_loop(self) -> None:
        counter = 0
        while not await self.on_tick(counter):
            try:
                async with asyncio.timeout(_TICK):
                    await self._stopped.wait()
            except TimeoutError:
                counter += 10  # uvicorn counts tenths of seconds

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listeners first, so that nothing that ends here comes again; idle connections and event streams at once;
        then whatever else is under way, for `SHUTDOWN` seconds."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        self._app.end_streams()
        try:
            async with asyncio.timeout(SHUTDOWN):
                await self._state.wait_empty()
        except TimeoutError:
            log.warning("stopped with %d requests under way", len(self.server_state.tasks))
        for connection in list(self.server_state.connections):
            cast("Any", connection).transport.abort()
        await self._state.wait_empty()
        if self.server_state.tasks:  # most end by themselves, their clients having gone
            await asyncio.wait(self.server_state.tasks, timeout=_TICK)
            await cancel_and_wait(*self.server_state.tasks)
        await self._app.wait_streams()

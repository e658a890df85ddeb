"""A whole Loom as one ASGI app, made before anything is opened: to be mounted in FastAPI or Starlette, or run alone."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from loom.app import App
from loom.connect import connect
from loom.engine.follow.client import Client
from loom.model.errors import LoomError, UsageError
from loom.server.app import Gateway, Times, create_app
from loom.server.http.answers import error_answer
from loom.server.http.hosts import told_to_stop
from loom.server.http.security import LOOPBACK_HOSTS, Guard

__all__ = ["asgi"]

log = logging.getLogger("loom.server")


class asgi:
    """``loom_app = loom.asgi(url, app=app, worker=True)``: our server, for ``api.mount("/loom", loom_app)``.

    Nothing is opened until ``async with loom_app.lifespan() as client`` is entered, which an app that mounts this one
    does in its own lifespan; until then every request is answered with an error that says so. An ASGI server that runs
    it alone does the same by itself.

    `url`, `app`, `worker` and `options` are those of `loom.connect`; `keys`, `allowed_hosts`, `allowed_origins` and
    `times` those of `loom.server.app.create_app`. The routes of the app around it do not guard this one: without `keys`
    it is as open as what stands before it. Raises `UsageError` for what is none of these.
    """

    def __init__(
        self,
        url: str,
        *,
        app: App | None = None,
        worker: bool = False,
        keys: Iterable[str] = (),
        allowed_hosts: Iterable[str] = LOOPBACK_HOSTS,
        allowed_origins: Iterable[str] = (),
        times: Times | None = None,
        **options: Any,
    ) -> None:
        self._url = url
        self._options: dict[str, Any] = {"app": app, "worker": worker, **options}
        self._default = app.default_actor if app is not None else None
        self._dialects = app.dialects if app is not None else ()
        self._guarded: dict[str, Any] = {
            "keys": tuple(keys),
            "allowed_hosts": tuple(allowed_hosts),
            "allowed_origins": tuple(allowed_origins),
        }
        self._times = times
        connect(url, **self._options)  # what is wrong with these is told here, not when the server starts
        Guard(**self._guarded)
        self._entered = False
        self._gateway: Gateway | None = None
        self._router = Router(lifespan=self._opened)  # for its lifespan

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[Client]:
        """Open the store, the worker and the server for as long as the block lasts; gives the client that they share.

        Leaving ends the event streams (viewers resume by their cursors), drains the worker and closes the store. May be
        entered again after that. Raises as `loom.connect`, and `UsageError` when it is entered already.
        """
        if self._entered:
            raise UsageError("this Loom app is open already: one lifespan at a time")
        self._entered = True  # before anything is waited for: another may be entered meanwhile
        try:
            connecting = connect(self._url, **self._options)
            async with connecting as client:
                gateway = self._gateway = create_app(
                    client.transport,
                    times=self._times,
                    stops=told_to_stop,
                    drives=lambda: connecting.drives,
                    default_actor=self._default,
                    dialects=self._dialects,
                    **self._guarded,
                )
                try:
                    yield client
                finally:
                    self._gateway = None
                    gateway.end_streams()
                    await gateway.wait_streams()
        finally:
            self._entered = False

    @asynccontextmanager
    async def _opened(self, _: object) -> AsyncIterator[None]:
        async with self.lifespan():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._router.lifespan(scope, receive, send)
        elif self._gateway is not None:
            await self._gateway(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1011})
        else:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """500, not 503: waiting does not help."""
        error = LoomError(
            f"the Loom app at {scope.get('root_path', '') or '/'!r} was not opened: the lifespan of a mounted app does"
            " not run by itself. In your app's own lifespan: `async with loom_app.lifespan(): yield`"
        )
        log.error("%s", error)
        await error_answer(error)(scope, receive, send)

"""The server as one ASGI app over a transport: it guards, routes and answers, and knows nothing of stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loom.model.errors import UsageError
from loom.model.ports import Transport
from loom.wire.dialect import Dialect
from loom.wire.dialects import DIALECTS

from .http.answers import empty, error_answer
from .http.connection import hold
from .http.requests import CALLER, ClientGone
from .http.security import LOOPBACK_HOSTS, Admission, Guard
from .routes.actors import Actors
from .routes.dialects import Dialects
from .routes.operations import Operation, check_distinct, endpoints_of, fit
from .routes.probes import Probes
from .routes.queue import Work
from .routes.runs import Runs
from .stream.streams import Streams, Times

__all__ = ["Gateway", "Lifespan", "Times", "create_app"]

Lifespan = Callable[["Gateway"], AbstractAsyncContextManager[object]]
"""What is open while the server serves, as in Starlette."""


def create_app(
    transport: Transport,
    *,
    keys: Iterable[str] = (),
    allowed_hosts: Iterable[str] = LOOPBACK_HOSTS,
    allowed_origins: Iterable[str] = (),
    pages: Iterable[Operation] = (),
    lifespan: Lifespan | None = None,
    times: Times | None = None,
    stops: Callable[[], bool] | None = None,
    drives: Callable[[], bool] | None = None,
    default_actor: str | None = None,
    dialects: Iterable[Dialect] = (),
) -> Gateway:
    """The ASGI app. It may be mounted in another one, which then closes `transport` and opens what `lifespan` would.

    `keys`: with any, every route but the probes needs ``Authorization: Bearer <key>``. `allowed_hosts`: names of this
    server, at any port unless one is given (default: this machine's own; ``*``: any). `allowed_origins`: pages of
    these exact origins may use it from a browser. `pages`: served besides, and instead of what else has their path and
    method; behind the same guard, and not in the description. `stops`: asked now and then by event streams, which end
    in order when it says so; where the server cannot call `end_streams`. `drives`: whether the worker in this process
    still takes runs; without one the server is ready as long as its store answers. `default_actor`: who answers
    OpenAI's clients for models that no actor is called. `dialects`: further wire formats, besides
    `loom.wire.dialects.DIALECTS`. Raises `UsageError` for what is none of these, and for two routes of one path and
    method.
    """
    return Gateway(
        transport,
        keys=tuple(keys),
        allowed_hosts=tuple(allowed_hosts),
        allowed_origins=tuple(allowed_origins),
        pages=tuple(pages),
        lifespan=lifespan,
        times=times or Times(),
        stops=stops,
        drives=drives,
        default_actor=default_actor,
        dialects=(*DIALECTS, *dialects),
    )


class Gateway:
    """See `create_app`."""

    def __init__(
        self,
        transport: Transport,
        *,
        keys: tuple[str, ...],
        allowed_hosts: tuple[str, ...],
        allowed_origins: tuple[str, ...],
        pages: tuple[Operation, ...],
        lifespan: Lifespan | None,
        times: Times,
        stops: Callable[[], bool] | None,
        drives: Callable[[], bool] | None,
        default_actor: str | None,
        dialects: tuple[Dialect, ...],
    ) -> None:
        self._streams = Streams(transport, times, stops)
        rooms = (
            Runs(self._streams),
            Actors(self._streams),
            Work(transport),
            Dialects(self._streams, dialects, default_actor),
        )
        native = tuple(operation for room in rooms for operation in room.operations())
        own = (*native, *Probes(self._streams, native, drives).operations())
        check_distinct(own)
        self.operations: tuple[Operation, ...] = (*own, *pages)  # of two with one path and method, the later answers
        public = [operation.path for operation in self.operations if operation.public]
        self._guard = Guard(keys=keys, allowed_hosts=allowed_hosts, allowed_origins=allowed_origins, public=public)
        self._lifespan = lifespan
        self._endpoints = endpoints_of(self.operations)
        self._router = Router(lifespan=self._opened)  # for its lifespan

    @property
    def keyed(self) -> bool:
        """Whether requests need a key."""
        return self._guard.keyed

    @property
    def viewers(self) -> int:
        """Event streams and long polls that are open."""
        return self._streams.open

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """To be entered before the first request and left after the last, by a server that speaks no ASGI lifespan."""
        return nullcontext() if self._lifespan is None else self._lifespan(self)

    @asynccontextmanager
    async def _opened(self, _: object) -> AsyncIterator[None]:
        async with self.lifespan():
            yield

    def end_streams(self) -> None:
        """The server stops: end event streams and long polls, also those to come. Clients resume by their cursors."""
        self._streams.end()

    async def wait_streams(self) -> None:
        """After that, and after the last connection has gone: until the transport is no longer used."""
        await self._streams.wait_ended()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._router.lifespan(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        path = _path_in_app(scope)
        admission = self._guard.admit(scope, path)
        if admission.headers:
            send = _adding(send, admission.headers)
        try:
            answer = fit(await self._answer(scope, receive, path, admission), scope)
        except ClientGone:
            return
        del admission, path  # a stream may last for long
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, path: str, admission: Admission) -> ASGIApp:
        """Paths are matched here and not by Starlette's router, whose frames and scope entries every event stream would
        hold for as long as it lasts."""
        if admission.preflight:
            return empty()
        for endpoint in self._endpoints:
            parameters = endpoint.match(path)
            if parameters is not None:
                if admission.refusal is not None:
                    return endpoint.refuse(admission.refusal)
                if admission.caller is not None:
                    hold(scope)
                    scope[CALLER] = admission.caller
                scope["path_params"] = parameters
                return await endpoint.answer(scope, receive)
        return error_answer(
            admission.refusal or UsageError(f"nothing is found at {path[:80]!r}", code="route_not_found")
        )


def _path_in_app(scope: Scope) -> str:
    """The path below where the app is mounted. `root_path` is all of that; its outer part, which a proxy may have taken
    off the path already (``FastAPI(root_path=…)``), is `app_root_path`, as Starlette says."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    for prefix in (root, root.removeprefix(scope.get("app_root_path", "").rstrip("/"))):
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            return path[len(prefix) :] or "/"
    return path


def _adding(send: Send, headers: Iterable[tuple[bytes, bytes]]) -> Send:
    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return adding

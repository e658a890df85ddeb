"""URL to client: the only place that knows which stores and transports exist."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec.structs import replace

from loom.app import App
from loom.engine.declare.options import check_worker
from loom.engine.follow.client import Client
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Worker
from loom.model import limits
from loom.model.ai import AI
from loom.model.errors import UsageError
from loom.model.ports import Store, Transport
from loom.wire.urls import shown_url

__all__ = ["connect", "default_ai", "is_alone", "open_store", "server_at"]


Credentials = Callable[[], tuple[str, str] | Awaitable[tuple[str, str]]]

_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})(?:/\S*)?", re.ASCII)


class connect:
    """``async with loom.connect(url, app=app, worker=True) as client``: a client of the runs behind `url`.

    `url`: ``memory://``, ``sqlite:///relative.db``, ``sqlite:////absolute.db`` (``?durability=process``),
    ``redis://host``, ``rediss://``, ``redis+sentinel://host,host/service``, ``redis+cluster://host``,
    ``unix:///path/to/redis.sock`` (or ``valkey``;
    options: docs/redis.md), or ``http://host:port``. `app` makes its producers known (their inputs are checked before
    anything is sent). `worker=True` runs a worker for `app` in this process for as long as the block lasts; leaving
    drains it within `drain` seconds. `queues`: those that it serves (default: ``default`` and those that the app's
    actors declare); on ``memory://``, where no other worker can be, a start in any other is refused. For Redis:
    `credentials` is called for each new connection and returns its user and password, or an awaitable of them. What it
    raises is `Unavailable`, unless it raises `Unauthorized` itself. For servers:
    `api_key` (default: ``LOOM_API_KEY``); `on_outage` is called with True when the server is out of reach, and with
    False when it answers again, and must not raise or wait.

    Raises `UsageError` at once for a URL that names no store; on entering `UsageError` for a file that can be none (no
    folder, no database, a newer format) and for a server that is too old or not as durable as was asked, `Unauthorized`
    when it does not let us in, `Unavailable` when it cannot be opened now.
    """

    def __init__(
        self,
        url: str,
        *,
        app: App | None = None,
        worker: bool = False,
        api_key: str | None = None,
        on_outage: Callable[[bool], object] | None = None,
        queues: Sequence[str] | None = None,
        concurrency: int = limits.CONCURRENCY,
        lease: float = limits.LEASE,
        drain: float = limits.DRAIN,
        credentials: Credentials | None = None,
    ) -> None:
        self._url = url
        self._credentials = credentials
        self._app = app
        self._api_key = api_key
        self._on_outage = on_outage
        self._worker: dict[str, Any] | None = None
        if _scheme(url) not in ("http", "https"):
            open_store(url, credentials)  # no I/O yet: a URL that names none is told here, not when it is entered
        elif credentials is not None:
            raise UsageError("credentials= are Redis's; a server's is api_key=")
        if is_alone(url) and not worker:
            raise UsageError("memory:// is this process's alone: without app= and worker=True nothing would ever run")
        if worker:
            if app is None:
                raise UsageError("worker=True needs app=: a worker drives the app's producers")
            if _scheme(url) in ("http", "https"):
                raise UsageError("a worker needs a store; a server's runs are driven by the server's workers")
            check_worker(queues, concurrency, lease, drain)
            self._worker = {"queues": queues, "concurrency": concurrency, "lease": lease, "drain": drain}
        self._driving: Worker | None = None
        self._stack = AsyncExitStack()
        self._check_loop: Callable[[], None] | None = None

    @property
    def drives(self) -> bool:
        """True while its own worker takes runs, or where it has none: others drive."""
        return self._driving is None or not self._driving.draining

    async def __aenter__(self) -> Client:
        async with AsyncExitStack() as stack:
            transport = await self._transport(stack)
            client = await stack.enter_async_context(Client(transport))
            self._stack = stack.pop_all()
            self._check_loop = transport.check_loop
        return client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._check_loop is not None:
            self._check_loop()  # before anything is let go of: the block can still be left where it was entered
        await self._stack.__aexit__(kind, error, trace)

    async def _transport(self, stack: AsyncExitStack) -> Transport:
        if _scheme(self._url) in ("http", "https"):
            from loom.remote.http import HttpTransport

            api_key = self._api_key or os.environ.get("LOOM_API_KEY")
            return HttpTransport(self._url, api_key=api_key, told=self._on_outage)
        store = await stack.enter_async_context(open_store(self._url, self._credentials))
        registry = self._app.registry if self._app is not None else None
        only: Worker | None = None
        if self._worker is not None:
            assert self._app is not None
            resources = await stack.enter_async_context(self._app.resources(default_ai))
            worker = self._driving = Worker(
                store, self._app.registry, resources=resources, alone=is_alone(self._url), **self._worker
            )
            await stack.enter_async_context(worker)
            only = worker if is_alone(self._url) else None
        return StoreTransport(store, registry, served=None if only is None else lambda: only.queues)


def open_store(url: str, credentials: Credentials | None = None) -> Store:
    """The store that `url` names, not yet entered. Raises `UsageError`."""
    scheme = _scheme(url)
    if credentials is not None and scheme in ("memory", "sqlite"):
        raise UsageError(f"credentials= are Redis's: {shown_url(url)!r} has none")
    if scheme == "memory":
        from loom.stores.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite":
        from loom.stores.sqlite import SqliteStore

        path, options = _sqlite_path(url)
        return SqliteStore(path, **options)
    if scheme.partition("+")[0] in ("redis", "rediss", "unix", "valkey", "valkeys"):
        return _redis(url, credentials)
    if guess := server_at(url):
        raise UsageError(f"no store is named by {shown_url(url)!r}: did you mean {guess}?")
    named = f"no store is named by {shown_url(url)!r}"
    if not scheme and url:
        raise UsageError(f"{named}: did you mean sqlite:///{shown_url(url)}?")
    raise UsageError(f"{named}: memory://, sqlite:///path, redis://host, or http://host:port")


def server_at(text: str) -> str | None:
    """The URL of a server that is named by its host and port alone, as ``localhost:8700``."""
    if (named := _HOST_AND_PORT.fullmatch(text)) is None:
        return None
    return f"{'redis' if named[1] == '6379' else 'http'}://{text}"


def _redis(url: str, credentials: Credentials | None) -> Store:
    try:
        from loom.stores.redis import RedisStore, parse_url
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: python -m pip install {error.name}") from None
    address = replace(parse_url(url), credentials=credentials)
    return RedisStore(address, retention=address.retention)


def is_alone(url: str) -> bool:
    """True if no other process can reach the store that `url` names."""
    return _scheme(url) == "memory"


def default_ai() -> AI | None:
    """The model that the environment names, if it names one: the model of apps that have none of their own."""
    from loom.producers.llm import ai_from_environment

    return ai_from_environment(os.environ)


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:  # whose words are parts of the URL
        raise UsageError(f"{shown_url(url)!r} is no URL (is what is special in its password escaped?)") from None


def _sqlite_path(url: str) -> tuple[str, dict[str, Any]]:
    """As SQLAlchemy: three slashes and a relative path, or four for an absolute one."""
    parts = urlsplit(url)
    if parts.netloc or len(parts.path) < 2:
        raise UsageError(f"{shown_url(url)!r}: a SQLite URL has three slashes and a path, as sqlite:///runs.db")
    path = os.path.expanduser(unquote(parts.path[1:]))
    if "\0" in path:
        raise UsageError(f"{shown_url(url)!r}: no path has a NUL in it")
    options = dict(parse_qsl(parts.query))
    unknown = options.keys() - {"durability"}
    if unknown:
        raise UsageError(f"{shown_url(url)!r}: unknown option {sorted(unknown)[0]!r} (there is: durability)")
    if options.get("durability", "disk") not in ("disk", "process"):
        raise UsageError(f"{shown_url(url)!r}: durability is 'disk' or 'process'")
    return path, options

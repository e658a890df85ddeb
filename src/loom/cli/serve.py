"""`loom serve` and `loom worker`: run until told to stop, then drain, saying what happens to whom."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import Annotated

from cyclopts import Parameter

import loom
from loom.app import App
from loom.connect import default_ai, is_alone, open_store
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Drained, Worker
from loom.model import limits
from loom.model.errors import UsageError
from loom.model.ports import Store
from loom.tasks import TaskSet
from loom.wire.urls import shown_url

from .blame import debugging
from .log_format import log_to_stderr_at
from .loops import Signals
from .loops import run as run_loop
from .options import Seconds, Target, flag
from .places import store_url
from .samples import curl_line
from .target import load_app, target_of

__all__ = ["Driver", "block", "check_shared", "log_to_stderr", "serve", "tell", "worker"]

StoreOption = Annotated[
    str | None,
    Parameter(
        name="--store", help="As sqlite:///runs.db or redis://host (LOOM_STORE; default: SQLite in your state folder)."
    ),
]
Queues = Annotated[
    list[str] | None,
    Parameter(
        name="--queue",
        negative="",
        help="A queue to serve; may be repeated (default: default, and those that the app's actors declare).",
    ),
]
Concurrency = Annotated[int, Parameter(help="Runs that are driven at a time.")]
Lease = Annotated[Seconds, Parameter(help="How long after this one is killed another worker takes over.")]
Drain = Annotated[Seconds, Parameter(help="How long running producers may go on when we are told to stop.")]


def serve(
    target: Target = None,
    /,
    *,
    store: StoreOption = None,
    host: Annotated[str, Parameter(help="Beyond this machine, keys are needed: LOOM_API_KEYS.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="0: any that is free.")] = 8700,
    allow_host: Annotated[list[str] | None, Parameter(negative="", help="A Host to answer to, besides --host.")] = None,
    allow_origin: Annotated[list[str] | None, Parameter(negative="", help="An origin whose pages may use it.")] = None,
    no_worker: Annotated[bool, flag("Leave driving to loom worker.", "--no-worker")] = False,
    reload: Annotated[bool, flag("Start again whenever a Python file here changes.")] = False,
    queue: Queues = None,
    concurrency: Concurrency = limits.CONCURRENCY,
    lease: Lease = limits.LEASE,
    drain: Drain = limits.DRAIN,
) -> None:
    """Serve an app over HTTP, with a worker in the same process.

    LOOM_API_KEYS: keys, parted by commas or blanks; with any, every request needs one of them.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: 0 to 65535")
    if reload:
        from .reload import reload_on_changes  # an optional extra

        reload_on_changes(sys.argv[1:])
        return
    name = target_of(target, os.environ)
    app = load_app(name)
    driver = None if no_worker else Driver(app, queue, concurrency, lease, drain)
    keys = _keys(os.environ.get("LOOM_API_KEYS", ""))
    listening = _Listening(host, port, keys, tuple(allow_host or ()), tuple(allow_origin or ()))
    url = store_url(store, os.environ)
    if no_worker:
        check_shared(url)
    log_to_stderr()
    run_loop(lambda signals: _serve(name, app, url, listening, driver, signals))


def worker(
    target: Target = None,
    /,
    *,
    store: StoreOption = None,
    queue: Queues = None,
    concurrency: Concurrency = limits.CONCURRENCY,
    lease: Lease = limits.LEASE,
    drain: Drain = limits.DRAIN,
) -> None:
    """Drive the runs of a store."""
    name = target_of(target, os.environ)
    app = load_app(name)
    driver = Driver(app, queue, concurrency, lease, drain)
    url = store_url(store, os.environ)
    check_shared(url)
    log_to_stderr()
    run_loop(lambda signals: _work(name, app, url, driver, signals))


class _Listening:
    """Where to listen, and whom to answer."""

    def __init__(
        self, host: str, port: int, keys: Sequence[str], hosts: tuple[str, ...], origins: tuple[str, ...]
    ) -> None:
        self.host = host
        self.port = port
        self.keys = keys
        self.hosts = hosts
        self.origins = origins


class Driver:
    """A worker to be, and how it stops."""

    def __init__(self, app: App, queues: Sequence[str] | None, concurrency: int, lease: float, drain: float) -> None:
        if concurrency < 1:
            raise UsageError(f"--concurrency {concurrency}: at least 1")
        if lease < limits.LEAST_LEASE:
            raise UsageError(f"--lease {lease:g}: at least 100ms")
        self._app = app
        self.queues = tuple(queues or app.registry.queues)
        self._concurrency = concurrency
        self._lease = lease
        self._drain = drain
        self._worker: Worker | None = None

    @property
    def drives(self) -> bool:
        """True while its worker takes runs, or is about to."""
        return self._worker is None or not self._worker.draining

    @property
    def words(self) -> str:
        queues = f"queue{'s' if len(self.queues) > 1 else ''} {', '.join(self.queues)}"
        return f"{self._concurrency} runs at a time, {queues}, lease {self._lease:g} s"

    @asynccontextmanager
    async def working(self, store: Store, *, alone: bool = False) -> AsyncIterator[Worker]:
        """Drive runs inside the block; leaving it drains, and tells what becomes of whom. `alone`: see `Worker`."""
        async with (
            self._app.resources(default_ai) as resources,
            Worker(
                store,
                self._app.registry,
                queues=self.queues,
                concurrency=self._concurrency,
                lease=self._lease,
                drain=self._drain,
                resources=resources,
                alone=alone,
            ) as worker,
        ):
            self._worker = worker
            yield worker
            tell(_plan_of(worker.running, self._drain))
            tell(_account_of(await worker.drain()))


async def _serve(
    target: str, app: App, url: str, listening: _Listening, driver: Driver | None, signals: Signals
) -> None:
    """The worker drains first: viewers follow to the end what it finishes."""
    from loom.server.app import create_app  # 0.1 s, which a worker does not need
    from loom.server.http.security import hosts_for
    from loom.server.serve import serving

    served = (lambda: driver.queues) if driver is not None and is_alone(url) else None
    async with open_store(url) as store, aclosing(StoreTransport(store, app.registry, served=served)) as transport:
        gateway = create_app(
            transport,
            keys=listening.keys,
            allowed_hosts=(*hosts_for(listening.host), *listening.hosts),
            allowed_origins=listening.origins,
            drives=None if driver is None else lambda: driver.drives,
            default_actor=app.default_actor,
            dialects=app.dialects,
        )
        async with (
            serving(gateway, host=listening.host, port=listening.port) as address,
            driver.working(store, alone=is_alone(url)) if driver is not None else nullcontext(),
        ):
            facts = [
                ("url", address.url),
                ("openai", f"{address.url}/v1 (the base_url of OpenAI's clients)"),
                *_common(app, url, store),
                ("worker", driver.words if driver is not None else "none here (loom worker drives the runs)"),
                ("keys", f"{len(listening.keys)} (LOOM_API_KEYS)" if listening.keys else "none are asked for"),
            ]
            tell(block(f"serving {target}", facts), "", f"  {curl_line(app, address.url, gateway.keyed)}", "")
            await signals.wait()


async def _work(target: str, app: App, url: str, driver: Driver, signals: Signals) -> None:
    async with open_store(url) as store, driver.working(store) as worker:
        words = f"{worker.name}: {driver.words}"
        tell(block(f"worker for {target}", [*_common(app, url, store), ("worker", words)]))
        await _told(signals, worker)


async def _told(signals: Signals, worker: Worker) -> None:
    """Until a signal, or somebody's `loom workers drain`, tells us to stop."""
    async with TaskSet() as tasks:
        waits = {tasks.spawn(signals.wait(), "loom-signal"), tasks.spawn(worker.wait_asked(), "loom-asked")}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)


def _common(app: App, url: str, store: Store) -> list[tuple[str, str]]:
    actors = ", ".join(sorted(producer.name for producer in app.registry)) or "none"
    return [("store", f"{shown_url(url)} (durability: {store.durability})"), ("actors", actors)]


def block(title: str, facts: Sequence[tuple[str, str]]) -> str:
    lines = [f"loom {loom.__version__}, {title} (process {os.getpid()})", ""]
    return "\n".join([*lines, *(f"  {name:8}{value}" for name, value in facts)])


def _plan_of(running: dict[str, bool], drain: float) -> str:
    if not running:
        return "Stopping: nothing is running."
    going = sum(running.values())
    parts = [f"{going} handed over" if going else "", f"{len(running) - going} may finish within {drain:g} s"]
    plan = ", ".join(parts[: 1 if going == len(running) else 2]).lstrip(", ")
    return f"Stopping: nothing new is taken; of {len(running)} running, {plan}. A second signal leaves at once."


def _account_of(drained: Drained) -> str:
    account = [("finished", drained.finished), ("handed over", drained.handed_over), ("lost", drained.lost)]
    told = [
        f"{len(runs)} {what} ({', '.join(runs[:10])}{', …' if len(runs) > 10 else ''})"
        for what, runs in account
        if runs
    ]
    return f"Stopped: {', '.join(told)}." if told else "Stopped."


def check_shared(url: str) -> None:
    """Raise `UsageError` for a store in which a process would find nothing but its own."""
    if is_alone(url):
        raise UsageError(
            f"--store {shown_url(url)}: memory is one process's alone, so server and worker cannot share it",
            details={"hint": "name a file (--store sqlite:///runs.db) or Redis, or let `loom serve` have its worker"},
        )


def tell(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


def _keys(text: str) -> tuple[str, ...]:
    return tuple(filter(None, re.split(r"[\s,]+", text)))


def log_to_stderr() -> None:
    """Unless the app has set logging up itself."""
    log_to_stderr_at(logging.DEBUG if debugging() else logging.WARNING)
    if not debugging():
        logging.getLogger("loom").setLevel(logging.INFO)
        logging.getLogger("uvicorn.error").setLevel(
            logging.ERROR
        )  # what is no HTTP was answered so: a line each is noise

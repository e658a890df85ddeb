"""`loom actor list` and `loom actor run`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, NamedTuple

from cyclopts import Parameter
from msgspec import Raw
from msgspec.structs import replace

from loom.connect import connect, default_ai, open_store
from loom.engine.follow.client import Client
from loom.engine.follow.run import Run
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.worker import Worker
from loom.model import limits
from loom.model.errors import LoomError, revive
from loom.model.options import Options
from loom.model.run import ActorInfo
from loom.wire.json import encode
from loom.wire.views import view_of

from .blame import hush, location_of, report
from .inputs import check_once, read_input, read_piped
from .loops import Interrupted, Signals
from .loops import run as run_loop
from .options import AppOption, Listing, StartFlags, Streaming, Where, flag, options_of, sessions_folder
from .places import Place
from .session import end_orphans, session
from .shows import Show, make_show
from .tables import print_rows, run_text
from .tally import Tally
from .target import OWN, load_app
from .watch import Watch, watching

__all__ = ["list_actors", "run"]


def list_actors(
    *,
    app: AppOption = None,
    url: Annotated[str | None, Parameter(help="A server's URL (LOOM_URL).")] = None,
    output: Listing = "table",
) -> None:
    """What can be run: the actors of an app or of a server."""
    place = Where(url).place(app, default_app=OWN)

    async def ask(_: Signals) -> list[ActorInfo]:
        if place.app is not None:
            return sorted((producer.info() for producer in load_app(place.app).registry), key=lambda info: info.name)
        async with connect(place.url) as client:
            return await client.actors()

    hush()
    found = run_loop(ask)
    rows = [(info.name, _signature(info), info.description) for info in found]
    print_rows(output, ("ACTOR", "INPUT", "DESCRIPTION"), rows, found)


def _signature(info: ActorInfo) -> str:
    properties = info.input_schema.get("properties", {})
    required = info.input_schema.get("required", ())
    return ", ".join(name if name in required else f"[{name}]" for name in properties)


class _Request(NamedTuple):
    """What `loom actor run` was asked for."""

    name: str
    text: str | None
    json: str | None
    piped: str | None
    stream: bool
    output: str
    options: Options


def run(
    name: Annotated[str, Parameter(help="The actor.")],
    text: Annotated[
        str | None,
        Parameter(
            name="INPUT",
            help="JSON if it parses, else text; for a sole str parameter always text. - reads standard input; what"
            " begins with - stands behind --, and options before it.",
        ),
    ] = None,
    /,
    *,
    input: Annotated[str | None, Parameter(help="The input as JSON.")] = None,
    stdin: Annotated[bool, Parameter(name="-", negative="", show=False)] = False,
    stream: Annotated[bool, flag("Show what it says as it comes.")] = False,
    app: AppOption = None,
    where: Where | None = None,
    flags: StartFlags | None = None,
    output: Streaming = "text",
) -> int:
    """Run an actor. The run is ours: Ctrl-C cancels it."""
    place = (where or Where()).place(app, default_app=OWN)
    check_once(text, input, stdin)
    piped = read_piped(sys.stdin.buffer) if stdin else None
    request = _Request(name, text, input, piped, stream, output, options_of(flags))
    hush()
    return run_loop(lambda signals: _run(request, place, signals))


async def _run(request: _Request, place: Place, signals: Signals) -> int:
    tally = Tally(time.monotonic())
    show = make_show(request.output, tally, stream=request.stream)
    raised: dict[str, BaseException] = {}
    async with watching(show, tally, signals) as watch, _opened(place, watch, raised) as (client, queue):
        actor = next((info for info in await client.actors() if info.name == request.name), None)
        value = read_input(actor, request.text, request.json, request.piped)
        options = request.options if queue is None else Options(queue=queue).over(request.options)
        async with client.stream(request.name, value, **options.given) as run:
            try:
                await _follow(run, watch)
                await _conclude(request, run, watch)
            finally:
                if watch.state is None and queue is not None:
                    await _cancel(run)  # before our own worker goes, who would hand it over to nobody
    return _verdict(watch, show, signals, raised.get(run.id))


@asynccontextmanager
async def _opened(
    place: Place, watch: Watch, raised: dict[str, BaseException]
) -> AsyncIterator[tuple[Client, str | None]]:
    """A client; with a store also the private queue that a worker of ours serves. The worker adds to `raised` the
    exception that ends a run, by run."""
    async with AsyncExitStack() as stack:
        if place.app is None:
            yield await stack.enter_async_context(watch.connected(place.url)), None
            return
        app = load_app(place.app)
        store = await stack.enter_async_context(open_store(place.url))
        await end_orphans(store, sessions_folder())
        own = stack.enter_context(session(sessions_folder()))
        resources = await stack.enter_async_context(app.resources(default_ai))
        resources.on_failure = raised.__setitem__
        worker = Worker(store, app.registry, queues=own.served, resources=resources, drain=limits.ABANDON_AFTER)
        await stack.enter_async_context(worker)
        yield await stack.enter_async_context(Client(StoreTransport(store, app.registry))), own.queue


async def _follow(run: Run[Any, Any], watch: Watch) -> None:
    """Until the run has ended: by itself, or cancelled by the first Ctrl-C (or whatever else ends us)."""
    if not await watch.follow(run, None):
        watch.note("cancelling; Ctrl-C again leaves at once")
        await run.cancel()
        await watch.follow(run, watch.cursor)


async def _conclude(request: _Request, run: Run[Any, Any], watch: Watch) -> None:
    if not request.stream:
        result = await run.result() if watch.state == "completed" else None
        if request.output == "text":
            watch.result(result)
        else:
            view = replace(view_of(await run.status(full=True)), result=Raw(encode(result)))
            usage = None if watch.last is None else watch.last.usage
            watch.result(run_text(view, request.output, usage=usage))
    await watch.end()


async def _cancel(run: Run[Any, Any]) -> None:
    with contextlib.suppress(LoomError, TimeoutError):  # then its owner's lease lapses, or the next command ends it
        await run.cancel(wait=True, timeout=limits.ABANDON_AFTER + 1)


def _verdict(watch: Watch, show: Show, signals: Signals, raised: BaseException | None) -> int:
    error = watch.last.error if watch.last is not None else None
    if error is None:
        return 0
    if signals.number and error.code == "cancelled":
        if not show.moves:
            report(revive(error))
        raise Interrupted(signals.number)
    raise _with_place(revive(error), raised)


def _with_place(error: LoomError, raised: BaseException | None) -> LoomError:
    """`error` with the user's line that raised, where that is known: only the process that drove the run shows it."""
    if raised is not None and (where := location_of(raised)):
        error.message = f"{' '.join(error.message.split())}, at {where}"
        error.details = {"hint": "LOOM_DEBUG=1 shows the way there", **error.details}
    return error

"""`loom runs list|show|tail|send|cancel|retry`."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from loom.connect import connect, open_store
from loom.engine.follow.client import Client
from loom.engine.follow.run import Run
from loom.engine.follow.transport import StoreTransport
from loom.engine.follow.unserved import unserved
from loom.model.cursor import Cursor
from loom.model.errors import LoomError, Unavailable, revive
from loom.model.run import Head, RunState
from loom.wire.option_text import SHELL, labels_in
from loom.wire.views import view_of

from .blame import hush
from .inputs import guessed
from .loops import Interrupted, Signals
from .loops import run as run_loop
from .options import Labels, Listing, Seconds, Tailing, Where, sessions_folder
from .places import Place
from .session import end_orphans
from .shows import make_show
from .tables import age, print_rows, run_text
from .tally import Tally, duration
from .watch import Watch, watching

__all__ = ["call", "cancel", "list_runs", "retry", "send", "show", "tail"]

CANCEL_WAIT = 30.0
"""How long `loom runs cancel` waits for the confirmation: longer than a producer that has to be abandoned."""

T = TypeVar("T")

RunId = Annotated[str, Parameter(name="RUN", help="The run's id.")]


def list_runs(
    *,
    state: Annotated[RunState | None, Parameter(help="Only runs in this state.")] = None,
    actor: Annotated[str | None, Parameter(help="Only runs of this actor.")] = None,
    labels: Annotated[Labels | None, Parameter(name="--label", help="Only runs with all of these labels.")] = None,
    parent: Annotated[str | None, Parameter(help="Only runs that this one started.")] = None,
    root: Annotated[str | None, Parameter(help="Only runs below this one, at any depth.")] = None,
    limit: Annotated[int, Parameter(help="At most so many.")] = 20,
    where: Where | None = None,
    output: Listing = "table",
) -> None:
    """Runs, newest first."""

    async def ask(client: Client) -> list[Head]:
        return await client.runs(
            limit=limit,
            state=state,
            actor=actor,
            labels=None if labels is None else labels_in(labels, SHELL, "--label"),
            parent=parent,
            root=root,
        )

    heads = call(where, ask)
    header = ("RUN", "ACTOR", "STATE", "CHUNKS", "TOOK", "STARTED")
    print_rows(output, header, [_row(head) for head in heads], [view_of(head, full=False) for head in heads])


def _row(head: Head) -> tuple[str, ...]:
    began = head.started or head.meta.created
    took = "" if head.started is None else duration((head.ended_at or time.time()) - head.started)
    return head.meta.run, head.meta.actor, head.state, str(head.tail), took, f"{age(began)} ago"


def show(run: RunId, /, *, where: Where | None = None, output: Listing = "table") -> None:
    """What is known of a run: state, input, times, result or error."""

    async def ask(client: Client) -> tuple[Head, str | None]:
        head = await client.run(run).status(full=True)
        return head, None if head.ended else unserved(head, await client.workers())

    head, note = call(where, ask)
    print(run_text(view_of(head), output, waits=note))


def tail(
    run: RunId,
    /,
    *,
    after: Annotated[str | None, Parameter(help="The cursor behind which to begin (default: the beginning).")] = None,
    where: Where | None = None,
    output: Tailing = "text",
) -> int:
    """Follow a run to its end. Ctrl-C leaves it running, and says how to go on."""
    place = (where or Where()).place()
    cursor = None if after is None else Cursor.parse(after, "--after")
    hush()
    return run_loop(lambda signals: _tail(run, cursor, place, output, signals))


async def _tail(id: str, after: Cursor | None, place: Place, output: str, signals: Signals) -> int:
    tally = Tally(time.monotonic())
    show = make_show(output, tally, stream=True)
    async with watching(show, tally, signals) as watch:
        try:
            async with _client(place, watch) as client:
                run = client.run(id)

                async def begin() -> Cursor | None:
                    head = await run.status()
                    if head.started is not None:
                        tally.began(head.started, time.time(), time.monotonic())
                    return after or head.earliest

                ended = await watch.tail(run, begin)
        except LoomError as error:
            if isinstance(error, Unavailable) or watch.cursor is not None:
                resume = _resume(id, watch.cursor or after, place)
                error.details = {"hint": f"to read on: {resume}", **error.details}
            raise
        await watch.end()
    if not ended:
        print(f"The run goes on. To read on:\n{_resume(id, watch.cursor or after, place)}", file=sys.stderr)
        raise Interrupted(signals.number)
    assert watch.last is not None
    if watch.last.error is not None:
        raise revive(watch.last.error)
    return 0


def _resume(id: str, cursor: Cursor | None, place: Place) -> str:
    return f"loom runs tail {id}{f' --after {cursor}' if cursor else ''}{place.flags}"


def send(
    run: RunId,
    type: Annotated[str, Parameter(name="TYPE", help="What kind of message, as the actor receives it.")],
    data: Annotated[str | None, Parameter(name="DATA", help="JSON if it parses, else text.")] = None,
    /,
    *,
    id: Annotated[str | None, Parameter(help="The message's id: sending the same twice is sending once.")] = None,
    where: Where | None = None,
) -> None:
    """Tell a running run something. It is stored when this returns."""

    async def tell(client: Client) -> None:
        await client.run(run).send(type, None if data is None else guessed(data), id=id)

    call(where, tell)


def cancel(
    run: RunId,
    /,
    *,
    timeout: Annotated[Seconds, Parameter(help="How long to wait for the confirmation; 0: not at all.")] = CANCEL_WAIT,
    where: Where | None = None,
) -> None:
    """End a run, and wait until it is really gone. Of an ended run it does nothing."""

    async def ask(client: Client) -> None:
        handle = client.run(run)
        await handle.cancel()
        if timeout:
            await _confirmed(handle, timeout)

    call(where, ask)


async def _confirmed(run: Run[Any, Any], timeout: float) -> None:
    try:
        head = await run.wait(timeout)
    except TimeoutError:
        raise Unavailable(
            f"the cancel is stored, but no worker has confirmed it within {timeout:g} s",
            details={"hint": "it holds as soon as a worker serves the run's queue (loom runs show names it)"},
        ) from None
    print(f"{run.id} {head.state}")


def retry(
    run: RunId,
    /,
    *,
    id: Annotated[str | None, Parameter(help="The new run's id: retrying the same twice is retrying once.")] = None,
    where: Where | None = None,
) -> None:
    """Start an ended run anew, be it a dead letter: a new run of the same actor, input, key, queue and options. Prints
    its id."""

    async def ask(client: Client) -> str:
        return (await client.retry(run, id=id)).id

    print(call(where, ask))


def call(where: Where | None, ask: Callable[[Client], Awaitable[T]]) -> T:
    """What `ask` gives, of a client of the place that was named."""
    place = (where or Where()).place()

    async def main(_: Signals) -> T:
        async with _client(place) as client:
            return await ask(client)

    hush()
    return run_loop(main)


@asynccontextmanager
async def _client(place: Place, watch: Watch | None = None) -> AsyncIterator[Client]:
    """A client. Runs whose command was killed are ended first: nobody waits for them."""
    if place.remote:
        async with connect(place.url) if watch is None else watch.connected(place.url) as client:
            yield client
        return
    async with open_store(place.url) as store:
        await end_orphans(store, sessions_folder())
        async with Client(StoreTransport(store)) as client:
            yield client

"""`loom queue show`, `loom workers list|drain`: what waits, and who works."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from loom.engine.follow.client import Client
from loom.model.run import Entry, Place, WorkerInfo

from .options import Listing, Where
from .runs import call
from .tables import age, print_rows

__all__ = ["drain", "list_workers", "show_queue"]


def show_queue(
    *,
    queue: Annotated[str | None, Parameter(help="Only this queue.")] = None,
    place: Annotated[Place | None, Parameter(help="Only what is there.")] = None,
    limit: Annotated[int, Parameter(help="At most so many.")] = 100,
    where: Where | None = None,
    output: Listing = "table",
) -> None:
    """Open runs as the queue holds them, in the order of putting; delayed starts last."""

    async def ask(client: Client) -> list[Entry]:
        return await client.entries(queue=queue, place=place, limit=limit)

    found = call(where, ask)
    header = ("RUN", "ACTOR", "QUEUE", "PLACE", "PRIORITY", "KEY", "CRASHES", "CREATED", "WORKER")
    usual = {"QUEUE": "default", "PRIORITY": "normal", "KEY": "", "CRASHES": "0", "WORKER": ""}
    spare = ("CREATED", "PRIORITY", "CRASHES", "QUEUE")
    print_rows(output, header, [_entry_row(entry) for entry in found], found, usual=usual, spare=spare)


def _entry_row(entry: Entry) -> tuple[str, ...]:
    return (
        entry.run, entry.actor, entry.queue, entry.place, entry.priority, entry.key or "", str(entry.crashes),
        f"{age(entry.created)} ago", entry.worker or "",
    )  # fmt: skip


def list_workers(*, where: Where | None = None, output: Listing = "table") -> None:
    """The workers that told of themselves lately. One that was killed goes from the list within a minute."""

    async def ask(client: Client) -> list[WorkerInfo]:
        return await client.workers()

    found = call(where, ask)
    header = ("WORKER", "HOST", "PID", "STATE", "RUNNING", "STARTED", "SEEN", "QUEUES")
    spare = ("STARTED", "PID", "SEEN", "HOST")
    print_rows(output, header, [_worker_row(info) for info in found], found, spare=spare)


def _worker_row(info: WorkerInfo) -> tuple[str, ...]:
    return (
        info.name, info.host, str(info.pid), "draining" if info.draining else "working",
        f"{info.running}/{info.concurrency}", f"{age(info.started)} ago", f"{age(info.seen)} ago",
        ", ".join(info.queues),
    )  # fmt: skip


def drain(
    worker: Annotated[str, Parameter(name="WORKER", help="Its name, as loom workers list has it.")],
    /,
    *,
    where: Where | None = None,
) -> None:
    """Let a worker take nothing new, and finish or hand over what it drives, as SIGTERM does. It hears of it within
    seconds; a process of loom worker ends then, a server goes on."""

    async def ask(client: Client) -> None:
        await client.ask_to_drain(worker)

    call(where, ask)

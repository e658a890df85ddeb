"""The private queue of one `loom actor run`: its worker drives this command's run and nobody else's.

A command that was killed cannot end its run, and no worker serves its queue. A locked file tells who lives: the next
command on the store ends what dead ones left open, so that every run ends, and serves their queues, so that their
claims are acknowledged once their leases lapse.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from loom.engine.run.ending import end_run, error_chunk
from loom.model import limits
from loom.model.errors import ErrorInfo, LoomError
from loom.model.names import PRIVATE
from loom.model.ports import Store
from loom.model.run import Head, RunFilter, RunState
from loom.wire.json import encode

from .places import make_private

__all__ = ["Session", "end_orphans", "session"]

DEAD_SESSIONS = 100
"""Killed `loom actor run` commands whose queues the next one serves: none but in strange places."""

_OPEN: tuple[RunState, ...] = ("running", "queued")


class Session:
    """`queue`: this command's own. `served`: the queues its worker serves."""

    def __init__(self, queue: str, dead: tuple[str, ...]) -> None:
        self.queue = queue
        self.served = (queue, *dead)


@contextlib.contextmanager
def session(folder: Path) -> Iterator[Session]:
    """A queue of our own, marked alive by a locked file in `folder` for as long as the block lasts."""
    try:
        queue = f"{PRIVATE}{_identity(folder)}.{secrets.token_hex(6)}"
        descriptor = _mark(folder / queue)
    except OSError:  # read-only: should we be killed, nobody can tell
        yield Session(f"{PRIVATE}{secrets.token_hex(6)}", ())
        return
    try:
        yield Session(queue, tuple(_dead_queues(folder)))
    finally:
        (folder / queue).unlink(missing_ok=True)
        os.close(descriptor)


def _mark(path: Path) -> int:
    """Make a locked file, which nobody ever sees unlocked while we live."""
    new = path.with_name(f"new.{path.name}")
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    new.rename(path)
    return descriptor


async def end_orphans(store: Store, folder: Path) -> list[str]:
    """End the open runs of dead commands of this `folder`, as lost. Returns their ids."""
    ended = []
    for run in [head.meta.run async for head in _open_runs(store) if _is_dead(folder, head.meta.queue)]:
        with contextlib.suppress(LoomError):  # somebody else is at it, too; or the next command will be
            await _end(store, run)
            ended.append(run)
    return ended


async def _open_runs(store: Store) -> AsyncIterator[Head]:
    for state in _OPEN:
        before = None
        while heads := await store.runs.list_runs(RunFilter(state=state), limit=limits.LIST_LIMIT, before=before):
            for head in heads:
                yield head
            before = heads[-1].meta.run


async def _end(store: Store, run: str) -> None:
    info = ErrorInfo("run_lost", "the run was lost: the command that drove it was killed")
    if not await store.runs.cancel_unstarted(run, encode(error_chunk(info))):
        await end_run(store.logs, run, await store.logs.fence(run, f"orphan:{secrets.token_hex(8)}"), info)


def _identity(folder: Path) -> str:
    """This folder's own random name: only who shares the folder can tell its commands' life by its locks."""
    make_private(folder)
    path = folder / "id"
    with contextlib.suppress(FileExistsError), open(path, "x", encoding="ascii", opener=_private) as file:
        file.write(secrets.token_hex(4))
    return path.read_text("ascii") or "00000000"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_dead(folder: Path, queue: str) -> bool:
    if not queue.startswith(PRIVATE):
        return False
    try:
        ours = queue.startswith(f"{PRIVATE}{(folder / 'id').read_text('ascii')}.")
    except OSError:
        return False
    return ours and not _is_locked(folder / queue)


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _dead_queues(folder: Path) -> Iterator[str]:
    """Queues whose claims may still be unsettled. Their marks go when no claim of theirs can matter any more."""
    for path in sorted(folder.glob(f"{PRIVATE}*"))[:DEAD_SESSIONS]:
        if not _is_locked(path):
            if time.time() - path.stat().st_mtime > limits.RETENTION:
                path.unlink(missing_ok=True)
            else:
                yield path.name

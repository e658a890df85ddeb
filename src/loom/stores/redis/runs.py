"""The run store, as calls of the server-side functions."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence

from loom.model import limits
from loom.model.cursor import make_epoch
from loom.model.errors import Conflict, Damaged, LogNotFound
from loom.model.ports import INBOX, OUTBOX, closing
from loom.model.run import ALL_RUNS, Head, Meta, RunFilter, RunState
from loom.stores.orphans import ending_batch, is_idle
from loom.stores.stored import split
from loom.tasks import together
from loom.wire.json import decode_chunk

from .client.link import Reply
from .client.replies import Refused
from .client.servers import Servers
from .keys import Keys
from .lists import RunLists, terms_of
from .logs import RedisLogs, closing_args, digits, milliseconds
from .queue import RedisQueue
from .rows import batches_of, head_of, spec_args

__all__ = ["RedisRuns"]

_log = logging.getLogger("loom.store")

_ORDER = {"queued": 0, "running": 1}


class RedisRuns:
    """The `RunStore`."""

    def __init__(
        self,
        servers: Servers,
        keys: Keys,
        lists: RunLists,
        logs: RedisLogs,
        queue: RedisQueue,
        retention: float | None,
        wall: Callable[[], float],
    ) -> None:
        self._servers = servers
        self._keys = keys
        self._lists = lists
        self._logs = logs
        self._queue = queue
        self._retention = retention
        self._wall = wall

    async def create(self, meta: Meta) -> Head:
        keep = meta.kept_for(self._retention)
        specs = (*spec_args(OUTBOX, -1), *spec_args(INBOX, make_epoch(1, digits())))
        args = (*split(meta), -1 if keep is None else milliseconds(keep), *specs)
        try:
            # Listed first, in the same write: a sweep looks for runs only there.
            creating = self._servers.write("create", self._keys.of_run(meta.run), *args)
            listed, reply = await together(self._lists.add(meta), creating, f"loom-redis-create {meta.run}")
        except Refused:
            await self._lists.remove(meta.run)
            raise Conflict(f"there is a log {meta.run!r} that belongs to no run") from None
        head = head_of(meta.run, *reply)
        if not listed:
            await self._lists.add_again(head)
        return head

    async def get(self, run: str, *, full: bool = True) -> Head:
        if full:
            return head_of(run, *await self._call("head", run, self._keys.of_run(run)))
        return head_of(run, *await self._call("light_head", run, self._keys.of_run(run)[:2]))

    async def list_runs(
        self, filter: RunFilter = ALL_RUNS, *, limit: int = 100, before: str | None = None
    ) -> list[Head]:
        limit = min(max(limit, 1), limits.LIST_LIMIT)
        below = None if before is None else await self._number(before)
        filters = terms_of(filter)
        found: list[Head] = []
        passed: dict[str, RunState] = {}
        while len(found) < limit:
            most = limit - len(found)
            names, below = await (
                self._lists.find(filters, below, most) if filters else self._lists.newest(below, most)
            )
            for head in await self._listed(names):
                if filter.matches(head):
                    found.append(head)
                elif filter.state is not None and _ORDER.get(head.state, 2) > _ORDER.get(filter.state, 2):
                    passed[head.meta.run] = head.state
            if below is None:
                break
        await self._lists.pass_on(passed)
        return found

    async def heartbeat(self, run: str) -> None:
        await self._call("heartbeat", run, self._keys.of_run(run)[:2], repr(self._wall()))

    async def cancel_unstarted(self, run: str, line: bytes) -> bool:
        commit = closing(decode_chunk(line))
        args = (digits(), line + b"\n", *closing_args(commit, self._wall()))
        try:
            ended = bool(await self._servers.write("cancel_unstarted", self._keys.of_run(run), *args))
        except Refused:
            raise _no_run(run) from None
        if ended:
            await asyncio.gather(self._queue.forget(run, "later"), self._lists.note(run, commit.state or "cancelled"))
        return ended

    async def drop(self, run: str) -> None:
        await self._queue.forget(run)
        await self._servers.call("drop_run", self._keys.of_run(run))
        await self._lists.remove(run)

    # --- for the sweep -----------------------------------------------------------------------------------------------

    async def settle(self, run: str) -> bool:
        """Keep a run that has ended from now on for as long as it is to be kept, for no queue holds it. False: it has
        not ended."""
        state = await self._servers.call("settle", self._keys.of_run(run))
        if state is not None:
            await self._lists.end(run, state.decode())
        return state is not None

    async def acknowledged(self, run: str) -> None:
        """`settle`, by one round trip where the run was ended here."""
        state = self._lists.ended.pop(run, None)
        if state is None:
            await self.settle(run)
        else:
            settling = self._servers.call("settle", self._keys.of_run(run))
            await together(settling, self._lists.end(run, state), f"loom-redis-list {run}")

    async def missing(self, runs: Sequence[str]) -> set[str]:
        """Those of the runs that are gone."""
        records = [self._keys.record(run) for run in runs]
        there = await asyncio.gather(*(self._servers.ask(record, "EXISTS", record) for record in records))
        return {run for run, exists in zip(runs, there, strict=True) if not exists}

    async def end_idle(self, run: str) -> bool:
        """End an orphan in which nothing has happened for too long. False: it is none. A writer that comes back is
        fenced, or comes first."""
        batches = self._keys.of_log(run)[1]
        newest = await self._servers.ask(batches, "XREVRANGE", batches, "+", "-", "COUNT", 1)
        last = batches_of(run, newest, lines=True)
        if not last or not is_idle(last[0], self._wall()):
            return False
        fence = await self._logs.fence(run, uuid.uuid4().hex)
        if fence.ended:
            return False
        await self._logs.append(run, *ending_batch(fence.epoch, fence.tail, self._wall()))
        return True

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _number(self, run: str) -> str:
        number = await self._lists.number(run)
        if number is None or await self.missing([run]):
            raise _no_run(run)
        return number

    async def _listed(self, runs: Iterable[str]) -> list[Head]:
        """Heads as lists show them, asked for together, of the runs that are there and can be read: the damage of one
        is reported to who asks for that run."""
        heads = await asyncio.gather(*(self._light(run) for run in runs))
        return [head for head in heads if head is not None]

    async def _light(self, run: str) -> Head | None:
        try:
            return await self.get(run, full=False)
        except LogNotFound:
            return None
        except Damaged as damage:
            _log.error("left out of a list: run %s: %s", run, damage)
            return None

    async def _call(self, function: str, run: str, keys: Sequence[str], *args: str | bytes | int) -> Reply:
        try:
            return await self._servers.call(function, keys, *args)
        except Refused:
            raise _no_run(run) from None


def _no_run(run: str) -> LogNotFound:
    return LogNotFound(f"there is no run {run!r}")

"""Runs and their logs, as calls of the server-side functions: what goes in, and what their answers mean."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from loom.model import limits
from loom.model.chunk import CANCEL, Batch, Page
from loom.model.cursor import EPOCH_DIGITS, Cursor, make_epoch
from loom.model.errors import Conflict, Damaged, Fenced, LogEnded, LogNotFound, LoomError
from loom.model.history import page_of, start_after
from loom.model.ports import Fence
from loom.model.run import Head, Mark, Meta, RunState, run_of, state_of
from loom.stores.inbox import check_room
from loom.stores.orphans import ending_batch, is_idle
from loom.stores.positions import is_forgotten, too_many_readers
from loom.stores.stored import check_whole, split
from loom.wire.json import check_size, encode, ending_of

from .client.link import Reply
from .client.replies import Refused
from .client.servers import Servers
from .keys import Keys
from .rows import LISTED, batches_of, epochs_of, head_of, number_of

__all__ = ["Logs"]


_log = logging.getLogger("loom.store")


class Logs:
    """As `ports.Logs`, but for what the queue's keys take part in, and for waiting."""

    def __init__(
        self,
        servers: Servers,
        keys: Keys,
        *,
        retention: float | None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._servers = servers
        self._keys = keys
        self._retention = retention
        self._wall = wall

    # --- a run's life ------------------------------------------------------------------------------------------------

    async def create(self, meta: Meta) -> Head:
        epoch = make_epoch(1, _digits())
        keep = meta.kept_for(self._retention)
        args = (*split(meta), epoch, -1 if keep is None else _milliseconds(keep))
        return _head(meta.run, await self._servers.write("create", self._keys.of(meta.run), *args))

    async def head(self, run: str) -> Head:
        return _head(run, await self._call("head", run))

    async def light_head(self, run: str) -> Head:
        """Without input and result, and without touching the log."""
        key = self._keys.of(run)[0]
        reply = await self._servers.ask(key, "HMGET", key, *LISTED)
        fields = {name.encode(): value for name, value in zip(LISTED, reply, strict=True)}
        if fields[b"meta"] is None:
            raise _no_run(run)
        return head_of(run, fields)

    async def listed(self, runs: Iterable[str]) -> list[Head]:
        """Heads as lists show them, asked for together, of those that are there and can be read: of a damaged one
        whoever asks for that run is told."""
        heads = await asyncio.gather(*(self._listed(run) for run in runs))
        return [head for head in heads if head is not None]

    async def _listed(self, run: str) -> Head | None:
        try:
            return await self.light_head(run)
        except LogNotFound:
            return None
        except Damaged as damage:
            _log.error("left out of a list: run %s: %s", run, damage)
            return None

    async def missing(self, runs: Sequence[str]) -> set[str]:
        """Those of the runs that are gone."""
        heads = [self._keys.of(run)[0] for run in runs]
        there = await asyncio.gather(*(self._servers.ask(head, "EXISTS", head) for head in heads))
        return {run for run, exists in zip(runs, there, strict=True) if not exists}

    async def fence(self, run: str, token: str, failures: int = 0) -> Fence:
        drawn = await self._call("fence", run, token, _digits(), repr(self._wall()), failures)
        epoch, tail, ended, size, failed = drawn
        return Fence(int(epoch), int(tail), ended == b"1", int(size), int(failed))

    async def end_unstarted(self, run: str, line: bytes) -> bool:
        error, _ = ending_of(Batch(0, 1, 1, line + b"\n"))
        args = (_digits(), line + b"\n", *self._ending(error))
        try:
            return bool(await self._servers.write("end_unstarted", self._keys.of(run), *args))
        except Refused as refused:
            raise _refusal(refused, run) from None

    async def end_idle(self, run: str) -> bool:
        """End an orphan in which nothing has happened for too long; whether it was one. Whoever writes it after all is
        fenced, or comes first."""
        out = self._keys.of(run)[1]
        newest = batches_of(run, await self._servers.ask(out, "XREVRANGE", out, "+", "-", "COUNT", 1), inbox=False)
        if not newest or not is_idle(newest[0], self._wall()):
            return False
        fence = await self.fence(run, uuid.uuid4().hex)
        if fence.ended:
            return False
        await self.append(run, ending_batch(fence.epoch, fence.tail, self._wall()), end=True)
        return True

    async def touch(self, run: str) -> None:
        await self._call("touch", run, repr(self._wall()))

    async def drop(self, run: str) -> None:
        await self._call("drop", run)

    async def settle(self, run: str) -> bool:
        """If it has ended: keep it from now on for as long as it is to be, for no queue holds it. Whether it has, or
        is gone."""
        return bool(await self._call("settle", run))

    # --- logs --------------------------------------------------------------------------------------------------------

    async def append(self, run: str, batch: Batch, *, end: bool = False) -> Cursor:
        keys = self._keys.of(run)
        args = (batch.epoch, batch.first, batch.last, batch.payload)
        try:
            if end:
                await self._servers.write("append", keys, *args, *self._ending(ending_of(batch)[0]))
            else:
                await self._servers.write("append", keys[:2], *args)
        except Refused as refused:
            raise _refusal(refused, run) from None
        return batch.cursor

    async def send(self, run: str, message: bytes, *, sender: str, id: str) -> Cursor:
        check_size(message, limits.MESSAGE_BYTES, "a message")
        room = () if sender == CANCEL else (limits.INBOX_MESSAGES, limits.INBOX_BYTES)
        try:
            epoch, seq = await self._servers.write(
                "send", self._keys.of(run), f"{sender}\0{id}", message + b"\n", *room
            )
        except Refused as refused:
            if refused.word == "ROOM":
                count, size = refused.more
                check_room(message, sender, messages=int(count), size=int(size))
            raise _refusal(refused, run) from None
        return Cursor(int(epoch), int(seq))

    async def read(self, log: str, after: Cursor | None, limit: int) -> Page:
        """What is there now."""
        run = run_of(log)
        limit = min(max(limit, 1), limits.READ_LIMIT)
        behind = "0-0" if after is None else str(after)
        try:
            facts, entries = await self._servers.call("read", self._keys.of_log(log), behind, limits.PAGE_BYTES, limit)
        except Refused as refused:
            raise _refusal(refused, run) from None
        epochs, first, tail, ended, inbox_epoch, inbox_tail = facts
        inbox = log != run
        if inbox:
            epochs, first, tail = b"%b:1" % inbox_epoch, b"1", inbox_tail
        end = number_of(run, tail)
        start = start_after(after, epochs=epochs_of(run, epochs), first=number_of(run, first), tail=end)
        batches = batches_of(run, entries, inbox=inbox)
        check_whole(run, batches, start, end)
        return page_of(batches, start, after=after, tail=end, ended=ended == b"1", limit=limit)

    async def trim(self, run: str, before: int) -> int:
        first, cleared = await self._call("trim", run, before)
        while cleared * 2 > limits.CLEARED:  # there may be more; others' calls come in between
            first, cleared = await self._call("trim", run, before)
        return int(first)

    # --- readers' marks ----------------------------------------------------------------------------------------------

    async def mark(self, run: str, reader: str, seq: int | None) -> None:
        silence = _milliseconds(limits.READER_LEASE)
        await self._call("mark", run, reader, silence, limits.READERS, *(() if seq is None else (seq,)))

    async def marks(self, run: str) -> list[Mark]:
        flat, now = await self._call("marks", run)
        marks = [_mark(reader, text) for reader, text in _pairs(flat)]
        return [mark for mark in marks if not is_forgotten(mark.beat, int(now) / 1000)]

    # --- inside ------------------------------------------------------------------------------------------------------

    async def _call(self, function: str, run: str, *args: str | bytes | int) -> Reply:
        try:
            return await self._servers.call(function, self._keys.of(run), *args)
        except Refused as refused:
            raise _refusal(refused, run) from None

    def _ending(self, error: Any) -> tuple[str | bytes | int, ...]:
        state: RunState = state_of(attempted=True, error=error, ended=True)
        told = b"" if error is None else encode(error)
        return state, told, repr(self._wall()), _milliseconds(limits.UNSETTLED)


def _digits() -> int:
    return secrets.randbelow(EPOCH_DIGITS)


def _milliseconds(seconds: float) -> int:
    return round(min(seconds * 1000, 2.0**53))  # what Lua counts exactly; far beyond any age


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _head(run: str, reply: Reply) -> Head:
    flat, last = reply
    fields: dict[bytes, bytes | None] = dict.fromkeys((b"error", b"started", b"ended_at", b"heard"))
    return head_of(run, fields | dict(_pairs(flat)), last)


def _mark(reader: bytes, text: bytes) -> Mark:
    seq, _, beat = text.partition(b" ")
    return Mark(reader.decode(), int(seq), int(beat))


def _no_run(run: str) -> LogNotFound:
    return LogNotFound(f"there is no run {run!r}")


def _refusal(refused: Refused, run: str) -> LoomError:
    match refused.word:
        case "GONE":
            return _no_run(run)
        case "FENCED":
            return Fenced(f"a newer writer has taken over run {run!r}")
        case "READERS":
            return too_many_readers(run)
        case "ENDED":
            return LogEnded(f"run {run!r} has ended")
        case "CONFLICT":
            return Conflict(f"a batch does not continue the log of run {run!r}, whose tail is {refused.more[0]}")
    raise AssertionError(refused)

"""The log store, as calls of the server-side functions: their arguments, and the meaning of their replies."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import EPOCH_DIGITS, Cursor, make_epoch
from loom.model.errors import Conflict, Fenced, LogEnded, LogNotFound, LoomError, UsageError
from loom.model.history import check_room, page_of, start_after
from loom.model.ports import Commit, Fence, LogInfo, LogSpec, Notify, ProducerSeq, Unwatch
from loom.model.run import Mark, inbox_of, run_of
from loom.stores.positions import is_forgotten, too_many_readers
from loom.stores.stored import check_whole
from loom.stores.watchers import wait_page
from loom.tasks import together
from loom.wire.json import encode

from .client.functions import CLEARED
from .client.link import Reply
from .client.replies import Refused
from .client.servers import Servers
from .keys import Keys
from .lists import RunLists
from .notices import Notices
from .rows import batches_of, epochs_of, info_of, mark_of, number_of, pairs, spec_args

__all__ = ["RedisLogs", "closing_args", "digits", "milliseconds"]

T = TypeVar("T")

UNSETTLED = 7 * 86400.0
"""An ended run that its worker did not acknowledge yet: whoever claims it again must see that it has ended."""


class RedisLogs:
    """The `LogStore`."""

    def __init__(
        self, servers: Servers, keys: Keys, lists: RunLists, notices: Notices, wall: Callable[[], float]
    ) -> None:
        self._servers = servers
        self._keys = keys
        self._lists = lists
        self._notices = notices
        self._wall = wall

    async def create(self, log: str, spec: LogSpec) -> LogInfo:
        args = spec_args(spec, make_epoch(1, digits()))
        try:
            return info_of(log, await self._servers.write("create_log", self._with_record(log), *args))
        except Refused as refused:
            raise refusal(refused, log) from None

    async def info(self, log: str) -> LogInfo:
        return info_of(log, await self._call("info", log))

    async def fence(self, log: str, token: str, *, failures: int = 0) -> Fence:
        args = (token, digits(), repr(self._wall()), failures)
        if log != run_of(log) or "/" in log:
            drawn = await self._call("fence", log, *args)
        else:
            keys = (*self._keys.of_log(log), self._keys.record(log))
            drawn = await _beside(self._checked("fence", log, keys, *args), self._lists.note(log, "running"))
        epoch, tail, ended, size, failed = drawn
        return Fence(int(epoch), int(tail), ended == b"1", int(size), int(failed))

    async def append(self, log: str, batch: Batch, commit: Commit | None = None) -> Cursor:
        args = (batch.epoch, batch.first, batch.last, batch.payload)
        try:
            if commit is None or not commit.end:
                await self._servers.write("append", self._keys.of_log(log)[:2], *args)
            elif commit.state is None or "/" in log:
                await self._servers.write("append", self._keys.of_log(log)[:2], *args, "1")
            else:
                ending = self._servers.write(
                    "finish", self._keys.of_run(log), *args, *closing_args(commit, self._wall())
                )
                await _beside(ending, self._lists.note(log, commit.state))
                self._lists.remember(log, commit.state)
        except Refused as refused:
            raise refusal(refused, log) from None
        return batch.cursor

    def append_nowait(self, log: str, batch: Batch, commit: Commit | None = None) -> bool:
        return False

    async def send(
        self, log: str, record: bytes, producer: ProducerSeq, *, end: bool = False, urgent: bool = False
    ) -> Cursor:
        args = (producer.producer, producer.epoch, producer.seq, record, "1" if end else "", "1" if urgent else "")
        try:
            epoch, seq = await self._servers.write("send", self._keys.of_log(log), *args)
        except Refused as refused:
            if refused.word == "OUTDATED":
                raise Fenced(f"producer {producer.producer!r} has a newer epoch, {refused.more[0]}") from None
            if refused.word == "GAP":
                expected = int(refused.more[0])
                raise Conflict(
                    f"producer {producer.producer!r} sent record {producer.seq}, but {expected} is the next",
                    details={"expected": expected},
                ) from None
            if refused.word == "ROOM":
                size, records, stored = map(int, refused.more)
                check_room((await self.info(log)).spec, size, records=records, stored=stored)
            raise refusal(refused, log) from None
        return Cursor(int(epoch), int(seq))

    async def read(
        self,
        log: str,
        after: Cursor | None = None,
        *,
        limit: int = limits.PAGE_CHUNKS,
        limit_bytes: int = limits.PAGE_BYTES,
        wait: float = 0.0,
    ) -> Page:
        # The server's confirmation of a subscription is the first notice of a log's first watcher: what changed before
        # it is read again.
        return await wait_page(self.watch, log, lambda: self._page(log, after, limit, limit_bytes), wait)

    async def _page(self, log: str, after: Cursor | None, limit: int, limit_bytes: int) -> Page:
        limit, limit_bytes = min(max(limit, 1), limits.READ_LIMIT), min(limit_bytes, limits.PAGE_BYTES)
        behind = "0-0" if after is None else str(after)
        keys = self._keys.of_log(log)[:2]
        facts, entries = await self._checked("read", log, keys, behind, limit_bytes, limit)
        epochs, first, tail, ended, kind = facts
        end = number_of(log, tail)
        start = start_after(after, epochs=epochs_of(log, epochs), first=number_of(log, first), tail=end)
        batches = batches_of(log, entries, lines=kind.endswith(b"l"))
        check_whole(log, batches, start, end)
        return page_of(batches, start, after=after, tail=end, ended=ended == b"1", limit=limit, limit_bytes=limit_bytes)

    async def trim(self, log: str, before: int) -> int:
        keys = self._keys.of_log(log)[:2]
        first, cleared = await self._checked("trim", log, keys, before)
        while cleared * 2 > CLEARED:  # there may be more; others' calls come in between
            first, cleared = await self._checked("trim", log, keys, before)
        return int(first)

    async def drop(self, log: str) -> None:
        await self._checked("drop_log", log, self._with_record(log))

    def watch(self, log: str, notify: Notify) -> Unwatch:
        return self._notices.watch(log, notify)

    async def commit_position(self, log: str, reader: str, seq: int | None) -> None:
        silence = milliseconds(limits.READER_LEASE)
        await self._call("mark", log, reader, silence, limits.READERS, *(() if seq is None else (seq,)))

    async def positions(self, log: str) -> list[Mark]:
        flat, now = await self._call("marks", log)
        marks = [mark_of(reader, text) for reader, text in pairs(flat)]
        return [mark for mark in marks if not is_forgotten(mark.beat, int(now) / 1000)]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _with_record(self, log: str) -> tuple[str, ...]:
        """A log's keys, with that of the record of the run that it would be one of the two logs of."""
        run = run_of(log)
        owned = log in (run, inbox_of(run)) and "/" not in run
        return (*self._keys.of_log(log), self._keys.record(run)) if owned else self._keys.of_log(log)

    async def _call(self, function: str, log: str, *args: str | bytes | int) -> Reply:
        return await self._checked(function, log, self._keys.of_log(log), *args)

    async def _checked(self, function: str, log: str, keys: tuple[str, ...], *args: str | bytes | int) -> Reply:
        try:
            return await self._servers.call(function, keys, *args)
        except Refused as refused:
            raise refusal(refused, log) from None


async def _beside(call: Coroutine[Any, Any, T], note: Coroutine[Any, Any, None]) -> T:
    """The result of `call`; `note` goes out behind it, in the same write."""
    result, _ = await together(call, note, "loom-redis-note")
    return result


def closing_args(commit: Commit, now: float) -> tuple[str | bytes | int, ...]:
    """A run's end as `functions.lua` takes it."""
    assert commit.state is not None
    error = b"" if commit.error is None else encode(commit.error)
    return commit.state, error, repr(now), milliseconds(UNSETTLED)


def digits() -> int:
    """The random digits of an epoch."""
    return secrets.randbelow(EPOCH_DIGITS)


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, at most 2^53: Lua counts exactly up to there, far beyond any age."""
    return round(min(seconds * 1000, 2.0**53))


def refusal(refused: Refused, log: str) -> LoomError:
    """The error that one of our functions means by its word."""
    match refused.word:
        case "GONE":
            return LogNotFound(f"there is no log {log!r}")
        case "TAKEN":
            return Conflict(f"there is another log {log!r}")
        case "OWNED":
            return UsageError(f"log {log!r} belongs to a run: it is dropped with it")
        case "FENCED":
            return Fenced(f"a newer writer has taken over log {log!r}")
        case "READERS":
            return too_many_readers(log)
        case "ENDED":
            return LogEnded(f"log {log!r} has ended")
        case "CONFLICT":
            return Conflict(f"a batch does not continue log {log!r}, whose tail is {refused.more[0]}")
        case "MANY":
            return UsageError(f"log {log!r} takes records of many writers, by `send`: it has no epochs to write as")
        case "SINGLE":
            return UsageError(f"log {log!r} has one writer, by `fence` and `append`: nothing is sent to it")
        case "OPAQUE":
            return UsageError(f"log {log!r} holds opaque records: a batch is one of them")
        case "LINES":
            return UsageError(f"log {log!r} holds lines of JSON: a record holds no line end")
    raise AssertionError(refused)

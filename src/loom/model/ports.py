"""The ports: what a store and a transport must be. Everything above is written against these.

A store belongs to one event loop. Every method may raise `Unavailable` (nothing is known to have happened; repeat it:
all are idempotent as said) and, where it writes, `StoreFull` (nothing happened). All are safe to cancel.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from typing import Any, Literal, Protocol, Self, runtime_checkable

import msgspec

from . import limits
from .chunk import Batch, Chunk, Message, Page
from .cursor import Cursor, cursor_at
from .errors import ErrorInfo
from .run import (
    ALL_RUNS,
    ActorInfo,
    Claim,
    Entry,
    Head,
    Mark,
    Meta,
    Place,
    RunFilter,
    RunState,
    Start,
    WorkerInfo,
    state_of,
)

__all__ = [
    "INBOX",
    "JSON_LINES",
    "OUTBOX",
    "Commit",
    "Durability",
    "Fence",
    "InlineSink",
    "LogInfo",
    "LogPolicy",
    "LogSpec",
    "LogStore",
    "Notice",
    "Notify",
    "ProducerSeq",
    "RunStore",
    "Store",
    "Survey",
    "Surveyed",
    "SweepReport",
    "Transport",
    "Unwatch",
    "WorkQueue",
    "WorkerRegistry",
    "closing",
    "message_producer",
]

Durability = Literal["memory", "process", "disk", "replica"]
"""What an acknowledged append survives: nothing but calls, kill -9, a power cut, the loss of the primary."""


class Notice(msgspec.Struct, frozen=True, gc=False):
    """Something changed in a watched log.

    With `batch`: exactly that was appended. Without: look (`read`, `head`, `marks`). Notices may be repeated or late,
    and one may stand for several changes; whoever gets one whose batch does not continue what he has reads the log.
    A store that can lose notices of its own covers silence by polling: every change is told in the end.
    """

    batch: Batch | None = None
    ended: bool = False
    marks: bool = False
    """Only the readers' marks changed: nothing for who reads the log."""


Notify = Callable[[Notice], None]
Unwatch = Callable[[], None]


class InlineSink(Protocol):
    """Writes a page to a reader's connection right where the page was appended, before any task is woken."""

    def deliver(self, page: Page) -> bool:
        """Never waits, never raises. False: nothing was written, and the iterator gives the page."""
        ...


class Fence(msgspec.Struct, frozen=True):
    """The answer to a new writer: its epoch, the log's tail, and whether the log has ended (then it may not write).

    `size`: the payload bytes, line ends included, that the log keeps. `failures`: failed attempts, the largest number
    that a fence was given."""

    epoch: int
    tail: int
    ended: bool
    size: int = 0
    failures: int = 0


LogPolicy = Literal["single", "many"]
"""The writers that may append. `single`: one, by epoch (`fence`, `append`). `many`: any producer, by its own epoch and
seq (`send`)."""

JSON_LINES = "application/x-ndjson"
"""The content type of a run's logs: each record is one line of JSON, and a batch holds any number of them."""


class LogSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The properties of a log, fixed when it is created.

    Records of a log of `JSON_LINES` are lines that end with LF. Those of any other content type are opaque bytes: a
    batch holds exactly one, its whole payload."""

    policy: LogPolicy = "single"
    content_type: str = JSON_LINES
    max_records: int | None = None
    """`send` refuses what would exceed it; None: no bound. Of a log with one writer the writer keeps the bounds."""
    max_bytes: int | None = None
    """The same in payload bytes, line ends included. Both bound what the log keeps: trimming makes room."""


OUTBOX = LogSpec()
"""A run's outbox."""

INBOX = LogSpec(policy="many", max_records=limits.INBOX_MESSAGES, max_bytes=limits.INBOX_BYTES)
"""A run's inbox."""


class LogInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts about a log besides its records; the fields as in `Head`. `size`: payload bytes that it keeps."""

    spec: LogSpec
    epochs: tuple[tuple[int, int], ...] = ()
    first: int = 1
    tail: int = 0
    ended: bool = False
    size: int = 0

    def cursor_at(self, seq: int) -> Cursor | None:
        """The cursor behind record `seq` (None for 0, the beginning)."""
        return cursor_at(self.epochs, seq)

    @property
    def earliest(self) -> Cursor | None:
        """Where a reader of everything that is kept begins: None unless the log was trimmed."""
        return self.cursor_at(self.first - 1)


class ProducerSeq(msgspec.Struct, frozen=True, gc=False):
    """One record's identity in a log of many writers: who sends it, as which incarnation, and its number there.

    The numbers of one epoch are dense from 0. A larger epoch fences the smaller ones, and begins again at 0. A message
    with an id of its own is a producer of its own, whose only record is (0, 0): see `message_producer`."""

    producer: str
    epoch: int = 0
    seq: int = 0


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """Written by an append in the same atomic act as its batch: all of it or none.

    A field here is room for more: records of steps and a key's state join it. `end`: the log ends with this batch.
    `state` and `error`: what the run becomes whose outbox this is; always given where an outbox ends, without meaning
    for a log that belongs to no run. See `closing`."""

    end: bool = True
    state: RunState | None = None
    error: ErrorInfo | None = None


class SweepReport(msgspec.Struct, frozen=True):
    """What a sweep did: open runs that no queue held and were put back, ended runs dropped by retention, open runs that
    it ended because nothing had happened in them for `limits.IDLE_OPEN`."""

    requeued: int = 0
    dropped: int = 0
    ended: int = 0


class LogStore(Protocol):
    """Append-only, ordered, resumable logs of opaque records; each ends once. A log needs no run.

    A run's id names its outbox, `inbox_of(run)` its inbox. Names that are equal up to the first ``/`` lie together: on
    a cluster one atomic act reaches them all."""

    async def create(self, log: str, spec: LogSpec) -> LogInfo:
        """Create a log that belongs to no run; it is kept until it is dropped. Idempotent.

        Raises `Conflict` when a log of that name has another spec, or belongs to a run."""
        ...

    async def info(self, log: str) -> LogInfo:
        """The log's spec and position; costs the same whatever the log holds. Raises `LogNotFound`."""
        ...

    async def fence(self, log: str, token: str, *, failures: int = 0) -> Fence:
        """Take the sole right to append: a new epoch, whose attempt is higher than every earlier one's. Idempotent by
        `token` while no newer fence was drawn (then `Fenced`). An ended log gets no new epoch. A run whose outbox this
        is becomes `running` with its first epoch.

        `failures` attempts have failed by now: the largest such number is kept with the log, trimmed or not. Raises
        `LogNotFound`, and `UsageError` for a log of many writers."""
        ...

    async def append(self, log: str, batch: Batch, commit: Commit | None = None) -> Cursor:
        """Add `batch`, and write what `commit` holds in the same atomic act. An inbox ends with its outbox.

        The same batch as the last one stored, byte for byte, is success, also after the end. Raises `Fenced` (any
        other epoch than the newest), `LogEnded`, `Conflict` (does not continue at tail + 1), `LogNotFound`, and
        `UsageError` for a log of many writers, and for a batch of several records in a log of opaque records."""
        ...

    def append_nowait(self, log: str, batch: Batch, commit: Commit | None = None) -> bool:
        """`append`, if the store needs no waiting for it; False, and nothing has happened, if it does.

        Raises what `append` raises; what is `retryable` of it may be tried again by either.
        """
        ...

    async def send(
        self, log: str, record: bytes, producer: ProducerSeq, *, end: bool = False, urgent: bool = False
    ) -> Cursor:
        """Add one record to a log of many writers; once for each `producer`, however often it is sent. Of a log of
        `JSON_LINES`, `record` is a line without its end. With `end` the log ends with it.

        A record that is there already is success, also after the end and in a full log: its cursor comes back, or, of
        one that is not the producer's newest, the newest one's. Raises, in this order: `LogNotFound`; `UsageError` for
        a log of one writer, and for a line that holds an LF; `Fenced` for an epoch older than the producer's;
        `Conflict` (``details["expected"]``, the seq) for a seq that leaves a gap; `LogEnded`; `LimitExceeded` when the
        log's spec leaves no room, except for a record that is `urgent`."""
        ...

    async def read(
        self,
        log: str,
        after: Cursor | None = None,
        *,
        limit: int = limits.PAGE_CHUNKS,
        limit_bytes: int = limits.PAGE_BYTES,
        wait: float = 0.0,
    ) -> Page:
        """The page behind `after` (None: from seq 1): at most `limit` records and `limit_bytes` of payload, never more
        than `limits.READ_LIMIT` and `limits.PAGE_BYTES`, but at least one record.

        With nothing there it waits up to `wait` seconds for an append or the end, then returns an empty page. Raises
        `LogNotFound`, and `CursorExpired` (with `details["earliest"]`, a cursor's text or None) when the cursor's epoch
        is unknown, its seq is not one that epoch wrote, or what follows it was trimmed.
        """
        ...

    async def trim(self, log: str, before: int) -> int:
        """Forget whole batches that lie below seq `before`, but never the last one (a repeated append is compared with
        it); returns the first seq still kept. Raises `LogNotFound`."""
        ...

    async def drop(self, log: str) -> None:
        """Forget a log that belongs to no run. Waiting readers get `LogNotFound`. Idempotent.

        Raises `UsageError` for the log of a run: it goes with its run."""
        ...

    def watch(self, log: str, notify: Notify) -> Unwatch:
        """Call `notify` on the loop whenever `log` may have changed, from now on. Never blocks, holds no memory per
        unseen change. The log need not exist yet. It also notifies of positions and of the drop, an inbox of the
        run's end. `notify` must not raise."""
        ...

    async def commit_position(self, log: str, reader: str, seq: int | None) -> None:
        """Note that `reader` has read through `seq` (its beat changes); None: it has left. Idempotent.

        A reader that has not committed for `limits.READER_LEASE`, by the store's clock, is forgotten, and counts no
        more. Raises `LogNotFound`, and `LimitExceeded` for a new one beside `limits.READERS` others."""
        ...

    async def positions(self, log: str) -> list[Mark]:
        """The attached readers' positions, without those that are forgotten. Raises `LogNotFound`."""
        ...


class RunStore(Protocol):
    """Runs: a record each, and two logs."""

    async def create(self, meta: Meta) -> Head:
        """Create the run's record and its two logs. Idempotent: of a run that exists the head is returned as it is
        (also when `meta` differs: the caller compares with `Meta.same_request`). A log of that name that belongs to no
        run is a `Conflict`."""
        ...

    async def get(self, run: str, *, full: bool = True) -> Head:
        """The run's head; its input and result only if `full`: without them it costs the same whatever they, and the
        log, hold. Raises `LogNotFound`."""
        ...

    async def list_runs(
        self, filter: RunFilter = ALL_RUNS, *, limit: int = 100, before: str | None = None
    ) -> list[Head]:
        """Heads without inputs and results, newest first, of the runs that match `filter`; `before`: those older than
        this run. The cost grows with the runs that match the narrowest field of the filter.

        Raises `LogNotFound` when `before` is gone."""
        ...

    async def heartbeat(self, run: str) -> None:
        """The owner is alive: count `Head.beat` up, and note when, by the store's wall clock, in `Head.heard`. Nothing
        happens to an ended run. Raises `LogNotFound`."""
        ...

    async def cancel_unstarted(self, run: str, line: bytes) -> bool:
        """End a run that no attempt was made on with this one `error` chunk's JSON (no line end). True if the run is
        ended by such a call, now or before; False if an attempt was made. A queue entry that waits for its `not_before`
        is forgotten with it. Raises `LogNotFound`."""
        ...

    async def drop(self, run: str) -> None:
        """Forget the run: record, logs, queue entry, positions. Waiting readers get `LogNotFound`. Idempotent."""
        ...


class WorkQueue(Protocol):
    """Hands each run to one worker at a time, at least once, in order within an actor's key.

    The log is the truth, the queue a hint: a claim of an ended run is acknowledged and dropped by the worker.
    """

    async def put(self, meta: Meta) -> None:
        """Make the run claimable. Idempotent by run id: an entry that is there stays as it is.

        One with a `not_before` that is still to come is put when it has passed, by the store's wall clock: until then
        it has no place in its key's line, and holds up nobody. Nobody has to ask for that: a claim that waits wakes."""
        ...

    async def claim(
        self, queues: Sequence[str], worker: str, *, lease: float, wait: float, exclude: Collection[str] = ()
    ) -> Claim | None:
        """The next run for this worker, waiting up to `wait` seconds for one; none of the actors `exclude`.

        Within a priority the one put first goes first, whichever of `queues` it is in; which priority is looked at
        first says `priority.order` of how many claims this store has handed out. Order within a key is order of
        putting, whatever the priorities.

        Takes over claims whose heartbeat this store object has seen unchanged for the claim's lease by its own
        monotonic clock, counting a crash. Time in which nobody looked counts for half a lease at most, since what
        stopped the observer may have stopped the holder too; while somebody looks, a claim that stands still is taken
        over within one and a half leases. An entry whose key has an earlier entry is not ready.
        A claim whose reply was lost comes again: to this worker, even if `exclude` names its actor by then, or, after
        its lease, to another.
        """
        ...

    async def force_claim(self, meta: Meta, worker: str, *, lease: float) -> Claim:
        """Put the run unless it is there, and claim it at once, whoever holds it: that claim is `Fenced` from now on.

        One act, so that nobody else can claim it in between; the claim lapses as any other. For publishers: raises
        `Conflict` when the entry that is there is of another queue than `meta.queue`. Repeated, it is another claim."""
        ...

    async def renew(self, claim: Claim) -> None:
        """Count the claim's heartbeat up. Raises `Fenced` when it is no longer this worker's."""
        ...

    async def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        """`renew` of many together; of each whether it still is its worker's."""
        ...

    async def ack(self, claim: Claim) -> None:
        """The run has ended: forget its entry, making the key's next one ready. Idempotent; `Fenced` as for `renew`."""
        ...

    async def release(self, claim: Claim, *, delay: float = 0.0) -> None:
        """Hand the run over: claimable again after `delay` seconds, no crash counted. `Fenced` as for `renew`."""
        ...

    async def list_entries(
        self, *, queue: str | None = None, place: Place | None = None, limit: int = 100
    ) -> list[Entry]:
        """What the queue holds, in the order of putting; what waits for its `not_before` comes last, in the order of
        that. A claim that has lapsed may stay `leased` until it is taken over; an entry released with a delay is
        `delayed`, and holds its place in its key's line. At most `limit`, and `limits.LIST_LIMIT`."""
        ...


class WorkerRegistry(Protocol):
    """The workers that are there, and what they can drive."""

    async def register(self, info: WorkerInfo) -> bool:
        """Note that this worker is there, as of now by the store's wall clock. True: it was asked to drain.

        A worker of the same name that started at another time is another: what it was asked is forgotten."""
        ...

    async def deregister(self, worker: str) -> None:
        """Forget a worker that has ended. Idempotent."""
        ...

    async def list_workers(self) -> list[WorkerInfo]:
        """The workers that registered within `limits.WORKER_SEEN` seconds, by name."""
        ...

    async def request_drain(self, worker: str) -> None:
        """Ask the worker to drain: it learns of it when it registers next. Idempotent.

        Raises `UsageError` (``unknown_worker``) for one that `list_workers` does not name."""
        ...


class Store(Protocol):
    """A place that offers the four ports. An async context manager; entering opens it, leaving closes it."""

    @property
    def logs(self) -> LogStore: ...

    @property
    def runs(self) -> RunStore: ...

    @property
    def queue(self) -> WorkQueue: ...

    @property
    def workers(self) -> WorkerRegistry: ...

    @property
    def durability(self) -> Durability: ...

    @property
    def waits(self) -> bool:
        """True: its calls take time, so that two are better made at once than one after the other."""
        ...

    async def sweep(self) -> SweepReport:
        """Put back open runs that no queue holds, drop ended runs whose retention has passed (`Meta.retention`, else
        the store's own). Bounded work a call.

        An orphan whose last chunk is older than `limits.IDLE_OPEN` is not run anew but ended with `run_lost`."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...


def closing(chunk: Chunk[Any]) -> Commit:
    """The commit of a log's last chunk, `complete` or `error`: the end, the run's state, and its error."""
    error = None if chunk.type == "complete" else chunk.error or ErrorInfo("run_failed", "")
    return Commit(state=state_of(attempted=True, error=error, ended=True), error=error)


def message_producer(sender: str, id: str) -> ProducerSeq:
    """The identity of an inbox's message, so that each (sender, id) is stored once."""
    return ProducerSeq(f"{sender}\0{id}")


class Survey(msgspec.Struct, frozen=True):
    """What a store's `server` is, in words, and `cautions`: how it is set up to lose what its user may want to keep."""

    server: str
    cautions: tuple[str, ...] = ()


@runtime_checkable
class Surveyed(Protocol):
    """A store whose server can be looked at."""

    async def survey(self) -> Survey: ...


class Transport(Protocol):
    """A client's way to runs: a store in this process, or a server. Errors are those of the four ports.

    Belongs to the event loop in which it is first used: every call in another one raises `UsageError`."""

    def check_loop(self) -> None:
        """Raise `UsageError` in any other event loop than that in which this was first called."""
        ...

    async def start(self, start: Start) -> Head:
        """Start a run. Idempotent by `start.run`; `Conflict` when that id is taken by another request.

        Raises `UnknownProducer` and `InvalidInput` where the producers are known.
        """
        ...

    async def head(self, run: str, *, full: bool = True) -> Head: ...

    async def list_runs(
        self, filter: RunFilter = ALL_RUNS, *, limit: int = 100, before: str | None = None
    ) -> list[Head]: ...

    async def actors(self) -> list[ActorInfo]: ...

    def follow(
        self,
        run: str,
        after: Cursor | None = None,
        *,
        attach: bool = True,
        sink: InlineSink | None = None,
        limit_bytes: int | None = None,
    ) -> AsyncGenerator[Page, None]:
        """Non-empty pages from `after` to the log's end, as they come, over reconnects and outages of the store.

        A caller that leaves before the end closes it. Every page continues the one before; raises `CursorExpired` or
        `LogNotFound`. A run with `ahead` waits for this reader, unless `attach` is False: then the caller commits its
        positions itself. While it is waited for, pages may be delivered to `sink` instead.

        A page holds at most `limit_bytes` of payload (None: `limits.PAGE_BYTES`), but at least one chunk.
        """
        ...

    async def read(self, run: str, after: Cursor | None, *, limit: int, wait: float) -> Page: ...

    async def send(self, run: str, message: Message[Any]) -> None:
        """Durable when it returns. Idempotent by the message's sender and id."""
        ...

    async def cancel(self, run: str) -> None:
        """Ask for the run's end; durable when it returns; confirmed by the `error{cancelled}` chunk. Idempotent; of an
        ended run it does nothing."""
        ...

    async def retry(self, run: str, *, id: str) -> Head:
        """Start an ended run anew, as run `id`: the same actor, input, key, queue and options, without a delay and
        without an owner; its `retry_of` names this one. Idempotent by `id`.

        Raises `Conflict` when the run has not ended, and for an id that another start has taken.
        """
        ...

    async def list_entries(
        self, *, queue: str | None = None, place: Place | None = None, limit: int = 100
    ) -> list[Entry]: ...

    async def list_workers(self) -> list[WorkerInfo]: ...

    async def request_drain(self, worker: str) -> None: ...

    async def heartbeat(self, run: str) -> None:
        """The owner's heartbeat of an owned run."""
        ...

    async def commit_position(self, run: str, reader: str, seq: int | None) -> None:
        """Reader `reader` of a run with `ahead` has read through `seq`, and is alive; None: it has left. Idempotent; of
        a run without `ahead`, or ended, it does nothing. Raises `LimitExceeded` beyond `limits.READERS`."""
        ...

    async def aclose(self) -> None: ...

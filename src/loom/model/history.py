"""What a store decides about one log, as functions of values: cursors, appends, epochs, pages.

Every store asks these, so that all decide alike; how the facts are kept is the store's own business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from . import limits
from .chunk import Batch, Page
from .cursor import Cursor, attempt_of, cursor_at, make_epoch
from .errors import Conflict, CursorExpired, Damaged, Fenced, LimitExceeded, LogEnded, UsageError
from .ports import JSON_LINES, LogSpec, ProducerSeq

__all__ = [
    "Epochs",
    "add_epoch",
    "check_repeat",
    "check_room",
    "check_single",
    "continues",
    "cut",
    "expired",
    "is_repeat",
    "newest",
    "next_epoch",
    "page_of",
    "record_batch",
    "split",
    "start_after",
    "written",
]

Epochs = Sequence[tuple[int, int]]
"""A head's list of (epoch, its first seq), in order."""


# --- epochs ----------------------------------------------------------------------------------------------------------


def newest(epochs: Epochs) -> int:
    """The epoch that may append; -1, which no batch carries, before the first."""
    return epochs[-1][0] if epochs else -1


def next_epoch(epochs: Epochs, random_digits: int) -> int:
    """The epoch that a fence draws: of the attempt after the newest."""
    return make_epoch(attempt_of(epochs[-1][0]) + 1 if epochs else 1, random_digits)


def add_epoch(epochs: Epochs, epoch: int, tail: int) -> tuple[tuple[int, int], ...]:
    """The list after a fence. An epoch that wrote nothing leaves it: no cursor can name it, so the list stays short."""
    return (*(known for known in epochs if known[1] <= tail), (epoch, tail + 1))


def written(epoch: int, epochs: Epochs, tail: int) -> range:
    """The seqs that `epoch` wrote; empty for an epoch that is unknown here."""
    end = tail + 1
    for known, first in reversed(epochs):
        if known == epoch:
            return range(first, end)
        end = first
    return range(0)


# --- appending -------------------------------------------------------------------------------------------------------


def continues(batch: Batch, *, epoch: int, tail: int, ended: bool) -> bool:
    """Whether `batch` is to be added: of the newest epoch, right behind the tail, in an open log."""
    return batch.epoch == epoch and batch.first == tail + 1 and not ended


def check_repeat(batch: Batch, *, end: bool, epoch: int, ended: bool, last: Batch | None) -> None:
    """Return if `batch`, which does not continue the log, is the `last` one stored, sent again: that is success.

    Raises `Fenced` (first of all: who lost the right to append learns it, whatever he sends), `LogEnded`, `Conflict`.
    """
    if batch.epoch != epoch:
        raise Fenced(f"epoch {batch.epoch} may not append: the newest is {epoch}")
    if batch == last and end == ended:
        return
    if ended:
        raise LogEnded("the log has ended")
    tail = last.last if last else 0
    raise Conflict(f"a batch from seq {batch.first} does not continue the log, whose tail is {tail}")


def check_single(log: str, spec: LogSpec, batch: Batch | None = None) -> None:
    """Raise `UsageError` where `fence`, or `append` of `batch`, does not suit the log."""
    if spec.policy != "single":
        raise UsageError(f"log {log!r} takes records of many writers, by `send`: it has no epochs to write as")
    if batch is not None and spec.content_type != JSON_LINES and len(batch) != 1:
        raise UsageError(f"log {log!r} holds opaque records: a batch is one of them, not {len(batch)}")


# --- sending ---------------------------------------------------------------------------------------------------------


def record_batch(log: str, spec: LogSpec, epoch: int, seq: int, record: bytes) -> Batch:
    """The batch of one record that is sent. Raises `UsageError` where the log does not take it."""
    if spec.policy != "many":
        raise UsageError(f"log {log!r} has one writer, by `fence` and `append`: nothing is sent to it")
    if spec.content_type != JSON_LINES:
        return Batch(epoch, seq, seq, record)
    if b"\n" in record:
        raise UsageError(f"log {log!r} holds lines of JSON: a record holds no line end")
    return Batch(epoch, seq, seq, record + b"\n")


def is_repeat(known: ProducerSeq | None, sent: ProducerSeq) -> bool:
    """True if the record is there already, by the newest one that is `known` of its producer; False: it is the next.

    Raises `Fenced` for an older epoch, and `Conflict` for a seq that is not the next of its epoch."""
    expected = 0
    if known is not None:
        if sent.epoch < known.epoch:
            raise Fenced(f"producer {sent.producer!r} writes as epoch {known.epoch} now, not as {sent.epoch}")
        if sent.epoch == known.epoch:
            expected = known.seq + 1
    if sent.seq > expected:
        raise Conflict(
            f"producer {sent.producer!r} sent record {sent.seq}, but {expected} is the next",
            details={"expected": expected},
        )
    return sent.seq < expected


def check_room(spec: LogSpec, size: int, *, records: int, stored: int) -> None:
    """Raise `LimitExceeded` for a payload of `size` bytes that a log of so many records and bytes has no room for."""
    if spec.max_records is not None and records >= spec.max_records:
        raise LimitExceeded(f"the log is full: {records} records", retryable=False)
    if spec.max_bytes is not None and stored + size > spec.max_bytes:
        raise LimitExceeded(
            f"the log has no room for {size} bytes: it holds {stored} of {spec.max_bytes}", retryable=False
        )


# --- reading ---------------------------------------------------------------------------------------------------------


def start_after(after: Cursor | None, *, epochs: Epochs, first: int, tail: int) -> int:
    """The seq of the first chunk behind `after` (None: 1), which may be `tail` + 1.

    Raises `CursorExpired` when the cursor's epoch is unknown, did not write its seq, or what follows was trimmed
    (lies below `first`, the first seq that is kept).
    """
    if after is None:
        start = 1
    elif after.seq in written(after.epoch, epochs, tail):
        start = after.seq + 1
    else:
        raise expired(epochs, first)
    if start < first:
        raise expired(epochs, first)
    return start


def expired(epochs: Epochs, first: int) -> CursorExpired:
    """The error, with the cursor to begin from: its text, or None for the beginning."""
    earliest = cursor_at(epochs, first - 1)
    return CursorExpired(
        "the history at this cursor is gone", details={"earliest": None if earliest is None else str(earliest)}
    )


def page_of(
    batches: Iterable[Batch],
    start: int,
    *,
    after: Cursor | None,
    tail: int,
    ended: bool,
    limit: int,
    limit_bytes: int = limits.PAGE_BYTES,
) -> Page:
    """The page from record `start` on, of consecutive `batches` of which the first holds it (none: nothing there).

    `tail` and `ended` are the log's, of the same moment as `batches`, which are taken one by one as needed.
    """
    taken = cut(batches, start, limit, min(limit_bytes, limits.PAGE_BYTES))
    caught_up = (taken[-1].last if taken else start - 1) >= tail
    return Page(tuple(taken), taken[-1].cursor if taken else after, caught_up, ended and caught_up)


def cut(batches: Iterable[Batch], start: int, limit: int, most_bytes: int = limits.PAGE_BYTES) -> list[Batch]:
    """The part of `batches` that fits into one page from record `start` on.

    At most `limit` records (1 to `limits.READ_LIMIT`) and `most_bytes`, but one record always fits. Raises `Damaged`
    where they do not continue each other.
    """
    taken: list[Batch] = []
    end = start + min(max(limit, 1), limits.READ_LIMIT)
    for batch in batches:
        if not batch.first <= start <= batch.last:  # a gap is never passed over
            raise Damaged(f"the log is damaged: chunk {start} is missing", details={"seq": start})
        part = batch if batch.first == start and batch.last < end else batch.slice(start, min(batch.last, end - 1))
        size = len(part.payload)
        if size > most_bytes:
            if not taken:
                taken.append(next(_parts(part, most_bytes)))
            break
        taken.append(part)
        most_bytes -= size
        start = part.last + 1
        if start == end:
            break
    return taken


def split(page: Page, limit_bytes: int) -> Sequence[Page]:
    """The pages that make up `page`, of at most `limit_bytes` of payload each, but of one record at least."""
    if page.size <= limit_bytes or not page.batches:
        return (page,)
    taken: list[list[Batch]] = [[]]
    room = limit_bytes
    for part in (part for batch in page.batches for part in _parts(batch, limit_bytes)):
        if taken[-1] and len(part.payload) > room:
            taken.append([])
            room = limit_bytes
        taken[-1].append(part)
        room -= len(part.payload)
    pages = [Page(tuple(parts), parts[-1].cursor, False, False) for parts in taken]
    pages[-1] = Page(pages[-1].batches, page.cursor, page.caught_up, page.ended)
    return pages


def _parts(batch: Batch, most_bytes: int) -> Iterator[Batch]:
    """The records of `batch`, as many in each part as fit into `most_bytes`, at least one."""
    if len(batch) == 1:  # an opaque record's line ends mean nothing
        yield batch
        return
    payload, start, first = batch.payload, 0, batch.first
    while start < len(payload):
        end = payload.rfind(b"\n", start, start + max(most_bytes, 0)) + 1 or payload.index(b"\n", start) + 1
        last = first + payload.count(b"\n", start, end) - 1
        yield Batch(batch.epoch, first, last, payload[start:end])
        start, first = end, last + 1

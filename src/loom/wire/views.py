"""A run and an error as the HTTP interface shows them: the JSON that server and HTTP client share."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from loom.model import limits
from loom.model.errors import ErrorInfo
from loom.model.priority import Priority
from loom.model.run import ID_PATTERN, ActorInfo, Entry, Head, Meta, RunState, WorkerInfo

from .json import encode

__all__ = [
    "Accepted",
    "ActorList",
    "ChunkView",
    "EntryList",
    "ErrorBody",
    "InboxBody",
    "MarkBody",
    "PageView",
    "RetryBody",
    "RunList",
    "RunView",
    "StartBody",
    "Status",
    "StreamBody",
    "WorkerList",
    "error_body",
    "head_of",
    "view_of",
]


Seconds = Annotated[float, msgspec.Meta(gt=0)]
Delay = Annotated[float, msgspec.Meta(ge=0, le=limits.DELAY)]
Kept = Annotated[float, msgspec.Meta(ge=0)]
_MOST = 10**18 - 1  # what a cursor can say, and every store can keep
Count = Annotated[int, msgspec.Meta(gt=0, le=_MOST)]
Id = Annotated[
    str,  # told here, checked with better words by `check_id`
    msgspec.Meta(extra_json_schema={"pattern": f"^{ID_PATTERN}$", "maxLength": limits.ID_LENGTH}),
]


class ErrorBody(msgspec.Struct, frozen=True):
    """Every error answer: ``{"error": {code, message, retryable, details}}``."""

    error: ErrorInfo


def error_body(error: ErrorInfo) -> bytes:
    """The JSON of an error answer, with every field: nobody must know which are left out when."""
    fields = {name: getattr(error, name) for name in ErrorInfo.__struct_fields__}
    return encode({"error": fields})


class StartBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of ``POST /runs``. Times in seconds. What the actor may declare (`DECLARABLE`) counts as it declares it
    when it is left out; null is no time-out, no bound, the store's own retention."""

    actor: Id
    input: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    id: Id | None = None
    key: Id | None = None
    queue: Id | UnsetType = UNSET
    timeout: Seconds | UnsetType | None = UNSET
    idle_timeout: Seconds | UnsetType | None = UNSET
    ahead: Count | UnsetType | None = UNSET
    priority: Priority | UnsetType = UNSET
    delay: Delay | None = None
    """No worker gets the run before so many seconds have passed."""
    retention: Kept | UnsetType | None = UNSET
    owner_lease: Seconds | None = None
    """Owned: cancelled unless ``POST /runs/{id}/renew`` comes at least this often."""


class StreamBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of ``POST /actors/{name}/stream``: as `StartBody`, the actor being named by the path."""

    input: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    id: Id | None = None
    key: Id | None = None
    queue: Id | UnsetType = UNSET
    timeout: Seconds | UnsetType | None = UNSET
    idle_timeout: Seconds | UnsetType | None = UNSET
    ahead: Count | UnsetType | None = UNSET
    priority: Priority | UnsetType = UNSET
    retention: Kept | UnsetType | None = UNSET


class RetryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of ``POST /runs/{id}/retry``, which may be left out: the new run's id."""

    id: Id | None = None


class InboxBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of ``POST /runs/{id}/inbox``. The same `sender` and `id` again is the same message."""

    type: Id
    data: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    id: Id | None = None
    sender: Id = "http"


class MarkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /runs/{id}/readers/{reader}``: all up to chunk `seq` is read; null: the reader has left."""

    seq: Annotated[int, msgspec.Meta(ge=0, le=_MOST)] | None


class Accepted(msgspec.Struct, frozen=True):
    """The answer to what was accepted and is confirmed later: the id of the message, or of the run to be cancelled."""

    id: str


class Status(msgspec.Struct, frozen=True):
    """The answer to a probe."""

    status: str


class ActorList(msgspec.Struct, frozen=True):
    """What can be run, by name."""

    actors: list[ActorInfo]


class EntryList(msgspec.Struct, frozen=True):
    """What the queue holds, in the order of putting."""

    entries: list[Entry]


class WorkerList(msgspec.Struct, frozen=True):
    """The workers that told of themselves lately, by name."""

    workers: list[WorkerInfo]


class RunView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run, as ``GET /runs/{id}`` shows it. Times in Unix seconds, cursors as text."""

    id: str
    actor: str
    state: RunState
    attempt: int
    input: msgspec.Raw | UnsetType = UNSET  # with None, Raw would not be decoded
    key: str | None = None
    queue: str = "default"
    created: float
    started: float | None = None
    ended: float | None = None
    chunks: int
    """The last chunk's seq."""
    first: int = 1
    earliest: str | None = None
    """Where a reader of all that is kept begins (absent: at the beginning)."""
    latest: str | None = None
    """Where a reader of only what comes next begins (absent: at the beginning)."""
    epochs: list[tuple[int, int]] = []
    error: ErrorInfo | None = None
    result: msgspec.Raw | UnsetType = UNSET
    timeout: float | None = None
    idle_timeout: float | None = None
    ahead: int | None = None
    retention: float | None = None
    owner_lease: float | None = None
    priority: Priority = "normal"
    not_before: float | None = None
    retry_of: str | None = None
    """The run that this one was started from anew."""
    assumed: list[str] = []
    """Options that were left to the actor's declaration by who did not know it: they have their defaults."""


class RunList(msgspec.Struct, frozen=True, omit_defaults=True):
    """Runs, newest first; `next` is the `before` of the following page, absent on the last."""

    runs: list[RunView]
    next: str | None = None


class ChunkView(msgspec.Struct, frozen=True):
    """One chunk of a JSON page, with the cursor behind it."""

    cursor: str
    chunk: msgspec.Raw


class PageView(msgspec.Struct, frozen=True, kw_only=True):
    """One page of ``GET /runs/{id}/chunks``. `cursor` is where to read on (null: at the beginning)."""

    chunks: list[ChunkView]
    cursor: str | None = None
    caught_up: bool = False
    ended: bool = False


def view_of(head: Head, *, full: bool = True) -> RunView:
    """The view of a head; without input and result unless `full`."""
    meta = head.meta
    return RunView(
        id=meta.run,
        actor=meta.actor,
        state=head.state,
        attempt=head.attempt,
        input=meta.input if full else UNSET,
        key=meta.key,
        queue=meta.queue,
        created=meta.created,
        started=head.started,
        ended=head.ended_at,
        chunks=head.tail,
        first=head.first,
        earliest=_text(head.earliest),
        latest=_text(head.latest),
        epochs=list(head.epochs),
        error=head.error,
        result=head.result if full and head.result is not None else UNSET,
        timeout=meta.timeout,
        idle_timeout=meta.idle_timeout,
        ahead=meta.ahead,
        retention=meta.retention,
        owner_lease=meta.owner_lease,
        priority=meta.priority,
        not_before=meta.not_before,
        retry_of=meta.retry_of,
        assumed=list(meta.assumed),
    )


def head_of(view: RunView) -> Head:
    """The head that `view` shows."""
    meta = Meta(
        run=view.id,
        actor=view.actor,
        input=msgspec.Raw(b"null") if view.input is UNSET else view.input,
        queue=view.queue,
        key=view.key,
        created=view.created,
        owner_lease=view.owner_lease,
        timeout=view.timeout,
        idle_timeout=view.idle_timeout,
        ahead=view.ahead,
        priority=view.priority,
        not_before=view.not_before,
        retry_of=view.retry_of,
        retention=view.retention,
        assumed=tuple(view.assumed),
    )
    return Head(
        meta=meta,
        epochs=tuple(view.epochs),
        first=view.first,
        tail=view.chunks,
        ended=view.state not in ("queued", "running"),
        state=view.state,
        error=view.error,
        result=None if view.result is UNSET else view.result,
        started=view.started,
        ended_at=view.ended,
    )


def _text(cursor: Any) -> str | None:
    return None if cursor is None else str(cursor)

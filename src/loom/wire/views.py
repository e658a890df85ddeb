"""A run and an error as the HTTP interface shows them: the JSON that server and HTTP client share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, TypeVar, cast

import msgspec
from msgspec import UNSET, UnsetType

from loom.model.errors import ErrorInfo
from loom.model.names import Id
from loom.model.options import OPTIONS, Option, Options, SettledOptions
from loom.model.run import NO_INPUT, ActorInfo, Entry, Head, Meta, RunState, WorkerInfo

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


T = TypeVar("T", bound=msgspec.Struct)

_MOST = 10**18 - 1  # what a cursor can say, and every store can keep


class ErrorBody(msgspec.Struct, frozen=True):
    """Every error answer: ``{"error": {code, message, retryable, details}}``."""

    error: ErrorInfo


def error_body(error: ErrorInfo) -> bytes:
    """The JSON of an error answer, with every field: nobody must know which are left out when."""
    fields = {name: getattr(error, name) for name in ErrorInfo.__struct_fields__}
    return encode({"error": fields})


class InputBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The fields of `StartBody` and `StreamBody` besides the options, each of which is a field, too."""

    input: msgspec.Raw = msgspec.field(default_factory=lambda: NO_INPUT)  # its schema has no default

    def options(self) -> Options:
        """The options that are given. Raises `InvalidInput`."""
        return Options.of({name: getattr(self, name) for name in OPTIONS if hasattr(self, name)})


class _StartBody(InputBody, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    actor: Id
    owner_lease: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Owned: cancelled unless ``POST /runs/{id}/renew`` comes at least this often."""


def _body(name: str, base: type[T], doc: str, *, without: Collection[str] = ()) -> type[T]:
    """The body of a start, with a field for each option but `without`."""
    fields = [(name, _field(option), UNSET) for name, option in OPTIONS.items() if name not in without]
    made = msgspec.defstruct(
        name, fields, bases=(base,), namespace={"__doc__": doc}, module=__name__,
        frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True,
    )  # fmt: skip
    return cast("type[T]", made)


def _field(option: Option) -> Any:
    kind: Any = option.kind.json
    described: Any = Annotated[kind, msgspec.Meta(description=option.doc)]
    return described | UnsetType | None if option.none else described | UnsetType


StartBody = _body(
    "StartBody", _StartBody,
    "The body of ``POST /runs``. Times in seconds. What the actor may declare counts as it declares it when it is left"
    " out; null is no key, no time-out, no bound, no labels, the store's own retention.",
)  # fmt: skip
StreamBody = _body(
    "StreamBody", InputBody,
    "The body of ``POST /actors/{name}/stream``: as `StartBody`, the actor being named by the path.",
    without=("delay",),
)  # fmt: skip


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


class RunView(SettledOptions, frozen=True, omit_defaults=True):
    """A run, as ``GET /runs/{id}`` shows it, with its options. Times in Unix seconds, cursors as text."""

    id: str
    actor: str
    state: RunState
    attempt: int
    created: float
    chunks: int
    """The last chunk's seq."""
    input: msgspec.Raw | UnsetType = UNSET  # with None, Raw would not be decoded
    started: float | None = None
    ended: float | None = None
    first: int = 1
    earliest: str | None = None
    """Where a reader of all that is kept begins (absent: at the beginning)."""
    latest: str | None = None
    """Where a reader of only what comes next begins (absent: at the beginning)."""
    epochs: list[tuple[int, int]] = []
    error: ErrorInfo | None = None
    result: msgspec.Raw | UnsetType = UNSET
    owner_lease: float | None = None
    not_before: float | None = None
    retry_of: str | None = None
    """The run that this one was started from anew."""
    parent: str | None = None
    """The run that started this one."""
    root: str | None = None
    """The first of its line of parents."""
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
        owner_lease=meta.owner_lease,
        not_before=meta.not_before,
        retry_of=meta.retry_of,
        parent=meta.parent,
        root=meta.root,
        assumed=list(meta.assumed),
        **meta.settled(),
    )


def head_of(view: RunView) -> Head:
    """The head that `view` shows."""
    meta = Meta(
        run=view.id,
        actor=view.actor,
        input=NO_INPUT if view.input is UNSET else view.input,
        created=view.created,
        owner_lease=view.owner_lease,
        not_before=view.not_before,
        retry_of=view.retry_of,
        parent=view.parent,
        root=view.root,
        assumed=tuple(view.assumed),
        **view.settled(),
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

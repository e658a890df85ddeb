"""What is known of a run besides its chunks: how it was started, its head, a worker's claim on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import msgspec
from msgspec.structs import fields

from . import limits
from .cursor import Cursor, attempt_of, cursor_at
from .errors import DEAD, ErrorInfo
from .names import PUBLISHED
from .options import Options, SettledOptions
from .priority import Priority

__all__ = [
    "ALL_RUNS",
    "NO_INPUT",
    "ActorInfo",
    "Claim",
    "Entry",
    "Head",
    "Mark",
    "Meta",
    "Place",
    "RunFilter",
    "RunState",
    "Start",
    "WorkerInfo",
    "inbox_of",
    "run_of",
    "state_of",
]

RunState = Literal["queued", "running", "completed", "failed", "cancelled", "lost", "dead"]
"""Where a run is. `queued`: no attempt was made yet. From `completed` on they are for ever. `dead`, a dead letter: it
was tried as often as it may be, and failed or lost its worker each time."""

Place = Literal["ready", "behind", "delayed", "leased"]
"""Where an entry of the queue is: claimable, behind an earlier one of its key, waiting for its time, claimed."""

_INBOX = "/in"

NO_INPUT = msgspec.Raw(b"null")
"""The input of a run that was given none, and of every head that leaves inputs out (as in lists)."""

_SHOWN = 80
"""Characters of encoded JSON in a repr."""


def inbox_of(run: str) -> str:
    """The log that holds what the run was told. The run's own id names the outbox."""
    return run + _INBOX


def run_of(log: str) -> str:
    """The run that a log (its outbox or inbox) belongs to."""
    return log.removesuffix(_INBOX)


def _shown(struct: msgspec.Struct) -> str:
    """As msgspec writes it, with the beginning of the JSON for what is encoded."""
    told = {field.name: getattr(struct, field.name) for field in fields(struct)}
    usual = {field.name: {} if field.default_factory is dict else field.default for field in fields(struct)}
    parts = [f"{name}={_json(value)}" for name, value in told.items() if value != usual[name]]
    return f"{type(struct).__name__}({', '.join(parts)})"


def _json(value: object) -> str:
    if not isinstance(value, msgspec.Raw):
        return repr(value)
    text = bytes(value).decode(errors="replace")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is asked for: what a client hands its transport, which makes a `Meta` of it."""

    run: str
    actor: str
    input: msgspec.Raw = NO_INPUT
    canonical: bool = False
    """`input` is in its canonical form; else it is JSON that nobody has read yet."""
    options: Options = Options()
    owner_lease: float | None = None
    producer: Any = None
    """The registered function, where the caller has it: it has checked the input, and `options` holds what it declares.
    Who knows the actor by the same function checks nothing again."""


class Meta(SettledOptions, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """How a run was started: fixed at creation, stored with its log and its queue entry alike.

    `input` is canonical JSON (keys sorted). `created` is in Unix seconds; all durations in seconds.
    """

    run: str
    actor: str
    input: msgspec.Raw = NO_INPUT
    created: float = 0.0
    owner_lease: float | None = None
    """An owned run is cancelled when its owner's heartbeat (`RunStore.heartbeat`) stands still for this long."""
    not_before: float | None = None
    """In Unix seconds: no worker gets the run before, by the store's clock."""
    retry_of: str | None = None
    """The ended run that this one was started from anew."""
    parent: str | None = None
    """The run that started this one, through `ctx.client`."""
    root: str | None = None
    """The first of its line of parents; None: it has no parent, and is the root itself."""
    assumed: tuple[str, ...] = ()
    """Those of `options.DECLARABLE` that the start left open. Where the actor is known, its declaration replaces them,
    and this is empty; else they keep their defaults."""

    def __repr__(self) -> str:
        return _shown(self)

    @property
    def published(self) -> bool:
        """Whether a publisher writes it, outside any producer."""
        return self.queue == PUBLISHED

    def kept_for(self, default: float | None) -> float | None:
        """Seconds that the run is kept after its end: its own retention, else the store's `default` (None: for ever);
        never less than `limits.LEAST_RETENTION`."""
        retention = default if self.retention is None else self.retention
        return None if retention is None else max(retention, limits.LEAST_RETENTION)

    def same_request(self, other: Meta) -> bool:
        """Whether both ask for the same: actor, key and input (G: starting twice is starting once)."""
        return (self.actor, self.key, bytes(self.input)) == (other.actor, other.key, bytes(other.input))


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """What a store knows of an outbox without reading it. `meta.input` and `result` are left out in lists, and wherever
    a head is not asked for as `full`.

    `epochs` are (epoch, its first seq), in order; chunks of an epoch reach to the next epoch's first seq - 1.
    `first` is the first seq still kept (1 if nothing was trimmed), `tail` the last one (0 if empty).
    """

    meta: Meta
    epochs: tuple[tuple[int, int], ...] = ()
    first: int = 1
    tail: int = 0
    ended: bool = False
    state: RunState = "queued"
    error: ErrorInfo | None = None
    result: msgspec.Raw | None = None
    """The `complete` chunk's data; None also where the head is not `full`."""
    started: float | None = None
    ended_at: float | None = None
    beat: int = 0
    """The owner's heartbeat: a counter."""
    heard: float | None = None
    """When the owner was last heard of, by the store's wall clock; None: not since the start, or lists leave it out."""

    def __repr__(self) -> str:
        return _shown(self)

    @property
    def attempt(self) -> int:
        """The newest attempt's number; 0 before the first."""
        return attempt_of(self.epochs[-1][0]) if self.epochs else 0

    def cursor_at(self, seq: int) -> Cursor | None:
        """The cursor behind chunk `seq` (None for 0, the beginning)."""
        return cursor_at(self.epochs, seq)

    @property
    def earliest(self) -> Cursor | None:
        """Where a reader of everything that is kept begins: None unless the log was trimmed."""
        return self.cursor_at(self.first - 1)

    @property
    def latest(self) -> Cursor | None:
        """Where a reader of only what comes next begins."""
        return self.cursor_at(self.tail)


def state_of(*, attempted: bool, error: ErrorInfo | None, ended: bool) -> RunState:
    """A run's state from its head's facts."""
    if not ended:
        return "running" if attempted else "queued"
    if error is None:
        return "completed"
    if error.details.get(DEAD) is True:
        return "dead"
    return {"cancelled": "cancelled", "run_lost": "lost"}.get(error.code, "failed")  # type: ignore[return-value]


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of a list: those that match every field that is given. Each field is indexed, in every store."""

    state: RunState | None = None
    actor: str | None = None
    labels: Mapping[str, str] = {}
    """All of them, perhaps among others."""
    parent: str | None = None
    """The run that started it."""
    root: str | None = None
    """The first of its line of parents; the root itself has none, and is not matched."""

    @classmethod
    def of(cls, meta: Meta, state: RunState | None = None) -> Self:
        """The narrowest filter that a run matches; its state, which changes, only if it is given."""
        return cls(state=state, actor=meta.actor, labels=meta.labels, parent=meta.parent, root=meta.root)

    @property
    def columns(self) -> dict[str, str]:
        """The fields that are given, by name, but for the labels."""
        named = {"state": self.state, "actor": self.actor, "parent": self.parent, "root": self.root}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def terms(self) -> list[tuple[str, ...]]:
        """The fields that are given, each by itself: ("state", "running"), ("label", "user", "42")."""
        return [*self.columns.items(), *[("label", *item) for item in self.labels.items()]]

    def matches(self, head: Head) -> bool:
        """True if the run of `head` belongs to the list."""
        return set(self.terms) <= set(RunFilter.of(head.meta, head.state).terms)


ALL_RUNS = RunFilter()
"""No field is given: every run matches."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's right to drive a run, until its lease lapses. `number` grows with each claim of the run."""

    meta: Meta
    worker: str
    number: int
    crashes: int = 0
    """How many claims of this run lapsed (hand-overs are not counted)."""

    @property
    def run(self) -> str:
        return self.meta.run


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An open run as the queue holds it, and where it is."""

    run: str
    actor: str
    queue: str
    key: str | None = None
    priority: Priority = "normal"
    place: Place
    worker: str | None = None
    """Who has claimed it."""
    number: int = 0
    """Its newest claim's; 0: there was none yet."""
    crashes: int = 0
    created: float = 0.0
    not_before: float | None = None


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker, as it last told of itself. By its `actors` others know which runs to leave to it; the rest is
    information only. Times in Unix seconds."""

    name: str
    host: str = ""
    pid: int = 0
    queues: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    """The names of those that it can drive."""
    concurrency: int = 0
    running: int = 0
    started: float = 0.0
    seen: float = 0.0
    """When it last told, by the store's clock."""
    draining: bool = False
    """It takes nothing new, or was asked to."""


class Mark(msgspec.Struct, frozen=True):
    """How far an attached reader of an `ahead` run has read; `beat` is its heartbeat: another number with each mark, in
    milliseconds of the store's clock."""

    reader: str
    seq: int
    beat: int


class ActorInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is told of a registered producer: its name, first docstring line and input's JSON Schema."""

    name: str
    description: str = ""
    kind: str = "actor"
    input_schema: dict[str, Any] = {}

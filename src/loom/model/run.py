"""What is known of a run besides its chunks: how it was started, its head, a worker's claim on it."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec
from msgspec.structs import fields

from . import limits
from .cursor import Cursor, attempt_of, cursor_at
from .errors import DEAD, ErrorInfo, InvalidInput
from .priority import Priority

__all__ = [
    "DECLARABLE",
    "DEFAULT_QUEUE",
    "ID_PATTERN",
    "NO_INPUT",
    "PRIVATE",
    "PUBLISHED",
    "ActorInfo",
    "Claim",
    "Entry",
    "Head",
    "Mark",
    "Meta",
    "Place",
    "RunState",
    "WorkerInfo",
    "check_id",
    "inbox_of",
    "run_of",
    "state_of",
]

RunState = Literal["queued", "running", "completed", "failed", "cancelled", "lost", "dead"]
"""Where a run is. `queued`: no attempt was made yet. From `completed` on they are for ever. `dead`, a dead letter: it
was tried as often as it may be, and failed or lost its worker each time."""

Place = Literal["ready", "behind", "delayed", "leased"]
"""Where an entry of the queue is: claimable, behind an earlier one of its key, waiting for its time, claimed."""

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.:@~-]*"
"""What an id, an actor's name, a key looks like: it stands in URLs and log lines as it is."""

PRIVATE = "cli."
"""A queue whose name begins so is one command's own: it drives its user's run there, and a server puts none."""

PUBLISHED = "loom.published"
"""The queue of runs that no worker drives: a publisher holds its own entry there, and an entry that lapsed is a
publisher that died. Whoever claims one ends its run."""

DEFAULT_QUEUE = "default"
"""The queue of runs for which nobody names one."""

DECLARABLE = ("queue", "timeout", "idle_timeout", "ahead", "priority", "retention")
"""Fields of `Meta` that an actor may declare for its runs, and a start may override."""

_ID = re.compile(ID_PATTERN, re.ASCII)
_INBOX = "/in"

NO_INPUT = msgspec.Raw(b"null")
"""The input of a run that was given none, and of every head that leaves inputs out (as in lists)."""

_SHOWN = 80
"""Characters of encoded JSON in a repr."""


def check_id(text: str, field: str = "id") -> str:
    """`text`, if it may be an id, an actor's name or a queue's. Raises `InvalidInput` naming `field` otherwise."""
    if not isinstance(text, str):  # a row's number, a UUID: as text they are fine
        raise InvalidInput(f"{field}: {text!r:.80} is no text: give str(...) of it", details={"field": field})
    if len(text) > limits.ID_LENGTH or _ID.fullmatch(text) is None:
        raise InvalidInput(
            f"{field}: {text[:80]!r} is no valid name: a letter or digit, then letters, digits and _ . : @ ~ -,"
            f" at most {limits.ID_LENGTH}",
            details={"field": field},
        )
    return text


def inbox_of(run: str) -> str:
    """The log that holds what the run was told. The run's own id names the outbox."""
    return run + _INBOX


def run_of(log: str) -> str:
    """The run that a log (its outbox or inbox) belongs to."""
    return log.removesuffix(_INBOX)


def _shown(struct: msgspec.Struct) -> str:
    """As msgspec writes it, with the beginning of the JSON for what is encoded."""
    told = {field.name: getattr(struct, field.name) for field in fields(struct)}
    usual = {field.name: field.default for field in fields(struct)}
    parts = [f"{name}={_json(value)}" for name, value in told.items() if value != usual[name]]
    return f"{type(struct).__name__}({', '.join(parts)})"


def _json(value: object) -> str:
    if not isinstance(value, msgspec.Raw):
        return repr(value)
    text = bytes(value).decode(errors="replace")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


class Meta(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True, kw_only=True):
    """How a run was started: fixed at creation, stored with its log and its queue entry alike.

    `input` is canonical JSON (keys sorted). `created` is in Unix seconds; all durations in seconds.
    """

    run: str
    actor: str
    input: msgspec.Raw = NO_INPUT
    queue: str = DEFAULT_QUEUE
    key: str | None = None
    """Runs of one actor and key go one at a time, in the order they were started."""
    created: float = 0.0
    retention: float | None = None
    """How long the run is kept after its end, as it was asked for; None: the store's own time. See `kept_for`."""
    owner_lease: float | None = None
    """An owned run is cancelled when its owner's heartbeat (`RunStore.heartbeat`) stands still for this long."""
    timeout: float | None = None
    """From the first attempt's start; then the run ends with `deadline_exceeded`."""
    idle_timeout: float | None = None
    """The longest silence of the producer; then the run ends with `idle_timeout`."""
    ahead: int | None = None
    """The producer waits while it is this many chunks ahead of its slowest attached reader."""
    priority: Priority = "normal"
    not_before: float | None = None
    """In Unix seconds: no worker gets the run before, by the store's clock."""
    retry_of: str | None = None
    """The ended run that this one was started from anew."""
    labels: dict[str, str] = {}
    """What the run is found by (`RunStore.list_runs`): names and values, as {"user": "42"}."""
    parent: str | None = None
    """The run that started this one, through `ctx.client`."""
    root: str | None = None
    """The first of its line of parents; None: it has no parent, and is the root itself."""
    assumed: tuple[str, ...] = ()
    """Those of `DECLARABLE` that the start left open. Where the actor is known, its declaration replaces them, and this
    is empty; else they keep the defaults above."""

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

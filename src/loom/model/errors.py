"""Every error of Loom, by blame. The table of their codes is in `root_error`.

    LoomError
    ├── UsageError              you called us wrongly
    │   ├── UnknownProducer         no producer of that name
    │   ├── InvalidInput            the input does not fit; ``details["field"]`` names where
    │   ├── HandleClosed            a client or handle was used after it was closed
    │   └── LocalProtocolError      we were about to write what the grammar forbids
    ├── RunError                the run's result, or what was read of it, does not stand
    │   ├── RunFailed               the producer raised, or ran out of time
    │   │   └── StartOver           what was said cannot be gone on from: the next attempt takes it back
    │   ├── RunCancelled            somebody cancelled it
    │   ├── RunLost                 its worker was lost and it may not be tried again
    │   └── RunRestarted            a value that was already given was taken back
    ├── LogError
    │   ├── LogNotFound             no such run
    │   ├── LogEnded                the log has ended; nothing can be added
    │   ├── Fenced                  a newer attempt or owner took over: stop
    │   ├── Conflict                this does not continue what is stored, or the id is taken: stop
    │   └── CursorExpired           the history at the cursor is gone; ``details["earliest"]`` says where it begins now
    ├── RemoteProtocolError     the peer sent something illegal
    ├── LimitExceeded           size, rate or quota
    ├── Unauthorized            no key, a wrong one, or a foreign Host or Origin
    ├── StoreFull               the store has no room: nothing was changed
    ├── Damaged                 what is stored cannot be read; ``details`` name run and seq where they are known
    ├── OutcomeUnknown          the call may or may not have happened
    └── Unavailable             store or peer out of reach: send the same again

Errors cross boundaries as data (`ErrorInfo`) and are raised again, by code, as the same class (`revive`).
"""

from __future__ import annotations

from typing import Any

from .chunk import Chunk
from .root_error import CODES, Code, ErrorInfo, LoomError, UsageError, code_of

__all__ = [
    "CODES",
    "DEAD",
    "Code",
    "Conflict",
    "CursorExpired",
    "Damaged",
    "ErrorInfo",
    "Fenced",
    "HandleClosed",
    "InvalidInput",
    "LimitExceeded",
    "LocalProtocolError",
    "LogEnded",
    "LogError",
    "LogNotFound",
    "LoomError",
    "OutcomeUnknown",
    "RemoteProtocolError",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunLost",
    "RunRestarted",
    "StartOver",
    "StoreFull",
    "Unauthorized",
    "Unavailable",
    "UnknownProducer",
    "UsageError",
    "class_of",
    "closed",
    "code_of",
    "revive",
]


DEAD = "dead_letter"
"""In the details of the error that ends a run: true, when it was tried as often as it may be."""


class UnknownProducer(UsageError):
    """No producer of that name is registered."""

    default_code = "unknown_producer"


class InvalidInput(UsageError):
    """The input does not fit; `details["field"]` names where. Nothing ran."""

    default_code = "invalid_input"


class HandleClosed(UsageError):
    """A client or handle was used after it was closed."""

    default_code = "handle_closed"


class LocalProtocolError(UsageError):
    """We were about to write what the grammar forbids: a fault of ours or of a producer."""

    default_code = "local_protocol_error"


class RunError(LoomError):
    """The run's result, or what was read of it, does not stand. `chunk` is the error chunk, if one was read."""

    default_code = "run_failed"
    chunk: Chunk[Any] | None = None


class RunFailed(RunError):
    """The producer raised, or a time-out of the run passed."""

    default_code = "run_failed"


class StartOver(RunFailed):
    """Raised by a producer that continues (``Retry(mode="continue")``) and cannot go on from what was said: the next
    attempt takes everything back and finds nothing in `ctx.previous`. It does not count towards `Retry.attempts`.

    With nothing to take back it is a failure as any other."""

    default_code = "start_over"


class RunCancelled(RunError):
    """The run was cancelled; its producer is really gone, unless `details["abandoned"]` says otherwise."""

    default_code = "cancelled"


class RunLost(RunError):
    """The run's worker was lost and the run may not be tried again."""

    default_code = "run_lost"


class RunRestarted(RunError):
    """A new attempt took back a value that was already given."""

    default_code = "run_restarted"


class LogError(LoomError):
    """A log refused a call."""

    default_code = "log_error"


class LogNotFound(LogError):
    """There is no such run (or it was dropped by retention)."""

    default_code = "not_found"


class LogEnded(LogError):
    """The log has ended; nothing can be added."""

    default_code = "ended"


class Fenced(LogError):
    """A newer attempt or owner has taken over: stop, and write nothing more."""

    default_code = "fenced"


class Conflict(LogError):
    """What is stored differs: another batch stands there, or another run has the id. Stop."""

    default_code = "conflict"


class CursorExpired(LogError):
    """The history at the cursor is gone or was another's; `details["earliest"]` is the cursor to begin from."""

    default_code = "cursor_expired"


class RemoteProtocolError(LoomError):
    """The peer sent something illegal."""

    default_code = "protocol_error"


class LimitExceeded(LoomError):
    """Size, rate or quota; `details["retry_after"]` in seconds where waiting helps."""

    default_code = "limit_exceeded"


class Unauthorized(LoomError):
    """No key or a wrong one (401), or not allowed (403)."""

    default_code = "unauthorized"


class StoreFull(LoomError):
    """The store has no room. Nothing was changed; it goes on when there is room."""

    default_code = "store_full"


class Damaged(LoomError):
    """What is stored cannot be read: it is not what was written. `details` name `run` and `seq` where known."""

    default_code = "damaged"


class OutcomeUnknown(LoomError):
    """The call may or may not have happened."""

    default_code = "outcome_unknown"


class Unavailable(LoomError):
    """Store or peer is out of reach; the same call may succeed later."""

    default_code = "unavailable"


_CLASSES: dict[str, type[LoomError]] = {
    kind.default_code: kind for kind in list(vars().values()) if isinstance(kind, type) and issubclass(kind, LoomError)
}
"""By default code. `RunFailed` stands behind `RunError`, whose code it shares."""


def class_of(code: str) -> type[LoomError]:
    """The class of the errors of `code`."""
    return _CLASSES[code_of(code).family]


def revive(info: ErrorInfo) -> LoomError:
    """The error that `info` was, as the same class, by its code alone: no class is ever named by data."""
    return class_of(info.code)(info.message, code=info.code, retryable=info.retryable, details=info.details)


def closed() -> HandleClosed:
    """What whoever uses a client is told once it is closed."""
    return HandleClosed("this client was closed: its `connect` block has been left")

"""Every error of Loom, by blame, and the one table of their codes.

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

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec

if TYPE_CHECKING:
    from .chunk import Chunk

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
    "closed",
    "code_of",
    "revive",
]


DEAD = "dead_letter"
"""In the details of the error that ends a run: true, when it was tried as often as it may be."""


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True, repr_omit_defaults=True):
    """An error as data: what crosses every boundary, in error chunks and HTTP error bodies alike."""

    code: str
    message: str
    retryable: bool = False
    details: dict[str, Any] = {}


class LoomError(Exception):
    """The root. `code` is stable for ever; `retryable` says that the same call may succeed later."""

    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        retryable: bool | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.message = message
        self.retryable = code_of(self.code).retryable if retryable is None else retryable
        self.details: dict[str, Any] = details or {}

    @property
    def info(self) -> ErrorInfo:
        """This error as data."""
        return ErrorInfo(self.code, self.message, self.retryable, self.details)


class UsageError(LoomError):
    """You called us wrongly; nothing was changed."""

    default_code = "usage"


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


class Code(NamedTuple):
    """One row of the table: how an error of this code is shown at every boundary."""

    error: type[LoomError]
    http: int  # RFC 9110, section 15
    websocket: int  # RFC 6455, section 7.4: 1000-1015 registered, 4000-4999 private (4000 + HTTP status)
    exit: int  # sysexits.h where one fits; 128 + SIGINT for a cancel
    retryable: bool = False


CODES: dict[str, Code] = {
    "internal": Code(LoomError, 500, 1011, 70),
    "usage": Code(UsageError, 400, 4400, 64),
    "unknown_producer": Code(UnknownProducer, 404, 4404, 64),
    "unknown_worker": Code(UsageError, 404, 4404, 66),
    "invalid_input": Code(InvalidInput, 422, 4422, 65),
    "handle_closed": Code(HandleClosed, 409, 4409, 64),
    "local_protocol_error": Code(LocalProtocolError, 500, 1011, 70),
    "run_failed": Code(RunFailed, 500, 4500, 1),
    "deadline_exceeded": Code(RunFailed, 504, 4504, 1),
    "idle_timeout": Code(RunFailed, 504, 4504, 1),
    "invalid_output": Code(RunFailed, 500, 4500, 1),
    "log_full": Code(RunFailed, 500, 4500, 1),
    "start_over": Code(StartOver, 500, 4500, 1),
    "cancelled": Code(RunCancelled, 409, 4409, 130),
    "run_lost": Code(RunLost, 500, 4500, 1),
    "run_restarted": Code(RunRestarted, 409, 4409, 1),
    "log_error": Code(LogError, 500, 1011, 70),
    "not_found": Code(LogNotFound, 404, 4404, 66),
    "ended": Code(LogEnded, 409, 4409, 1),
    "fenced": Code(Fenced, 409, 4409, 75),
    "conflict": Code(Conflict, 409, 4409, 65),
    "cursor_expired": Code(CursorExpired, 410, 4410, 66),
    "protocol_error": Code(RemoteProtocolError, 400, 1002, 76),
    "not_acceptable": Code(RemoteProtocolError, 406, 4406, 76),
    "unsupported_media_type": Code(RemoteProtocolError, 415, 4415, 76),
    "route_not_found": Code(UsageError, 404, 4404, 64),
    "method_not_allowed": Code(UsageError, 405, 4405, 64),
    "request_timeout": Code(RemoteProtocolError, 408, 4408, 75, retryable=True),
    "headers_too_large": Code(LimitExceeded, 431, 4431, 65),
    "limit_exceeded": Code(LimitExceeded, 429, 4429, 75, retryable=True),
    "too_large": Code(LimitExceeded, 413, 1009, 65),
    "context_length": Code(LimitExceeded, 413, 4413, 65),
    "content_filter": Code(InvalidInput, 422, 4422, 65),
    "unauthorized": Code(Unauthorized, 401, 4401, 77),
    "forbidden": Code(Unauthorized, 403, 4403, 77),
    "store_full": Code(StoreFull, 507, 4507, 73, retryable=True),
    "damaged": Code(Damaged, 500, 1011, 74),
    "outcome_unknown": Code(OutcomeUnknown, 503, 1013, 75),
    "unavailable": Code(Unavailable, 503, 1013, 69, retryable=True),
}


def code_of(code: str) -> Code:
    """The table's row for `code`; an unknown code is a producer's own and counts as a failed run."""
    return CODES.get(code, CODES["run_failed"])


def revive(info: ErrorInfo) -> LoomError:
    """The error that `info` was, as the same class, by its code alone: no class is ever named by data."""
    return code_of(info.code).error(info.message, code=info.code, retryable=info.retryable, details=info.details)


def closed() -> HandleClosed:
    """What whoever uses a client is told once it is closed."""
    return HandleClosed("this client was closed: its `connect` block has been left")

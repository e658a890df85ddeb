"""The root of the error tree, an error as data, and the one table of their codes."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import msgspec

__all__ = ["CODES", "Code", "ErrorInfo", "LoomError", "UsageError", "code_of"]


class Code(NamedTuple):
    """One row of the table: how an error of this code is shown at every boundary."""

    family: str  # the default code of the class that such an error has
    http: int  # RFC 9110, section 15
    websocket: int  # RFC 6455, section 7.4: 1000-1015 registered, 4000-4999 private (4000 + HTTP status)
    exit: int  # sysexits.h where one fits; 128 + SIGINT for a cancel
    retryable: bool = False


CODES: dict[str, Code] = {
    "internal": Code("internal", 500, 1011, 70),
    "usage": Code("usage", 400, 4400, 64),
    "unknown_producer": Code("unknown_producer", 404, 4404, 64),
    "unknown_worker": Code("usage", 404, 4404, 66),
    "invalid_input": Code("invalid_input", 422, 4422, 65),
    "handle_closed": Code("handle_closed", 409, 4409, 64),
    "local_protocol_error": Code("local_protocol_error", 500, 1011, 70),
    "run_failed": Code("run_failed", 500, 4500, 1),
    "deadline_exceeded": Code("run_failed", 504, 4504, 1),
    "idle_timeout": Code("run_failed", 504, 4504, 1),
    "invalid_output": Code("run_failed", 500, 4500, 1),
    "log_full": Code("run_failed", 500, 4500, 1),
    "start_over": Code("start_over", 500, 4500, 1),
    "cancelled": Code("cancelled", 409, 4409, 130),
    "run_lost": Code("run_lost", 500, 4500, 1),
    "run_restarted": Code("run_restarted", 409, 4409, 1),
    "log_error": Code("log_error", 500, 1011, 70),
    "not_found": Code("not_found", 404, 4404, 66),
    "ended": Code("ended", 409, 4409, 1),
    "fenced": Code("fenced", 409, 4409, 75),
    "conflict": Code("conflict", 409, 4409, 65),
    "cursor_expired": Code("cursor_expired", 410, 4410, 66),
    "protocol_error": Code("protocol_error", 400, 1002, 76),
    "not_acceptable": Code("protocol_error", 406, 4406, 76),
    "unsupported_media_type": Code("protocol_error", 415, 4415, 76),
    "route_not_found": Code("usage", 404, 4404, 64),
    "method_not_allowed": Code("usage", 405, 4405, 64),
    "request_timeout": Code("protocol_error", 408, 4408, 75, retryable=True),
    "headers_too_large": Code("limit_exceeded", 431, 4431, 65),
    "limit_exceeded": Code("limit_exceeded", 429, 4429, 75, retryable=True),
    "too_large": Code("limit_exceeded", 413, 1009, 65),
    "context_length": Code("limit_exceeded", 413, 4413, 65),
    "content_filter": Code("invalid_input", 422, 4422, 65),
    "unauthorized": Code("unauthorized", 401, 4401, 77),
    "forbidden": Code("unauthorized", 403, 4403, 77),
    "store_full": Code("store_full", 507, 4507, 73, retryable=True),
    "damaged": Code("damaged", 500, 1011, 74),
    "outcome_unknown": Code("outcome_unknown", 503, 1013, 75),
    "unavailable": Code("unavailable", 503, 1013, 69, retryable=True),
}


def code_of(code: str) -> Code:
    """The table's row for `code`; an unknown code is a producer's own and counts as a failed run."""
    return CODES.get(code, CODES["run_failed"])


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

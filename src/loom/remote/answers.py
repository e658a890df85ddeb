"""What a server's answers mean: values, or the error that a refusal is, whoever refused. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from loom.model.errors import (
    CODES,
    ErrorInfo,
    LimitExceeded,
    LoomError,
    RemoteProtocolError,
    Unauthorized,
    Unavailable,
    code_of,
    revive,
)
from loom.wire.headers import retry_after
from loom.wire.views import ErrorBody

__all__ = ["DECODING", "decode_as", "fault_of", "is_final", "refusal"]

T = TypeVar("T")

DECODING = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are none of ours; the last: nested too deeply."""

_NOT_OFFERED = (501, 505)
_PASSING = (408, 425)  # RFC 9110, section 15.5.9; RFC 8470, section 5.2: the same request may be sent again


def decode_as(data: bytes, type: type[T], place: str) -> T:
    """An answer's body. Raises `RemoteProtocolError` naming `place`, the server."""
    try:
        return msgspec.json.decode(data, type=type)
    except DECODING as error:
        raise RemoteProtocolError(f"{place} gave an answer that is none of Loom's: {error}") from None


def is_final(error: LoomError) -> bool:
    """Whether asking the same again is of no use: all but the server's own troubles and what it calls passing."""
    return not error.retryable and code_of(error.code).http < 500


def refusal(status: int, headers: Mapping[str, str], body: bytes, place: str) -> LoomError:
    """The error that an answer of `status` is: the server's own words, or what the status says when somebody else (a
    proxy, another program) has answered. `details["retry_after"]` in seconds, where the answer says it."""
    info = _told(body)
    error = _foreign(status, headers, place) if info is None else _revived(info)
    pause = retry_after(headers)
    if pause is not None:
        error.details = {"retry_after": pause, **error.details}
    return error


def fault_of(data: bytes) -> LoomError:
    """The error that ends a stream before its run's end (`loom.wire.sse.FAULT`)."""
    info = _told(data)
    return RemoteProtocolError("the stream broke off without a reason") if info is None else _revived(info)


def _told(body: bytes) -> ErrorInfo | None:
    """The error in a body of the one form; None when it is none, or of a code that we do not know."""
    try:
        info = msgspec.json.decode(body, type=ErrorBody).error
    except DECODING:
        return None
    return info if info.code in CODES else None


def _revived(info: ErrorInfo) -> LoomError:
    """The error with a `retry_after` that is a pause, in seconds, or none: who waits need not ask what it is."""
    error = revive(info)
    if not _is_pause(error.details.get("retry_after", 0.0)):
        error.details = {name: value for name, value in error.details.items() if name != "retry_after"}
    return error


def _is_pause(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max


def _foreign(status: int, headers: Mapping[str, str], place: str) -> LoomError:
    details: dict[str, Any] = {"status": status}
    if 300 <= status < 400:
        return RemoteProtocolError(f"{place} redirects elsewhere: give the URL that it redirects to", details=details)
    if status in (401, 407):
        return Unauthorized(f"{place} asks for credentials ({status})", details=details)
    if status == 403:
        return Unauthorized(f"{place} forbids it ({status})", code="forbidden", details=details)
    if status == 413:
        return LimitExceeded(f"too large for {place} ({status})", code="too_large", details=details)
    if status == 429:
        return LimitExceeded(f"{place} is asked too often ({status})", details=details)
    if status in _PASSING or (status >= 500 and status not in _NOT_OFFERED):
        return Unavailable(f"{place} answered {status} without saying why", details=details)
    kind = headers.get("content-type", "nothing")
    return RemoteProtocolError(
        f"{place} answered {status} with {kind[:80]!r}, as no Loom server does: is the URL right?", details=details
    )

"""A producer's exception as data: small enough for lists of runs, and always sendable. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loom.model import limits
from loom.model.errors import ErrorInfo, LocalProtocolError, LoomError, RunFailed
from loom.model.grammar import check_type
from loom.wire.json import check_depth, encode

__all__ = ["bounded", "info_of", "is_of", "line_of"]

_TOLD = 10
"""Members of an exception group that are told."""


def info_of(error: BaseException) -> ErrorInfo:
    """What a run's readers are told of it. A `RunFailed` keeps its own code; another Loom error that the producer met
    is told in details, for it is not the reader's own."""
    try:
        return _info_of(error)
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # user code: an error's own attributes, which may be missing, or raise
        why = f"it cannot be described: {type(broken).__name__}"
        return ErrorInfo("run_failed", _text(f"{type(error).__qualname__} ({why})"))


def _info_of(error: BaseException) -> ErrorInfo:
    if isinstance(error, RunFailed):
        return bounded(error.info)
    if isinstance(error, LoomError):
        details = {"type": type(error).__name__, "code": _code(error.code)}
        return ErrorInfo("run_failed", line_of(error), bool(error.retryable), {**_sendable(error.details), **details})
    named: dict[str, Any] = {"type": type(error).__qualname__}
    if isinstance(error, BaseExceptionGroup):
        named["errors"] = [line_of(leaf) for _, leaf in zip(range(_TOLD), _leaves(error), strict=False)]
    return ErrorInfo("run_failed", line_of(error), False, named)


def bounded(info: ErrorInfo) -> ErrorInfo:
    """The same, as it can be sent: whatever its author put there."""
    return ErrorInfo(_code(info.code), _text(info.message), bool(info.retryable), _sendable(info.details))


def is_of(error: BaseException, types: type[Exception] | tuple[type[Exception], ...]) -> bool:
    """Whether `error` is of one of `types`; of a group, whether each of its members is."""
    try:
        return all(isinstance(one, types) for one in _leaves(error)) or isinstance(error, types)
    except KeyboardInterrupt:
        raise
    except BaseException:  # user code: a metaclass may decide what is of a type
        return False


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors that a group holds; of any other itself."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error


def line_of(error: BaseException) -> str:
    """Type and text of an error, within the bound of messages."""
    name = type(error).__qualname__
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # user code: an exception whose __str__ fails must not end more than its run
        text = f"(its text cannot be had: {type(broken).__name__})"
    return _text(f"{name}: {text}" if text else name)


def _text(message: Any) -> str:
    """A message that UTF-8 can carry, within its bound."""
    text = str(message).encode(errors="backslashreplace").decode()
    return text if len(text) <= limits.ERROR_CHARACTERS else text[: limits.ERROR_CHARACTERS - 1] + "…"


def _code(code: Any) -> str:
    """An author's own code, if it is a word as chunk types are."""
    try:
        check_type(code)
    except (LocalProtocolError, TypeError):
        return "run_failed"
    return str(code)


def _sendable(details: Any) -> dict[str, Any]:
    """An error's details, if they can be sent and are small enough; else a word on why not."""
    if not isinstance(details, dict):
        return {}
    try:
        data = encode(details)
        check_depth(data)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # user code: any object may stand in there
        return {"left_out": f"details that cannot be sent: {type(error).__name__}"}
    if len(data) > limits.ERROR_BYTES:
        return {"left_out": f"details of {len(data)} bytes"}
    return details

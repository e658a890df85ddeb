"""What is declared: of a producer and its runs, and of a worker. Checked where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from loom.model import limits
from loom.model.errors import InvalidInput, UsageError
from loom.model.keep import Keep
from loom.model.names import PRIVATE, PUBLISHED, check_id
from loom.model.numbers import is_number, is_whole
from loom.model.options import DECLARABLE, OPTIONS, DeclaredOptions, Options

__all__ = [
    "Declaration",
    "Retry",
    "check_declared",
    "check_keep",
    "check_lease",
    "check_names",
    "check_worker",
    "declared_options",
    "retention_of",
]


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """What follows when an attempt fails or its worker is lost.

    `attempts` and `on` bound the producer's own errors: at most `attempts` tries altogether, another one only after
    an exception of a type in `on`. Lost workers are bounded by `max_crashes`. `mode`: "restart" takes back what was
    said, "continue" keeps it, and the producer finds it in `ctx.previous`. `backoff`: first and longest pause (s).
    """

    attempts: int = 5
    on: tuple[type[Exception], ...] = (Exception,)
    mode: Literal["restart", "continue"] = "restart"
    backoff: tuple[float, float] = limits.RETRY_BACKOFF

    def __post_init__(self) -> None:
        if not is_whole(self.attempts):
            raise UsageError(f"Retry(attempts={self.attempts!r}): a whole number, at least 1")
        if not isinstance(self.on, tuple) or not all(map(_is_exception, self.on)):
            raise UsageError(f"Retry(on={self.on!r}): a tuple of exception types, as (IOError,)")
        if self.mode not in ("restart", "continue"):
            raise UsageError(f"Retry(mode={self.mode!r}): 'restart' or 'continue'")
        if not _is_backoff(self.backoff):
            raise UsageError(
                f"Retry(backoff={self.backoff!r}): the first and the longest pause in seconds, as (0.1, 30.0)"
            )


def _is_exception(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)


def _is_backoff(value: Any) -> bool:
    """Two pauses, the first no longer than the longest."""
    if not isinstance(value, tuple) or len(value) != 2 or not all(map(is_number, value)):
        return False
    first, longest = value
    return bool(0 <= first <= longest <= limits.LONGEST)


class Declaration(DeclaredOptions, total=False):
    """The keywords of `@app.actor`: the options of its runs, and what concerns their attempts and workers."""

    retry: Retry | None
    max_crashes: int
    concurrency: int | None
    keep: Keep | None
    requires: Sequence[str]


def check_names(declared: Mapping[str, Any]) -> None:
    """Raise `TypeError` for a keyword that `Declaration` lacks."""
    unknown = declared.keys() - Declaration.__annotations__.keys()
    if unknown:
        raise TypeError(f"an actor declares no {min(unknown)!r} (but {', '.join(Declaration.__annotations__)})")


def declared_options(name: str, declared: Mapping[str, Any]) -> Options:
    """The options that an actor declares. Raises `UsageError` for what makes no sense: it is wrong where it stands, not
    when a run meets it."""
    given = {option: declared[option] for option in DECLARABLE if option in declared}
    for option, value in given.items():
        _check_option(name, option, value)
    return Options.of(given)


def _check_option(name: str, option: str, value: Any) -> None:
    try:
        given = Options.of({option: value}).given
    except InvalidInput:
        if not (expects := OPTIONS[option].kind.expects):
            raise
        raise UsageError(f"{name}: {option}={value!r}: {expects}") from None
    if str(given.get("queue", "")).startswith(PRIVATE):
        raise UsageError(f"{name}: queue={value!r}: names that begin with {PRIVATE!r} are reserved")


def check_declared(name: str, retry: Any, max_crashes: Any, concurrency: Any, keep: Any) -> None:
    """Raise `UsageError` for what makes no sense, as `declared_options`."""
    if retry is not None and not isinstance(retry, Retry):
        raise UsageError(f"{name}: retry={retry!r}: a loom.Retry, as loom.Retry(attempts=3)")
    if not is_whole(max_crashes, 0):
        raise UsageError(f"{name}: max_crashes={max_crashes!r}: a whole number, 0 or more")
    if concurrency is not None and not is_whole(concurrency):
        raise UsageError(f"{name}: concurrency={concurrency!r}: a whole number of runs, more than 0")
    check_keep(keep, f"{name}: ")


def retention_of(value: Any) -> Options:
    """The option `retention` of that value. Raises `UsageError` unless it is None or a time of 0 or more."""
    try:
        return Options(retention=value)
    except InvalidInput:
        raise UsageError(f"retention={value!r}: {OPTIONS['retention'].kind.expects}") from None


def check_keep(value: Any, where: str = "") -> None:
    """Raise `UsageError` unless it is None or a `Keep`."""
    if value is not None and not isinstance(value, Keep):
        raise UsageError(f"{where}keep={value!r}: a loom.Keep, as loom.Keep(chunks=10_000)")


def check_lease(value: Any) -> None:
    """Raise `UsageError` unless it is a number of seconds that a lease may have."""
    if not (is_number(value) and limits.LEAST_LEASE <= value <= limits.LONGEST):
        raise UsageError(f"lease={value!r}: a number of seconds, at least {limits.LEAST_LEASE}")


def check_worker(queues: Sequence[str] | None, concurrency: Any, lease: Any, drain: Any) -> None:
    """Raise `UsageError` for a worker that would take nothing, or never come to rest."""
    if isinstance(queues, str) or (queues is not None and not queues):
        raise UsageError(f"queues={queues!r}: a list of names, as ['default']")
    for name in queues or ():
        check_id(name, "queue")
        if name == PUBLISHED:
            raise UsageError(f"queues={queues!r}: {PUBLISHED!r} is where publishers are, and no worker's")
    if not is_whole(concurrency):
        raise UsageError(f"concurrency={concurrency!r}: a whole number of runs, more than 0")
    check_lease(lease)
    if not (is_number(drain) and 0 <= drain <= limits.LONGEST):
        raise UsageError(f"drain={drain!r}: seconds, 0 or more")

"""What is declared of a producer's runs, and what one run is started with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from loom.model import limits
from loom.model.errors import UsageError
from loom.model.keep import Keep
from loom.model.numbers import is_duration, is_number, is_whole, seconds
from loom.model.priority import PRIORITIES, Priority
from loom.model.run import DECLARABLE, PRIVATE, PUBLISHED, check_id

__all__ = [
    "Options",
    "Retry",
    "check_declared",
    "check_keep",
    "check_lease",
    "check_retention",
    "check_worker",
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


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How one run is started. UNSET: not given, so what was declared before counts. None is a value: no key, no
    time-out, no bound, the store's own retention; only for a queue and a priority, of which each run has one, it is
    the same as UNSET."""

    id: str | UnsetType | None = UNSET
    key: str | UnsetType | None = UNSET
    queue: str | UnsetType | None = UNSET
    timeout: float | timedelta | UnsetType | None = UNSET
    idle_timeout: float | timedelta | UnsetType | None = UNSET
    ahead: int | UnsetType | None = UNSET
    priority: Priority | UnsetType | None = UNSET
    delay: float | timedelta | UnsetType | None = UNSET
    retention: float | timedelta | UnsetType | None = UNSET

    def given(self) -> dict[str, Any]:
        """The options that were given, by name; durations in seconds."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {
            name: seconds(value)
            for name, value in values.items()
            if value is not UNSET and not (value is None and name in _NEVER_NONE)
        }

    def of_run(self) -> dict[str, Any]:
        """Those of them that are fields of `Meta`, where an actor may declare them."""
        return {name: value for name, value in self.given().items() if name in DECLARABLE}

    def over(self, declared: Options) -> Options:
        """These options; what is not given, as `declared`."""
        return Options(**{**declared.given(), **self.given()})


_NEVER_NONE = ("queue", "priority")


def check_declared(name: str, retry: Any, max_crashes: Any, concurrency: Any, keep: Any, options: Options) -> None:
    """Raise `UsageError` for what makes no sense: it is wrong where it stands, not when a run meets it."""
    if retry is not None and not isinstance(retry, Retry):
        raise UsageError(f"{name}: retry={retry!r}: a loom.Retry, as loom.Retry(attempts=3)")
    if not is_whole(max_crashes, 0):
        raise UsageError(f"{name}: max_crashes={max_crashes!r}: a whole number, 0 or more")
    if concurrency is not None and not is_whole(concurrency):
        raise UsageError(f"{name}: concurrency={concurrency!r}: a whole number of runs, more than 0")
    check_keep(keep, f"{name}: ")
    given = options.given()
    if "priority" in given and options.priority not in PRIORITIES:
        raise UsageError(f"{name}: priority={options.priority!r}: one of {', '.join(PRIORITIES)}")
    for field in ("timeout", "idle_timeout"):
        value = given.get(field)
        if value is not None and not is_duration(value):
            raise UsageError(f"{name}: {field}={value!r}: seconds or a timedelta, more than 0")
    check_retention(given.get("retention"), f"{name}: ")
    ahead = given.get("ahead")
    if ahead is not None and not is_whole(ahead):
        raise UsageError(f"{name}: ahead={ahead!r}: a whole number of chunks, more than 0")
    if "queue" in given:
        _check_queue(name, given["queue"])


def _check_queue(name: str, queue: Any) -> None:
    """Raise `UsageError` or `InvalidInput` for a queue that no app's worker can serve."""
    if check_id(queue, "queue") == PUBLISHED or queue.startswith(PRIVATE):
        raise UsageError(f"{name}: queue={queue!r}: {PUBLISHED!r}, and names that begin with {PRIVATE!r}, are reserved")


def check_retention(value: Any, where: str = "") -> None:
    """Raise `UsageError` unless it is None or a time of 0 or more; 0: until the next sweep."""
    if value is not None and not is_duration(value, zero=True):
        raise UsageError(f"{where}retention={value!r}: seconds or a timedelta, 0 or more")


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

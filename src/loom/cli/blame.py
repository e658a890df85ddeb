"""What went wrong, in one line on standard error, with a hint and an exit code of the one table."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TypeGuard

import loom
from loom.model.errors import LoomError, RunError, code_of

from .clean import clean
from .log_format import indented, log_to_stderr_at
from .standard import INPUT, OUTPUT, symbol

__all__ = ["debugging", "hush", "line_of", "location_of", "report"]

_PIPE = 141  # 128 + SIGPIPE: the reader of our output left, as shells tell it
_FAILED = 74  # sysexits.h, EX_IOERR

_OURS = Path(loom.__file__).parent

_LOGGERS = ("loom", "httpx2", "httpcore2")

_HINTS = {
    "unknown_producer": "loom actor list shows what there is (--app or --url: somewhere else)",
    "not_found": "loom runs list shows what there is (--url or --store: somewhere else)",
    "unauthorized": "set LOOM_API_KEY to one of the server's LOOM_API_KEYS",
    "unavailable": "loom doctor says what can be reached from here",
    "store_full": "make room, then do the same again",
    "internal": "LOOM_DEBUG=1 shows where it happened",
}


def debugging() -> bool:
    """Whether LOOM_DEBUG asks for tracebacks and the log."""
    return os.environ.get("LOOM_DEBUG", "") not in ("", "0")


def hush() -> None:
    """For commands that people read: what our libraries log is for LOOM_DEBUG; what the user's own code logs is not
    touched."""
    if debugging():
        log_to_stderr_at(logging.INFO)
        return
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False


def report(error: BaseException) -> int:
    """Tell people of `error`; the exit code that programs are told."""
    with contextlib.suppress(OSError):  # nobody can be told: the exit code is right all the same
        _tell(error)
    return _exit_of(error)


def _tell(error: BaseException) -> None:
    if _exit_of(error) == _PIPE:
        return
    if debugging() and not isinstance(error, RunError):  # of a run, the producer's own traceback is in the log
        print(indented("".join(traceback.format_exception(error)).rstrip("\n")), file=sys.stderr)
    print(line_of(error), file=sys.stderr)
    if hint := _hint_of(error):
        print(f"hint: {clean(hint)}", file=sys.stderr)


def _exit_of(error: BaseException) -> int:
    if _is_ours(error):
        return _PIPE if isinstance(error, BrokenPipeError) else _FAILED
    return code_of(error.code if isinstance(error, LoomError) else "internal").exit


def _is_ours(error: BaseException) -> TypeGuard[OSError]:
    """Whether standard input or output failed."""
    return isinstance(error, OSError) and error.filename in (INPUT, OUTPUT)


def line_of(error: BaseException) -> str:
    """As ``error: no actor is named 'x' (unknown_producer)``, ``error: standard output: File too large (EFBIG)``."""
    if _is_ours(error):
        return f"error: {error.filename}: {error.strerror} ({symbol(error)})"
    if not isinstance(error, LoomError):
        error = LoomError(f"{type(error).__name__}: {error}")
    message = " ".join(clean(error.message).split()) or type(error).__name__
    return f"error: {message} ({error.code})"


def _hint_of(error: BaseException) -> str | None:
    if _is_ours(error):
        return None
    if not isinstance(error, LoomError):
        return _HINTS["internal"]
    hint = error.details.get("hint")
    if isinstance(hint, str):
        return hint
    if error.code == "cursor_expired":
        earliest = error.details.get("earliest")
        return f"begin with --after {earliest}" if earliest else "leave out --after to begin at the beginning"
    return _HINTS.get(error.code)


def location_of(error: BaseException) -> str:
    """The innermost line of its traceback below the working directory that is neither Loom's nor an installed
    package's; empty if there is none."""
    here = os.getcwd()
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(here) and not path.is_relative_to(_OURS) and "site-packages" not in path.parts:
            return f"{path.relative_to(here)}:{frame.lineno} in {frame.name}"
    return ""

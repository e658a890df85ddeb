"""A producer's exception as data: whatever was raised, it can be sent, and is small."""

from __future__ import annotations

from typing import Any

import pytest

from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import (
    CODES,
    Fenced,
    InvalidInput,
    LimitExceeded,
    LoomError,
    RunCancelled,
    RunFailed,
    Unavailable,
)
from loom.wire.failure import info_of, is_of
from loom.wire.json import decode_chunk, encode


class Broken(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class Leaving(Exception):
    """Raises what is no Exception when its text is read."""

    def __str__(self) -> str:
        raise SystemExit


def loop() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    ("error", "message", "type"),
    [
        (ValueError("bad"), "ValueError: bad", "ValueError"),
        (ValueError(), "ValueError", "ValueError"),
        (KeyError("k"), "KeyError: 'k'", "KeyError"),
        (SystemExit(3), "SystemExit: 3", "SystemExit"),
        (Broken(), "Broken: (its text cannot be had: ZeroDivisionError)", "Broken"),
        (Leaving(), "Leaving: (its text cannot be had: SystemExit)", "Leaving"),
    ],
)
def test_an_exception_is_told_by_its_type_and_text(error: BaseException, message: str, type: str) -> None:
    info = info_of(error)
    assert (info.code, info.message, info.retryable, info.details) == ("run_failed", message, False, {"type": type})


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("out"),
        Fenced("x"),
        InvalidInput("n: bad", details={"field": "n"}),
        RunCancelled("x"),
        LoomError("x"),
    ],
)
def test_a_loom_error_that_the_producer_met_is_not_the_reader_s_own(error: LoomError) -> None:
    info = info_of(error)
    assert info.code == "run_failed"
    assert info.details == {**error.details, "type": type(error).__name__, "code": error.code}
    assert info.retryable is CODES[error.code].retryable


def test_an_author_s_own_code_stays() -> None:
    error = RunFailed("no credit", code="no_credit", retryable=True, details={"left": 0})
    assert info_of(error) == error.info


@pytest.mark.parametrize("code", ["two words", "x" * 100, "line\nend", 7])
def test_a_code_that_is_no_word_is_none(code: Any) -> None:
    assert info_of(RunFailed("x", code=code)).code == "run_failed"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x" * 3_000_000),
        ValueError("lone \ud800"),
        RunFailed("x" * 3_000_000),
        RunFailed("lone \ud800"),
        RunFailed("x", details={"object": object()}),
        RunFailed("x", details=loop()),
        RunFailed("x", details={"large": "x" * 3_000_000}),
        RunFailed("x", details=[1]),  # type: ignore[arg-type]
        RunFailed(7),  # type: ignore[arg-type]
        RunFailed("x", retryable="yes"),  # type: ignore[arg-type]
        LimitExceeded("x", details={"object": object()}),
        ExceptionGroup("many", [ValueError("x" * 10_000)] * 100),
    ],
    ids=range(12),
)
def test_whatever_was_raised_can_be_sent_and_read(error: BaseException) -> None:
    line = encode(Chunk("error", error=info_of(error)))
    assert len(line) < limits.ERROR_BYTES + 16 * limits.ERROR_CHARACTERS
    info = decode_chunk(line).error
    assert info is not None
    assert info == info_of(error)


def test_a_group_names_its_members() -> None:
    group = ExceptionGroup("two", [ValueError("a"), ExceptionGroup("inner", [OSError("b")])])
    info = info_of(group)
    assert info.message == "ExceptionGroup: two (2 sub-exceptions)"
    assert info.details == {"type": "ExceptionGroup", "errors": ["ValueError: a", "OSError: b"]}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(), True),
        (ConnectionError(), True),
        (ValueError(), False),
        (ExceptionGroup("g", [OSError(), ConnectionError()]), True),
        (ExceptionGroup("g", [OSError(), ValueError()]), False),
        (ExceptionGroup("g", [ExceptionGroup("h", [OSError()])]), True),
        (BaseExceptionGroup("g", [OSError(), SystemExit()]), False),
        (SystemExit(), False),
    ],
)
def test_a_group_is_of_a_type_when_all_its_members_are(error: BaseException, expected: bool) -> None:
    assert is_of(error, (OSError,)) is expected
    assert is_of(error, OSError) is expected

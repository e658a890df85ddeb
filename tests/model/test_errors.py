"""The error tree and the table of codes."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from loom.model import errors, root_error
from loom.model.errors import CODES, ErrorInfo, LoomError, RunError, RunFailed, class_of, code_of, revive


def tree(root: type[LoomError] = LoomError) -> Iterator[type[LoomError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ in (errors.__name__, root_error.__name__):
            yield from tree(child)


CLASSES = list(tree())


def test_every_class_is_public_and_drawn() -> None:
    assert {error.__name__ for error in CLASSES} <= set(errors.__all__)
    assert errors.__doc__ is not None
    for error in CLASSES:
        assert error.__name__ in errors.__doc__


@pytest.mark.parametrize("error", CLASSES)
def test_every_class_has_its_default_code_in_the_table(error: type[LoomError]) -> None:
    assert error.default_code in CODES
    # `RunError` is the family of what became of a run: at its most general, a failure.
    assert class_of(error.default_code) is (RunFailed if error is RunError else error)
    assert error().code == error.default_code
    assert error().retryable == CODES[error.default_code].retryable


def test_every_class_is_reached_by_a_code() -> None:
    assert {class_of(code) for code in CODES} | {RunError} == set(CLASSES)


@pytest.mark.parametrize("code", CODES)
def test_every_code_comes_back_as_the_same_class(code: str) -> None:
    error = class_of(code)("why", code=code, retryable=True, details={"a": [1]})
    again = revive(msgspec.json.decode(msgspec.json.encode(error.info), type=ErrorInfo))
    assert type(again) is type(error)
    assert again.info == error.info == ErrorInfo(code, "why", True, {"a": [1]})
    assert str(again) == again.message == "why"


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_shown_at_every_boundary(code: str) -> None:
    row = CODES[code]
    assert 400 <= row.http <= 599
    assert row.websocket in (1002, 1009, 1011, 1013) or row.websocket == 4000 + row.http
    assert 1 <= row.exit <= 78 or row.exit == 130
    assert code.islower()
    assert code.replace("_", "").isalpha()


def test_what_cannot_be_known_or_helped_is_not_retried_blindly() -> None:
    """A repeat is promised to be useful only where nothing happened and it may go better."""
    retryable = {code for code, row in CODES.items() if row.retryable}
    assert retryable == {"limit_exceeded", "store_full", "unavailable", "request_timeout"}


def test_a_producers_own_code_counts_as_a_failed_run() -> None:
    error = revive(ErrorInfo("out_of_cheese", "sorry", details={"left": 0}))
    assert type(error) is RunFailed
    assert (error.code, error.retryable, error.details) == ("out_of_cheese", False, {"left": 0})
    assert code_of("out_of_cheese") == CODES["run_failed"]


def test_retryable_may_be_said_against_the_table() -> None:
    assert errors.Unavailable("x", retryable=False).retryable is False
    assert errors.RunFailed("x", retryable=True).info.retryable is True


def test_details_are_each_errors_own() -> None:
    one, other = LoomError(), LoomError()
    one.details["a"] = 1
    assert other.details == {}
    assert ErrorInfo("x", "y").details is not ErrorInfo("x", "y").details


def test_a_run_error_may_carry_its_chunk() -> None:
    assert RunError("x").chunk is None


def test_info_leaves_out_what_is_default() -> None:
    assert msgspec.json.encode(errors.Fenced("gone").info) == b'{"code":"fenced","message":"gone"}'

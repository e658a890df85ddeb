"""What stores hold of a run: taken apart and joined again, and told by name where it was damaged."""

from __future__ import annotations

import msgspec
import pytest

from loom.model.errors import Damaged, ErrorInfo
from loom.model.run import NO_INPUT, Meta
from loom.stores.stored import error_of, join, split
from loom.wire.json import encode

STARTED = Meta(run="run", actor="actor", input=msgspec.Raw(b'{"prompt":"secret"}'), key="k", ahead=3, timeout=1.5)


def test_what_was_taken_apart_is_joined_byte_for_byte() -> None:
    meta, input = split(STARTED)
    assert b"secret" not in meta
    assert input == bytes(STARTED.input)
    assert join("run", meta, input) == STARTED


def test_without_its_input_it_is_as_in_lists() -> None:
    meta, _ = split(STARTED)
    assert join("run", meta, None) == msgspec.structs.replace(STARTED, input=NO_INPUT)


@pytest.mark.parametrize("stored", [None, b"", b"null", b'{"ru', b'{"run":1}', b'{"run":"\xff"}', b"[" * 100_000])
def test_a_start_that_is_not_what_was_written(stored: bytes | None) -> None:
    with pytest.raises(Damaged, match="run 'run': what is stored of its start is damaged") as caught:
        join("run", stored, None)
    assert caught.value.details == {"run": "run"}


def test_an_error_is_read_if_there_is_one() -> None:
    error = ErrorInfo("cancelled", "by test")
    assert error_of("run", encode(error)) == error
    assert error_of("run", None) is None
    with pytest.raises(Damaged, match="of its error"):
        error_of("run", b"")

"""How a run was started, taken apart for its row and joined again."""

from __future__ import annotations

import msgspec

from loom.model.run import NO_INPUT, Meta
from loom.stores.sqlite.metas import join, split

STARTED = Meta(run="run", actor="actor", input=msgspec.Raw(b'{"prompt":"secret"}'), key="k", ahead=3, timeout=1.5)


def test_what_was_taken_apart_is_joined_byte_for_byte() -> None:
    meta, input = split(STARTED)
    assert b"secret" not in meta
    assert input == bytes(STARTED.input)
    assert join(meta, input) == STARTED


def test_without_its_input_it_is_as_in_lists() -> None:
    meta, _ = split(STARTED)
    assert join(meta, None) == msgspec.structs.replace(STARTED, input=NO_INPUT)

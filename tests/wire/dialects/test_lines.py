"""Stored chunks as dialects read them: markers, and what later attempts took back."""

from __future__ import annotations

from typing import Any

import pytest

from loom.model.chunk import Chunk
from loom.model.errors import RemoteProtocolError
from loom.wire.dialects.lines import RetractedRanges, marker_of, read_line
from loom.wire.json import make_batch


def line_of(chunk: Chunk[Any]) -> bytes:
    return make_batch(100000001, 1, [chunk]).payload


def test_markers_are_chunks_for_the_fold() -> None:
    start: Chunk[Any] = Chunk("start", {"attempt": 2, "actor": "a", "kept_through": 7})
    assert marker_of(9, read_line(line_of(start))) == Chunk("start", start.data, seq=9)
    action: Chunk[Any] = Chunk("action-start", {"attempt": 2}, source="s")
    assert marker_of(9, read_line(line_of(action))) == Chunk("action-start", {"attempt": 2}, source="s", seq=9)
    assert marker_of(9, read_line(line_of(Chunk("data", "x")))) is None


def test_what_an_attempt_took_back() -> None:
    gone = RetractedRanges()
    again: Chunk[Any] = Chunk("start", {"attempt": 2, "actor": "a", "kept_through": 2})
    batch = make_batch(100000001, 1, [Chunk("start"), Chunk("data"), Chunk("data"), again, Chunk("data")])
    gone.feed(batch)
    assert [seq for seq, line in enumerate(batch.lines(), 1) if gone.covers(seq, line)] == [3]
    assert gone.surviving(batch) == [batch.slice(1, 2), batch.slice(4, 5)]


def test_what_a_repeated_step_took_back() -> None:
    step: Chunk[Any] = Chunk("action-start", {}, source="s")
    batch = make_batch(
        1, 1, [step, Chunk("data", "x", source="s"), Chunk("data", "y"), step, Chunk("data", source="s")]
    )
    gone = RetractedRanges()
    gone.feed(batch)
    assert [seq for seq, line in enumerate(batch.lines(), 1) if gone.covers(seq, line)] == [1, 2]
    assert gone.surviving(batch) == [batch.slice(3, 5)]
    assert gone.surviving(batch.slice(1, 2)) == []
    assert gone.surviving(batch.slice(3, 4)) == [batch.slice(3, 4)]


def test_what_is_no_chunk_is_told() -> None:
    for line in (b'{"type":3}', b"{", b'{"type":"\xff"}'):
        with pytest.raises(RemoteProtocolError):
            read_line(line)

"""Open runs that no queue holds: when one counts as idle, and what ends it."""

from __future__ import annotations

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.stores.orphans import ending_batch, is_idle
from loom.wire.json import decode_batch, make_batch

NOW = 1_700_000_000.0


def test_what_said_nothing_is_not_idle() -> None:
    assert not is_idle(None, NOW)


def test_the_last_chunk_counts() -> None:
    old, young = NOW - limits.IDLE_OPEN - 1, NOW - limits.IDLE_OPEN + 1
    assert is_idle(make_batch(1, 1, [Chunk("data", time=young), Chunk("data", time=old)]), NOW)
    assert not is_idle(make_batch(1, 1, [Chunk("data", time=old), Chunk("data", time=young)]), NOW)
    assert not is_idle(make_batch(1, 1, [Chunk("data")]), NOW), "nobody knows when"


def test_what_is_damaged_is_not_idle() -> None:
    """Whoever claims it tells."""
    assert not is_idle(Batch(1, 1, 1, b"{"), NOW)


def test_it_ends_as_lost() -> None:
    batch, commit = ending_batch(7, 41, NOW)
    (chunk,) = decode_batch(batch)
    assert (batch.epoch, batch.first, batch.last, chunk.type, chunk.time) == (7, 42, 42, "error", NOW)
    assert chunk.error is not None
    assert (chunk.error.code, "7 days" in chunk.error.message) == ("run_lost", True)
    assert (commit.end, commit.state, commit.error) == (True, "lost", chunk.error)

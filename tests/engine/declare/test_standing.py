"""Earlier output: the same in memory and in a file, against a plain list."""

from __future__ import annotations

import gc
import os

from hypothesis import given
from hypothesis import strategies as st

from loom.engine.declare.standing import HISTORY_BYTES, Room, Standing
from loom.model.chunk import Batch, Chunk
from loom.model.retraction import Retraction
from loom.wire.json import make_batch

SIZE = 300


def lines(batches: list[Batch]) -> list[tuple[int, bytes]]:
    return [(seq, line) for batch in batches for seq, line in enumerate(batch.lines(), batch.first)]


steps = st.lists(
    st.tuples(st.sampled_from(["append", "keep", "step"]), st.integers(1, 30)),
    max_size=20,
)


@given(steps, st.integers(0, SIZE))
def test_what_stands_is_what_was_appended_and_not_taken_back(steps: list[tuple[str, int]], size: int) -> None:
    """Wherever it lies; and the room that is taken is what lies in memory."""
    room = Room(size)
    standing, model, seq = Standing(room), list[tuple[int, bytes]](), 0
    for act, number in steps:
        if act == "append":
            number = number % 5 + 1
            chunks = [
                Chunk("data", f"chunk {seq} {place}" * 3, source="step" if place % 2 else None)
                for place in range(number)
            ]
            batch = make_batch(1, seq + 1, chunks)
            standing.append(batch)
            model += lines([batch])
            seq += number
        elif act == "keep":
            standing.retract(Retraction(number - 1))
            model = [each for each in model if each[0] < number]
        else:
            standing.retract(Retraction(number, number + 10, "step"))
            model = [each for each in model if not (number < each[0] < number + 10 and b'"step"' in each[1])]
        assert lines(list(standing)) == model
        assert sum(standing.counts) == len(model)
        assert 0 <= room.left <= size
        assert size - room.left + standing.in_file == sum(len(line) + 1 for _, line in model)
    standing.leave()
    standing.leave()
    assert room.left == size
    assert lines(list(standing)) == model


def test_rooms_are_shared_and_none_is_taken_twice() -> None:
    room = Room(100)
    first, second = Standing(room), Standing(room)
    batch = make_batch(1, 1, [Chunk("data", "x" * 60)])
    first.append(batch)
    second.append(batch)
    assert (first.in_file, second.in_file) == (0, len(batch.payload))
    first.leave()
    assert room.left == 100
    assert list(first) == list(second) == [batch]


def test_a_file_goes_with_what_lies_in_it() -> None:
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = files()
    standing = Standing(Room(0))
    for seq in range(1, 50):
        standing.append(make_batch(1, seq, [Chunk("data", "x" * 1000)]))
    assert files() == before + 1
    del standing
    gc.collect()
    assert files() == before


def test_a_worker_has_the_room_that_the_limits_say() -> None:
    assert Room().left == HISTORY_BYTES

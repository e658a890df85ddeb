"""Chunks, batches and pages."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.model.chunk import Batch, Chunk, Message, Page, Progress, Result
from loom.model.cursor import Cursor


def batch(first: int, count: int, epoch: int = 7) -> Batch:
    lines = [b'{"type":"data","data":%d}\n' % seq for seq in range(first, first + count)]
    return Batch(epoch, first, first + count - 1, b"".join(lines))


def test_a_chunk_knows_its_cursor() -> None:
    assert Chunk("data", 1, seq=3, epoch=7).cursor == Cursor(7, 3)


@pytest.mark.parametrize(
    "value", [Chunk("data", 1), Message("x"), Progress(1), Result(1), batch(1, 1), Page((), None, True, False)]
)
def test_values_are_frozen(value: msgspec.Struct) -> None:
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], None)


def test_values_are_equal_by_content() -> None:
    assert Chunk("data", {"a": 1}) == Chunk("data", {"a": 1})
    assert Chunk("data", 1, seq=1) != Chunk("data", 1, seq=2)
    assert batch(1, 2) == batch(1, 2) != batch(1, 3)


def test_a_batch_knows_its_range() -> None:
    three = batch(5, 3)
    assert (len(three), three.cursor) == (3, Cursor(7, 7))
    assert three.lines() == [b'{"type":"data","data":%d}' % seq for seq in (5, 6, 7)]


@given(st.integers(1, 8), st.data())
def test_a_slice_holds_the_chunks_it_names(count: int, data: st.DataObject) -> None:
    whole = batch(10, count)
    first = data.draw(st.integers(whole.first, whole.last))
    last = data.draw(st.integers(first, whole.last))
    part = whole.slice(first, last)
    assert (part.epoch, part.first, part.last) == (7, first, last)
    assert part.lines() == whole.lines()[first - 10 : last - 9]
    assert part == batch(first, last - first + 1)


def test_the_whole_slice_is_the_batch_itself() -> None:
    whole = batch(1, 3)
    assert whole.slice(1, 3) is whole


@pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 4), (3, 2), (4, 4)])
def test_a_slice_from_outside_is_a_fault(first: int, last: int) -> None:
    with pytest.raises(AssertionError):
        batch(1, 3).slice(first, last)


def test_a_page_gives_each_line_with_its_cursor() -> None:
    page = Page((batch(4, 2), batch(6, 1, epoch=8)), Cursor(8, 6), caught_up=True, ended=False)
    assert len(page) == 3
    assert [cursor for cursor, _ in page.lines()] == [Cursor(7, 4), Cursor(7, 5), Cursor(8, 6)]
    assert [line[-2:-1] for _, line in page.lines()] == [b"4", b"5", b"6"]


def test_an_empty_page_gives_nothing() -> None:
    page = Page((), Cursor(7, 3), caught_up=True, ended=False)
    assert (len(page), list(page.lines())) == (0, [])

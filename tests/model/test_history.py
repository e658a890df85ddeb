"""What every store decides alike: epochs, appends, cursors, pages."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import EPOCH_DIGITS, Cursor, attempt_of
from loom.model.errors import Conflict, CursorExpired, Damaged, Fenced, LogEnded
from loom.model.history import (
    add_epoch,
    check_repeat,
    continues,
    cut,
    expired,
    newest,
    next_epoch,
    page_of,
    split,
    start_after,
    written,
)

EPOCHS = [(10, 1), (20, 4), (30, 9)]
"""10 wrote 1 to 3, 20 wrote 4 to 8, 30 wrote from 9 on."""


def batch(first: int, *sizes: int, epoch: int = 7) -> Batch:
    """A batch of lines with these many bytes, line ends included."""
    return Batch(epoch, first, first + len(sizes) - 1, b"".join(b"x" * (size - 1) + b"\n" for size in sizes))


# --- epochs ----------------------------------------------------------------------------------------------------------


def test_newest() -> None:
    assert newest([]) == -1
    assert newest(EPOCHS) == 30


def test_next_epoch_is_of_the_next_attempt() -> None:
    assert next_epoch([], 42) == EPOCH_DIGITS + 42
    assert attempt_of(next_epoch([(5 * EPOCH_DIGITS + 3, 1)], 0)) == 6
    assert attempt_of(next_epoch([(3, 1)], 0)) == 1  # ended before any attempt


def test_an_epoch_that_wrote_nothing_leaves_the_list() -> None:
    assert add_epoch([], 10, 0) == ((10, 1),)
    assert add_epoch([(10, 1)], 20, 0) == ((20, 1),)
    assert add_epoch([(10, 1)], 20, 3) == ((10, 1), (20, 4))
    assert add_epoch([(10, 1), (20, 4)], 30, 3) == ((10, 1), (30, 4))


def test_written() -> None:
    assert [written(epoch, EPOCHS, 10) for epoch in (10, 20, 30)] == [range(1, 4), range(4, 9), range(9, 11)]
    assert not written(30, EPOCHS, 8)
    assert not written(15, EPOCHS, 10)
    assert not written(10, [], 0)


# --- appending -------------------------------------------------------------------------------------------------------


def test_continues() -> None:
    next_one = batch(4, 2, 2)
    assert continues(next_one, epoch=7, tail=3, ended=False)
    assert not continues(next_one, epoch=8, tail=3, ended=False)
    assert not continues(next_one, epoch=7, tail=2, ended=False)
    assert not continues(next_one, epoch=7, tail=3, ended=True)


@pytest.mark.parametrize("ended", [False, True])
def test_the_last_batch_may_be_repeated(ended: bool) -> None:
    check_repeat(batch(4, 2, 2), end=ended, epoch=7, ended=ended, last=batch(4, 2, 2))


def test_who_was_fenced_hears_so_first() -> None:
    for last, ended in ((batch(4, 2), False), (batch(4, 2), True), (None, False)):
        with pytest.raises(Fenced):
            check_repeat(batch(4, 2), end=ended, epoch=8, ended=ended, last=last)


@pytest.mark.parametrize("other", [batch(4, 3), batch(4, 2, 2), batch(3, 2, 2), batch(1, 2), batch(6, 2)])
def test_other_content_is_a_conflict(other: Batch) -> None:
    with pytest.raises(Conflict, match="tail is 4"):
        check_repeat(other, end=False, epoch=7, ended=False, last=batch(4, 2))
    with pytest.raises(LogEnded):
        check_repeat(other, end=True, epoch=7, ended=True, last=batch(4, 2))


def test_whether_it_ends_the_log_is_part_of_what_is_repeated() -> None:
    with pytest.raises(Conflict):
        check_repeat(batch(4, 2), end=True, epoch=7, ended=False, last=batch(4, 2))
    with pytest.raises(LogEnded):
        check_repeat(batch(4, 2), end=False, epoch=7, ended=True, last=batch(4, 2))


def test_nothing_repeats_in_an_empty_log() -> None:
    with pytest.raises(Conflict, match="tail is 0"):
        check_repeat(batch(2, 2), end=False, epoch=7, ended=False, last=None)


# --- cursors ---------------------------------------------------------------------------------------------------------


def test_start_after() -> None:
    assert start_after(None, epochs=[], first=1, tail=0) == 1
    assert start_after(None, epochs=EPOCHS, first=1, tail=10) == 1
    for epoch, seq in ((10, 1), (10, 3), (20, 4), (20, 8), (30, 9), (30, 10)):
        assert start_after(Cursor(epoch, seq), epochs=EPOCHS, first=1, tail=10) == seq + 1


@pytest.mark.parametrize("cursor", [(10, 4), (10, 0), (20, 3), (20, 9), (30, 8), (30, 11), (0, 1), (15, 4), (99, 10)])
def test_a_cursor_that_was_never_given_is_expired(cursor: tuple[int, int]) -> None:
    with pytest.raises(CursorExpired) as caught:
        start_after(Cursor(*cursor), epochs=EPOCHS, first=1, tail=10)
    assert caught.value.details == {"earliest": None}


@pytest.mark.parametrize("after", [None, Cursor(10, 1), Cursor(10, 3), Cursor(99, 4)])
def test_a_cursor_before_what_is_kept_is_expired(after: Cursor | None) -> None:
    with pytest.raises(CursorExpired) as caught:
        start_after(after, epochs=EPOCHS, first=5, tail=10)
    assert caught.value.details == {"earliest": "20-4"}


def test_the_earliest_cursor_is_not_expired() -> None:
    assert start_after(Cursor(20, 4), epochs=EPOCHS, first=5, tail=10) == 5
    assert start_after(Cursor(10, 3), epochs=EPOCHS, first=4, tail=10) == 4


def test_expired_names_the_earliest() -> None:
    assert expired([], 1).details == {"earliest": None}
    assert expired(EPOCHS, 4).details == {"earliest": "10-3"}


# --- pages -----------------------------------------------------------------------------------------------------------


def test_a_page_of_nothing() -> None:
    page = page_of([], 4, after=Cursor(7, 3), tail=3, ended=False, limit=10)
    assert (page.batches, page.cursor, page.caught_up, page.ended) == ((), Cursor(7, 3), True, False)
    page = page_of([], 1, after=None, tail=0, ended=True, limit=10)
    assert (page.cursor, page.caught_up, page.ended) == (None, True, True)


def test_a_page_is_caught_up_and_ended_only_at_the_tail() -> None:
    log = [batch(1, 2, 2), batch(3, 2)]
    pages = [page_of(log, 1, after=None, tail=3, ended=True, limit=limit) for limit in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [1, 2, 3, 3]
    assert [page.cursor for page in pages] == [Cursor(7, 1), Cursor(7, 2), Cursor(7, 3), Cursor(7, 3)]
    assert [(page.caught_up, page.ended) for page in pages] == [(False, False)] * 2 + [(True, True)] * 2
    assert not page_of(log, 1, after=None, tail=3, ended=False, limit=4).ended


def test_a_page_begins_inside_a_batch() -> None:
    assert cut([batch(1, 2, 3, 4), batch(4, 5)], 2, 10) == [batch(2, 3, 4), batch(4, 5)]
    assert cut([batch(1, 2, 3, 4), batch(4, 5)], 2, 1) == [batch(2, 3)]
    assert cut([batch(1, 2, 3, 4), batch(4, 5)], 3, 2) == [batch(3, 4), batch(4, 5)]


def test_whole_batches_are_passed_on_as_they_are() -> None:
    log = [batch(1, 2, 2), batch(3, 2)]
    assert all(taken is given for taken, given in zip(cut(log, 1, 10), log, strict=True))


def test_a_gap_is_never_passed_over() -> None:
    for log, start, missing in (([batch(2, 2)], 1, 1), ([batch(1, 2)], 2, 2), ([batch(1, 2), batch(3, 2)], 1, 2)):
        with pytest.raises(Damaged, match=f"chunk {missing} is missing"):
            cut(log, start, 10)


@pytest.mark.parametrize("limit", [-1, 0, 1])
def test_a_page_holds_at_least_one_chunk(limit: int) -> None:
    assert cut([batch(1, 2, 2), batch(3, 2)], 1, limit) == [batch(1, 2)]


def test_a_page_holds_at_most_the_limit_of_limits() -> None:
    log = [batch(first, *[2] * 1000) for first in range(1, 20_001, 1000)]
    assert sum(map(len, cut(log, 1, 10**9))) == limits.READ_LIMIT


def test_bytes_cut_between_batches_and_inside_the_first() -> None:
    log = [batch(1, 10, 10), batch(3, 10), batch(4, 10)]
    assert cut(log, 1, 10, most_bytes=30) == log[:2]
    assert cut(log, 1, 10, most_bytes=29) == log[:1]
    assert cut(log, 1, 10, most_bytes=20) == log[:1]
    assert cut(log, 1, 10, most_bytes=19) == [batch(1, 10)]
    assert cut(log, 1, 10, most_bytes=10) == [batch(1, 10)]
    assert cut([batch(1, 5, 5, 5, 5)], 1, 10, most_bytes=16) == [batch(1, 5, 5, 5)]


def test_a_chunk_that_is_larger_than_a_page_still_passes() -> None:
    assert cut([batch(1, 100, 5)], 1, 10, most_bytes=10) == [batch(1, 100)]
    assert cut([batch(1, 5), batch(2, 100)], 1, 10, most_bytes=10) == [batch(1, 5)]


def test_batches_are_taken_only_as_needed() -> None:
    log = iter([batch(1, 2), batch(2, 2), batch(3, 2)])
    assert len(cut(log, 1, 2)) == 2
    assert next(log).first == 3


@given(
    sizes=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=5), min_size=1, max_size=8),
    limit=st.integers(1, 12),
    most_bytes=st.integers(1, 100),
)
def test_pages_are_the_whole_within_their_bounds(sizes: list[list[int]], limit: int, most_bytes: int) -> None:
    firsts = list(accumulate(map(len, sizes), initial=1))
    log = [batch(first, *lengths) for first, lengths in zip(firsts, sizes, strict=False)]
    tail = log[-1].last
    seen: list[bytes] = []
    start = 1
    while start <= tail:
        page = cut([each for each in log if each.last >= start], start, limit, most_bytes)
        assert page[0].first == start
        assert all(before.last + 1 == after.first for before, after in pairwise(page))
        lines = [line for each in page for line in each.lines()]
        assert 1 <= len(lines) <= limit
        assert len(lines) == 1 or sum(len(each.payload) for each in page) <= most_bytes
        seen += lines
        start = page[-1].last + 1
    assert seen == [line for each in log for line in each.lines()]


def test_a_page_that_fits_is_not_split() -> None:
    page = Page((batch(1, 10, 10), batch(3, 10)), Cursor(7, 3), True, True)
    assert split(page, 30) == (page,)
    empty = Page((), None, True, True)
    assert split(empty, 1) == (empty,)


@pytest.mark.parametrize(
    ("limit_bytes", "lengths"),
    [(29, [2, 1, 1]), (20, [2, 1, 1]), (19, [1, 1, 1, 1]), (0, [1, 1, 1, 1]), (-5, [1, 1, 1, 1])],
)
def test_a_page_is_split_between_batches_and_inside_them(limit_bytes: int, lengths: list[int]) -> None:
    page = Page((batch(1, 10, 10), batch(3, 10), batch(4, 25)), Cursor(7, 4), True, True)
    parts = split(page, limit_bytes)
    assert [len(part) for part in parts] == lengths
    assert [(part.caught_up, part.ended) for part in parts] == [(False, False)] * (len(parts) - 1) + [(True, True)]
    assert [line for part in parts for line in part.lines()] == list(page.lines())
    assert all(part.cursor == part.batches[-1].cursor for part in parts)


def test_an_opaque_record_is_not_split() -> None:
    opaque = Batch(7, 1, 1, b"a\nb\nc\n")
    assert [part.batches for part in split(Page((opaque, batch(2, 4)), Cursor(7, 2), True, False), 4)] == [
        (opaque,),
        (batch(2, 4),),
    ]


@given(
    sizes=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=5), min_size=1, max_size=8),
    limit_bytes=st.integers(1, 100),
)
def test_the_parts_of_a_page_are_the_whole(sizes: list[list[int]], limit_bytes: int) -> None:
    firsts = list(accumulate(map(len, sizes), initial=1))
    log = tuple(batch(first, *lengths) for first, lengths in zip(firsts, sizes, strict=False))
    page = Page(log, log[-1].cursor, True, False)
    parts = split(page, limit_bytes)
    assert all(len(part) == 1 or part.size <= limit_bytes for part in parts)
    assert [line for part in parts for line in part.lines()] == list(page.lines())
    assert parts[-1].cursor == page.cursor

"""Pages are what continues the cursor, and nothing else: whole, in pieces, and with every fault."""

from __future__ import annotations

import msgspec
import pytest

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.cursor import Cursor
from loom.model.errors import CursorExpired, ErrorInfo, LimitExceeded, RemoteProtocolError, Unavailable
from loom.remote.pages import Pages, page_of
from loom.wire.json import make_batch
from loom.wire.sse import HEARTBEAT, bookmark, encode_event, fault, frames, retry
from loom.wire.views import ChunkView, PageView

from .scripted import EPOCH, said

LATER = 2_0000_0003


def batches_of(data: bytes, after: Cursor | None = None, *, size: int | None = None) -> list[Batch]:
    pages = Pages(after)
    batches: list[Batch] = []
    for start in range(0, len(data), size or len(data)):
        page = pages.feed(data[start : start + (size or len(data))])
        if page is not None:
            assert page.cursor == page.batches[-1].cursor
            batches += page.batches
    return batches


def test_consecutive_events_are_one_batch_with_the_stored_bytes() -> None:
    stored = make_batch(EPOCH, 1, [Chunk("start", {"attempt": 1}), Chunk("data", "é"), Chunk("stdout", "x")])
    assert batches_of(frames(stored)) == [stored]


def test_a_new_epoch_is_a_batch_of_its_own() -> None:
    batches = batches_of(said(1, 3) + said(4, 5, epoch=LATER, end=True))
    assert [(batch.epoch, batch.first, batch.last) for batch in batches] == [(EPOCH, 1, 3), (LATER, 4, 5)]


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_in_pieces_it_is_the_same(size: int) -> None:
    data = bookmark("run:") + said(1, 4) + HEARTBEAT + said(5, 8, end=True)
    whole = b"".join(batch.payload for batch in batches_of(data[len(bookmark("run:")) :]))
    batches = batches_of(data, size=size)
    assert b"".join(batch.payload for batch in batches) == whole
    assert [batch.first for batch in batches[1:]] == [batch.last + 1 for batch in batches[:-1]]


def test_the_end_is_told_by_the_last_chunk() -> None:
    pages = Pages(None)
    page = pages.feed(said(1, 2))
    assert page is not None
    assert not page.ended
    page = pages.feed(said(3, 3, end=True))
    assert page is not None
    assert page.ended
    assert pages.feed(said(4, 4)) is None


def test_a_piece_that_completes_nothing_is_no_page() -> None:
    pages = Pages(None)
    assert pages.feed(HEARTBEAT) is None
    assert pages.feed(said(1, 1)[:-1]) is None
    assert pages.feed(b"\n") is not None


def test_it_goes_on_behind_the_cursor() -> None:
    assert batches_of(said(8, 9), Cursor(EPOCH, 7))[0].first == 8


@pytest.mark.parametrize(
    ("data", "after"),
    [
        (said(2, 3), None),
        (said(1, 2) + said(4, 5), None),
        (said(1, 2) + said(2, 3), None),
        (said(1, 2), Cursor(EPOCH, 2)),
        (said(3, 4, epoch=EPOCH - 1), Cursor(EPOCH, 2)),
        (said(1, 2) + said(4, 4, epoch=LATER), None),
        (encode_event('{"type":"start"}', type="start"), None),
        (encode_event('{"type":"start"}', type="start", id="run:1-1"), None),
        (encode_event('{"type":"start"}', type="start", id="01-1"), None),
        (said(1, 1) + encode_event('{"type":"data"}', type="data"), None),
        (encode_event('{"type":"start",\n"data":1}', type="start", id=f"{EPOCH}-1"), None),
    ],
    ids=[
        "begins late", "gap", "twice", "from the start again", "an older epoch", "a gap between epochs", "no id",
        "a foreign id", "a leading zero", "the id before", "several lines",
    ],
)  # fmt: skip
def test_what_does_not_continue_is_refused(data: bytes, after: Cursor | None) -> None:
    with pytest.raises(RemoteProtocolError):
        Pages(after).feed(data)


@pytest.mark.parametrize(
    ("type", "line"),
    [
        ("complete", '{"type":"data"}'),
        ("data", '{"type":"complete"}'),
        ("data", '{"type": "complete"}'),
        ("data", '{"data":{"type":"data"},"type":"error"}'),
        ("data", '{"data":1}'),
        ("data", '{"type":1}'),
        ("data", "{bad"),
        ("data", "[" * 100_000),
    ],
)
def test_an_event_is_of_its_chunk_s_type(type: str, line: str) -> None:
    """Else the stream would end where the run does not, or go on where it has ended."""
    with pytest.raises(RemoteProtocolError):
        Pages(None).feed(encode_event(line, type=type, id=f"{EPOCH}-1"))


def test_a_chunk_s_type_is_found_however_it_is_written() -> None:
    page = Pages(None).feed(encode_event('{"data": 1, "type": "complete"}', type="complete", id=f"{EPOCH}-1"))
    assert page is not None
    assert page.ended


def test_a_fault_follows_what_came_before_it() -> None:
    pages = Pages(None)
    told = fault(ErrorInfo("cursor_expired", "gone", details={"earliest": "1-4"}))
    page = pages.feed(said(1, 2) + told + said(3, 3))
    assert page is not None
    assert page.cursor == Cursor(EPOCH, 2)
    assert isinstance(pages.fault, CursorExpired)
    assert pages.fault.details == {"earliest": "1-4"}


def test_a_fault_may_pass() -> None:
    pages = Pages(None)
    assert pages.feed(fault(Unavailable("restarting").info)) is None
    assert isinstance(pages.fault, Unavailable)


def test_a_fault_without_a_reason_is_one() -> None:
    pages = Pages(None)
    assert pages.feed(encode_event("?", type="!error")) is None
    assert isinstance(pages.fault, RemoteProtocolError)


def test_a_runs_own_error_is_no_fault() -> None:
    pages = Pages(None)
    error: Chunk[None] = Chunk("error", error=ErrorInfo("cancelled", "no"))
    page = pages.feed(frames(make_batch(EPOCH, 1, [error])))
    assert page is not None
    assert page.ended
    assert pages.fault is None


def test_an_event_that_never_ends_is_refused() -> None:
    pages = Pages(None)
    pieces = [b"data: " + b"x" * 65536] * (limits.EVENT_BYTES // 65536 + 2)
    with pytest.raises(LimitExceeded):
        any(pages.feed(piece) for piece in pieces)


def test_the_pause_that_the_server_asks_for() -> None:
    pages = Pages(None)
    assert pages.retry == 0.0
    pages.feed(retry(1.5))
    assert pages.retry == 1.5


# --- JSON pages ------------------------------------------------------------------------------------------------------


def view(*items: tuple[str, bytes], caught_up: bool = True, ended: bool = False) -> PageView:
    chunks = [ChunkView(cursor, msgspec.Raw(line)) for cursor, line in items]
    return PageView(chunks=chunks, cursor=items[-1][0] if items else None, caught_up=caught_up, ended=ended)


def test_a_json_page() -> None:
    stored = make_batch(EPOCH, 1, [Chunk("start"), Chunk("data", 1)])
    items = [(f"{EPOCH}-{seq}", line) for seq, line in enumerate(stored.lines(), 1)]
    page = page_of(view(*items, ended=True), None)
    assert page.batches == (stored,)
    assert (page.cursor, page.caught_up, page.ended) == (stored.cursor, True, True)


def test_an_empty_json_page_stays_where_it_was() -> None:
    after = Cursor(EPOCH, 7)
    assert page_of(view(), after).cursor == after
    assert page_of(view(), None).cursor is None


def test_a_json_page_with_a_gap_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        page_of(view((f"{EPOCH}-2", b"{}")), None)


def test_a_json_chunk_in_several_lines_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        page_of(view((f"{EPOCH}-1", b'{"type":\n"start"}')), None)

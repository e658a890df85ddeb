"""Server-sent events: the standard's corner cases in whole, byte-wise and random pieces, and round trips."""

from __future__ import annotations

import random
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.model import limits
from loom.model.chunk import Batch, Chunk
from loom.model.errors import ErrorInfo, LimitExceeded, LocalProtocolError
from loom.model.grammar import check_type
from loom.wire.json import decode, make_batch
from loom.wire.sse import (
    FAULT,
    HEARTBEAT,
    Decoder,
    Event,
    Framer,
    bookmark,
    comment,
    encode_event,
    fault,
    frames,
    retry,
)

Seen = list[tuple[str, str, str]]
"""(type, data as text, last event id) of each event."""


def e(data: str, type: str = "message", id: str = "") -> tuple[str, str, str]:
    return type, data, id


BODIES: dict[str, tuple[bytes, Seen]] = {
    "nothing": (b"", []),
    "plain": (b"data: a\n\n", [e("a")]),
    "without the space": (b"data:a\n\n", [e("a")]),
    "only one space is taken": (b"data:  a \n\n", [e(" a ")]),
    "a tab is no space": (b"data:\ta\n\n", [e("\ta")]),
    "CR": (b"data: a\rdata: b\r\r", [e("a\nb")]),
    "CRLF": (b"data: a\r\ndata: b\r\n\r\n", [e("a\nb")]),
    "all line ends mixed": (b"data: a\rdata: b\r\ndata: c\n\rdata: d\n\n", [e("a\nb\nc"), e("d")]),
    "CR LF CR": (b"data: a\r\n\rdata: b\n\r\n", [e("a"), e("b")]),
    "several lines of data": (b"data: a\ndata\ndata: c\n\n", [e("a\n\nc")]),
    "empty data is an event": (b"data\n\ndata:\n\ndata: \n\n", [e("")] * 3),
    "two empty lines of data": (b"data\ndata\n\n", [e("\n")]),
    "no data, no event, and the type is forgotten": (b"event: x\n\ndata: a\n\n", [e("a")]),
    "blank lines": (b"\n\n\r\r\r\n\ndata: a\n\n\n\n", [e("a")]),
    "type": (b"event: x\ndata: a\n\ndata: b\n\n", [e("a", "x"), e("b")]),
    "the last type counts": (b"event: x\nevent: y\ndata: a\n\n", [e("a", "y")]),
    "an empty type is message": (b"event: x\nevent\ndata: a\n\nevent:\ndata: b\n\n", [e("a"), e("b")]),
    "the type may follow the data": (b"data: a\nevent: x\n\n", [e("a", "x")]),
    "id persists": (b"id: 1\ndata: a\n\ndata: b\n\n", [e("a", id="1"), e("b", id="1")]),
    "id without data persists too": (b"id: 1\n\ndata: a\n\n", [e("a", id="1")]),
    "an empty id resets": (
        b"id: 1\ndata: a\n\nid\ndata: b\n\nid: 2\nid:\ndata: c\n\n",
        [e("a", id="1"), e("b"), e("c")],
    ),
    "an id with NUL is ignored": (b"id: 1\ndata: a\n\nid: 2\x003\ndata: b\n\n", [e("a", id="1"), e("b", id="1")]),
    "the id may follow the data": (b"data: a\nid: 7\n\n", [e("a", id="7")]),
    "comments": (b": hello\n:\ndata: a\n:data: b\n\n:\n\n", [e("a")]),
    "unknown fields": (b"datax: a\n data: b\nDATA: c\ndata : d\nfoo\ndata: e\n\n", [e("e")]),
    "colons in the value": (b"data: a: b:c\n\ndata::\n\n", [e("a: b:c"), e(":")]),
    "a BOM at the start": (b"\xef\xbb\xbfdata: a\n\n", [e("a")]),
    "one BOM only": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [e("b")]),
    "a BOM further on is a character": (
        b"data: a\n\n\xef\xbb\xbfdata: b\n\ndata: \xef\xbb\xbfc\n\n",
        [e("a"), e("\ufeffc")],
    ),
    "half a BOM": (b"\xef\xbbdata: a\n\ndata: b\n\n", [e("b")]),
    "nothing but half a BOM": (b"\xef\xbb", []),
    "the end in mid-event": (b"data: a\n\nid: 2\nevent: x\ndata: b\n", [e("a")]),
    "the end in mid-line": (b"data: a\n\ndata: b", [e("a")]),
    "the end behind a CR": (b"data: a\r\r", [e("a")]),
    "UTF-8": ("id: ö\nevent: 線\ndata: a€😀\n\n".encode(), [e("a€😀", "線", "ö")]),
    "what is not UTF-8": (b"data: a\xff\xf0\x9f\x98\ndata: \xc3\n\n", [e("a\ufffd\ufffd\n\ufffd")]),
    "NUL in data": (b"data: a\x00b\n\n", [e("a\x00b")]),
    "other separators end no line": (
        "data: a\u2028b\x0bc\x0cd\x1ce\x85f\n\n".encode(),
        [e("a\u2028b\x0bc\x0cd\x1ce\x85f")],
    ),
    "retry is no event": (b"retry: 10\n\ndata: a\nretry: 20\n\n", [e("a")]),
    "as Loom writes it": (
        b'id: 7-1\nevent: data\ndata: {"type":"data"}\n\nid: 7-2\nevent: complete\ndata: {}\n\n',
        [e('{"type":"data"}', "data", "7-1"), e("{}", "complete", "7-2")],
    ),
    "a form between": (
        b"id: 1\nevent: x\ndata: a\n\n:\n\nevent: y\nid: 2\ndata: b\n\nid: 3\ndata: c\n\n",
        [e("a", "x", "1"), e("b", "y", "2"), e("c", id="3")],
    ),
    "a space for an id": (
        b"id: 1\ndata: a\n\nid: \ndata: b\n\nid:  \ndata: c\n\n",
        [e("a", id="1"), e("b"), e("c", id=" ")],
    ),
}


def seen(events: list[Event]) -> Seen:
    return [(event.type, event.text, event.id) for event in events]


def feed(body: bytes, cuts: list[int]) -> Seen:
    decoder = Decoder()
    events: list[Event] = []
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        events += decoder.feed(body[start:end])
    return seen(events)


def by_the_letter(body: bytes) -> Seen:
    """The standard's algorithm in its own order (decode, then parse), one character at a time, for comparison."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    lines, line = [], ""
    for index, char in enumerate(text):
        if char == "\n" and index and text[index - 1] == "\r":
            continue
        if char in "\r\n":
            lines.append(line)
            line = ""
        else:
            line += char
    events: Seen = []
    data = type = id = ""
    for line in lines:
        if line == "":
            if data:
                events.append((type or "message", data[:-1], id))
            data = type = ""
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data += value + "\n"
            elif name == "event":
                type = value
            elif name == "id" and "\0" not in value:
                id = value
    return events


@pytest.mark.parametrize("name", BODIES)
def test_whole(name: str) -> None:
    body, expected = BODIES[name]
    assert feed(body, []) == expected
    assert by_the_letter(body) == expected


@pytest.mark.parametrize("name", BODIES)
def test_byte_by_byte(name: str) -> None:
    body, expected = BODIES[name]
    assert feed(body, list(range(1, len(body)))) == expected


@pytest.mark.parametrize("name", BODIES)
def test_cut_at_every_place(name: str) -> None:
    body, expected = BODIES[name]
    for cut in range(len(body)):
        assert feed(body, [cut]) == expected, cut


@pytest.mark.parametrize("name", BODIES)
def test_random_pieces(name: str) -> None:
    body, expected = BODIES[name]
    chance = random.Random(name)
    for _ in range(50):
        cuts = sorted(chance.randrange(len(body) + 1) for _ in range(chance.randrange(1, 6)))
        assert feed(body, cuts) == expected, cuts


PIECES = st.sampled_from([
    b"data", b"id", b"event", b"retry", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"a", b"7", b"\0", b"\xef\xbb\xbf",
    b"\xef", b"\xff", b"\xf0\x9f\x98\x80", b"\xf0\x9f", b"data: x\n\n", b"id: 1\nevent: e\ndata: y\n\n", b":\n\n",
])  # fmt: skip


@given(st.lists(PIECES, max_size=30), st.randoms(use_true_random=False))
def test_anything_in_any_pieces_is_parsed_by_the_letter(pieces: list[bytes], chance: random.Random) -> None:
    body = b"".join(pieces)
    cuts = sorted(chance.randrange(len(body) + 1) for _ in range(chance.randrange(5)))
    assert feed(body, cuts) == by_the_letter(body)


def test_an_event_is_given_as_soon_as_its_blank_line_is_there() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\r") == []
    assert seen(decoder.feed(b"\r")) == [("message", "a", "")]
    assert decoder.feed(b"\n") == []
    assert seen(decoder.feed(b"data: b\n\n")) == [("message", "b", "")]


def test_the_last_event_id_changes_with_the_dispatch() -> None:
    decoder = Decoder()
    decoder.feed(b"id: 1\n")
    assert decoder.last_event_id == ""
    decoder.feed(b"\n")
    assert decoder.last_event_id == "1"


@pytest.mark.parametrize(
    ("line", "pause"),
    [
        (b"retry: 2500", 2.5),
        (b"retry:0", 0.0),
        (b"retry: 007", 0.007),
        (b"retry: " + b"9" * 5000, 1e9),
        (b"retry", None),
        (b"retry:", None),
        (b"retry: -1", None),
        (b"retry: +1", None),
        (b"retry: 1.5", None),
        (b"retry: 10 ", None),
        (b"retry:  10", None),
        ("retry: ٣".encode(), None),
        ("retry: ²".encode(), None),
    ],
)
def test_retry_takes_ascii_digits_only(line: bytes, pause: float | None) -> None:
    decoder = Decoder()
    decoder.feed(line + b"\n")
    assert decoder.retry == pause


@pytest.mark.parametrize(
    "endless",
    [
        b"data: aaaaaaaaaaaaa",
        b"data: aaaaaaaaaaaaa\n",
        b"data\n",
        b": aaaaaaaaaaaaaaa",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ],
)
def test_an_event_without_end_is_refused(endless: bytes) -> None:
    decoder = Decoder(limit=1000)
    with pytest.raises(LimitExceeded, match="1000"):  # noqa: PT012 (at some call)
        for _ in range(1000):
            decoder.feed(endless)


@pytest.mark.parametrize("form", [b"data: %b\n\n", b"data: x\ndata: %b\n\n", b"data: %b\r\n\r\n"])
def test_the_limit_is_for_one_event(form: bytes) -> None:
    inside, outside = form % (b"a" * 900), form % (b"a" * 1100)
    assert len(Decoder(limit=1000).feed(inside * 50)) == 50
    with pytest.raises(LimitExceeded):
        Decoder(limit=1000).feed(inside + outside)


def test_what_is_short_is_never_too_large_however_much_there_is() -> None:
    decoder = Decoder(limit=100)
    for _ in range(100):
        assert decoder.feed(b": a comment\nid: 1\nevent: x\n\ndata: a\n\n" * 10)


# --- encoding --------------------------------------------------------------------------------------------------------


def batch_of(*types: str, first: int = 1) -> Batch:
    return make_batch(100_000_042, first, [Chunk(type, {"text": "one\ntwo %d ü"}, time=1.5) for type in types])


@pytest.mark.parametrize("types", [["data"], ["data"] * 5, ["start", "data", "data", "complete"], ["a", "ab", "a/b"]])
@pytest.mark.parametrize("first", [1, 8, 999, 12_345_678])
@pytest.mark.parametrize("prefix", ["", "k-1%d:"])
def test_frames(types: list[str], first: int, prefix: str) -> None:
    batch = batch_of(*types, first=first)
    events = Decoder().feed(frames(batch, prefix=prefix.encode()))
    assert [event.type for event in events] == types
    assert [event.data for event in events] == batch.lines()
    assert [event.id for event in events] == [f"{prefix}100000042-{first + index}" for index in range(len(types))]
    assert seen(events) == by_the_letter(frames(batch, prefix=prefix.encode()))


def test_a_framer_remembers_nothing_wrong() -> None:
    for named in (True, False):
        framer = Framer(named=named, prefix=b"r:")
        for batch in [
            batch_of("start"), batch_of("data", first=2), batch_of("data", first=3), batch_of("data", "data", first=4),
            batch_of("data2", first=6), batch_of("data", "data2", first=7), batch_of("dat", first=9),
            Batch(9, 10, 10, b'{"type":"dat"}\n'), Batch(7, 11, 12, b'{"type":"dat"}\n{"type":"dat","data":1}\n'),
        ]:  # fmt: skip
            assert framer.frames(batch) == frames(batch, named=named, prefix=b"r:")


def test_frames_are_exactly_so() -> None:
    batch = Batch(7, 1, 2, b'{"type":"start"}\n{"type":"data","data":1}\n')
    assert frames(batch) == (
        b'id: 7-1\nevent: start\ndata: {"type":"start"}\n\nid: 7-2\nevent: data\ndata: {"type":"data","data":1}\n\n'
    )
    assert (
        frames(batch, named=False) == b'id: 7-1\ndata: {"type":"start"}\n\nid: 7-2\ndata: {"type":"data","data":1}\n\n'
    )
    assert frames(batch.slice(2, 2), prefix=b"r:") == b'id: r:7-2\nevent: data\ndata: {"type":"data","data":1}\n\n'
    assert frames(batch.slice(2, 2), named=False) == b'id: 7-2\ndata: {"type":"data","data":1}\n\n'


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
    st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
)
def test_what_is_encoded_is_decoded(data: str, type: str | None, id: str | None) -> None:
    (event,) = Decoder().feed(encode_event(data, type=type, id=id))
    as_lines = data.replace("\r\n", "\n").replace("\r", "\n")
    assert seen([event]) == [(type or "message", as_lines, id or "")]


@pytest.mark.parametrize("char", ["\n", "\r", "\0", "\x1b", "\x7f"])
@pytest.mark.parametrize("field", ["id", "type"])
def test_control_characters_are_refused(field: str, char: str) -> None:
    fields: dict[str, Any] = {field: f"a{char}data: forged"}
    with pytest.raises(LocalProtocolError):
        encode_event("x", **fields)
    with pytest.raises(LocalProtocolError):
        bookmark(f"a{char}")
    with pytest.raises(LocalProtocolError):
        comment(f"a{char}")


def test_comments_say_nothing() -> None:
    assert Decoder().feed(HEARTBEAT + comment() + comment("data: x") + b"data: a\n\n") == [Event("message", b"a")]


def test_a_bookmark_sets_the_last_event_id_without_an_event() -> None:
    decoder = Decoder()
    assert decoder.feed(bookmark("run:")) == []
    assert decoder.last_event_id == "run:"


def test_retry_round_trip() -> None:
    decoder = Decoder()
    decoder.feed(retry(2.5))
    assert decoder.retry == 2.5


def test_a_fault_is_no_chunk() -> None:
    info = ErrorInfo("cursor_expired", "gone\nreally", details={"earliest": "7-3"})
    (event,) = Decoder().feed(fault(info))
    assert event.type == FAULT
    assert decode(event.data)["error"]["code"] == "cursor_expired"
    with pytest.raises(LocalProtocolError):
        check_type(FAULT)
    (unnamed,) = Decoder().feed(fault(info, named=False))
    assert (unnamed.type, unnamed.data) == ("message", event.data)


def test_the_limit_lets_every_chunk_pass() -> None:
    """Ours, and that of httpx2's reader, which counts the other fields as well (its default is 1 MiB)."""
    longest = "x" * 64
    line = b'{"type":"%b","data":"' % longest.encode()
    line += b"x" * (limits.CHUNK_BYTES - len(line) - 2) + b'"}'
    batch = Batch(10**16 - 1, 10**16 - 1, 10**16 - 1, line + b"\n")
    check_type(longest)
    stream = frames(batch, prefix=b"r" * limits.ID_LENGTH + b":")
    (event,) = Decoder().feed(stream)
    assert event.data == line
    response = httpx2.Response(
        200, headers={"content-type": "text/event-stream"}, content=stream, request=httpx2.Request("GET", "http://x")
    )
    (theirs,) = httpx2.EventSource(response)
    assert theirs.data.encode() == line

"""JSON: encoded once, decoded with care."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.model import limits
from loom.model.chunk import Batch, Chunk, Message, Progress
from loom.model.errors import ErrorInfo, InvalidInput, LimitExceeded, RemoteProtocolError
from loom.wire.codec import convert
from loom.wire.data import canonical
from loom.wire.json import (
    check_depth,
    check_size,
    decode,
    decode_as,
    decode_batch,
    decode_chunk,
    decode_message,
    encode,
    ending_of,
    make_batch,
    mended,
    type_of,
)

DEEP = 100_000

SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
JSON = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


class Item(msgspec.Struct):
    name: str
    count: int = 1


class Order(msgspec.Struct):
    items: list[Item]


class Model(pydantic.BaseModel):
    name: str
    tags: list[int] = []


class Holder(msgspec.Struct):
    model: Model


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Options(TypedDict, total=False):
    depth: int


class Array:
    """What numpy's arrays and scalars look like from here."""

    def tolist(self) -> list[int]:
        return [1, 2]


class Custom:
    pass


# --- encoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b"null"),
        ("ä\u2019\n", b'"\xc3\xa4\xe2\x80\x99\\n"'),
        ({"b": 1, "a": [True, 0.5]}, b'{"b":1,"a":[true,0.5]}'),
        ([math.nan, math.inf, -math.inf], b"[null,null,null]"),
        (Item("x"), b'{"name":"x","count":1}'),
        (Point(1), b'{"x":1,"y":0}'),
        (Model(name="x", tags=[1]), b'{"name":"x","tags":[1]}'),
        ({"model": Model(name="x")}, b'{"model":{"name":"x","tags":[]}}'),
        (Array(), b"[1,2]"),
        (datetime(2026, 1, 2, tzinfo=UTC), b'"2026-01-02T00:00:00Z"'),
        (msgspec.Raw(b"[1]"), b"[1]"),
        (Chunk("data", 1), b'{"type":"data","data":1}'),
        (Chunk("data"), b'{"type":"data"}'),
        (Chunk("progress", progress=Progress(3, 10)), b'{"type":"progress","progress":{"current":3,"total":10}}'),
        (Chunk("error", error=ErrorInfo("x", "y")), b'{"type":"error","error":{"code":"x","message":"y"}}'),
        (Message("x", 1, "s", "i", 2.0), b'{"type":"x","data":1,"sender":"s","id":"i","time":2.0}'),
    ],
)
def test_encode(value: Any, expected: bytes) -> None:
    assert encode(value) == expected


@pytest.mark.parametrize("value", [Custom(), object, {"a": [Custom()]}, {1j: 1}])
def test_encode_refuses_what_has_no_json(value: Any) -> None:
    with pytest.raises(TypeError):
        encode(value)


def test_encode_names_the_type_that_has_no_json() -> None:
    with pytest.raises(TypeError, match=r"test_json\.Custom"):
        encode([Custom()])


@pytest.mark.parametrize("encoding", [encode, canonical])
@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85"])
def test_line_ends_to_unicode_go_out_as_escapes(encoding: Callable[[Any], bytes], end: str) -> None:
    for value in (
        end,
        f"a{end}{end}é\u2019©…",
        [f"\\{end}"],
        {f"key{end}": [end, 1]},
        {1: end},
        Item(end),
        ErrorInfo("x", end),
    ):
        data = encoding(value)
        assert len(data.decode().splitlines()) == 1
        assert decode(data) == msgspec.to_builtins(value, str_keys=True)
    raw = msgspec.json.encode([end])
    assert encoding({"came": msgspec.Raw(raw)}) == b'{"came":["\\u%04x"]}' % ord(end)


@given(st.recursive(st.text(st.sampled_from('a\\"\n\x80\x85\u2028\u2029\u2027é©¨…日😀')), st.lists))
def test_any_text_is_one_line_to_any_reader(value: Any) -> None:
    for data in (encode(value), canonical(value)):
        assert len(data.decode().splitlines()) == 1
        assert data.splitlines() == [data]
        assert json.loads(data) == value


def test_canonical_gives_equal_values_equal_bytes() -> None:
    one: dict[str, Any] = {"b": {"y": 1, "x": [{"d": 1, "c": 2}]}, "a": Point(1)}
    other: dict[str, Any] = {"a": {"y": 0, "x": 1}, "b": {"x": [{"c": 2, "d": 1}], "y": 1}}
    assert canonical(one) == canonical(other) == b'{"a":{"x":1,"y":0},"b":{"x":[{"c":2,"d":1}],"y":1}}'


@given(JSON)
def test_what_was_encoded_is_decoded(value: Any) -> None:
    assert decode(encode(value)) == value
    assert decode(canonical(value)) == value
    assert b"\n" not in encode(value)


# --- depth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b'[{"a":' * DEEP,
        b"[1," * DEEP,
        b'{"type":"data","data":' + b"[" * DEEP + b"]" * DEEP + b"}",
    ],
)
@pytest.mark.parametrize("reader", [decode, check_depth, decode_chunk, decode_message])
def test_deep_json_is_refused_quickly(data: bytes, reader: Any) -> None:
    started = time.perf_counter()
    with pytest.raises(RemoteProtocolError):
        reader(data)
    assert time.perf_counter() - started < 1.0


def test_deep_json_in_a_batch_is_refused() -> None:
    payload = b'{"type":"data"}\n{"type":"data","data":' + b"[" * DEEP + b"]" * DEEP + b"}\n"
    with pytest.raises(RemoteProtocolError):
        decode_batch(Batch(1, 1, 2, payload))


def test_depth_is_accepted_up_to_its_bound() -> None:
    most = limits.JSON_DEPTH
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        inside = b"1" if opening == b'{"a":' else b""
        assert decode(opening * most + inside + closing * most)
        with pytest.raises(RemoteProtocolError):
            decode(opening * (most + 1) + inside + closing * (most + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b"[]," * 10_000 + b"[]]",
        b'["' + b"[" * 10_000 + b'"]',
        b'["' + b'\\"[' * 10_000 + b'"]',
        b'{"' + b"{" * 10_000 + b'":"\\\\"}',
    ],
)
def test_brackets_that_do_not_nest_are_not_counted(data: bytes) -> None:
    check_depth(data)
    assert decode(data)
    check_depth(bytearray(data))
    check_depth(memoryview(data))


@pytest.mark.parametrize(
    "end", [b'"' + b'\\"' * 500_000, b'"' + b'\\"' * 500_000 + b"\\", b'"' + b"\\" * 999_999, b'"a",' * 250_000]
)
def test_no_megabyte_takes_long_to_look_at(end: bytes) -> None:
    """A string that never ends is looked at once, not again from each of its quotes."""
    started = time.perf_counter()
    check_depth(b"[]," * limits.JSON_DEPTH + b"[]" + end)
    assert time.perf_counter() - started < 1.0


# --- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"{", b"[1,]", b"nul", b"'a'", b"\xff", b'"\xff"', b'"\\ud800"', b"1 2", b"NaN"])
@pytest.mark.parametrize("reader", [decode, decode_chunk, decode_message])
def test_what_is_not_json_is_refused(data: bytes, reader: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        reader(data)


@pytest.mark.parametrize(
    "line", [b"{}", b"[]", b"1", b'{"data":1}', b'{"type":1}', b'{"type":"x","time":"y"}', b'{"type":"x","error":1}']
)
def test_what_is_no_chunk_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not a chunk"):
        decode_chunk(line)


def test_decode_chunk() -> None:
    line = b'{"type":"progress","progress":{"current":1},"source":"a","time":1.5,"unknown":1}'
    assert decode_chunk(line) == Chunk("progress", progress=Progress(1), source="a", time=1.5)


def test_decode_message() -> None:
    message = Message("approve", {"ok": True}, sender="s", id="1", time=2.0)
    assert decode_message(encode(message)) == message
    with pytest.raises(RemoteProtocolError, match="not a message"):
        decode_message(b'{"type":"x","sender":1}')


def test_decode_batch_gives_each_chunk_its_position() -> None:
    batch = make_batch(7, 5, [Chunk("data", 1), Chunk("data", 2, seq=99, epoch=98)])
    assert [(chunk.data, chunk.seq, chunk.epoch) for chunk in decode_batch(batch)] == [(1, 5, 7), (2, 6, 7)]


@pytest.mark.parametrize("last", [1, 3])
def test_decode_batch_refuses_a_wrong_count(last: int) -> None:
    two = make_batch(7, 1, [Chunk("data", 1), Chunk("data", 2)])
    with pytest.raises(RemoteProtocolError, match="holds 2"):
        decode_batch(Batch(7, 1, last, two.payload))


def test_decode_batch_refuses_what_are_no_chunks() -> None:
    with pytest.raises(RemoteProtocolError, match="not chunks"):
        decode_batch(Batch(7, 1, 1, b"[]\n"))


@given(st.lists(JSON, min_size=1, max_size=5), st.integers(1, 10**15), st.integers(1, 10**15))
def test_a_batch_comes_back_as_it_was(values: list[Any], epoch: int, first: int) -> None:
    batch = make_batch(epoch, first, [Chunk("data", value) for value in values])
    assert len(batch) == len(values)
    assert [chunk.data for chunk in decode_batch(batch)] == values
    assert [decode_chunk(line).data for line in batch.lines()] == values


def test_make_batch_of_messages_and_of_nothing() -> None:
    assert make_batch(1, 1, [Message("x"), Message("y")]).payload == b'{"type":"x"}\n{"type":"y"}\n'
    assert make_batch(1, 1, []) == Batch(1, 1, 0, b"")


def test_type_of_needs_no_decoding() -> None:
    assert type_of(encode(Chunk("text-delta", {"type": "other"}))) == "text-delta"
    assert type_of(encode(Chunk("data"))) == "data"
    assert type_of(encode(Message("approve", 1))) == "approve"


@pytest.mark.parametrize(
    "line",
    [b'{"data":1,"type":"data"}', b"", b'{"type":"da', b'{"type":"d\xc3\xa4ta"}', b'{"type":1}', b'{"type":"a\\nb"}'],
)
def test_a_line_that_does_not_begin_with_its_type_is_refused(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        type_of(line)


def test_ending_of_a_complete_run_is_its_result() -> None:
    error, result = ending_of(make_batch(1, 1, [Chunk("data", "\n"), Chunk("complete", {"a": [1]})]))
    assert error is None
    assert result is not None
    assert bytes(result) == b'{"a":[1]}'
    assert ending_of(make_batch(1, 1, [Chunk("complete")])) == (None, msgspec.Raw(b"null"))


def test_ending_of_a_failed_run_is_its_error() -> None:
    info = ErrorInfo("cancelled", "by user", details={"abandoned": ["x"]})
    assert ending_of(make_batch(1, 1, [Chunk("error", error=info)])) == (info, None)
    assert ending_of(make_batch(1, 1, [Chunk("data"), Chunk("error")])) == (ErrorInfo("run_failed", ""), None)


# --- converting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "type", "expected"),
    [
        (1, int, 1),
        (1, float, 1.0),
        ("x", str | None, "x"),
        ({"name": "x"}, Item, Item("x")),
        ({"x": 1}, Point, Point(1)),
        ({"depth": 1}, Options, {"depth": 1}),
        ({"name": "x", "tags": ["1"]}, Model, Model(name="x", tags=[1])),
        ({"model": {"name": "x"}}, Holder, Holder(Model(name="x"))),
        ([{"name": "x"}], list[Model], [Model(name="x")]),
        ("2026-01-02T00:00:00Z", datetime, datetime(2026, 1, 2, tzinfo=UTC)),
        ({"a": [1]}, Any, {"a": [1]}),
    ],
)
def test_convert(value: Any, type: Any, expected: Any) -> None:
    assert convert(value, type) == expected


@pytest.mark.parametrize(
    ("value", "type", "field"),
    [
        ("x", int, ""),
        ({}, Item, ""),
        ({"name": 1}, Item, ".name"),
        ({"items": [{"name": "a"}, {"name": 2}]}, Order, ".items[1].name"),
        ({"x": "1"}, Point, ".x"),
        ({"depth": "1"}, Options, ".depth"),
        ({"name": "a", "tags": [1, "x"]}, Model, ".tags[1]"),
        ({"tags": []}, Model, ".name"),
        ({"model": 1}, Holder, ".model"),
        ({"model": {"name": "a", "tags": ["x"]}}, Holder, ".model.tags[0]"),
        ([{"model": {"name": 1}}], list[Holder], "[0].model.name"),
        ({"a": "x"}, dict[str, int], "[...]"),
    ],
)
def test_convert_names_the_field_that_does_not_fit(value: Any, type: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        convert(value, type, field="input")
    assert caught.value.details == {"field": "input" + field}
    assert str(caught.value).startswith(f"input{field}: ")


def test_convert_names_the_input_when_nothing_else_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"^input: Expected `int`"):
        convert("x", int)


class Fussy:
    """A class whose validation raises a plain `ValueError`."""

    @classmethod
    def model_validate(cls, value: Any) -> Fussy:
        raise ValueError(f"no {value!r} today")


class Mute:
    """A class whose validation raises a `ValueError` that tells no faults."""

    @classmethod
    def model_validate(cls, value: Any) -> Mute:
        class Silent(ValueError):
            def errors(self) -> list[Any]:
                return []

        raise Silent("nothing to say")


@pytest.mark.parametrize(("type", "message"), [(Fussy, "no 1 today"), (Mute, "nothing to say")])
def test_convert_tells_what_a_class_of_its_own_says(type: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        convert(1, type, field="input")


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_check_size() -> None:
    check_size(b"xx", 2, "a thing")
    with pytest.raises(LimitExceeded, match="a thing of 3 bytes is larger than 2") as caught:
        check_size(bytearray(b"xxx"), 2, "a thing")
    assert caught.value.code == "too_large"


def test_keys_that_are_no_strings_are_strings_in_json_and_come_back_as_their_type() -> None:
    scores = {10: "b", 2: "a"}
    assert canonical(scores) == b'{"10":"b","2":"a"}'
    assert convert(decode(encode(scores)), dict[int, str]) == scores
    assert convert({"1": 2.0}, dict[str, float]) == {"1": 2.0}


class _Envelope(msgspec.Struct):
    items: list[_Item]


class _Item(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    ("data", "field"),
    [(b'{"items":[{"name":1}]}', "items[0].name"), (b'{"items":[{}]}', "items[0].name"), (b"{}", "items")],
)
def test_decode_as_names_the_field_also_one_that_is_missing(data: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_as(data, _Envelope)
    assert caught.value.details["field"] == field


HALVES = [rb"\uD800", rb"\udc00", rb"\ud83d\u0041", rb"\ud83d\ud83d\ude00", rb"\ude00\ud83d", rb"x\ud83d"]


@pytest.mark.parametrize("half", HALVES)
def test_a_lone_surrogate_is_named_and_where_it_stands(half: bytes) -> None:
    data = b'{"a\\\\\\n": "' + half + b'"}'
    place = data.index(half) + half.index(b"\\")
    for read in (
        decode,
        lambda data: decode_as(data, dict[str, str]),
        lambda data: decode_as(data, dict[str, msgspec.Raw]),
    ):
        with pytest.raises(
            RemoteProtocolError, match=f"lone surrogate in JSON: .*at byte {place} is half of a character"
        ):
            read(data)


@pytest.mark.parametrize("data", [rb'"\ud83d\ude00"', rb'"\\ud83d"', rb'"\\\\ud83d\\"'])
def test_a_pair_and_a_backslash_before_a_u_are_none(data: bytes) -> None:
    assert decode(mended(data)) == decode(data)
    assert mended(data) == data


def test_bytes_that_are_no_utf_8_are_named_and_where_they_stand() -> None:
    for read in (decode, lambda data: decode_as(data, dict[str, str])):
        with pytest.raises(RemoteProtocolError, match="no UTF-8: invalid start byte at byte 10"):
            read(b'{"key": "x\xff"}')

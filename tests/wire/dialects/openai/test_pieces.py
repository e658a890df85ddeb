"""What chunks say to a client of OpenAI, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from loom.model.chunk import Chunk
from loom.model.parts import ReasoningPart, RefusalPart, TextPart, ToolCallPart
from loom.wire.dialects.lines import read_line
from loom.wire.dialects.openai.pieces import Piece, plain_text, result_of, said_of
from loom.wire.json import encode, make_batch


def line_of(chunk: Chunk[Any]) -> bytes:
    return make_batch(100000001, 1, [chunk]).payload


@pytest.mark.parametrize("text", ["a", "two words", "é😀", "<b>"])
def test_a_plain_text_is_found_without_decoding(text: str) -> None:
    line = line_of(Chunk("data", text, time=1.0))
    assert plain_text(line) == encode(text)
    assert said_of(read_line(line)) == (b"content", encode(text))


@pytest.mark.parametrize(
    "chunk", [Chunk("data", "a\nb"), Chunk("data", 1), Chunk("text-delta", "a"), Chunk("progress")]
)
def test_nothing_else_is_taken_for_one(chunk: Chunk[Any]) -> None:
    assert plain_text(line_of(chunk)) is None


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (TextPart("x"), Piece(b"content", b'"x"')),
        (ReasoningPart("x"), Piece(b"reasoning_content", b'"x"')),
        (RefusalPart("x"), Piece(b"refusal", b'"x"')),
        (TextPart(""), None),
        (ToolCallPart("c", "f", "{}"), ToolCallPart("c", "f", "{}")),
    ],
)
def test_parts_go_by_their_kind(part: Any, said: Any) -> None:
    assert said_of(read_line(line_of(Chunk("data", part)))) == said


def test_a_result_is_text_or_its_json() -> None:
    assert result_of(read_line(line_of(Chunk("complete", "done")))) == (b"content", b'"done"')
    assert result_of(read_line(line_of(Chunk("complete", [1])))) == (b"content", b'"[1]"')
    assert result_of(read_line(line_of(Chunk("complete", None)))) is None


def test_text_with_a_source_is_no_plain_text() -> None:
    assert plain_text(line_of(Chunk("data", "x", source="s"))) is None
    assert plain_text(line_of(Chunk("data", "x"))) == b'"x"'

"""Counting: right for any file, however it is cut into blocks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.demo import wordcount
from loom.demo.wordcount import Count, Counter, count_words
from loom.model.chunk import Progress, Result
from loom.model.errors import InvalidInput


def counts_of(*paths: Path) -> list[Count]:
    return [item for item in count_words([str(path) for path in paths]) if isinstance(item, Count)]


def fed(pieces: list[bytes]) -> Count:
    counter = Counter()
    for piece in pieces:
        counter.feed(piece)
    return counter.count("x")


TEXTS = [
    b"",
    b"one",
    b" one  two\n\tthree\r\nfour",
    "Grüße vom Fluß, 水 und\u00a0Wind\u2003weit".encode(),
    b"a\xff\xfeb c\xf0\x9f c\xc3",
    b"\x1c\x85 \xc2\x85x\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_every_cut_counts_the_same(text: bytes) -> None:
    whole = Count("x", text.count(b"\n"), len(text.decode("utf-8", "replace").split()), len(text))
    for cut in range(len(text) + 1):
        assert fed([text[:cut], text[cut:]]) == whole
    assert fed([bytes([byte]) for byte in text]) == whole


@given(st.lists(st.one_of(st.binary(max_size=9), st.text(" \né水a", max_size=9).map(str.encode)), max_size=9))
def test_any_pieces_count_the_same(pieces: list[bytes]) -> None:
    text = b"".join(pieces)
    assert fed(pieces).words == len(text.decode("utf-8", "replace").split())


def test_files_larger_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordcount, "BLOCK_BYTES", 7)
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("some words\nthat lie across the blocks\n" * 30)
    two.write_bytes(b"\xff" * 50 + b" end")
    assert counts_of(one, two) == [Count(str(one), 60, 210, 1140), Count(str(two), 0, 2, 54)]


def test_progress_grows_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordcount, "BLOCK_BYTES", 1)
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"x " * 1000)
    items = list(count_words([str(path) for path in paths]))
    told = [item for item in items if isinstance(item, Progress)]
    assert 100 <= len(told) <= 200
    assert [p.current for p in told] == sorted({p.current for p in told})
    assert told[-1] == Progress(4000, 4000, str(paths[1]))
    assert items[-1] == Result(Count("total", 0, 2000, 4000))


def test_an_empty_file_and_none(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert counts_of(tmp_path / "empty") == [Count(str(tmp_path / "empty"), 0, 0, 0)]
    assert list(count_words([])) == [Result(Count("total", 0, 0, 0))]


def test_a_text() -> None:
    items = list(count_words("two words\n"))
    assert items == [Progress(10, 10, "-"), Count("-", 1, 2, 10), Result(Count("total", 1, 2, 10))]
    assert next(count_words("")) == Count("-", 0, 0, 0)


def test_a_bad_path_is_told_before_anything_is_counted(tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_text("x")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for bad in [tmp_path / "absent", tmp_path, pipe, "with\0nul", ""]:
        with pytest.raises(InvalidInput, match=r"source\[1\]") as caught:
            next(count_words([str(good), str(bad)]))
        assert caught.value.details == {"field": "source[1]"}


def test_below_a_folder_nothing_else_is_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "inside-out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "file").write_text("x y")
    (inside / "in-link").symlink_to(inside / "file")
    (inside / "out-link").symlink_to(outside / "file")
    (inside / "up").symlink_to(tmp_path)
    for good in ("file", "in-link", "../in/file", str(inside / "file"), "up/in/file"):
        assert Count(good, 0, 2, 3) in count_words([good], below=inside)
    for bad in ("../inside-out/file", str(outside / "file"), "out-link", "up/inside-out/file", "/nowhere", "..", "/"):
        with pytest.raises(InvalidInput, match=r"source\[1\]: outside the folder"):
            next(count_words(["file", bad], below=inside))
    for bad in ("nowhere", "", ".", "with\0nul"):
        with pytest.raises(InvalidInput, match=r"source\[0\]"):
            next(count_words([bad], below=inside))


def test_a_file_that_grows_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordcount, "BLOCK_BYTES", 4)
    path = tmp_path / "log"
    path.write_text("ab ")
    items = count_words([str(path)])
    assert next(items) == Progress(3, 3, str(path))
    with path.open("a") as file:
        file.write("cd ef")
    rest = list(items)
    assert rest[0] == Progress(7, 7, str(path))
    assert Count(str(path), 0, 3, 8) in rest

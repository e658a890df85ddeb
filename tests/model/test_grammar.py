"""The life of a run: the whole table."""

from __future__ import annotations

import itertools

import pytest

from loom.model.errors import LocalProtocolError, RemoteProtocolError
from loom.model.grammar import RESERVED, TABLE, State, advance, check_type, is_output

NEW, OPEN, ENDED = State
KINDS = ("start", "output", "complete", "error")

DRAWN = """
state   start   output  complete  error
NEW     OPEN    -       -         ENDED
OPEN    OPEN    OPEN    ENDED     ENDED
ENDED   -       -       -         -
"""


def drawn() -> dict[tuple[State, str], State]:
    header, *rows = [line.split() for line in DRAWN.strip().splitlines()]
    return {
        (State[row[0]], kind): State[following]
        for row in rows
        for kind, following in zip(header[1:], row[1:], strict=True)
        if following != "-"
    }


def test_the_table_is_the_one_that_is_documented() -> None:
    assert drawn() == TABLE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", State)
def test_every_pair(state: State, kind: str) -> None:
    for type in ["data", "progress", "stdout", "x:y/z"] if kind == "output" else [kind]:
        following = drawn().get((state, kind))
        if following is not None:
            assert advance(state, type) is following
            assert advance(state, type, ours=False) is following
        else:
            with pytest.raises(LocalProtocolError, match=state.value):
                advance(state, type)
            with pytest.raises(RemoteProtocolError, match=state.value):
                advance(state, type, ours=False)


def test_nothing_leads_out_of_the_end() -> None:
    assert not [pair for pair in TABLE if pair[0] is ENDED]


def test_every_life_ends_at_most_once() -> None:
    """All words of up to six chunks: what is accepted ends in its last chunk or not at all."""
    for length in range(1, 7):
        for word in itertools.product(("start", "data", "complete", "error"), repeat=length):
            state = NEW
            try:
                for type in word:
                    state = advance(state, type)
            except LocalProtocolError:
                continue
            assert word[0] in ("start", "error")
            ends = [place for place, type in enumerate(word) if type in ("complete", "error")]
            assert ends == ([length - 1] if state is ENDED else [])


def test_what_is_reserved_is_no_output() -> None:
    assert {"start", "complete", "error"} == RESERVED
    assert not any(map(is_output, RESERVED))
    assert all(map(is_output, ("data", "Start", "errors", "text-delta")))


@pytest.mark.parametrize("type", ["data", "text-delta", "A", "0", "a.b:c/d_e-f", "x" * 64])
def test_words(type: str) -> None:
    check_type(type)


@pytest.mark.parametrize(
    "type",
    [
        "",
        "x" * 65,
        "-a",
        ".a",
        "a b",
        "a\n",
        "a\r",
        "a\x00",
        'a"',
        "a\\",
        "ä",
        "\uff41",
        "data\n",
        " data",
        "x" * 100_000,
    ],
)
def test_what_is_no_word_is_refused(type: str) -> None:
    with pytest.raises(LocalProtocolError, match="not a chunk type") as caught:
        check_type(type)
    assert len(str(caught.value)) < 300

"""The life of a run as data: which chunk may follow which, and what a restart takes back.

The table is the truth; the diagram in docs/concepts.md is drawn from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any, TypeVar

from .chunk import Chunk
from .errors import LocalProtocolError, RemoteProtocolError

__all__ = ["RESERVED", "TABLE", "State", "advance", "check_type", "fold", "is_output", "kept_through"]

T = TypeVar("T")


class State(Enum):
    """Of a log, as far as it was written or read."""

    NEW = "NEW"
    OPEN = "OPEN"
    ENDED = "ENDED"


RESERVED = frozenset({"start", "complete", "error"})
"""The types that open an attempt and end the log; every other word is output."""

TABLE: dict[tuple[State, str], State] = {
    (State.NEW, "start"): State.OPEN,
    (State.NEW, "error"): State.ENDED,  # refused, or cancelled, before it began
    (State.OPEN, "start"): State.OPEN,  # a later attempt
    (State.OPEN, "output"): State.OPEN,
    (State.OPEN, "complete"): State.ENDED,
    (State.OPEN, "error"): State.ENDED,
}
"""(state, kind) to the next state; any other pair is an error: ours when writing, the peer's when decoding."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}", re.ASCII)


def is_output(type: str) -> bool:
    """Whether a chunk of this type is output, as opposed to a marker of the run's life."""
    return type not in RESERVED


def check_type(type: str) -> None:
    """Raise `LocalProtocolError` unless `type` is a word: ASCII letters, digits and ``_ . : / -``, at most 64.

    A word has no control character, quote or line end: it stands in SSE fields and JSON as it is.
    """
    if _WORD.fullmatch(type) is None:
        raise LocalProtocolError(
            f"not a chunk type: {type[:80]!r} (a word of letters, digits and _ . : / -, at most 64 characters)"
        )


def advance(state: State, type: str, *, ours: bool = True) -> State:
    """The state after a chunk of `type`.

    Raises `LocalProtocolError` when it is `ours`, else `RemoteProtocolError`.
    """
    kind = type if type in RESERVED else "output"
    following = TABLE.get((state, kind))
    if following is None:
        error = LocalProtocolError if ours else RemoteProtocolError
        raise error(f"a {type!r} chunk may not follow in state {state.value}")
    return following


def kept_through(chunk: Chunk[Any]) -> int | None:
    """For a `start` chunk: up to which seq the earlier output still stands. None for every other chunk.

    Raises `RemoteProtocolError` when it says something else.
    """
    if chunk.type != "start":
        return None
    kept = chunk.data.get("kept_through", 0) if isinstance(chunk.data, dict) else 0
    if type(kept) is not int or kept < 0:
        raise RemoteProtocolError(f"kept_through is a seq or 0, not {kept!r:.80}")
    return kept


def fold(chunks: Iterable[Chunk[T]]) -> list[Chunk[T]]:
    """The output that still stands, in order: each `start` takes back what lies beyond its `kept_through`."""
    standing: list[Chunk[T]] = []
    for chunk in chunks:
        kept = kept_through(chunk)
        if kept is not None:
            while standing and standing[-1].seq > kept:
                standing.pop()
        elif is_output(chunk.type):
            standing.append(chunk)
    return standing

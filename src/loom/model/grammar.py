"""The life of a run as data: which chunk may follow which.

The table is the truth; the diagram in docs/concepts.md is drawn from it.
"""

from __future__ import annotations

import re
from enum import Enum

from .errors import LocalProtocolError, RemoteProtocolError

__all__ = ["RESERVED", "TABLE", "State", "advance", "check_type", "is_output"]


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

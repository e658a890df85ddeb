"""What requests may say beside their bodies, and what several routes answer: rows that operations share."""

from __future__ import annotations

from loom.model import limits
from loom.model.names import ID_PATTERN
from loom.model.options import OPTIONS
from loom.wire.duration import DURATION
from loom.wire.option_text import schema_in_query

from .operations import Answer, Parameter

__all__ = [
    "AFTER",
    "ATTACH",
    "EVENTS",
    "FLAG",
    "FULL",
    "ID",
    "IDEMPOTENCY_KEY",
    "LAST_EVENT_ID",
    "NAMED",
    "QUERY_OPTIONS",
    "READER",
    "RUN",
    "WAIT",
    "at_most",
]

ID = {"type": "string", "pattern": f"^{ID_PATTERN}$", "maxLength": limits.ID_LENGTH}
FLAG = {"type": "string", "enum": ["0", "1", "false", "true", ""]}
_CURSOR = r"^((0|[1-9][0-9]{0,17})-[1-9][0-9]{0,17})?$"

RUN = Parameter("path", "id", "The run.", ID)
READER = Parameter("path", "reader", "The reader, by a name of its own choice: random, best.", ID)
AFTER = Parameter(
    "query",
    "after",
    "A cursor: what follows it. Left out or empty: from the beginning.",
    {"type": "string", "pattern": _CURSOR},
)
FULL = Parameter("query", "full", "0: without input and result, as in lists; for who asks often.", FLAG)
NAMED = Parameter("query", "named", "0: no `event:` lines, for `onmessage`.", FLAG)
ATTACH = Parameter(
    "query",
    "attach",
    "0: a run with `ahead` does not wait for this connection. Its reader says itself how far it has read, if the answer"
    " says `Loom-Ahead` (`POST /runs/{id}/readers/{reader}`).",
    FLAG,
)
WAIT = Parameter(
    "query",
    "wait",
    f"Wait so long for a chunk: 50ms, 2s; at most {limits.LONG_POLL:g} s.",
    {"type": "string", "pattern": DURATION},
)
LAST_EVENT_ID = Parameter("header", "Last-Event-ID", "The id of the last event seen. Wins over `after`.")
IDEMPOTENCY_KEY = Parameter(
    "header",
    "Idempotency-Key",
    "Names the run: sent again with the same request it gets the same run. Not together with an id.",
    {"type": "string", "minLength": 1, "maxLength": limits.IDEMPOTENCY_KEY_LENGTH},
)
QUERY_OPTIONS = tuple(
    Parameter("query", option.word or name, option.doc, schema_in_query(option))
    for name, option in OPTIONS.items()
    if option.query
)
"""The options of a start that stand in its query."""
EVENTS = {
    200: Answer("The run's chunks as events, until its end.", str),
    204: Answer("Nothing is left: the run has ended and the cursor is at its end. Do not reconnect."),
}


def at_most(most: int, default: int) -> Parameter:
    """``?limit=``."""
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter("query", "limit", "At most so many.", schema)

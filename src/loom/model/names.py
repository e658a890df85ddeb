"""Names of runs, actors, keys and queues: their form, and those that are reserved."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from . import limits
from .errors import InvalidInput

__all__ = ["DEFAULT_QUEUE", "ID_PATTERN", "PRIVATE", "PUBLISHED", "Id", "check_id"]

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.:@~-]*"
"""The form of ids, names of actors, and keys: safe in URLs and log lines as they are."""

PRIVATE = "cli."
"""A queue whose name begins so is one command's own: it drives its user's run there, and a server puts none."""

PUBLISHED = "loom.published"
"""The queue of runs that no worker drives: a publisher holds its own entry there, and an entry that lapsed is a
publisher that died. Whoever claims one ends its run."""

DEFAULT_QUEUE = "default"
"""The queue of runs that name none."""

_ID = re.compile(ID_PATTERN, re.ASCII)

Id = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{ID_PATTERN}$", "maxLength": limits.ID_LENGTH})]
"""A name in JSON. Its form stands in the schema, and is checked by `check_id`, whose words are better."""


def check_id(text: str, field: str = "id") -> str:
    """`text`, if it may be an id, an actor's name or a queue's. Raises `InvalidInput` naming `field` otherwise."""
    if not isinstance(text, str):  # a row's number, a UUID: as text they are fine
        raise InvalidInput(f"{field}: {text!r:.80} is no text: give str(...) of it", details={"field": field})
    if len(text) > limits.ID_LENGTH or _ID.fullmatch(text) is None:
        raise InvalidInput(
            f"{field}: {text[:80]!r} is no valid name: a letter or digit, then letters, digits and _ . : @ ~ -,"
            f" at most {limits.ID_LENGTH}",
            details={"field": field},
        )
    return text

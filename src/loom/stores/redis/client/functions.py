"""The server-side functions: their text, and the names that they bear in the server.

The names hold a digest of the text, so that releases which differ can share a server.
"""

from __future__ import annotations

import re
from hashlib import sha256
from importlib.resources import files

from loom.model import limits

__all__ = ["CLEARED", "CODE", "NAME", "QUEUE_LOOK", "name_of"]

CLEARED = 1000
"""Trimmed batches that one call clears away: a fraction of a millisecond of the server's time."""

LAPSING = 1000
"""Claims and pauses that may lapse soon and that one look returns: the same number of each queue, actor and lease,
first those that were not renewed for longest. A few milliseconds of the process's time."""

LIST_LOOK = 500
"""Runs of a list that one call looks through: others' calls go between."""

NOTICE_BYTES = 8192
"""A batch that is published with its notice. Valkey's bound on what waits for a subscriber does not count longer
messages (measured), and who reads them from the log reads them once a process."""

QUEUE_LOOK = 500
"""Entries of the queue that one call of a list looks at: others' calls go between."""

SILENT_WORKERS = 100
"""Silent workers that one registration forgets: more than ever fall silent between two, but few for the server."""

_text = re.sub(
    r"LIMIT_([A-Z_]+)",
    lambda match: str(globals()[match[1]] if match[1] in globals() else getattr(limits, match[1])),
    files("loom.stores.redis").joinpath("functions.lua").read_text(),
)
_version = sha256(_text.encode()).hexdigest()[:8]

CODE = _text.replace("VERSION", _version)
"""The text for FUNCTION LOAD."""

NAME = f"loom_{_version}"
"""The library's name."""


def name_of(function: str) -> str:
    """The name of a function for FCALL."""
    return f"{NAME}_{function}"

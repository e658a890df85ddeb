"""The server-side functions: their text, and the names that they bear in the server.

The names hold a digest of the text, so that releases which differ can share a server.
"""

from __future__ import annotations

import re
from hashlib import sha256
from importlib.resources import files

from loom.model import limits

__all__ = ["CODE", "NAME", "name_of"]

_text = re.sub(
    r"LIMIT_([A-Z_]+)",
    lambda match: str(getattr(limits, match[1])),
    files("loom.stores.redis").joinpath("functions.lua").read_text(),
)
_version = sha256(_text.encode()).hexdigest()[:8]

CODE = _text.replace("VERSION", _version)
"""What FUNCTION LOAD is given."""

NAME = f"loom_{_version}"
"""The library's name."""


def name_of(function: str) -> str:
    """What FCALL is given for one of the functions."""
    return f"{NAME}_{function}"

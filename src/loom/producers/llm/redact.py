"""Takes a provider's key out of whatever a server has sent back. Pure."""

from __future__ import annotations

import base64
import logging
import string
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from loom.model.errors import LoomError

__all__ = ["Redactor"]

_PIECE = 8
"""Characters in a row that give a key away. Shorter keys are placeholders ("none", "ollama"): messages keep them."""

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)  # one character stays one


class Redactor:
    """Replaces the key, and eight or more characters in a row of it, by ``[key]``: as it is, in any case, escaped for a
    URL, or in base64 together with anything else (``Basic …``)."""

    def __init__(self, key: str) -> None:
        forms = _forms(key) if len(key) >= _PIECE else ()
        lower = [form.translate(_LOWER) for form in forms]
        self._pieces = {form[at : at + _PIECE] for form in lower for at in range(len(form) - _PIECE + 1)}

    def text(self, text: str) -> str:
        """The text without the key."""
        lower, kept, end = text.translate(_LOWER), [], 0
        for first, last in self._found(lower):
            kept += [text[end:first], "[key]"]
            end = last
        return "".join([*kept, text[end:]])

    def _found(self, text: str) -> Iterator[tuple[int, int]]:
        at = 0
        while at <= len(text) - _PIECE:
            first = at
            while text[at : at + _PIECE] in self._pieces:
                at += 1
            if at > first:
                yield first, at + _PIECE - 1
                at += _PIECE - 1
            else:
                at += 1

    def value(self, value: Any) -> Any:
        """The same of all texts in a value of JSON's types."""
        match value:
            case str():
                return self.text(value)
            case list():
                return [self.value(item) for item in value]
            case dict():
                return {self.value(name): self.value(item) for name, item in value.items()}
        return value

    def error(self, error: LoomError) -> LoomError:
        """The error itself, with all that it shows cleaned."""
        error.message = self.text(error.message)
        error.args = (error.message,)
        error.details = self.value(error.details)
        return error

    def record(self, record: logging.LogRecord) -> bool:
        """A filter for the logs of an HTTP client, which show status lines and headers as they came."""
        record.msg, record.args = self.text(record.getMessage()), ()
        return True


def _forms(key: str) -> Iterator[str]:
    yield key
    yield quote(key, safe="")
    for before in range(3):  # bytes in front of it shift its base64
        coded = base64.b64encode(bytes(before) + key.encode()).decode()
        own = coded[-(-before * 8 // 6) : (before + len(key)) * 8 // 6]
        yield own
        yield own.translate(str.maketrans("+/", "-_"))

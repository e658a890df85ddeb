"""JSON that has not all come yet: what of it is known so far. Pure.

Each byte is looked at once; a `value` costs what is open, not what there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from loom.model import limits

__all__ = ["UNKNOWN", "PartialJson"]


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final[Any] = _Unknown()
"""The value of which nothing is known yet."""

_PLAIN = re.compile(r'[^"\\]+')
_SPACE = re.compile(r"[ \t\n\r]*")
_WORD = re.compile(r"[^ \t\n\r,\]}]*")
_UNICODE = re.compile(r"\\u([0-9A-Fa-f]{4})")
_BEGUN = re.compile(r"\\(?:u[0-9A-Fa-f]{0,3})?\Z")  # an escape whose end has not come
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_MORE = -1
"""A step's answer: go on when more has come."""


class PartialJson:
    """One JSON object or array as its text comes in pieces.

    Of every beginning of a valid text `value` is a valid value that only grows: a string holds the characters that have
    come, a number or word stands there once it has ended, a key once its value has begun. What comes before the first
    bracket of the `opening` ones or behind the last (a fence, a remark) is passed over. From text that is no JSON on,
    nothing more is known.
    """

    def __init__(self, opening: str = "{[") -> None:
        self.complete = False
        """Its last bracket has come."""
        self._first = re.compile(f"[{re.escape(opening)}]")
        self._broken = False
        self._text: list[str] = []
        self._began: int | None = None
        self._rest = ""  # of an escape that is not whole yet
        self._stack: list[Any] = []  # open lists and objects, the outermost first
        self._keys: list[str] = []  # of each open object, the key whose value comes next; "" of a list
        self._pieces: list[str] = []  # of the open string, or word
        self._in_string = False  # a value's, not a key's
        self._ended = False  # the string that was read last
        self._value: Any = UNKNOWN
        self._step: Callable[[str, int], int] = self._opening

    @property
    def text(self) -> str:
        """The JSON itself, as far as it has come."""
        return "".join(self._text)

    @property
    def value(self) -> Any:
        """What is known by now, `UNKNOWN` before the first bracket. It is the caller's own, but for what is closed."""
        if self._value is not UNKNOWN or not self._stack:
            return self._value
        inner: Any = UNKNOWN
        if self._in_string:
            self._pieces = ["".join(self._pieces)]
            inner = self._pieces[0]
        for container, key in zip(reversed(self._stack), reversed(self._keys), strict=True):
            copy = container.copy()
            if inner is not UNKNOWN:
                _put(copy, key, inner)
            inner = copy
        return inner

    def feed(self, text: str) -> None:
        """Take the next piece."""
        if self.complete or self._broken:
            return
        start = 0 if self._stack else None
        whole, self._rest = self._rest + text, ""
        at = 0
        while at < len(whole) and not (self.complete or self._broken):
            following = self._step(whole, at)
            if following == _MORE:
                self._rest = whole[at:]
                break
            at = following
        if start is None:
            start = self._began
        if start is not None:
            self._text.append(text[start : len(text) - (len(whole) - at) if self.complete else None])

    # --- steps: each takes some of the text from `at` on, and says where the next begins ---

    def _opening(self, text: str, at: int) -> int:
        match = self._first.search(text, at)
        if match is None:
            return len(text)
        self._began = match.start()
        return self._begin(text, match.start())

    def _begin(self, text: str, at: int) -> int:
        """A value begins, at a character that is no space."""
        match text[at]:
            case "{":
                self._open({}, self._first_key)
            case "[":
                self._open([], self._first_item)
            case '"':
                self._in_string = True
                self._step = self._string
            case _:
                self._step = self._word
                return at
        return at + 1

    def _open(self, container: Any, step: Callable[[str, int], int]) -> None:
        if len(self._stack) == limits.JSON_DEPTH:
            self._broken = True
            return
        self._stack.append(container)
        self._keys.append("")
        self._step = step

    def _item(self, text: str, at: int) -> int:
        at = _past_space(text, at)
        return at if at == len(text) else self._begin(text, at)

    def _first_item(self, text: str, at: int) -> int:
        at = _past_space(text, at)
        if at < len(text) and text[at] == "]":
            return self._close(at)
        return at if at == len(text) else self._begin(text, at)

    def _first_key(self, text: str, at: int) -> int:
        at = _past_space(text, at)
        if at < len(text) and text[at] == "}":
            return self._close(at)
        return self._key_opening(text, at)

    def _key_opening(self, text: str, at: int) -> int:
        at = _past_space(text, at)
        return at if at == len(text) else self._expect(text, at, '"', self._key)

    def _key(self, text: str, at: int) -> int:
        following = self._characters(text, at)
        if self._ended:
            self._keys[-1] = "".join(self._pieces)
            self._pieces = []
            self._step = self._colon
        return following

    def _colon(self, text: str, at: int) -> int:
        at = _past_space(text, at)
        return at if at == len(text) else self._expect(text, at, ":", self._item)

    def _string(self, text: str, at: int) -> int:
        following = self._characters(text, at)
        if self._ended:
            value = "".join(self._pieces)
            self._pieces, self._in_string = [], False
            self._done(value)
        return following

    def _characters(self, text: str, at: int) -> int:
        """Some of a string. `_ended` is true once its end has come."""
        self._ended = False
        if match := _PLAIN.match(text, at):
            self._pieces.append(match[0])
            return match.end()
        if text[at] == '"':
            self._ended = True
            return at + 1
        return self._escape(text, at)

    def _escape(self, text: str, at: int) -> int:
        if _BEGUN.match(text, at):
            return _MORE
        if (plain := _ESCAPES.get(text[at + 1])) is not None:
            self._pieces.append(plain)
            return at + 2
        match = _UNICODE.match(text, at)
        if match is None:
            self._broken = True
            return at
        return self._unicode(text, at, match.end(), int(match[1], 16))

    def _unicode(self, text: str, at: int, end: int, code: int) -> int:
        if 0xD800 <= code < 0xDC00:  # RFC 8259, section 7: the first half of a pair
            if end == len(text) or _BEGUN.match(text, end):
                return _MORE
            low = _UNICODE.match(text, end)
            if low is not None and 0xDC00 <= (half := int(low[1], 16)) < 0xE000:
                code, end = 0x10000 + ((code - 0xD800) << 10) + (half - 0xDC00), low.end()
        self._pieces.append("\ufffd" if 0xD800 <= code < 0xE000 else chr(code))
        return end

    def _word(self, text: str, at: int) -> int:
        """A number, true, false or null: known once something follows it."""
        match = _WORD.match(text, at)
        assert match is not None
        self._pieces.append(match[0])
        if match.end() < len(text):
            self._finish_word()
        return match.end()

    def _finish_word(self) -> None:
        word, self._pieces = "".join(self._pieces), []
        try:
            self._done(msgspec.json.decode(word))
        except (msgspec.DecodeError, UnicodeEncodeError):
            self._broken = True

    def _after(self, text: str, at: int) -> int:
        at = _past_space(text, at)
        if at == len(text):
            return at
        in_list = isinstance(self._stack[-1], list)
        if text[at] == ("]" if in_list else "}"):
            return self._close(at)
        return self._expect(text, at, ",", self._item if in_list else self._key_opening)

    def _expect(self, text: str, at: int, sign: str, step: Callable[[str, int], int]) -> int:
        if text[at] != sign:
            self._broken = True
        self._step = step
        return at + 1

    def _close(self, at: int) -> int:
        self._keys.pop()
        self._done(self._stack.pop())
        return at + 1

    def _done(self, value: Any) -> None:
        if self._stack:
            _put(self._stack[-1], self._keys[-1], value)
            self._step = self._after
        else:
            self._value = value
            self.complete = True


def _put(container: Any, key: str, value: Any) -> None:
    if isinstance(container, list):
        container.append(value)
    else:
        container[key] = value


def _past_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()

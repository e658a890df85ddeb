"""Reads the values of a type hint from JSON, in a way that is decided once: when the hint is declared.

msgspec reads what it converts faithfully. A hint that it refuses is rewritten: the parts that it cannot read are
replaced by classes that read themselves. What no reader makes the same value of is refused, by name.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from loom.model import limits
from loom.model.errors import InvalidInput

from .custom import Maker, shown
from .data import canonical
from .json import decode
from .rewriting import Rewriter

__all__ = ["ANY", "Codec", "codec_of", "convert"]

_PLAIN = (Any, object, str, int, bool, None, type(None), dict, list)
"""Types whose values JSON gives as they are."""


class Codec:
    """Reads the values of a hint. Raises `UsageError` when made for one whose values would not come back."""

    def __init__(self, hint: Any) -> None:
        rewriter = Rewriter()
        self._maker = Maker(rewriter.rewritten(hint))
        self.hint = hint
        self.type: Any = self._maker.type
        """The hint as msgspec takes it."""
        self.plain = hint in _PLAIN
        """Whether JSON gives the values as they are."""
        self.ambiguous = rewriter.ambiguous
        """Whether the JSON of one value may be read as another, or not at all: each is checked before it is written."""

    def __repr__(self) -> str:
        return f"<Codec {shown(self.hint)}>"

    def read(self, value: Any, *, field: str = "") -> Any:
        """JSON's builtins as a value of the hint.

        Raises `InvalidInput` naming the field that does not fit, as a path like ``input.items[2].name``.
        """
        try:
            return self._maker(value)
        except msgspec.ValidationError as error:
            message, *paths = str(error).split(" - at `$")  # a model within: its own path first, then where it stands
            where = field + "".join(path.rstrip("`") for path in reversed(paths))
            raise InvalidInput(f"{where or 'input'}: {message}", details={"field": where}) from None

    def fault(self, value: Any) -> str | None:
        """Why `value`, once written, would be read as another or not at all, if so. Raises as `canonical`."""
        if not self.ambiguous:
            return None
        try:
            read = self._maker(decode(canonical(value)))
        except msgspec.ValidationError as error:
            return f"it is no {shown(self.hint)}: {error}"
        return None if same(value, read) else f"{value!r:.100} would be read as {read!r:.100} of {shown(self.hint)}"


ANY = Codec(Any)
"""Reads JSON as it is."""


def codec_of(hint: Any) -> Codec:
    """The codec of a hint. Raises as `Codec`."""
    try:
        hash(hint)
    except TypeError:  # an Annotated whose metadata has none
        return Codec(hint)
    return _codec(hint, str(hint))


@functools.lru_cache(limits.TYPES)
def _codec(hint: Any, text: str) -> Codec:
    """By its text as well: unions of the same members are equal, but the first member that takes a value counts."""
    return Codec(hint)


def convert(value: Any, type: Any, *, field: str = "") -> Any:
    """`value` as `type`. Raises as `Codec` and `Codec.read`."""
    return codec_of(type).read(value, field=field)


_SEQUENCES = (list, tuple, deque)


def same(value: Any, read: Any) -> bool:
    """True if what was read is what was written: equal, but for NaN, which equals nothing. Of a subclass it may be the
    class that was declared, and of an int the float (PEP 484)."""
    if isinstance(read, float) and type(value) is int:
        return value == read
    if isinstance(value, _SEQUENCES) and isinstance(read, _SEQUENCES):
        return len(value) == len(read) and all(map(same, value, read))
    if not isinstance(value, type(read)):
        return False
    if isinstance(value, float):
        return value == read or (value != value and read != read)
    if isinstance(value, Mapping):
        return value.keys() == read.keys() and all(same(value[key], read[key]) for key in value)
    names = _names_of(type(read))
    if not names:
        return bool(value == read)
    return all(same(getattr(value, name, None), getattr(read, name, None)) for name in names)


def _names_of(type: Any) -> Any:
    """The names of a class's fields, if it has any."""
    return getattr(type, "model_fields", None) or getattr(type, "__match_args__", None)

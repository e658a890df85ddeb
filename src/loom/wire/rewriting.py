"""Type hints as msgspec takes them: what it refuses is replaced by classes that read themselves. Pure."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import pathlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from loom.model.errors import UsageError

from .custom import (
    AS_DICT,
    AS_LIST,
    Maker,
    Placeholder,
    Schema,
    fields_reader,
    one_of,
    placeholder,
    required_of,
    shown,
    takes,
    union_of,
)
from .pydantic import closed, fault_of, is_model, is_url
from .values import AS_TEXT

__all__ = ["Rewriter"]


# --- rewriting -------------------------------------------------------------------------------------------------------

_KEYS = frozenset({str, int, float, bytes, datetime, date, time, timedelta, Decimal, UUID, Any})
"""What a dict's keys may be, beside enums and literals: what JSON's text is read as, one for one."""

_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping, *AS_DICT)
_SCALARS = (str, int, float, bytes, datetime, date, time, timedelta, Decimal, UUID)
_NATIVE = frozenset({*_SCALARS, bool, type(None), bytearray, memoryview, list, tuple, set, frozenset, dict, object})
_ABSTRACT = frozenset(
    {
        collections.abc.Collection,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Set,
        collections.abc.MutableSet,
        collections.abc.Mapping,
        collections.abc.MutableMapping,
    }
)
"""What msgspec reads as a list, set or dict."""
_TEXTS = (bytes, bytearray, memoryview, pathlib.PurePath)
"""What any text may be, or nearly any: beside str, nothing would tell them apart."""


class Rewriter:
    """Rewrites one hint. Raises `UsageError` naming the part whose values would not come back."""

    def __init__(self) -> None:
        self.ambiguous = False
        """Whether some union has members of which one's JSON may be read as another's value, or some class refuses the
        fields of its subclasses."""
        self._known: dict[Any, Any] = {}

    def rewritten(self, hint: Any) -> Any:
        if hint in (Any, object, typing.Never, typing.NoReturn):
            return Any
        if hint is typing.LiteralString:
            return str
        if isinstance(hint, typing.TypeVar):
            return self.rewritten(_bound(hint))
        if (named := getattr(hint, "__supertype__", None) or _value_of_alias(hint)) is not None:
            return self.rewritten(named)
        if inspect.isclass(hint) and typing.get_origin(hint) is None:
            return self._class(hint)
        return self._generic(hint, typing.get_origin(hint), typing.get_args(hint))

    def _generic(self, hint: Any, origin: Any, arguments: tuple[Any, ...]) -> Any:
        if origin is typing.Annotated:
            inner = self.rewritten(arguments[0])
            return hint if inner is arguments[0] else inner
        if origin in (typing.Union, types.UnionType):
            return self._union(hint, arguments)
        if origin is typing.Literal:
            return hint if takes(hint) else one_of(shown(hint), arguments)
        if not inspect.isclass(origin):
            return hint  # Any, a constant
        if isinstance(self._class(origin), Placeholder):
            raise UsageError(f"{shown(hint)} cannot be read from JSON: declare a class that is not generic")
        if origin in _MAPPINGS and arguments:
            _check_key(hint, arguments[0])
        return _with_arguments(hint, origin, [self._argument(part) for part in arguments])

    def _argument(self, part: Any) -> Any:
        return part if part is ... or part == () else self.rewritten(part)

    def _class(self, hint: Any) -> Any:
        if hint not in self._known:
            self._known[hint] = hint  # where it holds itself
            self._known[hint] = self._read_class(hint)
        return self._known[hint]

    def _read_class(self, hint: Any) -> Any:
        if hint in _NATIVE or hint in _ABSTRACT or hint in AS_LIST or hint in AS_DICT or isinstance(hint, Placeholder):
            return hint
        if issubclass(hint, enum.Enum):
            return hint if takes(hint) else one_of(hint.__name__, tuple(hint))
        if is_model(hint):
            if fault := fault_of(hint):
                raise UsageError(f"{shown(hint)} would not come back as it was: {fault}")
            self.ambiguous = self.ambiguous or closed(hint)
            return hint
        if (fields := fields_of(hint)) is not None:
            return self._fielded(hint, fields)
        if not (issubclass(hint, AS_TEXT) or is_url(hint)):
            raise UsageError(f"{shown(hint)} cannot be read from JSON{_advice(hint)}")
        return hint

    def _fielded(self, hint: Any, fields: Mapping[str, Any]) -> Any:
        """A class with named fields: msgspec reads it, or, where it has a field that msgspec does not take, we do."""
        own = _validates_itself(hint)
        if own and any(part is not None for part in _aliases_of(hint)):
            raise UsageError(
                f"{shown(hint)} is a pydantic dataclass with aliases, which are not written: take a BaseModel"
            )
        config = getattr(hint, "__struct_config__", None)
        self.ambiguous = self.ambiguous or getattr(config, "forbid_unknown_fields", False)
        parts: dict[str, Any] = {}
        ours = placeholder(
            hint.__name__, fields_reader(hint, parts), lambda schema: _fields_schema(hint, parts, schema)
        )
        native = not own and takes(hint)
        if not native:
            self._known[hint] = ours
        parts.update({name: self.rewritten(part) for name, part in fields.items()})
        if native and not any(map(_is_ours, (*parts.values(), *fields.values()))):
            return hint
        if not (dataclasses.is_dataclass(hint) or typing.is_typeddict(hint)):
            Maker(hint)  # raises, naming what msgspec does not take
            raise UsageError(f"{shown(hint)} cannot be read from JSON, for the types of its fields: take a dataclass")
        return ours

    def _union(self, hint: Any, arguments: tuple[Any, ...]) -> Any:
        members = [self.rewritten(member) for member in arguments]
        union: Any = typing.Union[tuple(members)]  # noqa: UP007
        if (Any not in members or len(members) == 1 + (type(None) in members)) and takes(union):
            self.ambiguous = self.ambiguous or _mixes_numbers_and_text(members)
            return union
        text = next((member for member in members if inspect.isclass(member) and issubclass(member, _TEXTS)), None)
        if str in members and text is not None:
            raise UsageError(f"{shown(hint)} cannot be read from JSON: {shown(text)} is written as text, as str is")
        self.ambiguous = True
        return union_of(shown(hint), sorted(members, key=_generality))


def _is_ours(hint: Any) -> bool:
    """True if msgspec does not know some part of the hint."""
    unknown = isinstance(hint, Placeholder) or hint in (typing.LiteralString, typing.Never, typing.NoReturn)
    return unknown or any(map(_is_ours, typing.get_args(hint)))


def _bound(variable: typing.TypeVar) -> Any:
    if variable.__constraints__:
        return typing.Union[variable.__constraints__]  # noqa: UP007
    return Any if variable.__bound__ is None else variable.__bound__


def _value_of_alias(hint: Any) -> Any:
    """Of a ``type Name = ...`` statement."""
    return hint.__value__ if type(hint).__name__ == "TypeAliasType" else None


def _check_key(hint: Any, key: Any) -> None:
    while (inner := getattr(key, "__supertype__", None)) is not None:
        key = inner
    if typing.get_origin(key) is typing.Annotated:
        key = typing.get_args(key)[0]
    literal = typing.get_origin(key) is typing.Literal
    if not (
        key in _KEYS
        or literal
        or isinstance(key, typing.TypeVar)
        or (inspect.isclass(key) and issubclass(key, enum.Enum) and takes(key))
    ):
        raise UsageError(f"{shown(hint)} cannot be read from JSON, whose keys are text: {shown(key)} is no key")


def _with_arguments(hint: Any, origin: Any, arguments: list[Any]) -> Any:
    if all(one is other for one, other in zip(arguments, typing.get_args(hint), strict=True)):
        return hint
    return origin[tuple(arguments)]


def _mixes_numbers_and_text(members: Sequence[Any]) -> bool:
    """NaN is text in JSON, which a member that is text would be read of."""
    return float in members and not {str, Decimal, bytes, bytearray}.isdisjoint(members)


def _generality(member: Any) -> int:
    """A rank: the member that takes everything comes last, and of text, str."""
    return 2 if member is Any else 1 if member is str else 0


def _advice(hint: type) -> str:
    base = next((base for base in _SCALARS if issubclass(hint, base)), None)
    if base is not None:
        return f": declare {base.__name__}, as which it is written"
    if callable(getattr(hint, "tolist", None)):
        return ": declare the list that it is written as"
    return ": declare what it is written as, or a dataclass, a msgspec.Struct or a pydantic model"


# --- classes with fields ---------------------------------------------------------------------------------------------


def fields_of(hint: Any) -> dict[str, Any] | None:
    """The hints of a class's named fields; None for a class that has none."""
    names = _names_of(hint)
    if names is None:
        return None
    try:
        hints = typing.get_type_hints(hint, include_extras=True)
    except Exception as error:  # user code: annotations are evaluated
        raise UsageError(f"{shown(hint)} cannot be read from JSON: {error}") from None
    return {name: _unqualified(hints[name]) for name in names if name in hints}


def _names_of(hint: Any) -> list[str] | None:
    if dataclasses.is_dataclass(hint):
        return [field.name for field in dataclasses.fields(hint)]
    if typing.is_typeddict(hint):
        return list(hint.__annotations__)
    for attribute in ("__struct_fields__", "_fields"):
        if isinstance(names := getattr(hint, attribute, None), tuple):
            return list(names)
    attributes = getattr(hint, "__attrs_attrs__", None)
    return None if attributes is None else [attribute.name for attribute in attributes]


_QUALIFIERS = (typing.Required, typing.NotRequired, typing.Final)


def _unqualified(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) in _QUALIFIERS else hint


def _fields_schema(hint: Any, parts: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    properties = {name: schema(part) for name, part in parts.items()}
    return {"type": "object", "title": hint.__name__, "properties": properties, "required": sorted(required_of(hint))}


def _validates_itself(hint: Any) -> bool:
    """True for a pydantic dataclass: it is made by its own `__init__`, which validates."""
    return hasattr(hint, "__pydantic_fields__")


def _aliases_of(hint: Any) -> Iterator[Any]:
    return (
        alias
        for field in hint.__pydantic_fields__.values()
        for alias in (field.alias, field.validation_alias, field.serialization_alias)
    )

"""Classes that stand in type hints for what msgspec does not take, and how their values are made. Pure."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from loom.model import limits
from loom.model.errors import UsageError

from .data import canonical
from .json import decode
from .pydantic import is_model, is_url, message_of, reader_of
from .values import AS_TEXT, NONFINITE

__all__ = [
    "AS_DICT",
    "AS_LIST",
    "Maker",
    "Placeholder",
    "Schema",
    "fields_reader",
    "one_of",
    "placeholder",
    "required_of",
    "schema_of_custom",
    "shown",
    "takes",
    "union_of",
]

AS_LIST: dict[Any, Callable[[list[Any]], Any]] = {collections.deque: collections.deque, collections.abc.Iterable: list}
"""Written as lists."""

AS_DICT: dict[Any, Callable[[dict[Any, Any]], Any]] = {
    collections.OrderedDict: collections.OrderedDict,
    collections.Counter: collections.Counter,
    collections.defaultdict: lambda value: collections.defaultdict(None, value),
    collections.ChainMap: collections.ChainMap,
    collections.UserDict: collections.UserDict,
    types.MappingProxyType: types.MappingProxyType,
}
"""Written as objects; a defaultdict comes back without its default."""


def shown(hint: Any) -> str:
    """A hint as its author wrote it, or nearly so."""
    return hint.__name__ if inspect.isclass(hint) and not typing.get_args(hint) else str(hint).replace("typing.", "")


Schema = Callable[[Any], dict[str, Any]]
"""Gives the JSON Schema of a type."""


class Placeholder(type):
    """A class that stands for a hint: `read` makes its values of JSON's builtins, of whatever class they are."""

    read: Callable[[Any], Any]
    schema: Callable[[Schema], dict[str, Any]]
    """The JSON Schema of its values, by that of a part."""

    def __instancecheck__(cls, instance: object) -> bool:
        return True


def placeholder(name: str, read: Callable[[Any], Any], schema: Callable[[Schema], dict[str, Any]]) -> Placeholder:
    """A class that stands for a hint of that name."""
    return Placeholder(name, (), {"read": staticmethod(read), "schema": staticmethod(schema)})


def takes(hint: Any) -> bool:
    """True if msgspec takes the hint."""
    try:
        msgspec.json.Decoder(hint, dec_hook=_read_custom)
    except Exception:  # user code: annotations within are evaluated
        return False
    return True


class Maker:
    """Makes values of a hint that msgspec takes."""

    def __init__(self, type: Any) -> None:
        self.type = type
        try:
            msgspec.json.Decoder(type, dec_hook=_read_custom)
        except (TypeError, NameError, AttributeError) as error:
            raise UsageError(f"{shown(type)} cannot be read from JSON: {error}") from None

    def __call__(self, value: Any) -> Any:
        """Raises `msgspec.ValidationError`."""
        try:
            return self._convert(value)
        except msgspec.ValidationError:
            restored = _restored(value, self._info)
            if restored is value:
                raise
        return self._convert(restored)

    def _convert(self, value: Any) -> Any:
        return msgspec.convert(value, self.type, dec_hook=_read_custom, str_keys=True)

    @functools.cached_property
    def _info(self) -> Any:
        return msgspec.inspect.type_info(self.type)


def fields_reader(hint: Any, parts: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Of a dataclass or TypedDict, by the types of its fields."""
    makers: dict[str, Maker] = {}  # made when first used: a class may hold itself

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"Expected `object`, got `{type(value).__name__}`")
        for name in parts.keys() - makers.keys():
            makers[name] = Maker(parts[name])
        given = {name: _within(makers[name], value[name], f".{name}") for name in parts if name in value}
        _check_required(hint, given)
        return given if typing.is_typeddict(hint) else _made(hint, given)

    return read


def _check_required(hint: Any, given: Mapping[str, Any]) -> None:
    for name in required_of(hint):
        if name not in given:
            raise ValueError(f"Object missing required field `{name}`")


def required_of(hint: Any) -> list[str]:
    """The fields of a dataclass or TypedDict that have no default."""
    if typing.is_typeddict(hint):
        return sorted(hint.__required_keys__)
    missing = dataclasses.MISSING
    fields = (field for field in dataclasses.fields(hint) if field.init)
    return [field.name for field in fields if field.default is missing and field.default_factory is missing]


def _made(hint: Any, given: dict[str, Any]) -> Any:
    late = [field.name for field in dataclasses.fields(hint) if not field.init and field.name in given]
    rest = {name: given.pop(name) for name in late}
    made = hint(**given)
    for name, value in rest.items():
        object.__setattr__(made, name, value)
    return made


def _within(maker: Callable[[Any], Any], value: Any, where: str) -> Any:
    try:
        return maker(value)
    except msgspec.ValidationError as error:
        raise ValueError(f"{error} - at `${where}`") from None


def union_of(name: str, members: list[Any]) -> Placeholder:
    """The member whose value is written as exactly this JSON, else the first that takes it."""
    makers: list[Maker] = []

    def read(value: Any) -> Any:
        if not makers:
            makers.extend(map(Maker, members))
        given, fits = canonical(value), []
        for maker in makers:
            try:
                made = maker(value)
            except msgspec.ValidationError:
                continue
            if canonical(made) == given:
                return made
            fits.append(made)
        if not fits:
            raise ValueError(f"Expected `{name}`")
        return fits[0]

    return placeholder(name, read, lambda schema: {"anyOf": [schema(member) for member in members]})


def one_of(name: str, values: tuple[Any, ...]) -> Placeholder:
    """An enum or a literal of values of more than one type. Raises for two that are the same in JSON."""
    try:
        by_json = {canonical(value): value for value in values}
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} cannot be read from JSON: {error}") from None
    if len(by_json) < len(values):
        raise UsageError(f"{name} cannot be read from JSON: two of its values are written alike")

    def read(value: Any) -> Any:
        try:
            return by_json[canonical(value)]
        except KeyError:
            raise ValueError(f"Invalid value {value!r:.100} for {name}") from None

    return placeholder(name, read, lambda _: {"enum": [decode(json) for json in by_json]})


def _read_custom(type: Any, value: Any) -> Any:
    try:
        return _reader(type)(value)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except ValueError as error:
        raise ValueError(message_of(error)) from None  # msgspec adds where it stands


@functools.lru_cache(limits.TYPES)
def _reader(hint: Any) -> Callable[[Any], Any]:
    if isinstance(hint, Placeholder):
        return hint.read
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in AS_LIST:
        return _wrapping(Maker(types.GenericAlias(list, arguments) if arguments else list), AS_LIST[origin])
    if origin in AS_DICT:
        keys = (*arguments, int) if origin is collections.Counter and arguments else arguments
        return _wrapping(Maker(types.GenericAlias(dict, keys) if keys else dict), AS_DICT[origin])
    if is_model(hint):
        return reader_of(hint)
    return functools.partial(_text, hint)


def schema_of_custom(type: Any, schema: Schema) -> dict[str, Any] | None:
    """The JSON Schema of a type that msgspec does not know, by that of a part; None for one that has its own."""
    if isinstance(type, Placeholder):
        return type.schema(schema)
    if type in AS_LIST:
        return {"type": "array"}
    if type in AS_DICT:
        return {"type": "object"}
    return {"type": "string"} if issubclass(type, AS_TEXT) or is_url(type) else None


def _wrapping(maker: Maker, wrap: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: wrap(maker(value))


def _text(type: Any, value: Any) -> Any:
    if not isinstance(value, str) or not callable(type):
        raise ValueError(f"Expected `{shown(type)}`")
    return type(value)


def _restored(value: Any, info: Any) -> Any:
    """The value with numbers for `NONFINITE`, where the hint has a float; itself where there is none."""
    match info:
        case msgspec.inspect.FloatType():
            return NONFINITE.get(value, value) if isinstance(value, str) else value
        case msgspec.inspect.UnionType():
            candidates = (_restored(value, member) for member in info.types if _may_be(member, value))
            return next((restored for restored in candidates if restored is not value), value)
        case msgspec.inspect.DictType() if isinstance(value, dict):
            return _changed(value, {key: _restored(item, info.value_type) for key, item in value.items()})
        case msgspec.inspect.TupleType() if isinstance(value, list):
            return _changed(value, list(map(_restored, value, info.item_types)))
        case msgspec.inspect.CollectionType() if isinstance(value, list):
            return _changed(value, [_restored(item, info.item_type) for item in value])
    return _restored_fields(value, info)


def _restored_fields(value: Any, info: Any) -> Any:
    fields: tuple[Any, ...] = getattr(info, "fields", ())
    if isinstance(value, list):
        return _changed(value, list(map(_restored, value, [field.type for field in fields])))
    if not isinstance(value, dict):
        return value
    types = {field.encode_name: field.type for field in fields}
    return _changed(value, {key: _restored(item, types.get(key)) for key, item in value.items()})


def _changed(value: Any, restored: Any) -> Any:
    parts = (
        zip(value.values(), restored.values(), strict=False)
        if isinstance(value, dict)
        else zip(value, restored, strict=False)
    )
    return restored if any(one is not other for one, other in parts) else value


def _may_be(info: Any, value: Any) -> bool:
    """Not of another tag."""
    field = getattr(info, "tag_field", None)
    return field is None or not isinstance(value, dict) or value.get(field) == info.tag

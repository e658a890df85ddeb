"""JSON Schemas of Python types: an input's, and what models are asked for. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec

from loom.model.errors import UsageError
from loom.wire.custom import schema_of_custom

__all__ = ["fields_schema", "schema_of"]

_AT_ROOT = "#/$defs/"


def schema_of(type: Any) -> dict[str, Any]:
    """The schema of a type that JSON can hold (msgspec, pydantic, dataclass, TypedDict, builtins, unions of them), its
    definitions at its root and the root itself never a reference. Raises `UsageError` for what has none."""
    try:
        schema, definitions = _hoist(_part(type))
    except TypeError as error:
        raise UsageError(f"{type!r} has no JSON Schema: {error}") from None
    return _with_definitions(_resolve(schema, definitions), definitions)


def fields_schema(fields: Mapping[str, Any], *, required: list[str]) -> dict[str, Any]:
    """The schema of an object with a field of each of these schemas, whose definitions move to its root."""
    schema = {"type": "object", "properties": dict(fields), "required": required, "additionalProperties": False}
    return _with_definitions(*_hoist(schema))


def _hook(type: Any) -> dict[str, Any]:
    if (known := schema_of_custom(type, _part)) is not None:
        return known
    make = getattr(type, "model_json_schema", None)  # pydantic
    if not callable(make):
        raise TypeError(f"{type!r} says none")
    schema: dict[str, Any] = make()
    return schema


def _part(type: Any) -> dict[str, Any]:
    schema: dict[str, Any] = msgspec.json.schema(type, schema_hook=_hook)
    return schema


def _hoist(schema: Any) -> tuple[Any, dict[str, Any]]:
    """The schema without definitions, and these, from wherever they stood: references name them at the root."""
    given: dict[str, Any] = {}  # as they stood: what they refer to may have another name by now
    definitions: dict[str, Any] = {}

    def take(part: Any, names: Mapping[str, str]) -> Any:
        if isinstance(part, list):
            return [take(member, names) for member in part]
        if isinstance(part, str) and part.startswith(_AT_ROOT):  # a reference, or a discriminator's
            return _AT_ROOT + names.get(part.removeprefix(_AT_ROOT), part.removeprefix(_AT_ROOT))
        if not isinstance(part, dict):
            return part
        if own := part.get("$defs"):
            names = {**names, **_free_names(own, given)}
            given.update({names[name]: definition for name, definition in own.items()})
            definitions.update({names[name]: take(definition, names) for name, definition in own.items()})
        return {key: take(value, names) for key, value in part.items() if key != "$defs"}

    return take(schema, {}), definitions


def _free_names(own: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, str]:
    """What to call these definitions beside those that have taken a name: two classes may be called the same."""
    if all(taken.get(name, definition) == definition for name, definition in own.items()):
        return {name: name for name in own}
    used = {*own, *taken}
    names = {}
    for name in own:
        free = (f"{name}_{number}" for number in itertools.count(2))
        names[name] = next(other for other in free if other not in used) if name in taken else name
        used.add(names[name])
    return names


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **rest}
    return schema


def _with_definitions(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Only those that are named: the root's own was put in its place."""
    named = {name: part for name, part in definitions.items() if _names(name, [schema, definitions])}
    return {**schema, "$defs": named} if named else schema


def _names(name: str, part: Any) -> bool:
    if isinstance(part, list):
        return any(_names(name, member) for member in part)
    if isinstance(part, dict):
        reference = part.get("$ref")
        named = isinstance(reference, str) and reference.endswith(f"/{name}")
        return named or any(_names(name, member) for member in part.values())
    return False

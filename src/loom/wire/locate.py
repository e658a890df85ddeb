"""Where in a value the part stands that has no JSON form. Slow, and only for what could not be encoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from loom.model import limits

from .data import encode_value as encode

__all__ = ["Spot", "locate"]


class Spot(NamedTuple):
    """A part of a value: the path to it, and its type's whole name."""

    path: str
    type: str


def locate(value: Any) -> Spot:
    """The innermost part of `value` that cannot be encoded."""
    path = ""
    for _ in range(limits.JSON_DEPTH):
        found = next(((name, part) for name, part in _parts(value) if not _has_json(part)), None)
        if found is None:
            break
        path, value = path + found[0], found[1]
    return Spot(
        (path + _broken_property(value)).removeprefix("."), f"{type(value).__module__}.{type(value).__qualname__}"
    )


def _has_json(value: Any) -> bool:
    try:
        encode(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # user code: a part's JSON form may raise anything
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a value, each with the end of its path. By its type alone: a proxy is asked nothing."""
    kind = type(value)
    if issubclass(kind, dict):
        yield from ((f".{key}" if isinstance(key, str) else f"[{key!r:.40}]", part) for key, part in value.items())
    elif issubclass(kind, (list, tuple)):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif issubclass(kind, msgspec.Struct):
        yield from _fields(value, kind.__struct_fields__)
    elif dataclasses.is_dataclass(kind):
        yield from _fields(value, [field.name for field in dataclasses.fields(kind)])
    elif isinstance(fields := getattr(kind, "model_fields", None), dict):  # pydantic
        yield from _fields(value, fields)


def _fields(value: Any, names: Any) -> Iterator[tuple[str, Any]]:
    for name in names:
        try:
            yield f".{name}", object.__getattribute__(value, name)
        except AttributeError:
            continue


def _broken_property(value: Any) -> str:
    """The end of the path to a computed field of pydantic's that raises; empty if there is none."""
    for name in getattr(type(value), "model_computed_fields", ()):
        try:
            getattr(value, name)
        except KeyboardInterrupt:
            raise
        except BaseException:  # user code
            return f".{name}"
    return ""

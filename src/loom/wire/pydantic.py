"""Pydantic models as JSON, both ways, without importing pydantic: a class is one by what it offers."""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from loom.model import limits

__all__ = ["closed", "dumped", "fault_of", "is_model", "is_url", "message_of", "reader_of"]

_LITERALS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def is_model(type: Any) -> bool:
    """True for a class that reads its values itself: a `BaseModel`, a `RootModel`."""
    return inspect.isclass(type) and callable(getattr(type, "model_validate", None))


def is_url(type: Any) -> bool:
    """True for one of pydantic's URL types."""
    return inspect.isclass(type) and callable(getattr(type, "unicode_string", None))


def dumped(model: Any, mode: str = "json") -> Any:
    """A model as FastAPI writes it: by its aliases. A subclass keeps its fields, also where its base was declared."""
    kind: Any = type(model)
    return model.model_dump(mode=mode, **_dump_options(kind))


@functools.lru_cache(limits.TYPES)
def _dump_options(model: Any) -> dict[str, bool]:
    known = inspect.signature(model.model_dump).parameters
    keep_fields = "polymorphic_serialization" if "polymorphic_serialization" in known else "serialize_as_any"
    options = {"by_alias": True, keep_fields: True, "round_trip": _needs_round_trip(model)}
    return {name: value for name, value in options.items() if name in known}


def _needs_round_trip(model: Any) -> bool:
    """True if it would refuse what it writes: computed fields where others are forbidden, and ``Json[...]``, whose
    value is text when it is read."""
    return any(
        (part.model_config.get("extra") == "forbid" and part.model_computed_fields)
        or any(_is_json(mark) for field in part.model_fields.values() for mark in field.metadata)
        for part in _models_in(model)
    )


def _is_json(mark: Any) -> bool:
    return getattr(mark, "__name__", type(mark).__name__) == "Json"


def reader_of(model: Any) -> Callable[[Any], Any]:
    """The function from JSON's builtins to the model. It raises `ValueError` for what does not fit."""
    if not callable(getattr(model, "model_validate_json", None)):
        return typing.cast(Callable[[Any], Any], model.model_validate)
    known = inspect.signature(model.model_validate_json).parameters
    options = {"by_alias": True, "by_name": True} if "by_name" in known and _reads_by_name(model) else {}

    def read(value: Any) -> Any:  # as JSON, where a strict model takes what only JSON writes as text
        try:
            return model.model_validate_json(msgspec.json.encode(value), **options)
        except ValueError:
            literal = _literal(value)
            if literal == value:
                raise
        return model.model_validate_json(json.dumps(literal), **options)

    return read


def _literal(value: Any) -> Any:
    """The value with the numbers that JSON has no form for, for a strict model, which takes no text for a number."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return _LITERALS.get(value, value) if isinstance(value, str) else value


def message_of(error: ValueError) -> str:
    """The first fault, in msgspec's own form, so that the field is named the same way."""
    errors = getattr(error, "errors", None)
    if not callable(errors) or not (faults := errors()):
        return str(error)
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in faults[0]["loc"])
    return f"{faults[0]['msg']} - at `${path}`"


def fault_of(model: Any) -> str | None:
    """Why a value of this class cannot come back as it was, if so."""
    return next((fault for part in _models_in(model) for fault in _faults(part)), None)


def closed(model: Any) -> bool:
    """True if it, or a model within it, refuses fields that it does not know, as a subclass has."""
    return any(part.model_config.get("extra") == "forbid" for part in _models_in(model))


def _faults(model: Any) -> Iterator[str]:
    for name, field in model.model_fields.items():
        where = f"{model.__name__}.{name}"
        if any(callable(getattr(part, "get_secret_value", None)) for part in _classes_in(field.annotation, deep=False)):
            yield f"{where} is a secret, which is never written: declare str, or a name that the secret is found by"
        if field.exclude and field.is_required():
            yield f"{where} is required, and excluded from what is written"
        if _written_as(name, field) not in [*_read_as(name, field), name]:
            yield f"{where} is written as {_written_as(name, field)!r}, and not read by it: give it one alias for both"


def _reads_by_name(model: Any) -> bool:
    return any(
        _written_as(name, field) not in _read_as(name, field)
        for part in _models_in(model)
        for name, field in part.model_fields.items()
    )


def _written_as(name: str, field: Any) -> str:
    return str(field.serialization_alias or name)


def _read_as(name: str, field: Any) -> list[Any]:
    alias = field.validation_alias
    return [name] if alias is None else list(getattr(alias, "choices", [alias]))


def _models_in(model: Any) -> Iterator[Any]:
    """The model, and those that its fields may hold."""
    return (part for part in _classes_in(model) if hasattr(part, "model_fields") and hasattr(part, "model_config"))


def _classes_in(hint: Any, *, deep: bool = True) -> Iterator[Any]:
    seen: list[Any] = []
    left = [hint]
    while left:
        part = left.pop()
        if any(part is other for other in seen):
            continue
        seen.append(part)
        left += typing.get_args(part)
        if deep:
            left += [field.annotation for field in (getattr(part, "model_fields", None) or {}).values()]
        if inspect.isclass(part):
            yield part

"""A run's input: what a call means as JSON, and what JSON means as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from loom.model import limits
from loom.model.errors import InvalidInput, LoomError, RemoteProtocolError, UsageError
from loom.wire.codec import Codec
from loom.wire.data import canonical
from loom.wire.failure import line_of
from loom.wire.json import check_depth, check_size, decode

from .hints import is_model, takes_null, takes_object
from .schemas import fields_schema, schema_of

__all__ = ["Inputs", "Parameter", "canonical_input", "encode_input"]


class Parameter(msgspec.Struct, frozen=True):
    """One input parameter of a producer."""

    name: str
    codec: Codec
    required: bool
    keyword: bool  # keyword-only

    @property
    def type(self) -> Any:
        """Its type hint."""
        return self.codec.hint


class Inputs:
    """What the producer of that name takes: an object by the parameters' names; a sole parameter also as a bare value,
    and a sole model as the object that it is."""

    def __init__(self, name: str, parameters: tuple[Parameter, ...]) -> None:
        self.parameters = parameters
        self.names = frozenset(parameter.name for parameter in parameters)
        self._name = name
        self._codecs = {parameter.name: parameter.codec for parameter in parameters}

    @property
    def takes_model(self) -> bool:
        """Whether it is one model, whose fields are not the parameters'."""
        return len(self.parameters) == 1 and is_model(self.parameters[0].type)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The input's JSON Schema, always an object's. A parameter whose type has none may be anything."""
        fields = {parameter.name: _schema_of(parameter) for parameter in self.parameters}
        if self.takes_model and (model := next(iter(fields.values()))):
            return model
        return fields_schema(fields, required=[parameter.name for parameter in self.parameters if parameter.required])

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The input that a call with these arguments means: an object by names, or a sole model itself.

        Raises `InvalidInput` for arguments that do not fit the signature.
        """
        positional = [parameter for parameter in self.parameters if not parameter.keyword]
        if len(args) > len(positional):
            count = f"{len(positional)} positional argument{'' if len(positional) == 1 else 's'}"
            raise InvalidInput(f"{self._name} takes {count}, {len(args)} {'was' if len(args) == 1 else 'were'} given")
        values = dict(zip((parameter.name for parameter in positional), args, strict=False))
        for name, value in kwargs.items():
            if name in values:
                raise InvalidInput(f"{name}: given twice", details={"field": name})
            values[name] = value
        self._check_names(values)
        self._check_values(values)
        return self._input_of(values)

    def _check_values(self, values: Mapping[str, Any]) -> None:
        for parameter in self.parameters:
            if parameter.name in values and (fault := _fault(parameter.codec, values[parameter.name])):
                raise InvalidInput(f"{parameter.name}: {fault}", details={"field": parameter.name})

    def _input_of(self, values: dict[str, Any]) -> Any:
        if self.takes_model:
            return next(iter(values.values()), None)  # None: its default, which is not the same as an empty object
        return values

    def decode(self, data: bytes) -> dict[str, Any]:
        """The keyword arguments that a run's input JSON gives, each as its parameter's type.

        Raises `InvalidInput` naming the field; nothing was run.
        """
        return self._typed(self._by_name(decode(data)))

    def _typed(self, values: dict[str, Any]) -> dict[str, Any]:
        self._check_names(values)
        return {name: _read(name, value, self._codecs[name]) for name, value in values.items()}

    def settled(self, input: msgspec.Raw, *, canonical: bool = False) -> msgspec.Raw:
        """The input, checked, in the one form that `bind` gives: whoever starts by name may write it in several.
        `canonical`: its JSON is.

        Raises as `decode`, and as `encode_input`: that form is a little deeper and longer.
        """
        given = _decoded(input)
        values = self._by_name(given)
        self._typed(values)
        settled = self._input_of(values)
        return input if canonical and settled is given else encode_input(settled)

    def same(self, one: msgspec.Raw, other: msgspec.Raw) -> bool:
        """Whether two inputs mean the same, read as the parameters' types: within a model, what is left out is its
        default."""
        try:
            return canonical(self.decode(bytes(one))) == canonical(self.decode(bytes(other)))
        except Exception:  # user code: what its models cannot read, or write again, is not known to be the same
            return False

    def _by_name(self, value: Any) -> dict[str, Any]:
        """An object by parameter names; a bare value is short for the sole parameter, a sole model takes the object."""
        if len(self.parameters) == 1:
            sole = self.parameters[0]
            if isinstance(value, dict) and not is_model(sole.type) and (set(value) == {sole.name} or not value):
                return value
            if value is None and not (sole.required and takes_null(sole.type)):
                return {}
            if isinstance(value, dict) and not is_model(sole.type) and not takes_object(sole.type):
                return value  # its names are wrong; said by name
            return {sole.name: value}
        if value is None:
            return {}
        if not isinstance(value, dict):
            names = ", ".join(parameter.name for parameter in self.parameters) or "no parameters"
            raise InvalidInput(f"input: expected an object with {names}", details={"field": "input"})
        return value

    def _check_names(self, values: Mapping[str, Any]) -> None:
        for name in values:
            if name not in self.names:
                raise InvalidInput(f"{name}: {self._name} has no such parameter", details={"field": name})
        for parameter in self.parameters:
            if parameter.required and parameter.name not in values:
                raise InvalidInput(f"{parameter.name}: missing", details={"field": parameter.name})


def _schema_of(parameter: Parameter) -> dict[str, Any]:
    try:
        return schema_of(parameter.codec.type)
    except UsageError:
        return {}


def _fault(codec: Codec, value: Any) -> str | None:
    try:
        return codec.fault(value)
    except Exception:  # user code: a value's JSON form, which `encode_input` tells
        return None


def _read(name: str, value: Any, codec: Codec) -> Any:
    try:
        return codec.read(value, field=name)
    except LoomError:
        raise
    except Exception as error:  # user code: what a model's own validator runs into is the input's fault
        raise InvalidInput(f"{name}: {error!r}", details={"field": name}) from error


def canonical_input(input: msgspec.Raw) -> msgspec.Raw:
    """JSON in its canonical form. Raises as `encode_input`, and `RemoteProtocolError` for what is no JSON."""
    return encode_input(_decoded(input))


def _decoded(input: msgspec.Raw) -> Any:
    check_size(bytes(input), limits.INPUT_BYTES, "an input")
    return decode(bytes(input))


def encode_input(value: Any) -> msgspec.Raw:
    """The input's canonical JSON. Raises `InvalidInput` (no JSON, too deep), `LimitExceeded` (too large)."""
    try:
        data = canonical(value)
        check_depth(data)
    except (TypeError, ValueError, RecursionError, RemoteProtocolError) as error:
        raise InvalidInput(f"input: {error}", details={"field": "input"}) from None
    except Exception as error:  # user code: a value's JSON form may raise anything
        raise InvalidInput(f"input: {line_of(error)}", details={"field": "input"}) from error
    check_size(data, limits.INPUT_BYTES, "an input")
    return msgspec.Raw(data)

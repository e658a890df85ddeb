"""Questions about type hints: what a value of that type is written as in JSON."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from loom.wire.codec import convert

__all__ = ["bare", "is_model", "is_union", "takes_null", "takes_object"]


def bare(hint: Any) -> Any:
    """A hint without the constraints that ``Annotated`` puts around it."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def is_union(hint: Any) -> bool:
    """Whether it is ``A | B``, in either way of writing it."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def is_model(type: Any) -> bool:
    """Whether a value of this type is written as a JSON object of named fields."""
    type = bare(type)
    return inspect.isclass(type) and (
        issubclass(type, msgspec.Struct)
        or dataclasses.is_dataclass(type)
        or typing.is_typeddict(type)
        or hasattr(type, "model_validate")
    )


def takes_null(type: Any) -> bool:
    """Whether null is a value of this type."""
    try:
        convert(None, type)
    except Exception:  # user code: a model's own validator refuses it in whatever way
        return False
    return True


def takes_object(type: Any) -> bool:
    """Whether some value of this type is written as a JSON object."""
    origin = typing.get_origin(type) or type
    return origin in (Any, object, dict, Mapping, collections.abc.MutableMapping) or any(
        is_model(part) or takes_object(part) for part in typing.get_args(type) if part is not type
    )

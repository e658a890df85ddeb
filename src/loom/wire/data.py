"""A user's data as JSON, in which nothing is lost. Pure.

msgspec alone would write NaN as null, an offset's seconds not at all, and two keys of one text both.
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import Any

import msgspec

from .json import encode, escape_line_ends, sound
from .pydantic import dumped
from .values import nonfinite_text, utc_if_odd, written

__all__ = ["canonical", "encode_data", "encode_value"]


class _Value(msgspec.Struct):
    """A value alone, held as chunks and messages hold one."""

    data: Any = None


_encode = msgspec.json.Encoder(enc_hook=written).encode
_data = msgspec.json.Decoder(_Value)
_sorted = msgspec.json.Encoder(enc_hook=written, order="sorted")
_SIMPLE = frozenset({str, int, bool, type(None)})
"""Types whose JSON needs no second look."""
_QUICK = 512
"""Of a longer list it takes longer to read it than to look for what may be wrong in it."""
_FEW = 8
"""The same of more dicts in a dict."""
_INSTANT = re.compile(rb'T\d\d:\d\d:\d\d[.\d]*(?:Z|[+-]\d\d:\d\d)"')


def encode_data(holder: Any) -> bytes:
    """The JSON of a chunk or message, on one line, in which nothing of its `data` is lost on the way.

    NaN and infinities are text (`NONFINITE`), an instant whose offset has seconds is in UTC. Raises `TypeError` for a
    value without a form and for keys that are the same in JSON, `ValueError` for what is no UTF-8.
    """
    data = _encode(holder)  # as `encode` does it, without a call: each token of a model comes here
    if not data.isascii():
        data = escape_line_ends(data)
    value = holder.data
    if type(value) in _SIMPLE or _is_json(value, data) or _is_plain(value):
        return data
    return _looked_through(holder, data)


def _is_plain(value: Any) -> bool:
    """True for a number, or a struct of plain fields only, as the parts of a model's answer are."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    return isinstance(value, msgspec.Struct) and all(
        type(getattr(value, name)) in _SIMPLE for name in kind.__struct_fields__
    )


def _is_json(value: Any, data: bytes) -> bool:
    """True if the value is of what JSON has, so far as that is found out quickly: what was written is read and
    compared, in C."""
    if type(value) is dict:
        if len(data) > _QUICK and data.count(b"{") > _FEW:
            return False
    elif type(value) is not list or len(data) > _QUICK:
        return False
    try:
        return bool(_data.decode(data).data == value)
    except Exception:  # user code: equality; or no JSON, which is told below
        return False


def _looked_through(holder: Any, data: bytes) -> bytes:
    data = sound(data)
    if data.count(b"{") > 1 + isinstance(holder.data, msgspec.Struct):  # a dict is in it
        _check_keys(holder.data, data)
    if _may_be_inexact(data):
        return _rewritten(holder, data)
    return data


def _may_be_inexact(data: bytes) -> bool:
    """True if a number that JSON has not, or an offset that it cannot write, may have been in what was written."""
    return (b"n" in data and b"null" in data) or (b"T" in data and _INSTANT.search(data) is not None)


def _check_keys(value: Any, data: bytes) -> None:
    """Raise `TypeError` for two keys of a dict that are one text."""
    try:
        _sorted.encode(value)
    except TypeError:  # some key is no string
        json.loads(data, object_pairs_hook=_distinct, parse_int=str, parse_float=str)


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    names = set()
    for name, _ in pairs:
        if name in names:
            raise TypeError(f"two keys of a dict are both {name!r} in JSON")
        names.add(name)


def _rewritten(holder: Any, data: bytes) -> bytes:
    """The JSON again, with what msgspec alone would write wrongly; `data` itself if there is no such thing."""
    try:
        parts = msgspec.to_builtins(holder.data, builtin_types=(datetime,), enc_hook=_exactly)
    except TypeError:  # a Raw, which is JSON already
        return data
    found: list[bool] = []
    parts = _exact(parts, found)
    if not found:
        return data
    return encode(msgspec.structs.replace(holder, data=parts))


def _exactly(value: Any) -> Any:
    """As `written`; a model's own JSON rounds the offsets of instants too."""
    if not callable(getattr(value, "model_dump", None)):
        return written(value)
    return _with_instants(written(value), dumped(value, "python"))


def _with_instants(json: Any, python: Any) -> Any:
    if isinstance(python, datetime) and isinstance(json, str):
        return json if utc_if_odd(python) is python else python
    if isinstance(json, dict) and isinstance(python, dict):
        return {key: _with_instants(item, python.get(key)) for key, item in json.items()}
    if isinstance(json, list) and isinstance(python, (list, tuple)):
        return [_with_instants(*pair) for pair in zip(json, python, strict=False)]
    return json


def _exact(value: Any, found: list[bool]) -> Any:
    kind = type(value)
    if kind is float and not math.isfinite(value):
        found.append(True)
        return nonfinite_text(value)
    if kind is datetime:
        instant = utc_if_odd(value)
        found += [True] * (instant is not value)
        return instant
    if kind is dict:
        return {_exact(key, found): _exact(item, found) for key, item in value.items()}
    if kind in (list, tuple, set, frozenset):
        return [_exact(item, found) for item in value]
    return value


def encode_value(value: Any) -> bytes:
    """The JSON of a user's value. Raises as `encode_data`."""
    return encode_data(_Value(value))[len(b'{"data":') : -1]


def canonical(value: Any) -> bytes:
    """The value's JSON with sorted keys: equal values have equal bytes. Raises as `encode_data`."""
    try:
        data = escape_line_ends(sound(_sorted.encode(value)))
        if not _may_be_inexact(data):
            return data
    except TypeError:  # of a dict whose keys are no strings as well; in JSON they are
        pass
    return escape_line_ends(_sorted.encode(_data.decode(encode_data(_Value(_in_order(value)))).data))


def _in_order(value: Any) -> Any:
    """The value with its sets as sorted lists, where it can be sorted."""
    try:
        return msgspec.to_builtins(value, builtin_types=(datetime,), enc_hook=_exactly, order="sorted")
    except TypeError:  # keys of several kinds, or a Raw, which is JSON already
        return value

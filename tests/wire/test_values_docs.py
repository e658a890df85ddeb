"""The table of docs/values.md, row by row."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import ipaddress
import math
import pathlib
import re
import typing
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pydantic
import pytest

from loom.model.errors import UsageError
from loom.wire.codec import Codec
from loom.wire.data import encode_value
from loom.wire.json import decode

numpy: Any = pytest.importorskip("numpy")
DOCS = pathlib.Path(__file__).parents[2] / "docs" / "values.md"


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Pair(typing.NamedTuple):
    x: int
    y: int


class User(pydantic.BaseModel):
    first_name: str = pydantic.Field(alias="firstName")


class Text(str):
    pass


NAMES: dict[str, Any] = {
    **vars(collections),
    **{made.__name__: made for made in (Color, Level, Point, Pair, User, Text, Decimal, Fraction, UUID)},
    **{made.__name__: made for made in (date, datetime, time, timedelta, timezone)},
    "UTC": UTC,
    "MappingProxyType": MappingProxyType,
    "PurePosixPath": pathlib.PurePosixPath,
    "IPv4Address": ipaddress.IPv4Address,
    "Iterator": collections.abc.Iterator,
    "HttpUrl": pydantic.HttpUrl,
    "SecretStr": pydantic.SecretStr,
    "math": math,
    "numpy": numpy,
}

ROW = re.compile(r"\| `(.+?)`[^|]*\| (`.+?`|refused) \| (refused: )?`(.+?)` \|")
ROWS = [match.groups() for match in map(ROW.fullmatch, DOCS.read_text().splitlines()) if match]


def test_every_row_is_read() -> None:
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert len(ROWS) == len(lines) > 40


def test_a_call_that_nobody_awaited_is_told_so() -> None:
    async def call() -> None: ...

    with contextlib.closing(call()) as pending, pytest.raises(TypeError, match="await it"):
        encode_value(pending)


@pytest.mark.parametrize(("value", "json", "refused", "hint"), ROWS)
def test_a_row_is_true(value: str, json: str, refused: str | None, hint: str) -> None:
    made, declared = eval(value, NAMES), eval(hint.replace("\\|", "|"), NAMES)
    if json == "refused":
        with pytest.raises(TypeError, match=r"cannot be sent as JSON|two keys"):
            encode_value(made)
    else:
        assert encode_value(made).decode() == json.strip("`")
    if refused:
        with pytest.raises(UsageError):
            Codec(declared)
    else:
        read = Codec(declared).read(decode(encode_value(made)))
        assert read == made
        assert isinstance(read, type(made))

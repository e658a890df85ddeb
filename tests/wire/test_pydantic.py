"""Pydantic models: by their aliases, both ways, and read again by the class that wrote them."""

from __future__ import annotations

import datetime as dt
from typing import Any, Generic, TypeVar

import msgspec
import pydantic
import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, Json
from pydantic.alias_generators import to_camel

from loom.model.errors import UsageError
from loom.wire.codec import Codec
from loom.wire.data import encode_value
from loom.wire.json import decode

T = TypeVar("T")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    first_name: str


class Choices(BaseModel):
    name: str = Field(validation_alias=AliasChoices("n", "name"))
    other: int = Field(1, validation_alias="theOther")
    deep: int = Field(1, validation_alias=AliasPath("outer", "deep"))


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: dt.datetime
    pair: tuple[int, bytes]


class Computed(BaseModel):
    width: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.width**2


class Closed(Computed):
    model_config = ConfigDict(extra="forbid")


class HoldsClosed(BaseModel):
    inner: list[Closed]


class Parsed(BaseModel):
    numbers: Json[list[int]]


class Names(pydantic.RootModel[list[str]]):
    pass


class Page(BaseModel, Generic[T]):
    items: list[T]


class Shouting(BaseModel):
    word: str

    @pydantic.field_serializer("word")
    def _upper(self, word: str) -> str:
        return word.upper()


@pydantic.dataclasses.dataclass
class Checked:
    size: int = Field(gt=0)
    inner: Camel | None = None


class Base(BaseModel):
    a: int = 1


class Derived(Base):
    b: int = 2


class Holds(BaseModel):
    base: Base


@pytest.mark.parametrize(
    ("hint", "value", "json"),
    [
        (Camel, Camel(first_name="Ada"), {"firstName": "Ada"}),
        (list[Camel], [Camel(first_name="Ada")], [{"firstName": "Ada"}]),
        (Choices, Choices(n="a", theOther=2, outer={"deep": 3}), {"name": "a", "other": 2, "deep": 3}),  # type: ignore[call-arg]
        (Strict, Strict(at=dt.datetime(2026, 1, 2), pair=(1, b"a")), {"at": "2026-01-02T00:00:00", "pair": [1, "a"]}),
        (Computed, Computed(width=2), {"width": 2, "area": 4}),
        (Closed, Closed(width=2), {"width": 2}),
        (HoldsClosed, HoldsClosed(inner=[Closed(width=2)]), {"inner": [{"width": 2}]}),
        (Parsed, Parsed(numbers="[1,2]"), {"numbers": "[1,2]"}),  # type: ignore[arg-type]
        (Names, Names(["a"]), ["a"]),
        (Page[int], Page[int](items=[1]), {"items": [1]}),
        (Page[Camel], Page[Camel](items=[Camel(first_name="A")]), {"items": [{"firstName": "A"}]}),
        (Checked, Checked(1, Camel(first_name="A")), {"size": 1, "inner": {"firstName": "A"}}),
    ],
)
def test_a_model_comes_back(hint: Any, value: Any, json: Any) -> None:
    written = decode(encode_value(value))
    assert written == json
    assert Codec(hint).read(written) == value


def test_a_pydantic_dataclass_is_read_with_its_validation() -> None:
    with pytest.raises(Exception, match="greater than 0"):
        Codec(Checked).read({"size": 0})


def test_a_serializer_of_the_author_s_counts() -> None:
    assert encode_value(Shouting(word="a")) == b'{"word":"A"}'


def test_a_subclass_keeps_its_fields_and_is_read_as_its_base() -> None:
    assert encode_value(Holds(base=Derived())) == b'{"base":{"a":1,"b":2}}'
    assert encode_value([Derived()]) == b'[{"a":1,"b":2}]'
    assert Codec(Base).read({"a": 1, "b": 2}) == Base()


class Sealed(msgspec.Struct, forbid_unknown_fields=True):
    a: int = 1


class Unsealed(Sealed, forbid_unknown_fields=False):
    b: int = 2


class Locked(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int = 1


class Unlocked(Locked):
    b: int = 2


@pytest.mark.parametrize(("base", "derived"), [(Sealed, Unsealed), (Locked, Unlocked)])
def test_a_subclass_whose_base_refuses_its_fields_is_found_before_it_is_sent(base: Any, derived: Any) -> None:
    assert Codec(base).fault(base()) is None
    for hint, value in ((base, derived()), (list[base], [derived()])):
        assert f"it is no {getattr(hint, '__name__', '')}" in str(Codec(hint).fault(value))


def test_secrets_are_masked_where_no_hint_refuses_them() -> None:
    class Login(BaseModel):
        password: pydantic.SecretStr

    login = Login(password=pydantic.SecretStr("hunter2"))
    assert b"hunter2" not in encode_value(login)
    with pytest.raises(TypeError) as raised:
        encode_value({"a": login.password})
    assert "hunter2" not in str(raised.value)
    with pytest.raises(UsageError, match=r"Login\.password"):
        Codec(Login)


def test_an_older_pydantic_keeps_the_fields_of_subclasses_too() -> None:
    class Older:
        def model_dump(self, *, mode: str, by_alias: bool, serialize_as_any: bool) -> dict[str, Any]:
            return {"mode": mode, "by_alias": by_alias, "any": serialize_as_any}

    assert decode(encode_value(Older())) == {"mode": "json", "by_alias": True, "any": True}

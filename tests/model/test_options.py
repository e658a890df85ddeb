"""The options of a run: one definition, and what is made of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec import UNSET

from loom.model import limits
from loom.model.errors import InvalidInput
from loom.model.options import COMPLETE, DECLARABLE, DEFAULTS, OPTIONS, Options, SettledOptions
from loom.model.run import Meta
from loom.wire.views import RunView, StartBody, StreamBody

MOST = {f"label{number}": "x" for number in range(limits.LABELS)}


def test_every_option_is_everywhere() -> None:
    """An option is one key of `RunOptions`, and what a run has of it one field of `SettledOptions`."""
    kept = set(SettledOptions.__struct_fields__)
    assert set(OPTIONS) - {"id", "delay"} == kept
    assert set(DECLARABLE) == kept - {"key"}
    for struct in (Meta, RunView):
        assert kept <= set(struct.__struct_fields__)
    assert set(OPTIONS) <= set(StartBody.__struct_fields__)
    assert set(OPTIONS) - {"delay"} <= set(StreamBody.__struct_fields__)
    assert COMPLETE.given.keys() == set(DECLARABLE)


def test_defaults_are_values() -> None:
    assert {name: getattr(SettledOptions(), name) for name in DEFAULTS} == DEFAULTS
    assert Options.of(DEFAULTS).of_run() == DEFAULTS


def test_none_is_a_value_unless_every_run_has_one() -> None:
    given = Options.of(dict.fromkeys(OPTIONS)).given
    assert set(OPTIONS) - set(given) == {"queue", "priority"}
    assert given["labels"] == {}
    assert Options.of(dict.fromkeys(OPTIONS, UNSET)) == Options()


def test_what_is_given_wins() -> None:
    given, declared = Options(timeout=None, key="k"), Options(timeout=5, labels={"a": "b"})
    assert given.over(declared) == Options(timeout=None, key="k", labels={"a": "b"})
    assert given.over(Options()) is given
    assert Options().over(declared) is declared
    assert repr(given) == "Options(timeout=None, key='k')"


def test_a_name_that_is_no_option_s_is_refused() -> None:
    with pytest.raises(TypeError, match="'colour' is no option"):
        Options.of({"colour": "red"})


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("timeout", timedelta(minutes=1), 60.0),
        ("retention", 0, 0),
        ("delay", timedelta(0), 0.0),
        ("labels", {}, {}),
        ("labels", {"user": "42", "a.b-c_d@e~f": "ünï: ={}"}, {"user": "42", "a.b-c_d@e~f": "ünï: ={}"}),
        ("labels", {"empty": "", "long": "x" * limits.LABEL_LENGTH}, {"empty": "", "long": "x" * limits.LABEL_LENGTH}),
        ("labels", MOST, MOST),
    ],
)
def test_a_value_is_kept_in_one_form(name: str, value: Any, kept: Any) -> None:
    assert Options.of({name: value}).given == {name: kept}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "no/id"),
        ("key", 7),
        ("queue", "loom.published"),
        ("priority", "urgent"),
        ("timeout", True),
        ("idle_timeout", 0),
        ("ahead", 1.5),
        ("retention", -1),
        ("delay", "5s"),
        ("delay", limits.DELAY + 1),
        ("labels", [("user", "42")]),
        ("labels", {"user": 42}),
        ("labels", {"": "42"}),
        ("labels", {"no name": "42"}),
        ("labels", {"a:b": "42"}),
        ("labels", {7: "42"}),
        ("labels", {"user": "x" * (limits.LABEL_LENGTH + 1)}),
        ("labels", {"user": "two\nlines"}),
        ("labels", {"user": "\x7f"}),
        ("labels", {"user": "\x9b31m"}),
        ("labels", {"user": "half \ud800"}),
        ("labels", {**MOST, "more": "x"}),
    ],
)
def test_a_value_that_does_not_fit_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=name) as raised:
        Options.of({name: value})
    assert raised.value.details == {"field": name}


def test_labels_are_a_copy() -> None:
    mine = {"user": "42"}
    options = Options(labels=mine)
    mine["user"] = "43"
    assert options.given["labels"] == {"user": "42"}

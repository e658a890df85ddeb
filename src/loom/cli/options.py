"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token

from loom.model.options import COUNT, DELAY, KEPT, LABELS, OPTIONS, PRIORITY, SPAN, Kind, Options
from loom.model.priority import Priority
from loom.wire.duration import parse_duration
from loom.wire.option_text import SHELL, labels_in

from .places import Place, place_of, state_folder

__all__ = [
    "AppOption",
    "Labels",
    "Listing",
    "Seconds",
    "StartFlags",
    "Streaming",
    "Tailing",
    "Target",
    "Where",
    "flag",
    "options_of",
    "sessions_folder",
]

Streaming = Annotated[
    Literal["text", "table", "json", "jsonl"],
    Parameter(
        name=["--output", "-o"],
        help="text; with --stream: table (a row a chunk), json, jsonl (a chunk a line); without: the run in that form.",
    ),
]
Tailing = Annotated[
    Literal["text", "table", "json", "jsonl"],
    Parameter(name=["--output", "-o"], help="text; table (a row a chunk); json; jsonl (a chunk a line)."),
]
Listing = Annotated[
    Literal["table", "json", "jsonl"], Parameter(name=["--output", "-o"], help="For people or programs.")
]
AppOption = Annotated[
    str | None, Parameter(name="--app", help="module:app, imported here (LOOM_APP; default: the built-in app).")
]


Target = Annotated[
    str | None, Parameter(name="TARGET", help="module:app, as app:app (LOOM_APP; default: the built-in app).")
]


def _seconds(_: object, tokens: Sequence[Token]) -> float:
    return parse_duration(tokens[0].value, tokens[0].keyword or "duration")


Seconds = Annotated[
    float, Parameter(converter=_seconds, n_tokens=1, metavar="DURATION", show_default=lambda value: f"{value:g}s")
]
"""A duration as `50ms`, `2s`, `1m`, or plain seconds."""


Labels = Annotated[list[str], Parameter(metavar="NAME=VALUE", negative="", show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """A server or a store."""

    url: Annotated[str | None, Parameter(help="A server's URL (LOOM_URL; its key: LOOM_API_KEY).")] = None
    store: Annotated[
        str | None,
        Parameter(
            help="A store, as sqlite:///runs.db or redis://host (LOOM_STORE; default: SQLite in your state folder)."
        ),
    ] = None

    def place(self, app: str | None = None, *, default_app: str | None = None) -> Place:
        """Raises `UsageError` when flags contradict each other."""
        return place_of(self.url, self.store, app, default_app=default_app, env=os.environ)


def _flags() -> list[tuple[str, Any, Any]]:
    """The fields of `StartFlags`."""
    found = []
    for name, option in OPTIONS.items():
        if option.flag:
            kind = _TYPES.get(option.kind, str)
            asked = Parameter(
                name=f"--{(option.word or name).replace('_', '-')}", help=option.doc, negative="", show_default=False
            )
            found.append((name, Annotated[kind | None, asked], field(default=None)))
    return found


_TYPES: dict[Kind, Any] = {
    SPAN: Seconds,
    KEPT: Seconds,
    DELAY: Seconds,
    COUNT: int,
    PRIORITY: Priority,
    LABELS: Labels,
}
"""How the command line reads the kinds of options that are no single text."""

if TYPE_CHECKING:

    class StartFlags:
        """The options of a start that the command line takes."""

else:
    StartFlags = Parameter(name="*")(
        make_dataclass("StartFlags", _flags(), frozen=True, namespace={"__module__": __name__})
    )


def options_of(flags: StartFlags | None) -> Options:
    """The options that were given. Raises `UsageError`, `InvalidInput`."""
    given = {} if flags is None else {name: value for name, value in vars(flags).items() if value is not None}
    if (labels := given.get("labels")) is not None:
        given["labels"] = labels_in(labels, SHELL, "--label")
    return Options.of(given)


def flag(help: str, name: str | None = None) -> Parameter:
    """An option without a value."""
    return Parameter(name=name, negative="", show_default=False, help=help)


def sessions_folder() -> Path:
    """Where commands that drive runs mark that they live."""
    return state_folder() / "cli"

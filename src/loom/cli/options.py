"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, Token

from loom.wire.duration import parse_duration

from .places import Place, place_of, state_folder

__all__ = ["AppOption", "Listing", "Seconds", "Streaming", "Tailing", "Target", "Where", "flag", "sessions_folder"]

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


def flag(help: str, name: str | None = None) -> Parameter:
    """An option without a value."""
    return Parameter(name=name, negative="", show_default=False, help=help)


def sessions_folder() -> Path:
    """Where commands that drive runs mark that they live."""
    return state_folder() / "cli"

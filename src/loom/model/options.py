"""The options of a run. One is added here, and nowhere else: a key of `RunOptions` says what callers give, and how that
is checked, described and spelled; a field of `SettledOptions` says what the run then has, and its default.

Python's keywords, declarations, bodies, queries, the command line, views and records are all made from these two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Self, TypedDict, Unpack, get_type_hints

import msgspec
from msgspec import UnsetType

from . import limits
from .errors import InvalidInput
from .names import DEFAULT_QUEUE, PUBLISHED, Id, check_id
from .numbers import is_duration, is_number, is_whole, seconds
from .priority import PRIORITIES, Priority
from .text import UNSAFE, escaped

__all__ = [
    "COMPLETE",
    "COUNT",
    "DECLARABLE",
    "DEFAULTS",
    "DELAY",
    "KEPT",
    "LABELS",
    "NAME",
    "OPTIONS",
    "PRIORITY",
    "QUEUE",
    "SPAN",
    "DeclaredOptions",
    "Kind",
    "Labels",
    "Option",
    "Options",
    "RunOptions",
    "SettledOptions",
    "settled_value",
]

Labels = dict[str, str]

# --- what values there are ---


class Kind(msgspec.Struct, frozen=True, eq=False):
    """The values that an option takes."""

    json: Any
    """Their type in JSON, with the bounds that a schema can tell."""
    settle: Callable[[str, Any], Any]
    """The value that a run keeps, given the field's name and a value. Raises `InvalidInput`."""
    expects: str = ""
    """The values that fit, for messages; empty where the check has words of its own."""


def _kind(
    json: Any, fits: Callable[[Any], bool], expects: str, form: Callable[[Any], Any] = lambda value: value
) -> Kind:
    def settle(field: str, value: Any) -> Any:
        if not fits(value):
            raise _misfit(field, f"must be {expects}, not {value!r:.80}")
        return form(value)

    return Kind(json, settle, expects)


def _misfit(field: str, why: str) -> InvalidInput:
    return InvalidInput(f"{field}: {why}", details={"field": field})


def _is_delay(value: Any) -> bool:
    span = seconds(value)
    return is_number(span) and 0 <= span <= limits.DELAY


def _queue(field: str, value: Any) -> str:
    if check_id(value, field) == PUBLISHED:
        raise _misfit(field, f"{PUBLISHED!r} is reserved for publishers")
    return str(value)


def _labels(field: str, value: Any) -> Labels:
    if not isinstance(value, Mapping) or len(value) > limits.LABELS:
        raise _misfit(
            field, f"must be names and values, at most {limits.LABELS}, as {{'user': '42'}}, not {value!r:.80}"
        )
    for name, text in value.items():
        if ":" in check_id(name, field):
            raise _misfit(field, f"the name {name!r} has a colon, which ends a name in URLs")
        if not isinstance(text, str) or len(text) > limits.LABEL_LENGTH or escaped(text) != text or "\t" in text:
            raise _misfit(
                field,
                f"the value of {name!r} must be text without control characters, at most {limits.LABEL_LENGTH},"
                f" not {text!r:.80}",
            )
    return dict(value)


_LABEL = Annotated[
    str,
    msgspec.Meta(extra_json_schema={"maxLength": limits.LABEL_LENGTH, "pattern": rf"^[^\t{UNSAFE}]*$"}),
]
_LABEL_NAME = {"pattern": r"^[A-Za-z0-9][A-Za-z0-9_.@~-]*$", "maxLength": limits.ID_LENGTH}
_LABELS = Annotated[
    dict[str, _LABEL],
    msgspec.Meta(extra_json_schema={"maxProperties": limits.LABELS, "propertyNames": _LABEL_NAME}),
]

NAME = Kind(Id, lambda field, value: check_id(value, field))
QUEUE = Kind(Id, _queue)
SPAN = _kind(Annotated[float, msgspec.Meta(gt=0)], is_duration, "seconds or a timedelta, more than 0", seconds)
KEPT = _kind(
    Annotated[float, msgspec.Meta(ge=0)],
    lambda value: is_duration(value, zero=True),
    "seconds or a timedelta, 0 or more",
    seconds,
)
DELAY = _kind(
    Annotated[float, msgspec.Meta(ge=0, le=limits.DELAY)],
    _is_delay,
    f"seconds or a timedelta, 0 to {limits.DELAY:.0f}",
    seconds,
)
COUNT = _kind(
    Annotated[int, msgspec.Meta(gt=0, le=10**18 - 1)], is_whole, "a whole number of chunks, more than 0"
)  # fmt: skip
PRIORITY = _kind(Priority, PRIORITIES.__contains__, f"one of {', '.join(PRIORITIES)}")
LABELS = Kind(_LABELS, _labels)


# --- the options ---


class Option(msgspec.Struct, frozen=True, eq=False):
    """All that is known of an option besides its name and the types of its values."""

    kind: Kind
    doc: str
    """One sentence, shown by `--help`, OpenAPI and the docs."""
    none: bool = True
    """None is a value, which lifts what is declared; else every run has one, and None is the same as left out."""
    word: str = ""
    """Its name in queries and on the command line, where one value is given at a time; empty: the option's own."""
    query: bool = False
    """``GET`` and ``POST /actors/{name}/stream`` take it in the query."""
    flag: bool = False
    """``loom actor run`` takes it."""
    shown: bool = False
    """``loom runs show`` has a line for it, unless it has its default."""


class DeclaredOptions(TypedDict, total=False):
    """The options that an actor may declare for its runs; a start overrides them."""

    queue: Annotated[str | UnsetType | None, Option(QUEUE, "Which workers take it.", none=False, shown=True)]
    timeout: Annotated[
        float | timedelta | UnsetType | None,
        Option(SPAN, "Time from the first attempt's start after which the run ends with `deadline_exceeded`."),
    ]
    idle_timeout: Annotated[
        float | timedelta | UnsetType | None,
        Option(SPAN, "Silence after which the run ends with `idle_timeout`."),
    ]
    ahead: Annotated[
        int | UnsetType | None,
        Option(COUNT, "The producer waits while it is so many chunks ahead of its slowest attached reader."),
    ]
    priority: Annotated[
        Priority | UnsetType | None,
        Option(PRIORITY, "Which runs go first.", none=False, flag=True, shown=True),
    ]
    retention: Annotated[
        float | timedelta | UnsetType | None,
        Option(KEPT, "Time that the run is kept after its end, at least 60 s."),
    ]
    labels: Annotated[
        Mapping[str, str] | UnsetType | None,
        Option(
            LABELS, "Names and values by which runs are found.", word="label", query=True, flag=True, shown=True
        ),
    ]  # fmt: skip


class RunOptions(DeclaredOptions, total=False):
    """The options that a start takes."""

    id: Annotated[
        str | UnsetType | None, Option(NAME, "The run's id: starting the same twice is starting once.", flag=True)
    ]
    key: Annotated[
        str | UnsetType | None,
        Option(NAME, "Runs of one actor and key go one at a time, in order.", query=True, flag=True, shown=True),
    ]
    delay: Annotated[
        float | timedelta | UnsetType | None,
        Option(DELAY, "No worker gets the run before so much time has passed.", flag=True),
    ]


class SettledOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The options of a run, with defaults for those that were left out; durations in seconds. Its `id` and `delay` are
    the run's name and `Meta.not_before`."""

    key: str | None = None
    """Runs of one actor and key go one at a time, in the order they were started."""
    queue: str = DEFAULT_QUEUE
    timeout: float | None = None
    """From the first attempt's start; then the run ends with `deadline_exceeded`."""
    idle_timeout: float | None = None
    """The longest silence of the producer; then the run ends with `idle_timeout`."""
    ahead: int | None = None
    """The producer waits while it is this many chunks ahead of its slowest attached reader."""
    priority: Priority = "normal"
    retention: float | None = None
    """Time that the run is kept after its end, as given; None: the store's own. See `Meta.kept_for`."""
    labels: Labels = {}
    """Names and values by which the run is found (`RunStore.list_runs`), as {"user": "42"}."""

    def settled(self) -> dict[str, Any]:
        """The options by name, as another of these takes them."""
        return {name: getattr(self, name) for name in DEFAULTS}


OPTIONS: Mapping[str, Option] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(RunOptions, include_extras=True).items()
}
DECLARABLE = tuple(DeclaredOptions.__annotations__)
"""Those that an actor may declare for its runs, and a start may override."""

DEFAULTS: Mapping[str, Any] = {name: getattr(SettledOptions(), name) for name in SettledOptions.__struct_fields__}
"""The options that a run has, and the value of each that is left out."""


def settled_value(name: str, value: Any) -> Any:
    """The option's value as a run keeps it. Raises `InvalidInput` naming the field."""
    return DEFAULTS.get(name) if value is None else OPTIONS[name].kind.settle(name, value)


class Options:
    """Options as they were given, checked; an option that was left out, as None and `UNSET` say it, is not in `given`.

    Immutable. Raises `InvalidInput`, naming the field, for a value that does not fit, `TypeError` for a name that is
    no option's.
    """

    __slots__ = ("given",)
    __hash__ = None  # type: ignore[assignment]

    given: Mapping[str, Any]
    """By name: durations in seconds, None where it lifts what is declared."""

    def __init__(self, **given: Unpack[RunOptions]) -> None:
        self.given = {name: settled_value(name, value) for name, value in given.items() if _is_given(name, value)}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The same, from a mapping that may come from anywhere."""
        return cls(**given)

    def __repr__(self) -> str:
        return f"Options({', '.join(f'{name}={value!r}' for name, value in self.given.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Options) and self.given == other.given

    def over(self, less: Options) -> Options:
        """These options; of what is not given here, those of `less`."""
        if not self.given or not less.given:
            return self if self.given else less
        both = Options.__new__(Options)
        both.given = {**less.given, **self.given}
        return both

    def of_run(self) -> dict[str, Any]:
        """Those of them that are fields of `SettledOptions`."""
        return {name: value for name, value in self.given.items() if name in DEFAULTS}


def _is_given(name: str, value: Any) -> bool:
    if name not in OPTIONS:
        raise TypeError(f"{name!r} is no option (there are: {', '.join(OPTIONS)})")
    return value is not msgspec.UNSET and (value is not None or OPTIONS[name].none)


COMPLETE = Options()
"""The defaults of all that an actor may declare, as if they had been given: a client that has the function leaves none
of them to the server."""
COMPLETE.given = {name: DEFAULTS[name] for name in DECLARABLE}

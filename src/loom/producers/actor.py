"""`@app.actor`: a function or class becomes a named producer.

Most of this module is for type checkers. A type can take a parameter away from a function's front, names and all
(`Concatenate`); from anywhere else it can only tell the others by their places. So a `Context` that is not the first
parameter costs the names of the others, and they are checked by place and taken by any name: see docs/adr/0036.
"""

# mypy: disable-error-code="overload-overlap"
# Overloads are tried in order, and the first that fits is meant.

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Never,
    ParamSpec,
    Protocol,
    TypeVar,
    TypeVarTuple,
    Unpack,
    overload,
)

from loom.engine.declare.context import Context
from loom.engine.declare.options import Declaration, check_names
from loom.engine.declare.producer import Producer
from loom.engine.declare.signature import make_producer
from loom.model.errors import UsageError

__all__ = [
    "ActorDecorator",
    "ContextAfter1",
    "ContextAfter2",
    "ContextAfter3",
    "ContextAfter4",
    "ContextAfter5",
    "ContextAfterMore",
    "ContextByName",
    "ContextByName1",
    "ContextByName2",
    "ContextWithin",
    "Unannotated",
    "decorator",
]

P = ParamSpec("P")
Out = TypeVar("Out")
A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")
A5 = TypeVar("A5")
B1 = TypeVar("B1", contravariant=True)
B2 = TypeVar("B2", contravariant=True)
B3 = TypeVar("B3", contravariant=True)
B4 = TypeVar("B4", contravariant=True)
B5 = TypeVar("B5", contravariant=True)
Rest = TypeVarTuple("Rest")
Given = TypeVar("Given", covariant=True)


# --- functions, by where their Context is ---


class Unannotated:
    """Taken only by a first parameter that takes anything: of such a function nothing is known."""


class ContextByName(Protocol[Given]):
    """Keyword-only, where all others have defaults."""

    def __call__(self, *, ctx: Context) -> Given: ...


class ContextByName1(Protocol[B1, Given]):
    """The same behind one parameter without a default."""

    def __call__(self, a1: B1, /, *, ctx: Context) -> Given: ...


class ContextByName2(Protocol[B1, Given]):
    """Behind two."""

    def __call__(self, a1: B1, a2: Any, /, *, ctx: Context) -> Given: ...


# --- what becomes of them: the form in which runs are started ---


class ContextAfter1(Producer[..., Given], Generic[B1, Given]):
    """Its `Context` is the last parameter, behind one more."""

    if TYPE_CHECKING:

        def _started_with(self, a1: B1 = ..., /, **fields: Any) -> Given: ...


class ContextAfter2(Producer[..., Given], Generic[B1, B2, Given]):
    """Behind two."""

    if TYPE_CHECKING:

        def _started_with(self, a1: B1 = ..., a2: B2 = ..., /, **fields: Any) -> Given: ...


class ContextAfter3(Producer[..., Given], Generic[B1, B2, B3, Given]):
    """Behind three."""

    if TYPE_CHECKING:

        def _started_with(self, a1: B1 = ..., a2: B2 = ..., a3: B3 = ..., /, **fields: Any) -> Given: ...


class ContextAfter4(Producer[..., Given], Generic[B1, B2, B3, B4, Given]):
    """Behind four."""

    if TYPE_CHECKING:

        def _started_with(self, a1: B1 = ..., a2: B2 = ..., a3: B3 = ..., a4: B4 = ..., /, **fields: Any) -> Given: ...


class ContextAfter5(Producer[..., Given], Generic[B1, B2, B3, B4, B5, Given]):
    """Behind five."""

    if TYPE_CHECKING:

        def _started_with(
            self, a1: B1 = ..., a2: B2 = ..., a3: B3 = ..., a4: B4 = ..., a5: B5 = ..., /, **fields: Any
        ) -> Given: ...


class ContextAfterMore(Producer[..., Given], Generic[B1, B2, B3, B4, B5, Given]):
    """Behind more than five, of which the first five are checked."""

    if TYPE_CHECKING:

        def _started_with(
            self, a1: B1 = ..., a2: B2 = ..., a3: B3 = ..., a4: B4 = ..., a5: B5 = ..., /, *more: Any, **fields: Any
        ) -> Given: ...


class ContextWithin(Producer[..., Given], Generic[B1, Given]):
    """Its `Context` has parameters before and behind it, or is keyword-only: the first parameter is checked."""

    if TYPE_CHECKING:

        def _started_with(self, a1: B1 = ..., /, *more: Any, **fields: Any) -> Given: ...


class ActorDecorator(Protocol):
    """``@app.actor``, of a function as it is or with a name and options: typed through, with the `Context` parameter
    left out."""

    @overload
    def __call__(self, target: type[Any], /) -> Producer[..., Any]: ...
    @overload
    def __call__(self, target: Callable[Concatenate[Unannotated, P], Out], /) -> Producer[..., Out]: ...
    @overload
    def __call__(self, target: Callable[Concatenate[Context, P], Out], /) -> Producer[P, Out]: ...
    @overload
    def __call__(self, target: Callable[[A1, Context, Never], Out], /) -> ContextWithin[A1, Out]: ...
    @overload
    def __call__(self, target: Callable[[A1, A2, Context, Never], Out], /) -> ContextWithin[A1, Out]: ...
    @overload
    def __call__(self, target: Callable[[A1, A2, A3, Context, Never], Out], /) -> ContextWithin[A1, Out]: ...
    @overload
    def __call__(self, target: Callable[[A1, Context], Out], /) -> ContextAfter1[A1, Out]: ...
    @overload
    def __call__(self, target: Callable[[A1, A2, Context], Out], /) -> ContextAfter2[A1, A2, Out]: ...
    @overload
    def __call__(self, target: Callable[[A1, A2, A3, Context], Out], /) -> ContextAfter3[A1, A2, A3, Out]: ...
    @overload
    def __call__(self, target: Callable[[A1, A2, A3, A4, Context], Out], /) -> ContextAfter4[A1, A2, A3, A4, Out]: ...
    @overload
    def __call__(
        self, target: Callable[[A1, A2, A3, A4, A5, Context], Out], /
    ) -> ContextAfter5[A1, A2, A3, A4, A5, Out]: ...
    @overload
    def __call__(
        self, target: Callable[[A1, A2, A3, A4, A5, *Rest, Context], Out], /
    ) -> ContextAfterMore[A1, A2, A3, A4, A5, Out]: ...
    @overload
    def __call__(self, target: Callable[Concatenate[A1, Context, ...], Out], /) -> ContextWithin[A1, Out]: ...
    @overload
    def __call__(self, target: Callable[Concatenate[A1, A2, Context, ...], Out], /) -> ContextWithin[A1, Out]: ...
    @overload
    def __call__(self, target: ContextByName[Out], /) -> Producer[..., Out]: ...
    @overload
    def __call__(self, target: ContextByName1[A1, Out], /) -> ContextWithin[A1, Out]: ...
    @overload
    def __call__(self, target: ContextByName2[A1, Out], /) -> ContextWithin[A1, Out]: ...
    @overload
    def __call__(self, target: Callable[P, Out], /) -> Producer[P, Out]: ...
    @overload
    def __call__(self, name: str | None = None, /, **declared: Unpack[Declaration]) -> ActorDecorator: ...


def decorator(add: Callable[[Producer[..., Any]], None]) -> ActorDecorator:
    """The decorator that makes producers and hands them to `add`."""

    def actor(target: Any = None, /, **declared: Unpack[Declaration]) -> Any:
        check_names(declared)
        requires: Any = declared.get("requires", ())
        if isinstance(requires, str):  # a sequence of strings, too
            raise UsageError(f"requires={requires!r}: a list of names, as [{requires!r}]")
        namespace = _visible(sys._getframe(1).f_locals)  # names local to where it stands resolve in annotations too

        def decorate(target: Callable[..., Any]) -> Producer[..., Any]:
            producer = make_producer(name or _name_of(target), target, namespace=namespace, **declared)
            add(producer)
            return producer

        name = target if isinstance(target, str) else None
        return decorate(target) if callable(target) else decorate

    return actor


def _visible(namespace: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in namespace.items() if not name.startswith("__")}


def _name_of(target: Callable[..., Any]) -> str:
    name = getattr(target, "__name__", None)
    if name is None:
        raise UsageError(f"{target!r} has no name of its own: give it one, as @app.actor('name')")
    return str(name)

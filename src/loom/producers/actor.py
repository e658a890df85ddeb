"""`@app.actor`: a function or class becomes a named producer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from loom.engine.context import Context
from loom.engine.options import Options, Retry
from loom.engine.producer import Producer
from loom.engine.signature import make_producer
from loom.model import limits
from loom.model.errors import UsageError
from loom.model.keep import Keep

__all__ = ["ActorDecorator", "decorator"]

P = ParamSpec("P")
Out = TypeVar("Out")
A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")
A5 = TypeVar("A5")


class ActorDecorator(Protocol):
    """What ``@app.actor(...)`` returns: typed through, with the `Context` parameter left out where a type can say so
    (first, or last behind up to five positional parameters)."""

    @overload
    def __call__(self, target: type[Any]) -> Producer[..., Any]: ...
    @overload
    def __call__(self, target: Callable[[A1, Context], Out]) -> Producer[[A1], Out]: ...
    @overload
    def __call__(self, target: Callable[[A1, A2, Context], Out]) -> Producer[[A1, A2], Out]: ...
    @overload
    def __call__(self, target: Callable[[A1, A2, A3, Context], Out]) -> Producer[[A1, A2, A3], Out]: ...
    @overload
    def __call__(self, target: Callable[[A1, A2, A3, A4, Context], Out]) -> Producer[[A1, A2, A3, A4], Out]: ...
    @overload
    def __call__(self, target: Callable[[A1, A2, A3, A4, A5, Context], Out]) -> Producer[[A1, A2, A3, A4, A5], Out]: ...
    @overload
    def __call__(self, target: Callable[Concatenate[Context, P], Out]) -> Producer[P, Out]: ...
    @overload
    def __call__(self, target: Callable[P, Out]) -> Producer[P, Out]: ...


def decorator(
    add: Callable[[Producer[..., Any]], None],
    name: str | None,
    *,
    retry: Retry | None = None,
    max_crashes: int = limits.CRASHES,
    options: Options | None = None,
    requires: Sequence[str] = (),
    concurrency: int | None = None,
    keep: Keep | None = None,
    depth: int = 2,
) -> ActorDecorator:
    """The decorator that makes a producer and hands it to `add`."""
    namespace = dict(sys._getframe(depth).f_locals)  # names local to where it stands resolve in annotations too

    def decorate(target: Callable[..., Any]) -> Producer[..., Any]:
        producer = make_producer(
            name or _name_of(target),
            target,
            retry=retry,
            max_crashes=max_crashes,
            options=options,
            requires=tuple(requires),
            concurrency=concurrency,
            keep=keep,
            namespace=_visible(namespace),
        )
        add(producer)
        return producer

    return decorate  # type: ignore[return-value]


def _visible(namespace: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in namespace.items() if not name.startswith("__")}


def _name_of(target: Callable[..., Any]) -> str:
    name = getattr(target, "__name__", None)
    if name is None:
        raise UsageError(f"{target!r} has no name of its own: give it one, as @app.actor('name')")
    return str(name)

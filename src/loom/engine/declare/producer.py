"""A producer: a named function that yields or returns, and what its author declared of it.

A `Driver` is the part that differs between kinds of producers. `signature` makes the drivers of functions and classes;
another kind brings its own, and `App.add` registers its producers.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import AsyncIterable, Awaitable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, cast

from loom.model import limits
from loom.model.errors import UsageError
from loom.model.names import check_id
from loom.model.options import Options, RunOptions
from loom.model.run import ActorInfo
from loom.wire.codec import ANY, Codec

from .context import Context
from .inputs import Inputs
from .options import Declaration, check_declared, check_names, declared_options

__all__ = ["Bound", "Driver", "Producer", "Startable"]

P = ParamSpec("P")
Q = ParamSpec("Q")
Out = TypeVar("Out", covariant=True)
Given = TypeVar("Given")


class Driver(Protocol):
    """One kind of producer: turns arguments into what a run says and its result. Shared by all runs of a producer."""

    @property
    def kind(self) -> str:
        """The kind's name, for people."""
        ...

    @property
    def threaded(self) -> bool:
        """True: `drive` may block. It is called in a thread of its own, which also iterates what it returns."""
        ...

    @property
    def looks_back(self) -> bool:
        """True: a continuing attempt reads ``ctx.previous``, so the runner keeps it. It costs memory."""
        ...

    def drive(self, arguments: Mapping[str, Any], ctx: Context) -> AsyncIterable[Any] | Awaitable[Any] | Any:
        """Called once an attempt. Returns an async iterable of what the run says, or an awaitable of its result; a
        threaded driver an iterator, whose return value is the result, or the result itself. The runner closes what it
        iterates."""
        ...


class Startable(Protocol[P, Out]):
    """To type checkers: what runs of a producer are started with, and what the function behind it returns."""

    def _started_with(self, *args: P.args, **kwargs: P.kwargs) -> Out: ...


class Producer(Generic[P, Out]):
    """A named function that yields or returns; only the runner ever drives it. Called plainly, it is the function.

    `target`: what documents it. `inputs`: its parameters (default: none). `yields`, `returns`: the types of what it
    says and of its result (default: any).

    Raises `UsageError` for a `driver` that is none and for what is declared and makes no sense, `InvalidInput` for a
    name that is none."""

    def __init__(
        self,
        name: str,
        target: Any,
        *,
        driver: Driver,
        inputs: Inputs | None = None,
        yields: Codec = ANY,
        returns: Codec = ANY,
        **declared: Unpack[Declaration],
    ) -> None:
        check_names(declared)
        self.options = declared_options(check_id(name, "actor"), declared)
        """The options that it declares for its runs."""
        self.retry = declared.get("retry")
        self.max_crashes = declared.get("max_crashes", limits.CRASHES)
        self.requires = tuple(declared.get("requires", ()))
        self.concurrency = declared.get("concurrency")
        """The most of its runs that one worker drives at a time; None: no bound of its own."""
        self.keep = declared.get("keep")
        """The part of its runs' logs that is kept while they go on; None: all."""
        check_declared(name, self.retry, self.max_crashes, self.concurrency, self.keep)
        self.name = name
        self.target = target
        """The function or class as its author wrote it: it documents the producer, and a plain call calls it."""
        self.driver = _checked(name, driver)
        self.inputs = inputs or Inputs(name, ())
        self.yields = yields
        self.returns = returns
        self.__doc__ = target.__doc__

    if TYPE_CHECKING:

        def _started_with(self, *args: P.args, **kwargs: P.kwargs) -> Out: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Out:
        """The function itself, as it was written: for tests and for calls from other producers."""
        result: Out = self.target(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<Producer {self.name!r}: {self.driver.kind}>"

    def using(self: Startable[Q, Given], **options: Unpack[RunOptions]) -> Bound[Q, Given]:
        """This producer with options for the run to start, as ``client.start(chat.using(key="u1"), "hi")``.

        What is given wins over what is declared; None: no key, no time-out, no bound, no labels, the store's own
        retention. Raises `InvalidInput`, naming the field, for a value that does not fit."""
        assert isinstance(self, Producer)
        return Bound(self, Options(**options))

    def renamed(self, name: str) -> Producer[P, Out]:
        """The same producer under another name. Raises `InvalidInput` for one that is no name."""
        renamed = copy.copy(self)
        renamed.name = check_id(name, "actor")
        renamed.inputs = Inputs(name, self.inputs.parameters)
        return renamed

    @property
    def continues(self) -> bool:
        """Whether a new attempt goes on from what was said."""
        return self.retry is not None and self.retry.mode == "continue"

    @cached_property
    def description(self) -> str:
        """The first line of its documentation."""
        return (inspect.getdoc(self.target) or "").partition("\n")[0]

    def info(self) -> ActorInfo:
        """What others are told of it."""
        return ActorInfo(name=self.name, description=self.description, input_schema=self.inputs.schema)


def _checked(name: str, driver: Any) -> Driver:
    """Return the driver, or raise `UsageError` naming the missing attributes: its runs would never end."""
    if isinstance(driver, type):
        raise UsageError(f"{name}: driver={driver!r}: a driver, not its class")
    lacking = [part for part in ("kind", "threaded", "looks_back", "drive") if not hasattr(driver, part)]
    if lacking:
        raise UsageError(f"{name}: driver={driver!r}: no driver, for it has no {' and no '.join(lacking)}")
    return cast("Driver", driver)


class Bound(Generic[P, Out]):
    """A producer with options for the run to start."""

    def __init__(self, producer: Producer[P, Out], options: Options) -> None:
        self.producer = producer
        self.options = options

    if TYPE_CHECKING:

        def _started_with(self, *args: P.args, **kwargs: P.kwargs) -> Out: ...

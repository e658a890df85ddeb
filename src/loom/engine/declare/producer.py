"""A producer: a named function that yields or returns, and what its author declared of it.

A `Driver` is the part that differs between kinds of producers. `signature` makes the drivers of functions and classes;
another kind brings its own, and `App.add` registers its producers.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import AsyncIterable, Awaitable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from msgspec import UNSET, UnsetType

from loom.model import limits
from loom.model.keep import Keep
from loom.model.priority import Priority
from loom.model.run import ActorInfo, check_id
from loom.wire.codec import ANY, Codec

from .context import Context
from .inputs import Inputs
from .options import Options, Retry, check_declared

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

    Raises `UsageError` for what is declared and makes no sense, `InvalidInput` for a name that is none."""

    def __init__(
        self,
        name: str,
        target: Any,
        *,
        driver: Driver,
        inputs: Inputs | None = None,
        yields: Codec = ANY,
        returns: Codec = ANY,
        retry: Retry | None = None,
        max_crashes: int = limits.CRASHES,
        options: Options | None = None,
        requires: tuple[str, ...] = (),
        concurrency: int | None = None,
        keep: Keep | None = None,
    ) -> None:
        options = options or Options()
        check_declared(check_id(name, "actor"), retry, max_crashes, concurrency, keep, options)
        self.name = name
        self.target = target
        """What its author wrote: it documents the producer, and a plain call of the producer calls it."""
        self.driver = driver
        self.inputs = inputs or Inputs(name, ())
        self.yields = yields
        self.returns = returns
        self.retry = retry
        self.max_crashes = max_crashes
        self.options = options
        self.requires = requires
        self.concurrency = concurrency
        """How many of its runs one worker drives at a time, at most."""
        self.keep = keep
        """How much of its runs' logs is kept while they go on."""
        self.__doc__ = target.__doc__

    if TYPE_CHECKING:

        def _started_with(self, *args: P.args, **kwargs: P.kwargs) -> Out: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Out:
        """The function itself, as it was written: for tests and for calls from other producers."""
        result: Out = self.target(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<Producer {self.name!r}: {self.driver.kind}>"

    def using(
        self: Startable[Q, Given],
        *,
        id: str | UnsetType | None = UNSET,
        key: str | UnsetType | None = UNSET,
        queue: str | UnsetType | None = UNSET,
        timeout: float | timedelta | UnsetType | None = UNSET,
        idle_timeout: float | timedelta | UnsetType | None = UNSET,
        ahead: int | UnsetType | None = UNSET,
        priority: Priority | UnsetType | None = UNSET,
        delay: float | timedelta | UnsetType | None = UNSET,
        retention: float | timedelta | UnsetType | None = UNSET,
    ) -> Bound[Q, Given]:
        """This producer with options for the run to start, as ``client.start(chat.using(key="u1"), "hi")``.

        What is given wins over what is declared; None: no key, no time-out, no bound, the store's own retention."""
        options = Options(
            id=id,
            key=key,
            queue=queue,
            timeout=timeout,
            idle_timeout=idle_timeout,
            ahead=ahead,
            priority=priority,
            delay=delay,
            retention=retention,
        )
        assert isinstance(self, Producer)
        return Bound(self, options)

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


class Bound(Generic[P, Out]):
    """A producer with options for the run to start."""

    def __init__(self, producer: Producer[P, Out], options: Options) -> None:
        self.producer = producer
        self.options = options

    if TYPE_CHECKING:

        def _started_with(self, *args: P.args, **kwargs: P.kwargs) -> Out: ...

"""A producer: a named function that yields or returns, and what its author declared of it.

It is any of: async generator function, coroutine function, generator function, plain function, or a class with `stream`
and/or `execute`. `signature` makes one of these.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar

from msgspec import UNSET, UnsetType

from loom.model.keep import Keep
from loom.model.priority import Priority
from loom.model.run import ActorInfo, check_id
from loom.wire.codec import Codec

from .inputs import Inputs
from .options import Options, Retry

__all__ = ["Bound", "Kind", "Producer", "Startable"]

P = ParamSpec("P")
Q = ParamSpec("Q")
Out = TypeVar("Out", covariant=True)
Given = TypeVar("Given")

Kind = Literal["async-generator", "coroutine", "generator", "function"]
"""How a producer is driven; the last two in threads."""


class Startable(Protocol[P, Out]):
    """To type checkers: what runs of a producer are started with, and what the function behind it returns."""

    def _started_with(self, *args: P.args, **kwargs: P.kwargs) -> Out: ...


class Producer(Generic[P, Out]):
    """A named function that yields or returns; only the runner ever drives it. Called plainly, it is the function."""

    def __init__(
        self,
        name: str,
        target: Callable[..., Any],
        *,
        kind: Kind,
        context: str | None,
        inputs: Inputs,
        yields: Codec,
        returns: Codec,
        retry: Retry | None,
        max_crashes: int,
        options: Options,
        requires: tuple[str, ...] = (),
        concurrency: int | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.name = name
        self.target = target
        self.kind = kind
        self.context = context
        self.inputs = inputs
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
        return f"<Producer {self.name!r}: {self.kind}>"

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
    def threaded(self) -> bool:
        """Whether it is driven in a thread of its own."""
        return self.kind in ("generator", "function")

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

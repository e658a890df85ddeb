"""The app: what users declare. Producers, what they share, and defaults; it runs nothing by itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from loom.engine.declare.options import retention_of
from loom.engine.declare.producer import Producer
from loom.engine.declare.registry import Registry
from loom.engine.follow.children import RunClients
from loom.engine.run.attempt import Resources
from loom.model.ai import AI, NO_MODEL
from loom.model.errors import UsageError
from loom.producers.actor import ActorDecorator, decorator

if TYPE_CHECKING:
    from loom.wire.dialect import Dialect  # 4 ms, which only a server needs

__all__ = ["App", "Lifespan"]

Lifespan = Callable[["App"], AbstractAsyncContextManager[Any]]
"""As in Starlette: what it yields is ready before the first chunk and closed after the last."""

_MODEL = "ctx.ai"
"""The name in `requires=` of an actor that cannot run without a model."""


class App:
    """Producers by name, and what their runs share.

    `lifespan(app)`: an async context manager; what it yields is `ctx.resources`. `ai`: the model behind `ctx.ai`, or a
    function that makes it: each worker calls it once, when the model is first used, and closes what it made. Default:
    the model that the environment names; without one, using `ctx.ai` raises `UsageError`. `default_actor`: the name of
    the one that answers OpenAI's clients for models that no actor is called. `dialects`: further wire formats that a
    server of this app speaks (`loom.wire.dialect`). `retention`: seconds that its runs are
    kept after their end, unless their actor or start says otherwise (default: the store's time).
    """

    def __init__(
        self,
        *,
        lifespan: Lifespan | None = None,
        ai: AI | Callable[[], AI] | None = None,
        default_actor: str | None = None,
        dialects: Iterable[Dialect] = (),
        retention: float | timedelta | None = None,
    ) -> None:
        _check_ai(ai)
        self.retention = retention
        self._defaults = retention_of(UNSET if retention is None else retention)
        self.registry = Registry()
        self.ai = ai
        self.default_actor = default_actor
        self.dialects = tuple(dialects)
        self._lifespan = lifespan
        self._included: list[App] = []
        self._homes: dict[str, App] = {}

    @property
    def actor(self) -> ActorDecorator:
        """Registers a producer, as ``@app.actor`` or ``@app.actor("name", timeout=60)``; bare it takes the function's
        name.

        `retry`: what follows an error or a lost worker. `max_crashes`: lost workers that a run survives. `concurrency`:
        how many of its runs each worker drives at a time, at most; two workers drive twice as many. `keep`: how much of
        a log is kept while its run goes on (default: all, up to `limits.LOG_BYTES`). `requires`: names that the
        lifespan must provide; "ctx.ai" is the model. All others are `DeclaredOptions`: defaults of its runs
        (`retention`: default the app's, None the store's). Raises `UsageError` for a signature that cannot be called by
        name, for a name that is taken, and for what is declared and makes no sense.
        """
        return decorator(self.add)

    def add(self, producer: Producer[..., Any]) -> None:
        """Register a producer of any kind, as kinds from other packages do. It takes the app's `retention` where it
        declares none. Raises `UsageError` for a name that is taken, and for what is no producer."""
        if not isinstance(producer, Producer):
            raise UsageError(
                f"App.add takes a loom.producers.Producer, not {producer!r}: for a function, use @app.actor"
            )
        self.registry.add(producer)
        producer.options = producer.options.over(self._defaults)
        self._homes[producer.name] = self

    def include(self, other: App, *, prefix: str = "") -> None:
        """Take over the producers that `other` has by now, their names behind `prefix`. They keep their own app's
        resources and model. Raises `UsageError` for a name that is taken or none, and for a circle; nothing is taken
        over then."""
        if self in other._all():
            raise UsageError("an app cannot include itself, nor one that includes it")
        renamed = [(producer.renamed(prefix + producer.name), producer.name) for producer in other.registry]
        taken = [producer.name for producer, _ in renamed if self.registry.find(producer.name) is not None]
        if taken:
            raise UsageError(f"two producers are named {taken[0]!r}: include under a prefix")
        for producer, name in renamed:
            self.registry.add(producer)
            self._homes[producer.name] = other._homes[name]
        self._included.append(other)

    @contextlib.asynccontextmanager
    async def resources(self, default_ai: Callable[[], AI | None] = lambda: None) -> AsyncIterator[Resources]:
        """Open every lifespan (once an app), check what producers require, and lend it all to a worker.

        `default_ai`: the model of apps that have none. Raises `UsageError` naming what is required and not provided, or
        the default actor that is none.
        """
        if self.default_actor is not None:
            self.registry.get(self.default_actor)
        async with contextlib.AsyncExitStack() as stack:
            values: dict[int, Any] = {}
            for app in self._all():
                values[id(app)] = await stack.enter_async_context(app._open())
            models = await stack.enter_async_context(self.models(default_ai))
            for producer in self.registry:
                _check_required(producer, values[id(self._homes[producer.name])], models[producer.name])
            resources = Resources({name: values[id(home)] for name, home in self._homes.items()}, models)
            resources.clients = RunClients
            yield resources

    @contextlib.asynccontextmanager
    async def models(self, default_ai: Callable[[], AI | None]) -> AsyncIterator[dict[str, Callable[[], AI]]]:
        """Functions that give the model of each actor, by its name; the block's end closes the models they made.

        Calling one raises `UsageError` where no model is set.
        """
        async with contextlib.AsyncExitStack() as stack:
            lent = {id(None): _shared(default_ai, stack)}
            for app in self._all():
                if id(app.ai) not in lent:
                    lent[id(app.ai)] = _lender(app.ai, stack)
            yield {name: lent[id(home.ai)] for name, home in self._homes.items()}

    def _all(self) -> list[App]:
        found: list[App] = [self]
        for other in self._included:
            found.extend(app for app in other._all() if app not in found)
        return found

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[Any]:
        if self._lifespan is None:
            yield None
        else:
            async with self._lifespan(self) as value:
                yield value


def _check_ai(ai: Any) -> None:
    """Raise `UsageError` for what is neither a model nor makes one."""
    if ai is not None and not _is_model(ai) and not callable(ai):
        raise _no_model(ai)


def _no_model(ai: Any) -> UsageError:
    """The error for what is no model. The value is not shown: it may be a key."""
    kind = f"{type(ai).__module__}.{type(ai).__qualname__}".removeprefix("builtins.")
    return UsageError(
        "App(ai=...) takes a loom.AI, as loom.producers.llm.OpenAICompatible is one, or a function that returns one,"
        f" not {kind}"
    )


def _is_model(ai: Any) -> bool:
    return hasattr(ai, "stream_completion") and not isinstance(ai, type)


def _shared(make: Callable[[], AI | None], stack: contextlib.AsyncExitStack) -> Callable[[], AI]:
    """The one model that `make` makes when it is first asked for, closed with the stack."""
    made: list[AI] = []

    def lend() -> AI:
        if not made:
            if (ai := make()) is None:
                raise UsageError(NO_MODEL)
            if not _is_model(ai):
                raise _no_model(ai)
            made.append(ai)
            stack.push_async_callback(ai.aclose)
        return made[0]

    return lend


def _lender(ai: Any, stack: contextlib.AsyncExitStack) -> Callable[[], AI]:
    _check_ai(ai)
    return (lambda: ai) if _is_model(ai) else _shared(ai, stack)


def _check_required(producer: Producer[..., Any], value: Any, ai: Callable[[], AI]) -> None:
    for name in producer.requires:
        if name == _MODEL:
            _check_model(producer, ai)
        elif name not in value if isinstance(value, Mapping) else not hasattr(value, name):
            raise UsageError(f"actor {producer.name!r} requires the resource {name!r}, which no lifespan provides")


def _check_model(producer: Producer[..., Any], ai: Callable[[], AI]) -> None:
    try:
        ai()
    except UsageError as error:
        raise UsageError(f"actor {producer.name!r} requires ctx.ai: {error.message}") from None

"""What both machines share: a store on a loop of its own, opened again where it can be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack
from typing import Any, ClassVar, TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from loom.model.errors import LoomError
from loom.model.ports import Store
from loom.testing.clock import ManualClock, StoreFactory

__all__ = ["Machine", "Place"]

T = TypeVar("T")

Place = Callable[[], AbstractContextManager[StoreFactory]]
"""Where one example's stores are made, until the context ends."""


class Machine(RuleBasedStateMachine):
    """A store under test. It is driven from outside its loop, one call after the other."""

    place: ClassVar[staticmethod[[], AbstractContextManager[StoreFactory]]]
    reopens: ClassVar[bool]

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._make = self._stack.enter_context(self.place())
        self._runner = self._stack.enter_context(asyncio.Runner())
        self.clock = ManualClock()
        self.store = self.do(self._open())

    def teardown(self) -> None:
        with self._stack:
            self.do(self.store.__aexit__(None, None, None))

    async def _open(self) -> Store:
        return await self._make(self.clock).__aenter__()

    async def restart(self) -> None:
        """The store's object goes; another opens on the same place."""
        await self.store.__aexit__(None, None, None)
        self.store = await self._open()

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        """What a call gives."""
        return self._runner.run(call)

    def refused(self, call: Coroutine[Any, Any, Any], error: type[LoomError]) -> None:
        """Make a call that has to be refused with just this error."""
        outcome: object
        try:
            outcome = self.do(call)
        except LoomError as caught:
            outcome = caught
        assert type(outcome) is error, f"{outcome!r} instead of {error.__name__}"

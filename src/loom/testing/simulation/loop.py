"""One event loop on virtual time, on which several processes live that can be stopped, killed and let go on.

Every turn of a task and every timer belongs to a process, by its context. What a stopped process would do is kept for
later; a killed one does nothing any more: no `finally` of it runs before the history is over.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, TypeVarTuple

from loom.tasks import spawn
from loom.testing.virtual import VirtualLoop

__all__ = ["Process", "SimulationLoop", "outside"]

Ts = TypeVarTuple("Ts")

_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class _State(Enum):
    RUNNING = "running"
    STOPPED = "stopped"
    DEAD = "dead"


class Process:
    """What would be a process of the system: the tasks that were made in it, and those that they made."""

    def __init__(self, loop: SimulationLoop, name: str) -> None:
        self.name = name
        self.turns = 0
        """Callbacks it has run: each await that went on is one."""
        self._loop = loop
        self._state = _State.RUNNING
        self._held: list[_Gate] = []
        self._fate: Callable[[], None] | None = None
        self._fated = 0
        self.buried = False
        """Whether it only runs to be cleaned up."""
        self.context = contextvars.Context()
        """What runs in it belongs to this process."""
        self.context.run(_process.set, self)

    def __repr__(self) -> str:
        return f"<Process {self.name}: {self._state.value}>"

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task of this process."""
        return self.context.run(spawn, coro, name)

    def meet(self, fate: Callable[[], None], turns: int) -> None:
        """Call `fate` before the process's `turns`-th turn from now, whatever it waits for then."""
        self._fate, self._fated = fate, self.turns + max(turns, 1)

    def stop(self) -> None:
        """As SIGSTOP: nothing of it runs, time goes on."""
        if self._state is _State.RUNNING:
            self._state = _State.STOPPED

    def go_on(self) -> None:
        """As SIGCONT: what would have run meanwhile runs now, in the order in which it was due."""
        if self._state is _State.STOPPED:
            self._resume()

    def kill(self) -> None:
        """As SIGKILL: nothing of it ever runs again, no clean-up either."""
        self._state = _State.DEAD

    def bury(self) -> None:
        """Let its tasks run once more, to be cancelled: only when the history is over."""
        self.buried = True
        self._resume()

    def _resume(self) -> None:
        self._state = _State.RUNNING
        self._fate = None
        held, self._held = self._held, []
        for gate in held:
            self._loop.again(gate)

    def admits(self, gate: _Gate) -> bool:
        """Whether `gate` may run now; if not, it is kept."""
        if self._state is _State.RUNNING:
            self.turns += 1
            if self._fate is not None and self.turns >= self._fated:
                fate, self._fate = self._fate, None
                fate()
        if self._state is _State.RUNNING:
            return True
        self._held.append(gate)
        return False


class _Gate:
    """A callback that its process must admit."""

    __slots__ = ("args", "callback", "context", "handle", "process")

    def __init__(
        self, process: Process, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context
    ) -> None:
        self.process = process
        self.callback = callback
        self.args = args
        self.context = context
        self.handle: asyncio.Handle

    def __call__(self) -> None:
        if not self.handle.cancelled() and self.process.admits(self):
            self.callback(*self.args)


class _Task(asyncio.Task[Any]):
    """A task whose place in a set is its number's, not its address's: the same in every run."""

    def __init__(self, coro: Any, number: int, **more: Any) -> None:
        self.number = number
        self.process = _process.get()
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self.number


class SimulationLoop(VirtualLoop):
    """Virtual time without threads or sockets; what belongs to a process runs when that process runs."""

    def __init__(self) -> None:
        super().__init__(polls=False)
        self._numbers = itertools.count(1)
        self.set_task_factory(self._make)

    def _make(self, loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> asyncio.Task[Any]:
        return _Task(coro, next(self._numbers), loop=loop, **more)

    def tasks_of(self, process: Process) -> list[asyncio.Task[Any]]:
        """Its tasks that are not done, in the order in which they were made."""
        tasks = [task for task in asyncio.all_tasks(self) if isinstance(task, _Task)]
        return [*sorted((task for task in tasks if task.process is process), key=hash)]

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        process = _process.get() if context is None else context.get(_process)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        gate = _Gate(process, callback, args, contextvars.copy_context() if context is None else context)
        gate.handle = super().call_soon(gate, context=gate.context)
        return gate.handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        process = _process.get() if context is None else context.get(_process)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        gate = _Gate(process, callback, args, contextvars.copy_context() if context is None else context)
        gate.handle = handle = super().call_at(when, gate, context=gate.context)
        return handle

    def again(self, gate: _Gate) -> None:
        """Run what was kept, unless it is cancelled before its turn comes."""
        super().call_soon(gate, context=gate.context)


def outside(coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """A task of no process: nothing stops it."""
    return contextvars.Context().run(spawn, coro, name)

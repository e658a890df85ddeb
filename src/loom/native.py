"""Threads of the operating system, also where gevent has put greenlets in their place (`monkey.patch_all`): an event
loop in a greenlet would be a second one in its caller's thread, which asyncio does not allow."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

from loom.model.errors import UsageError

__all__ = ["Signal", "signal", "start_thread", "use_native_threads"]


P = ParamSpec("P")
T = TypeVar("T")


class Signal(Protocol):
    """Is set once, in any thread. One thread, or one greenlet, waits for it; other greenlets run meanwhile."""

    def set(self) -> None: ...

    def wait(self) -> object: ...


def signal() -> Signal:
    return _LockSignal() if _monkey() is None else _HubSignal()


def start_thread(main: Callable[[], None], name: str, *, then: Callable[[], None] = lambda: None) -> None:
    """Run `main` in a thread that a process which exits does not wait for, and `then` when nothing is left of it.
    Raises `UsageError` under eventlet."""
    patcher = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        raise UsageError("eventlet has replaced threads, which the blocking client needs: use gevent, or threads")
    monkey = _monkey()
    if monkey is None:
        threading.Thread(target=_run, args=(main, then), name=name, daemon=True).start()
    else:
        monkey.get_original("_thread", "start_new_thread")(_run, (partial(_with_hub, main), then))


def use_native_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Have `loop` look up names in real threads. From a greenlet of its own thread its answers never wake it
    (github.com/gevent/gevent/issues/2213: CPython 3.13.12 and 3.14.3 on)."""
    if _monkey() is not None:
        loop.set_default_executor(_Threads(loop))


def _run(main: Callable[[], None], then: Callable[[], None]) -> None:
    try:
        main()
    finally:
        then()


def _with_hub(main: Callable[[], None]) -> None:
    import gevent

    try:
        main()
    finally:
        gevent.get_hub().destroy(destroy_loop=True)


def _monkey() -> Any:
    """gevent's, if it has replaced threads."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey if monkey is not None and monkey.is_module_patched("threading") else None


class _Threads(ThreadPoolExecutor):
    """A real thread for each call; as many as there are connections that look up a name. Futures stay in the loop's
    thread: gevent's locks, of which they consist, are not for two threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def main() -> None:
            try:
                settle = partial(future.set_result, fn(*args, **kwargs))
            except BaseException as error:  # the outcome of the call
                settle = partial(future.set_exception, error)
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(_unless_cancelled, future, settle)

        start_thread(main, "loom-lookup")
        return future


def _unless_cancelled(future: Future[Any], settle: Callable[[], None]) -> None:
    if not future.cancelled():
        settle()


class _LockSignal:
    """A lock that is taken until the signal is set. Ctrl-C may interrupt a wait at any point, which leaves a lock taken
    or free, but the condition in a `threading.Event` half-way: then the next wait may hang."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        if self._lock.locked():
            self._lock.release()

    def wait(self) -> object:
        with self._lock:
            return True


class _HubSignal:
    """gevent's locks keep no hub awake that has nothing else to wait for: it would give up (`LoopExit`). A watcher
    does, and can be woken from any thread."""

    def __init__(self) -> None:
        import gevent

        self._hub = gevent.get_hub()
        self._watcher = self._hub.loop.async_()
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        self._watcher.send_ignoring_arg(None)

    def wait(self) -> object:
        from gevent.hub import Waiter

        waiter: Any = Waiter(self._hub)
        self._watcher.start(waiter.switch, None)
        try:
            if not self._is_set:  # looked at behind the start: before it, a watcher notices nothing
                waiter.get()
        finally:
            self._watcher.stop()
        return True

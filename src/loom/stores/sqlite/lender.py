"""The interpreter's lock, lent to the threads by a loop that would not let go of it."""

from __future__ import annotations

import asyncio
import time

__all__ = ["Lender"]


LEND_AFTER = 0.005
"""When a call has waited for its thread for so long, and the loop is busy, the loop pauses for the thread: as long as
CPython lets one thread run that another waits for."""

LEND = 0.0001
"""For so long: a thread needs about half of it to wake up."""

LEND_EVERY = 0.001
"""So often: at most a tenth of a busy loop's time, for milliseconds instead of seconds that appends wait."""


class Lender:
    """While calls wait in vain and the loop is busy, pauses the loop for a moment now and then, so that threads get on.

    CPython makes a thread give up the lock when another has waited for it for 5 ms. But whenever a busy loop looks for
    I/O it lets go of the lock for a microsecond, which starts those 5 ms anew and is over before a thread has woken up:
    calls then wait for seconds.
    """

    def __init__(self) -> None:
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A call was submitted. On the loop."""
        self._waiting += 1
        if self._timer is None:
            self._mark()
            self._timer = asyncio.get_running_loop().call_later(LEND_AFTER, self._turn)

    def end(self, calls: int) -> None:
        """So many calls have their outcome."""
        self._waiting -= calls
        self._served = True

    def _turn(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if not self._served and self._busy():
            time.sleep(LEND)
        self._mark()
        self._timer = asyncio.get_running_loop().call_later(LEND_EVERY, self._turn)

    def _mark(self) -> None:
        self._served = False
        self._since = time.monotonic(), time.thread_time()

    def _busy(self) -> bool:
        """Whether the loop was at work for most of the time: else the threads have the lock while it waits."""
        wall, cpu = self._since
        return (time.thread_time() - cpu) > (time.monotonic() - wall) / 2

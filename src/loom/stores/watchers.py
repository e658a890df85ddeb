"""Who watches what: functions to call by topic. On the loop only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from loom.model.chunk import Page
from loom.model.ports import Notice, Notify, Unwatch

__all__ = ["Watchers", "pause", "retried", "wait_page"]


T = TypeVar("T")


class Watchers(dict[str, dict[object, Notify]]):
    """The watchers of each topic. Watching and unwatching cost the same however many there are, and are allowed while a
    notice is given."""

    def add(self, topic: str, notify: Notify) -> Unwatch:
        """Tell `notify` too, until the function that this returns is called; calling it again does nothing."""
        mark = object()
        self.setdefault(topic, {})[mark] = notify

        def unwatch() -> None:
            watching = self.get(topic, {})
            if watching.pop(mark, None) is not None and not watching:
                del self[topic]

        return unwatch

    def tell(self, topic: str, notice: Notice) -> None:
        watching = self.get(topic)
        if watching is not None:
            for notify in list(watching.values()):
                notify(notice)

    def tell_all(self, notice: Notice) -> None:
        for topic in list(self):
            self.tell(topic, notice)


async def pause(changed: asyncio.Event, seconds: float) -> None:
    """Until something changed, at most this long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await changed.wait()
    changed.clear()


async def wait_page(
    watch: Callable[[str, Notify], Unwatch], log: str, read: Callable[[], Awaitable[Page]], seconds: float
) -> Page:
    """The page that `read` finds, made again after each notice of `log` until it holds anything or the end; at most
    this long. `watch` is the store's."""
    page = await read()
    if page.batches or page.ended or seconds <= 0:
        return page
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    changed = asyncio.Event()
    unwatch = watch(log, lambda notice: None if notice.marks else changed.set())
    try:
        while True:  # looked at at once, as it may have changed before it was watched
            page = await read()
            left = end - loop.time()
            if page.batches or page.ended or left <= 0:
                return page
            await pause(changed, left)
    finally:
        unwatch()


async def retried(
    attempt: Callable[[], T | None], waiting: dict[asyncio.Event, None], seconds: float, pauses: Callable[[], float]
) -> T | None:
    """The first result of `attempt`, made again whenever the event that stands in `waiting` meanwhile is set, and after
    each of the `pauses`; None after `seconds`."""
    found = attempt()
    if found is not None or seconds <= 0:
        return found
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    changed = asyncio.Event()
    waiting[changed] = None
    try:
        while found is None and (left := end - loop.time()) > 0:
            await pause(changed, min(left, pauses()))
            found = attempt()
    finally:
        del waiting[changed]
    return found

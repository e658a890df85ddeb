"""Who watches what: functions to call by topic. On the loop only."""

from __future__ import annotations

import asyncio
import contextlib

from loom.model.ports import Notice, Notify, Unwatch

__all__ = ["Watchers", "pause"]


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

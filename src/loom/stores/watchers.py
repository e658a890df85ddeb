"""Who watches what: functions to call by topic. On the loop only."""

from __future__ import annotations

import asyncio
import contextlib

from loom.model.ports import Notice, Notify, Unwatch

__all__ = ["Watchers", "pause"]


class Watchers(dict[str, tuple[Notify, ...]]):
    """By topic, whom to tell. Whoever is being told may watch and unwatch: tuples are replaced as a whole."""

    def add(self, topic: str, notify: Notify) -> Unwatch:
        """Tell `notify` too, until the function that this returns is called; calling it again does nothing."""
        self[topic] = (*self.get(topic, ()), notify)
        watching = True

        def unwatch() -> None:
            nonlocal watching
            if watching:
                watching = False
                self._remove(topic, notify)

        return unwatch

    def _remove(self, topic: str, notify: Notify) -> None:
        others = list(self[topic])
        others.remove(notify)
        if others:
            self[topic] = tuple(others)
        else:
            del self[topic]

    def tell(self, topic: str, notice: Notice) -> None:
        for notify in self.get(topic, ()):
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

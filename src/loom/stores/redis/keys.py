"""What things are called in Redis; what they are is told by `functions.lua`."""

from __future__ import annotations

from functools import lru_cache

from loom.model import limits
from loom.model.run import inbox_of, run_of

__all__ = ["Keys"]

_PARTS = ("entries", "metas", "inputs", "ready", "actors", "lines", "standing", "kinds", "later", "all", "told")


class Keys:
    """The names of one app's keys and channels: they all begin with its prefix."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.of = lru_cache(maxsize=limits.REDIS_NAMES)(self._of)
        self.queue = f"{{{prefix}}}:queue"
        """Also the channel of the queue's news."""
        self.runs, self.open, self.workers, self.sweeper = (
            f"{{{prefix}}}:{name}" for name in ("runs", "open", "workers", "sweeper")
        )
        self.register = (f"{self.workers}:info", f"{self.workers}:asked")
        """What each worker said of itself, and which were asked to drain."""
        self.queues = (self.queue, *(f"{self.queue}:{part}" for part in _PARTS), self.workers, *self.register)
        """The queue's keys, in their order."""

    def _of(self, run: str) -> tuple[str, str, str, str, str, str]:
        """A run's keys, all in one slot: head, outbox, inbox, sent, marks, tokens."""
        head = self.channel(run)
        return head, f"{head}:out", f"{head}:in", f"{head}:sent", f"{head}:marks", f"{head}:tokens"

    def of_log(self, log: str) -> tuple[str, str]:
        """The keys of the head and of the stream that hold a log."""
        keys = self.of(run_of(log))
        return keys[0], keys[1] if log == run_of(log) else keys[2]

    def channel(self, topic: str) -> str:
        """Where a log's notices are published."""
        if topic == self.queue:
            return topic
        run = run_of(topic)
        return f"{self._prefix}:{{{run}}}" if run == topic else f"{self._prefix}:{{{run}}}:in"

    def topic(self, channel: str) -> str:
        """The log whose notices come on `channel`; the channel itself if it is the queue's."""
        if channel == self.queue:
            return channel
        run, _, rest = channel[len(self._prefix) + 2 :].partition("}")
        return inbox_of(run) if rest else run

"""The names of keys and channels in Redis; `functions.lua` says what they hold."""

from __future__ import annotations

from functools import lru_cache

from loom.model.run import inbox_of

__all__ = ["Keys"]

KEY_NAMES = 10_000
"""Logs, and runs, whose keys' names a process remembers: a hundred workers' worth."""

_QUEUE = ("entries", "metas", "inputs", "ready", "actors", "lines", "standing", "kinds", "later", "all", "told")
_LOG = ("log", "batches", "producers", "positions", "tokens")


class Keys:
    """The names of one app's keys and channels: they all begin with its prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.of_log = lru_cache(maxsize=KEY_NAMES)(self._of_log)
        self.of_run = lru_cache(maxsize=KEY_NAMES)(self._of_run)
        self.queue = f"{{{prefix}}}:queue"
        """Also the channel of the queue's news."""
        self.runs, self.open, lists, listed, form, self.workers, self.sweeper = (
            f"{{{prefix}}}:{name}" for name in ("runs", "open", "lists", "listed", "format", "workers", "sweeper")
        )
        self.lists = (self.runs, self.open, lists, listed, form)
        """The lists' keys, in their order."""
        self.register = (f"{self.workers}:info", f"{self.workers}:asked")
        """What each worker said of itself, and which were asked to drain."""
        self.queues = (self.queue, *(f"{self.queue}:{part}" for part in _QUEUE), self.workers, *self.register)
        """The queue's keys, in their order."""

    def _of_log(self, log: str) -> tuple[str, str, str, str, str]:
        """A log's keys, all in one slot: its hash, batches, producers, positions, tokens."""
        tag, slash, rest = log.partition("/")
        hash, batches, producers, positions, tokens = (f"{self.prefix}:{part}:{{{tag}}}{slash}{rest}" for part in _LOG)
        return hash, batches, producers, positions, tokens

    def record(self, run: str) -> str:
        """The key of a run's record."""
        return f"{self.prefix}:run:{{{run}}}"

    def _of_run(self, run: str) -> tuple[str, ...]:
        """A run's keys, all in one slot: its record, its outbox's, its inbox's."""
        return self.record(run), *self.of_log(run), *self.of_log(inbox_of(run))

    def channel(self, topic: str) -> str:
        """The channel of a log's notices, or of the queue's."""
        return topic if topic == self.queue else self.of_log(topic)[0]

    def topic(self, channel: str) -> str:
        """The log whose notices come on `channel`; the channel itself if it is the queue's."""
        if channel == self.queue:
            return channel
        tag, _, rest = channel[len(self.prefix) + len(":log:{") :].partition("}")
        return tag + rest

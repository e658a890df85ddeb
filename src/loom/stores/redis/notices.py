"""What watchers are told: notices that the servers publish, and a slow look at what nothing was heard of.

A process has one ear to each server for this, subscribed to the logs that are watched in it. Published is at most once:
who is subscribed anew is told to look, and so is who was told nothing of a change that a look finds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from itertools import islice

from loom.model import limits
from loom.model.chunk import Batch
from loom.model.errors import LoomError
from loom.model.ports import Notice, Notify, Unwatch
from loom.model.run import run_of
from loom.stores.stored import has_its_lines
from loom.stores.watchers import Watchers
from loom.tasks import TaskSet

from .client.address import Host
from .client.ear import Ear
from .client.link import Reply
from .client.servers import Servers
from .keys import Keys

__all__ = ["Notices"]

_FACTS = ("epoch", "tail", "ended", "marked")
"""The fields of a log's hash that change with it; positions are compared apart."""

_Seen = tuple[bytes | None, ...]


class Notices:
    """Whom to tell of what, by log; the queue has a topic too."""

    def __init__(self, servers: Servers, keys: Keys) -> None:
        self._servers = servers
        self._keys = keys
        self._watchers = Watchers()
        self._ears: dict[Host | None, Ear] = {}
        self._seen: dict[str, _Seen] = {}
        self._fresh: set[str] = set()
        self._tasks = TaskSet()
        self._open = False

    async def open(self) -> None:
        self._open = True
        self._tasks.spawn(self._look_around(), "loom-redis-look")
        self._tasks.spawn(self._listen_for_echoes(), "loom-redis-echo")

    async def aclose(self) -> None:
        """Everybody is told, once more."""
        self._open = False
        self.tell_all()
        await self._tasks.aclose()
        for ear in self._ears.values():
            ear.close()

    def tell_all(self) -> None:
        self._watchers.tell_all(Notice())

    # --- watching ----------------------------------------------------------------------------------------------------

    def watch(self, topic: str, notify: Notify) -> Unwatch:
        """As `Logs.watch`. A notice without a batch comes when the server has confirmed that it will tell."""
        first = topic not in self._watchers
        unwatch = self._watchers.add(topic, notify)
        if first and self._open:
            self._ear_of(topic).add(self._keys.channel(topic))

        def leave() -> None:
            unwatch()
            if topic not in self._watchers:
                self._forget(topic)

        return leave

    def _forget(self, topic: str) -> None:
        self._seen.pop(topic, None)
        self._fresh.discard(topic)
        channel = self._keys.channel(topic)
        for ear in self._ears.values():
            ear.remove(channel)

    def _ear_of(self, topic: str) -> Ear:
        host = self._servers.host_of(self._keys.channel(topic))
        ear = self._ears.get(host)
        if ear is None:
            ear = self._ears[host] = Ear(self._servers, host, self, self._keys.queue)
            self._tasks.spawn(ear.listen(), "loom-redis-ear")
        return ear

    async def sort_anew(self) -> None:
        """Slots may have moved: each channel to the node that has it now."""
        with contextlib.suppress(LoomError):
            await self._servers.relearn()
        wanted: dict[Ear, set[str]] = {ear: set() for ear in self._ears.values()}
        for topic in list(self._watchers):
            wanted.setdefault(self._ear_of(topic), set()).add(self._keys.channel(topic))
        for ear, channels in wanted.items():
            ear.change(channels)

    # --- telling -----------------------------------------------------------------------------------------------------

    def subscribed(self, channel: str) -> None:
        """From now on the server tells; of what was before, nothing is known."""
        self._watchers.tell(self._keys.topic(channel), Notice())

    def published(self, channel: str, text: bytes) -> None:
        topic = self._keys.topic(channel)
        if topic in self._watchers:
            self._fresh.add(topic)
        self._watchers.tell(topic, Notice() if topic == self._keys.queue else _notice(text))

    # --- looking ----------------------------------------------------------------------------------------------------

    async def _listen_for_echoes(self) -> None:
        """What we publish ourselves has to come back: then each notice before it has come, too."""
        while True:
            await asyncio.sleep(limits.REDIS_ECHO)
            for ear in list(self._ears.values()):
                await ear.call_out()

    async def _look_around(self) -> None:
        """At a part of the logs each turn; at all inboxes while notices do not come, for a cancel must be heard."""
        turn = 0
        while True:
            await asyncio.sleep(limits.REDIS_LOOK / limits.REDIS_LOOK_TURNS)
            turn = (turn + 1) % limits.REDIS_LOOK_TURNS
            deaf = not all(ear.hears for ear in self._ears.values())
            due = [topic for topic in self._watchers if self._is_due(topic, turn, deaf)]
            for some in _slices(due, limits.REDIS_LOOK_SLICE):
                await self._look(some)

    def _is_due(self, topic: str, turn: int, deaf: bool) -> bool:
        if topic == self._keys.queue:
            return False  # who waits for a claim looks by himself
        if hash(topic) % limits.REDIS_LOOK_TURNS != turn:
            return deaf and topic != run_of(topic)
        if topic in self._fresh:
            self._fresh.discard(topic)
            return False
        return True

    async def _look(self, topics: list[str]) -> None:
        """Without a task for each: thousands of them, time and again, are what would keep others waiting."""
        asked: dict[str, asyncio.Future[Reply]] = {}
        out_of_reach: set[Host | None] = set()
        for topic in topics:
            log = self._keys.of_log(topic)[0]
            host = self._servers.host_of(log)
            if host in out_of_reach:  # the next look may reach it
                continue
            try:
                asked[topic] = await self._servers.begin(log, "HMGET", log, *_FACTS)
            except LoomError:
                out_of_reach.add(host)
        replies = await asyncio.gather(*asked.values(), return_exceptions=True)
        for topic, reply in zip(asked, replies, strict=True):
            if not isinstance(reply, BaseException):
                self._compare(topic, tuple(reply))

    def _compare(self, topic: str, found: _Seen) -> None:
        if topic not in self._watchers:
            return
        before = self._seen.get(topic)
        self._seen[topic] = found
        if before == found:
            return
        if before is None or before[:3] != found[:3]:
            self._watchers.tell(topic, Notice())
        if before is None or before[3:] != found[3:]:
            self._watchers.tell(topic, Notice(marks=True))


def _notice(text: bytes) -> Notice:
    """What `functions.lua` says that a notice is."""
    if text == b"m":
        return Notice(marks=True)
    facts, line, payload = text.partition(b"\n")
    if not facts:
        return Notice()
    try:
        epoch, first, last = (int(number) for number in facts[:-2].split())
    except ValueError:  # somebody else speaks here
        return Notice()
    batch = Batch(epoch, first, last, payload) if line else None
    if batch is not None and not has_its_lines(batch):
        return Notice()
    return Notice(batch, facts.endswith(b" 1"))


def _slices(items: list[str], size: int) -> Iterable[list[str]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some

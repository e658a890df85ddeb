"""What watchers are told: notices that the servers publish, and a slow look at what nothing was heard of.

A process has one connection to each server for this, subscribed to the logs that are watched in it. Published is at
most once: who is subscribed anew is told to look, and so is who was told nothing of a change that a look finds. Whether
notices come is known by an echo: one message each half second, however many logs are watched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from loom.model import limits
from loom.model.chunk import Batch
from loom.model.errors import LoomError
from loom.model.ports import Notice, Notify, Unwatch
from loom.model.run import run_of
from loom.stores.watchers import Watchers
from loom.tasks import TaskSet

from .address import Host
from .keys import Keys
from .link import Reply, Wire
from .servers import Servers

__all__ = ["Notices"]

_log = logging.getLogger("loom.store")

_OUTBOX = ("epoch", "tail", "ended", "marked")
_INBOX = ("ended", "inbox_tail")
"""What of a head changes with its logs; marks are told apart."""

_Seen = tuple[bytes | None, ...]


class Notices:
    """Whom to tell of what, by log; the queue has a topic too."""

    def __init__(self, servers: Servers, keys: Keys) -> None:
        self._servers = servers
        self._keys = keys
        self._watchers = Watchers()
        self._ears: dict[Host | None, _Ear] = {}
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

    def _ear_of(self, topic: str) -> _Ear:
        host = self._servers.host_of(self._keys.channel(topic))
        ear = self._ears.get(host)
        if ear is None:
            ear = self._ears[host] = _Ear(self, host)
            self._tasks.spawn(ear.listen(), "loom-redis-ear")
        return ear

    async def connect(self, host: Host | None, ear: _Ear) -> Wire:
        return await self._servers.listen(host, ear.heard)

    def echo_beside(self, channels: Iterable[str]) -> str:
        """A channel of nobody else's, on the node that has one of these."""
        return f"{next(iter(channels), self._keys.queue)}:echo:{uuid.uuid4().hex}"

    async def sort_anew(self) -> None:
        """Slots may have moved: each channel to the node that has it now."""
        with contextlib.suppress(LoomError):
            await self._servers.relearn()
        wanted: dict[_Ear, set[str]] = {ear: set() for ear in self._ears.values()}
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
                if (echo := ear.call_out()) is not None:
                    with contextlib.suppress(LoomError):  # nothing is known of an ear that nobody spoke to
                        await self._servers.ask(echo, "SPUBLISH", echo, ear.spoken())

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
            run = run_of(topic)
            head = self._keys.of(run)[0]
            host = self._servers.host_of(head)
            if host in out_of_reach:  # the next look may reach it
                continue
            try:
                asked[topic] = await self._servers.begin(head, "HMGET", head, *(_OUTBOX if topic == run else _INBOX))
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


class _Ear:
    """The connection on which one server tells: made anew when it is lost, and subscribed again to all."""

    def __init__(self, notices: Notices, host: Host | None) -> None:
        self._notices = notices
        self._host = host
        self._channels: set[str] = set()
        self._leaving: Counter[str] = Counter()
        self._wanted = asyncio.Event()
        self._echo = ""
        self._said = self._heard_back = self._missed = 0
        self._wire: Wire | None = None

    def add(self, channel: str) -> None:
        if channel not in self._channels:
            self._channels.add(channel)
            self._wanted.set()
            self._say("SSUBSCRIBE", channel)

    def remove(self, channel: str) -> None:
        if channel in self._channels:
            self._channels.discard(channel)
            self._leaving[channel] += self._say("SUNSUBSCRIBE", channel)

    def change(self, channels: set[str]) -> None:
        for channel in self._channels - channels:
            self.remove(channel)
        for channel in channels - self._channels:
            self.add(channel)

    @property
    def hears(self) -> bool:
        """Whether notices come, as far as is known."""
        return not self._channels or (self._wire is not None and not self._wire.lost.done() and not self._missed)

    def call_out(self) -> str | None:
        """The channel to speak on, if this connection is subscribed to it. Twice unheard, it is given up."""
        if self._wire is None or self._wire.lost.done() or not self._heard_back:
            return None
        self._missed = self._missed + 1 if self._heard_back < self._said else 0
        if self._missed > 1:
            self.close()
            return None
        return self._echo

    def spoken(self) -> int:
        """What to say: each time another number."""
        self._said += 1
        return self._said

    def _say(self, *command: str) -> bool:
        if self._wire is None or self._wire.lost.done():
            return False
        self._wire.tell(*command)
        return True

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()

    async def listen(self) -> None:
        """For ever: connected and subscribed, as far as the server lets us."""
        loop, pause = asyncio.get_running_loop(), limits.STORE_RETRY[0]
        while True:
            if not self._channels:  # perhaps its server is gone for good, and others have its slots
                self._wanted.clear()
                await self._wanted.wait()
            began = loop.time()
            try:
                self._wire = await self._notices.connect(self._host, self)
                await self._subscribe(self._wire)
                await self._stay(self._wire)
            except LoomError as error:
                _log.info("no notices: %s", error)
            if loop.time() - began > limits.REDIS_STAYED:
                pause = limits.STORE_RETRY[0]
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, limits.STORE_RETRY[1])
            await self._notices.sort_anew()

    async def _subscribe(self, wire: Wire) -> None:
        """Some at a time: each makes its viewers read, and the server has others to serve."""
        self._leaving.clear()
        self._echo = self._notices.echo_beside(self._channels)
        self._said = self._heard_back = self._missed = 0
        wire.tell("SSUBSCRIBE", self._echo)
        for some in _slices(list(self._channels), limits.REDIS_LOOK_SLICE):
            for channel in some:
                if channel in self._channels:
                    wire.tell("SSUBSCRIBE", channel)
            await asyncio.sleep(0)

    async def _stay(self, wire: Wire) -> None:
        """Until it is lost. Asked now and then whether it is still there, for a peer that is gone says nothing."""
        while not wire.lost.done():
            wire.ask("PING").add_done_callback(lambda asked: asked.exception())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.REDIS_SILENCE):
                    await asyncio.shield(wire.lost)

    def heard(self, push: list[Any]) -> None:
        kind, channel = push[0], push[1].decode() if push[1] is not None else ""
        if channel == self._echo:
            self._echoed(kind, push[2])
        elif kind == b"smessage":
            self._notices.published(channel, push[2])
        elif kind == b"ssubscribe":
            self._notices.subscribed(channel)
        elif kind == b"sunsubscribe":
            self._left(channel)

    def _echoed(self, kind: bytes, said: bytes | int) -> None:
        if kind == b"smessage":
            self._heard_back = int(said)
        elif kind == b"ssubscribe":
            self._said = self._heard_back = 1
        else:
            self.close()

    def _left(self, channel: str) -> None:
        if self._leaving[channel]:
            self._leaving[channel] -= 1
            if not self._leaving[channel]:
                del self._leaving[channel]
        elif channel in self._channels:
            self.close()  # the slot has moved to another node: `listen` goes on from there


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
    return Notice(Batch(epoch, first, last, payload) if line else None, facts.endswith(b" 1"))


def _slices(items: list[str], size: int) -> Iterable[list[str]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some

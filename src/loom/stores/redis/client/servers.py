"""Who is asked for a key: the one server that there is, or the node of a cluster that has its slot. What has moved is
followed, and functions that a server lacks are brought to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from loom.model import limits
from loom.model.errors import HandleClosed, LoomError, OutcomeUnknown, Unavailable, UsageError
from loom.model.ports import Durability
from loom.tasks import cancel_and_wait, spawn

from .address import Address, Host, host_name
from .dialer import Dialer
from .functions import CODE, name_of
from .link import Link, Pushed, Reply, ReplyError, Wire
from .replies import Refused, meaning_of, refusal_of
from .slots import slot_of, table_of

__all__ = ["Servers"]


class Servers:
    """Asks the server that has a key. One connection a server, for all that this process asks of it; another, if
    replicas have to confirm what is written."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._dialer = Dialer(address)
        self._replicas = address.replicas if address.durability == "replica" else 0
        self._links: dict[Host | None, Link] = {}
        self._confirming: dict[Host | None, Link] = {}
        self._slots: list[Host] | None = None
        self._learning: asyncio.Task[None] | None = None
        self._loading: dict[Host | None, asyncio.Task[None]] = {}
        self._closed = False

    async def open(self) -> None:
        """Reach the servers; `UsageError` for one that is too old, `Unauthorized`, `Unavailable`."""
        wire = await self._link(None).up()
        facts = await self._dialer.hello(wire, str(self._address))
        if facts.get("mode") == "cluster":
            if self._address.db:
                raise UsageError("a cluster has one database only: leave its number out of the URL")
            await self._learn()
        elif self._address.kind == "cluster":
            raise UsageError(f"{self._address} is no cluster: leave +cluster out of the URL")

    async def aclose(self) -> None:
        self._closed = True
        await cancel_and_wait(*self._loading.values(), *([] if self._learning is None else [self._learning]))
        for link in [*self._links.values(), *self._confirming.values()]:
            await link.aclose()

    async def durability(self) -> Durability | None:
        """What an acknowledged write survives, as the server is set up; None: it does not say."""
        found = await self.settings("appendonly", "appendfsync")
        if "appendonly" not in found:
            return None
        if found["appendonly"] != "yes":
            return "memory"
        return "disk" if found.get("appendfsync") == "always" else "process"

    async def settings(self, *names: str) -> dict[str, str]:
        """How the server is set up, as far as it says: not every user may ask, and not every provider answers."""
        wire = await self._link(None).up()
        try:
            replies = [await wire.ask("CONFIG", "GET", name) for name in names]
        except ReplyError:
            return {}
        return {name.decode(): value.decode() for reply in replies for name, value in reply.items()}

    # --- asking ------------------------------------------------------------------------------------------------------

    async def call(self, function: str, keys: Sequence[str], *args: str | bytes | int) -> Reply:
        """What one of our functions gives. Raises `Refused` when it says no."""
        command = ("FCALL", name_of(function), len(keys), *keys, *args)
        link = self._links.get(self.host_of(keys[0]))
        if self._slots is None and link is not None and link.wire is not None and not link.wire.lost.done():
            try:
                return await link.wire.ask(*command)  # nearly always: with no frame in between
            except ReplyError as error:
                if not _is_unknown(error):  # that alone has certainly not happened
                    raise self._told(error, None) from None
        return await self.ask(keys[0], *command)

    async def ask(self, key: str, *command: str | bytes | int) -> Reply:
        """The reply of the server that has `key`. Raises what it means here, and follows keys that have moved."""
        return await self._followed(key, self._links, lambda wire: wire.ask(*command))

    async def write(self, function: str, keys: Sequence[str], *args: str | bytes | int) -> Reply:
        """As `call`, of a function that writes in any case: replicas confirm it, and all that their primary wrote
        before, if they have to. Raises `OutcomeUnknown` when too few do within `limits.REPLICA_WAIT`."""
        if not self._replicas:
            return await self.call(function, keys, *args)
        command = ("FCALL", name_of(function), len(keys), *keys, *args)
        reply, confirmed = await self._followed(keys[0], self._confirming, lambda wire: self._confirmed(wire, command))
        if confirmed < self._replicas:
            raise OutcomeUnknown(
                f"{confirmed} of {self._replicas} replicas have confirmed it: it may be lost with its server"
            )
        return reply

    async def _confirmed(self, wire: Wire, command: tuple[str | bytes | int, ...]) -> tuple[Reply, int]:
        asked = wire.ask(*command)
        barrier = wire.barrier("WAIT", self._replicas, int(limits.REPLICA_WAIT * 1000))
        reply = await asked
        return reply, await asyncio.shield(barrier)

    async def begin(self, key: str, *command: str | bytes | int) -> asyncio.Future[Reply]:
        """Ask once, and wait only for a connection: what the reply is, or means, is its caller's business."""
        return (await self._link(self.host_of(key)).up()).ask(*command)

    async def _followed(self, key: str, links: dict[Host | None, Link], ask: Callable[[Wire], Awaitable[Any]]) -> Any:
        """What `ask` gives, whose command goes out at once, on a wire to whoever has `key`."""
        for _ in range(limits.REDIRECTIONS):
            host = self.host_of(key)
            try:
                return await ask(await self._link(host, links).up())
            except ReplyError as error:
                word, *more = str(error).split()
                if word == "MOVED":
                    await self._learn()
                elif word == "ASK":
                    return await self._asking(_host_of(more[1]), links, ask)
                elif _is_unknown(error):
                    await self._load(host)
                else:
                    raise self._told(error, host) from None
            except Unavailable:
                await self._look_again()
                raise
        raise Unavailable(f"{self._address} goes round in circles: its cluster, or its functions, are being changed")

    def _told(self, error: ReplyError, host: Host | None) -> Refused | LoomError:
        """What it means that a server, or one of our functions there, does not do it."""
        if str(error).startswith("READONLY"):
            self._forget(host)
        return refusal_of(error) or meaning_of(error, self._name(host))

    async def _asking(self, host: Host, links: dict[Host | None, Link], ask: Callable[[Wire], Awaitable[Any]]) -> Any:
        """A slot on its way to another node: this once it is asked there."""
        for _ in range(limits.REDIRECTIONS):
            wire = await self._link(host, links).up()
            wire.ask("ASKING").add_done_callback(lambda asked: asked.exception())
            try:
                return await ask(wire)
            except ReplyError as error:
                if not _is_unknown(error):
                    raise self._told(error, host) from None
                await self._load(host)
        raise Unavailable(f"{self._name(host)} does not keep the functions that it is given")

    async def _load(self, host: Host | None) -> None:
        """Bring our functions, once for all who miss them: it takes the server as long as fifty calls."""
        loading = self._loading.get(host)
        if loading is None or loading.done():
            loading = self._loading[host] = spawn(self._loaded(host), "loom-redis-load")
        await asyncio.shield(loading)

    async def _loaded(self, host: Host | None) -> None:
        try:
            await self._link(host).ask("FUNCTION", "LOAD", CODE)
        except ReplyError as error:
            if "already exists" not in str(error):  # another process was faster; by its name it is the same
                raise meaning_of(error, self._name(host)) from None

    # --- who has what ------------------------------------------------------------------------------------------------

    def host_of(self, key: str) -> Host | None:
        """The node that has `key`; None: there is one server only."""
        return None if self._slots is None else self._slots[slot_of(key)]

    async def relearn(self) -> None:
        """Look again at who has what, if that can change."""
        if self._slots is not None:
            await self._learn()

    async def _look_again(self) -> None:
        """Perhaps another node has taken over: for who asks again. None may answer, which is not waited for."""
        with contextlib.suppress(LoomError, TimeoutError):
            async with asyncio.timeout(limits.STORE_RETRY[1]):
                await self.relearn()

    async def _learn(self) -> None:
        """Ask any node of the cluster that answers for the whole table. Whoever needs it at the same time shares the
        attempt and its outcome."""
        if self._learning is None or self._learning.done():
            self._learning = spawn(self._learnt(), "loom-redis-slots")
        await asyncio.shield(self._learning)

    async def _learnt(self) -> None:
        self._slots = await self._table()

    async def _table(self) -> list[Host]:
        hosts: list[Host | None] = [None, *dict.fromkeys(self._slots or ())]
        hosts.sort(key=lambda host: not self._link(host).is_up)  # who is gone for good may let us wait
        last: LoomError = Unavailable(f"no node of the cluster at {self._address} answers")
        for host in hosts:
            try:
                ranges = await self._link(host).ask("CLUSTER", "SLOTS")
                return table_of(ranges, host or self._address.hosts[0])
            except ReplyError as error:
                last = meaning_of(error, self._name(host))
            except Unavailable as error:
                last = error
        raise last

    # --- connections -------------------------------------------------------------------------------------------------

    def _link(self, host: Host | None, links: dict[Host | None, Link] | None = None) -> Link:
        links = self._links if links is None else links
        link = links.get(host)
        if link is None:
            if self._closed:
                raise HandleClosed("this store is not open")
            link = links[host] = Link(lambda: self._dialer.dial(host))
        return link

    def _forget(self, host: Host | None) -> None:
        """It is no primary any more: the next call looks for the one that is."""
        for links in (self._links, self._confirming):
            link = links.get(host)
            if link is not None and link.wire is not None:
                link.wire.close()

    def _name(self, host: Host | None) -> str:
        return f"Redis at {self._address}" if host is None else f"Redis at {host_name(host)}"

    async def listen(self, host: Host | None, pushed: Pushed) -> Wire:
        """Another connection to a server, for what it sends of its own accord."""
        return await self._dialer.dial(host, pushed)


def _is_unknown(error: ReplyError) -> bool:
    return "Function not found" in str(error)


def _host_of(text: str) -> Host:
    host, _, port = text.rpartition(":")
    return host, int(port)

"""A runner without a worker: claims are made, driven, broken off and taken over by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from loom.engine.declare.registry import Registry
from loom.engine.declare.signature import make_producer
from loom.engine.follow.transport import StoreTransport
from loom.engine.run.attempt import Ending, Resources
from loom.engine.run.runner import Runner
from loom.engine.run.slots import Slots
from loom.model.chunk import Chunk, Message
from loom.model.grammar import State
from loom.model.run import Claim, Meta
from loom.stores.memory import MemoryStore
from loom.tasks import cancel_and_wait, spawn
from loom.wire.json import encode
from tests.faults.store import FaultStore

from .kit import chunks_in, grammatical

__all__ = ["LEASE", "Driving", "Rig"]

LEASE = 10.0


class Driving:
    """A claim that is driven in a task."""

    def __init__(self, rig: Rig, claim: Claim) -> None:
        self.rig = rig
        self.claim = claim
        self.runner = Runner(rig.store, rig.registry, claim, rig.resources, rig.slots.begin(claim.meta.actor))
        self.task: asyncio.Task[Ending] = spawn(self.runner.run(), "runner")

    async def __call__(self) -> Ending:
        """Its ending."""
        return await self.task

    async def lose(self) -> None:
        """The worker is lost: nothing more is written, and the lease lapses."""
        await cancel_and_wait(self.task)
        await asyncio.sleep(LEASE + 1)


class Rig:
    """A store on virtual time, producers, and runs named "run"."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.store = FaultStore(MemoryStore(clock=clock, wall=self.wall))
        self.registry = Registry()
        self.resources = Resources()
        self.slots = Slots(2)
        self.transport = StoreTransport(self.store)

    def wall(self) -> float:
        """The wall clock, as `virtual_time` has it."""
        return 1_700_000_000.0 + self.clock()

    def actor(self, target: Callable[..., Any], **options: Any) -> None:
        """`target` under the name "actor"."""
        self.registry.add(make_producer("actor", target, **options))

    async def start(self, input: Any = None, **more: Any) -> None:
        more.setdefault("created", self.wall())
        meta = Meta(run="run", actor="actor", input=msgspec.Raw(encode(input)), **more)
        await self.store.queue.put(meta)
        await self.store.runs.create(meta)

    async def claim(self, worker: str = "w") -> Claim:
        claim = await self.store.queue.claim(["default"], worker, lease=LEASE, wait=LEASE)
        assert claim is not None
        return claim

    async def drive(self, worker: str = "w") -> Driving:
        """Claim the run and begin to drive it."""
        return Driving(self, await self.claim(worker))

    async def go(self, worker: str = "w") -> Ending:
        """Claim the run and drive it to its ending; the claim is settled as a worker does."""
        driving = await self.drive(worker)
        ending = await driving()
        if ending is Ending.ENDED:
            await self.store.queue.ack(driving.claim)
        elif ending is Ending.RELEASED:
            await self.store.queue.release(driving.claim)
        return ending

    async def cancel(self) -> None:
        await self.transport.cancel("run")

    async def tell(self, type: str, data: Any = None, *, id: str = "m") -> None:
        await self.transport.send("run", Message(type, data, "test", id))

    async def said(self, value: Any) -> None:
        """Wait until the newest chunk's data is `value`."""
        while True:
            chunks = await chunks_in(self.store)
            if chunks and chunks[-1].data == value:
                return
            await asyncio.sleep(0.1)

    async def log(self, *, ended: bool = True) -> list[Chunk[Any]]:
        """What the run has said; grammatical, and ended or not."""
        chunks = await chunks_in(self.store)
        assert (grammatical(chunks) is State.ENDED) is ended
        return chunks

    async def story(self, *, ended: bool = True) -> list[Any]:
        """The log in short: ``start`` with its attempt and what was kept, data as it is, errors by code."""
        return [_short(chunk) for chunk in await self.log(ended=ended)]


def _short(chunk: Chunk[Any]) -> Any:
    if chunk.type == "start":
        return ("start", chunk.data["attempt"], chunk.data["kept_through"])
    if chunk.type == "data":
        return chunk.data
    if chunk.type == "error":
        assert chunk.error is not None
        return ("error", chunk.error.code)
    return ("complete", chunk.data) if chunk.type == "complete" else chunk.type

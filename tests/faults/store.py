"""A store that fails when it is told to: around any other store, call by call.

Refusals come before the work, lost replies after it; a call can be held until the test lets it go on; notices can be
kept back or made up. Calls are counted, so that a test can say how often the store was asked.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Self, TypeVar

from loom.model import limits
from loom.model.chunk import Batch, Page
from loom.model.cursor import Cursor
from loom.model.errors import Fenced, OutcomeUnknown, Unavailable
from loom.model.ports import Durability, Fence, Notice, Notify, Store, Swept, Unwatch
from loom.model.run import Claim, Entry, Head, Mark, Meta, Place, RunState, WorkerInfo

__all__ = ["FaultStore", "Held"]

T = TypeVar("T")

ANY = "*"
"""A fault for whatever is called next."""


class Held:
    """A call that stands still until it is let go on."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self._go = asyncio.Event()

    async def stand(self) -> None:
        self.arrived.set()
        await self._go.wait()

    def let_go(self) -> None:
        """Let the call do its work now."""
        self._go.set()


class _Fault:
    def __init__(self, name: str, skip: int, times: int) -> None:
        self.name = name
        self.skip = skip
        self.times = times
        self.refusal: Exception | None = None
        self.loss: Exception | None = None
        self.held: Held | None = None

    def hits(self, name: str) -> bool:
        if self.name not in (name, ANY) or self.times == 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class FaultStore:
    """`store`, with faults. Without any it does exactly what `store` does."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.calls: Counter[str] = Counter()
        self.appended: list[tuple[Batch, bool]] = []
        """Every (batch, end) that somebody tried to append, refused or not, in order."""
        self.full_heads = 0
        """How many heads were asked for with input and result."""
        self.out = False
        """While true every call raises `Unavailable`, and the notices of others' doings are kept back."""
        self.pace = 0
        """How many turns of the loop every call takes before and after its work, as a store behind a thread does."""
        self.deaf = False
        """While true notices are kept back."""
        self._faults: list[_Fault] = []
        self._watchers: dict[str, list[Notify]] = {}

    # --- faults ------------------------------------------------------------------------------------------------------

    def refuse(self, name: str, error: Exception | None = None, *, skip: int = 0, times: int = 1) -> None:
        """The next `times` calls of `name`, `skip` calls from now, raise `error` and do nothing."""
        self._fault(name, skip, times).refusal = error or Unavailable("refused by the test")

    def lose_reply(self, name: str, error: Exception | None = None, *, skip: int = 0, times: int = 1) -> None:
        """These calls do their work, and then raise."""
        self._fault(name, skip, times).loss = error or OutcomeUnknown("the reply was lost by the test")

    def hold(self, name: str, *, skip: int = 0) -> Held:
        """That call stands still before its work, until it is let go."""
        held = self._fault(name, skip, 1).held = Held()
        return held

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Inside the block the store is out of reach."""
        self.out = True
        try:
            yield
        finally:
            self.out = False
            self.tell_all(Notice())

    def tell(self, log: str, notice: Notice) -> None:
        """Tell `log`'s watchers something that the store did not say."""
        for notify in list(self._watchers.get(log, ())):
            notify(notice)

    def tell_all(self, notice: Notice) -> None:
        """`tell` for every log."""
        for log in list(self._watchers):
            self.tell(log, notice)

    @property
    def watched(self) -> set[str]:
        """The logs that somebody watches now."""
        return {log for log, watchers in self._watchers.items() if watchers}

    def _fault(self, name: str, skip: int, times: int) -> _Fault:
        fault = _Fault(name, skip, times)
        self._faults.append(fault)
        return fault

    async def _do(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        self.calls[name] += 1
        fault = next(iter([fault for fault in self._faults if fault.hits(name)]), None)
        await self._pass()
        if fault is not None and fault.held is not None:
            await fault.held.stand()
        if self.out:
            raise Unavailable("out of reach by the test")
        if fault is not None and fault.refusal is not None:
            raise fault.refusal
        result = await work()
        if fault is not None and fault.loss is not None:
            raise fault.loss
        await self._pass()
        return result

    async def _pass(self) -> None:
        for _ in range(self.pace):
            await asyncio.sleep(0)

    # --- the store's calls -------------------------------------------------------------------------------------------

    @property
    def durability(self) -> Durability:
        return self.store.durability

    async def __aenter__(self) -> Self:
        await self.store.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.store.__aexit__(*exc)

    async def create(self, meta: Meta) -> Head:
        return await self._do("create", lambda: self.store.create(meta))

    async def head(self, run: str, *, full: bool = True) -> Head:
        self.full_heads += full
        return await self._do("head", lambda: self.store.head(run, full=full))

    async def heads(
        self, *, limit: int = 100, before: str | None = None, state: RunState | None = None, actor: str | None = None
    ) -> list[Head]:
        return await self._do("heads", lambda: self.store.heads(limit=limit, before=before, state=state, actor=actor))

    async def fence(self, run: str, token: str, *, failures: int = 0) -> Fence:
        return await self._do("fence", lambda: self.store.fence(run, token, failures=failures))

    async def append(self, run: str, batch: Batch, *, end: bool = False) -> Cursor:
        self.appended.append((batch, end))
        return await self._do("append", lambda: self.store.append(run, batch, end=end))

    def append_nowait(self, run: str, batch: Batch, *, end: bool = False) -> bool:
        return False

    async def end_unstarted(self, run: str, line: bytes) -> bool:
        return await self._do("end_unstarted", lambda: self.store.end_unstarted(run, line))

    async def send(self, run: str, message: bytes, *, sender: str, id: str) -> Cursor:
        return await self._do("send", lambda: self.store.send(run, message, sender=sender, id=id))

    async def read(
        self, log: str, after: Cursor | None = None, *, limit: int = limits.PAGE_CHUNKS, wait: float = 0.0
    ) -> Page:
        return await self._do("read", lambda: self.store.read(log, after, limit=limit, wait=wait))

    async def trim(self, run: str, before: int) -> int:
        return await self._do("trim", lambda: self.store.trim(run, before))

    async def drop(self, run: str) -> None:
        await self._do("drop", lambda: self.store.drop(run))

    def watch(self, log: str, notify: Notify) -> Unwatch:
        def heard(notice: Notice) -> None:
            if not self.deaf and not self.out:
                notify(notice)

        watchers = self._watchers.setdefault(log, [])
        watchers.append(notify)
        unwatch = self.store.watch(log, heard)

        def unwatch_both() -> None:
            unwatch()
            if notify in watchers:
                watchers.remove(notify)

        return unwatch_both

    async def touch(self, run: str) -> None:
        await self._do("touch", lambda: self.store.touch(run))

    async def mark(self, run: str, reader: str, seq: int | None) -> None:
        await self._do("mark", lambda: self.store.mark(run, reader, seq))

    async def marks(self, run: str) -> list[Mark]:
        return await self._do("marks", lambda: self.store.marks(run))

    async def put(self, meta: Meta) -> None:
        await self._do("put", lambda: self.store.put(meta))

    async def claim(
        self, queues: Sequence[str], worker: str, *, lease: float, wait: float, without: Collection[str] = ()
    ) -> Claim | None:
        return await self._do(
            "claim", lambda: self.store.claim(queues, worker, lease=lease, wait=wait, without=without)
        )

    async def seize(self, meta: Meta, worker: str, *, lease: float) -> Claim:
        return await self._do("seize", lambda: self.store.seize(meta, worker, lease=lease))

    async def renew(self, claim: Claim) -> None:
        await self._do("renew", lambda: self.store.renew(claim))

    async def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        """Faults of `renew` befall it, too: `Fenced` is what each claim is told."""
        try:
            return await self._do("renew", lambda: self.store.renew_all(claims))
        except Fenced:
            return [False] * len(claims)

    async def ack(self, claim: Claim) -> None:
        await self._do("ack", lambda: self.store.ack(claim))

    async def release(self, claim: Claim, *, delay: float = 0.0) -> None:
        await self._do("release", lambda: self.store.release(claim, delay=delay))

    async def entries(self, *, queue: str | None = None, place: Place | None = None, limit: int = 100) -> list[Entry]:
        return await self._do("entries", lambda: self.store.entries(queue=queue, place=place, limit=limit))

    async def attend(self, info: WorkerInfo) -> bool:
        return await self._do("attend", lambda: self.store.attend(info))

    async def dismiss(self, worker: str) -> None:
        await self._do("dismiss", lambda: self.store.dismiss(worker))

    async def workers(self) -> list[WorkerInfo]:
        return await self._do("workers", self.store.workers)

    async def ask_to_drain(self, worker: str) -> None:
        await self._do("ask_to_drain", lambda: self.store.ask_to_drain(worker))

    async def sweep(self) -> Swept:
        return await self._do("sweep", self.store.sweep)

"""A store that fails when it is told to: around any other store, call by call.

Refusals come before the work, lost replies after it; a call can be held until the test lets it go on; notices can be
kept back or made up. Calls are counted, so that a test can say how often the store was asked.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar, cast

from loom.model.chunk import Batch
from loom.model.cursor import Cursor
from loom.model.errors import Fenced, OutcomeUnknown, Unavailable
from loom.model.ports import (
    Commit,
    Durability,
    LogStore,
    Notice,
    Notify,
    RunStore,
    Store,
    SweepReport,
    Unwatch,
    WorkerRegistry,
    WorkQueue,
)
from loom.model.run import Claim, Head

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
        self.logs = cast(LogStore, _Logs(self, store.logs))
        self.runs = cast(RunStore, _Runs(self, store.runs))
        self.queue = cast(WorkQueue, _Queue(self, store.queue))
        self.workers = cast(WorkerRegistry, _Port(self, store.workers))
        self._faults: list[_Fault] = []
        self.watchers: dict[str, list[Notify]] = {}

    @property
    def waits(self) -> bool:
        """With a pace every call waits."""
        return self.pace > 0 or self.store.waits

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
        for notify in list(self.watchers.get(log, ())):
            notify(notice)

    def tell_all(self, notice: Notice) -> None:
        """`tell` for every log."""
        for log in list(self.watchers):
            self.tell(log, notice)

    @property
    def watched(self) -> set[str]:
        """The logs that somebody watches now."""
        return {log for log, watchers in self.watchers.items() if watchers}

    def _fault(self, name: str, skip: int, times: int) -> _Fault:
        fault = _Fault(name, skip, times)
        self._faults.append(fault)
        return fault

    async def do(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
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

    async def sweep(self) -> SweepReport:
        return await self.do("sweep", self.store.sweep)


class _Port:
    """One port, each call with its faults, by the name of the method."""

    def __init__(self, faults: FaultStore, port: Any) -> None:
        self.faults = faults
        self.port = port

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.port, name)

        async def call(*args: Any, **options: Any) -> Any:
            return await self.faults.do(name, lambda: method(*args, **options))

        return call


class _Logs(_Port):
    async def append(self, log: str, batch: Batch, commit: Commit | None = None) -> Cursor:
        self.faults.appended.append((batch, commit is not None and commit.end))
        return await self.faults.do("append", lambda: self.port.append(log, batch, commit))

    def append_nowait(self, log: str, batch: Batch, commit: Commit | None = None) -> bool:
        return False

    def watch(self, log: str, notify: Notify) -> Unwatch:
        def heard(notice: Notice) -> None:
            if not self.faults.deaf and not self.faults.out:
                notify(notice)

        watchers = self.faults.watchers.setdefault(log, [])
        watchers.append(notify)
        unwatch = self.port.watch(log, heard)

        def unwatch_both() -> None:
            unwatch()
            if notify in watchers:
                watchers.remove(notify)

        return unwatch_both


class _Runs(_Port):
    async def get(self, run: str, *, full: bool = True) -> Head:
        self.faults.full_heads += full
        return await self.faults.do("get", lambda: self.port.get(run, full=full))


class _Queue(_Port):
    async def renew_all(self, claims: Sequence[Claim]) -> list[bool]:
        """Faults of `renew` befall it, too: `Fenced` is what each claim is told."""
        try:
            return await self.faults.do("renew", lambda: self.port.renew_all(claims))
        except Fenced:
            return [False] * len(claims)

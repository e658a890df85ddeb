"""The registry of workers against a plain dict."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule
from msgspec.structs import replace

from loom.model.errors import UsageError
from loom.model.run import WorkerInfo

from .base import Machine

NAMES = st.sampled_from("xyz")


class WorkerMachine(Machine):
    """Workers as they registered last, and those that were asked to drain."""

    def __init__(self) -> None:
        super().__init__()
        self.there: dict[str, WorkerInfo] = {}
        self.asked: set[str] = set()

    @rule(name=NAMES, started=st.sampled_from([1.0, 1.0, 2.0]), running=st.integers(0, 9), draining=st.booleans())
    def register(self, name: str, started: float, running: int, draining: bool) -> None:
        info = WorkerInfo(name=name, started=started, running=running, draining=draining, queues=("q",))
        if name in self.there and self.there[name].started != started:
            self.asked.discard(name)
        self.there[name] = info
        assert self.do(self.store.workers.register(info)) == (name in self.asked)

    @rule(name=NAMES)
    def deregister(self, name: str) -> None:
        self.do(self.store.workers.deregister(name))
        self.there.pop(name, None)
        self.asked.discard(name)

    @rule(name=NAMES)
    def request_drain(self, name: str) -> None:
        if name in self.there:
            self.do(self.store.workers.request_drain(name))
            self.asked.add(name)
        else:
            self.refused(self.store.workers.request_drain(name), UsageError)

    @rule()
    def list_workers(self) -> None:
        found = [replace(info, seen=0.0) for info in self.do(self.store.workers.list_workers())]
        assert found == [
            replace(info, draining=info.draining or name in self.asked) for name, info in sorted(self.there.items())
        ]

    @rule()
    def restart_it(self) -> None:
        if self.reopens:
            self.do(self.restart())

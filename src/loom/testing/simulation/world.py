"""What all processes of a simulation share: the store, the faults and their dice, the history."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Collection
from hashlib import blake2b
from math import log

import msgspec

from loom.model.errors import UsageError
from loom.model.ports import Store

from .history import Fault, Happening
from .loop import SimulationLoop

__all__ = ["Faults", "World"]

_DRAWS = struct.Struct("8Q")


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong, and how often: times a minute for each process, or shares of calls and notices (0 to 1).

    The end of a stop, a cut or a repair is drawn as well: from a moment to three leases.
    """

    kill: float = 1.0
    """A minute. Nothing of the process runs again; another takes its place after a while."""
    pause: float = 0.5
    """A minute. Nothing of the process runs for up to three leases; then it goes on as if nothing had been."""
    cut: float = 0.5
    """A minute. The process cannot reach the store for up to three leases."""
    leave: float = 0.25
    """A minute. The process is told to stop: a worker drains."""
    refused: float = 0.02
    """Of calls: they raise `Unavailable`, and have not happened."""
    lost_reply: float = 0.02
    """Of calls: they have happened, and raise `OutcomeUnknown` or `Unavailable`: at once, or after `patience`."""
    lost_notice: float = 0.1
    """Of notices: the change is told by the next poll, within `poll` seconds. As many come late, twice or bare."""
    delay: float = 0.2
    """The longest that a call or a notice is under way, in seconds; most are far faster, so that they overtake."""
    patience: float = 15.0
    """After so many seconds without a reply the store's connection gives the call up: more than a lease."""
    poll: float = 5.0
    """How often the store's connection polls, in case that a notice was lost, in seconds."""

    @classmethod
    def none(cls) -> Faults:
        """Nothing goes wrong, but that everything takes its time."""
        return cls(kill=0, pause=0, cut=0, leave=0, refused=0, lost_reply=0, lost_notice=0)

    def check(self) -> None:
        """Raise `UsageError` for what is no rate, no share or no time."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            most = 1.0 if name in ("refused", "lost_reply", "lost_notice") else 1e6
            if not 0 <= value <= most:
                raise UsageError(f"Faults.{name}: from 0 to {most:g}, not {value!r}")


class World:
    """One simulation's. `spared` are steps at which nothing goes wrong although the seed has it so."""

    def __init__(
        self,
        loop: SimulationLoop,
        store: Store,
        faults: Faults,
        *,
        seed: int,
        spared: Collection[str] = (),
    ) -> None:
        self.loop = loop
        self.store = store
        self.faults = faults
        self.history: list[Happening] = []
        self.calm = asyncio.Event()
        """Set when nothing goes wrong any more."""
        self._seed = seed
        self._spared = frozenset(spared)
        self._began = loop.time()

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.loop.time() - self._began

    def draws(self, step: str) -> tuple[float, ...]:
        """Eight numbers from 0 to 1, by the step's name: what happens elsewhere does not change them."""
        digest = blake2b(f"{self._seed}/{step}".encode(), digest_size=64).digest()
        return tuple([number / 2**64 for number in _DRAWS.unpack(digest)])

    def strikes(self, step: str, kind: str, process: str) -> bool:
        """Whether a fault that the dice want at `step` hits `process`; if so, it is written down."""
        if self.calm.is_set() or step in self._spared:
            return False
        self.history.append(Fault(self.now, step, kind, process))
        return True

    @staticmethod
    def wait_of(a_minute: float, draw: float) -> float:
        """Seconds to the next of what happens so often."""
        return -log(1.0 - draw) * 60.0 / a_minute

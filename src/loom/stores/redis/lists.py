"""Lists of runs by state, actor, label, parent and root.

The lists lie in another slot than the runs, so they are a hint: written beside, ahead of what they list or right behind
it, and compared with each run's record when they are read. The acknowledgement of a run and the sweep write its last
state again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from loom.model.errors import LoomError, UsageError
from loom.model.run import Head, Meta, RunFilter, RunState

from .client.servers import Servers
from .keys import Keys

__all__ = ["FORMAT", "RunLists", "terms_of"]

MISSED = 1000
"""States to be listed by the next sweep: those of ten workers' worth of runs."""

FORMAT = 2
"""The format of all keys, as `functions.lua` describes it. Number 1 is what had no number."""


REMEMBERED = 1000
"""Runs that were ended here and whose states are remembered: an acknowledgement comes a round trip later."""


class RunLists:
    """The names of runs by what lists filter by."""

    def __init__(self, servers: Servers, keys: Keys) -> None:
        self._servers = servers
        self._keys = keys
        self._missed: dict[str, RunState] = {}
        """States that could not be listed, for the next sweep."""
        self.ended: OrderedDict[str, RunState] = OrderedDict()
        """The newest runs that were ended here and are not acknowledged yet, and their states."""

    async def check_format(self) -> None:
        """Raise `UsageError` where another version of Loom has written."""
        found = int(await self._servers.call("check_format", self._keys.lists, FORMAT))
        if found != FORMAT:
            raise UsageError(
                f"the keys with the prefix {self._keys.prefix!r} on this server have format {found}, and this version"
                f" of Loom reads format {FORMAT}: use another prefix (?prefix=NAME), or delete those keys"
            )

    async def add(self, meta: Meta) -> bool:
        """List a run that is created, or is about to be. Idempotent. False: a run of that id is listed otherwise, which
        may have expired: its record decides (`add_again`)."""
        return bool(await self._servers.call("list", self._keys.lists, meta.run, FORMAT, *terms_of(RunFilter.of(meta))))

    async def add_again(self, head: Head) -> None:
        """List a run as its record has it, and no longer as another one of its id."""
        opened = "" if head.ended else "1"
        run, filters = head.meta.run, terms_of(RunFilter.of(head.meta))
        if not await self._servers.call("list_again", self._keys.lists, run, opened, head.state, *filters):
            await self.add(head.meta)

    async def note(self, run: str, state: RunState) -> None:
        """List a run under a state that it has, or that a call under way gives it. Where that fails the next sweep of
        this process does it, or, if the process dies, the run's next attempt or its acknowledgement."""
        try:
            await self._servers.call("list_state", self._keys.lists, run, state)
        except LoomError:
            if len(self._missed) < MISSED:
                self._missed[run] = state

    async def catch_up(self) -> None:
        """List the states that could not be listed."""
        missed, self._missed = self._missed, {}
        for run, state in missed.items():
            await self.note(run, state)

    def remember(self, run: str, state: RunState) -> None:
        """Note the state in which this process ended a run: its acknowledgement need not ask for it."""
        self.ended[run] = state
        if len(self.ended) > REMEMBERED:
            self.ended.popitem(last=False)

    async def end(self, run: str, state: str) -> None:
        """List a run under the state in which it has ended, and no other; "": it is gone."""
        await self._servers.call("list_ended", self._keys.lists, run, state)

    async def pass_on(self, states: Mapping[str, RunState]) -> None:
        """Unlist runs from the states before the one that each has."""
        if states:
            args = [arg for item in states.items() for arg in item]
            await self._servers.call("unlist_passed", self._keys.lists, *args)

    async def remove(self, *runs: str) -> None:
        """Forget runs that are gone."""
        if runs:
            await self._servers.call("unlist", self._keys.lists, *runs)

    async def number(self, run: str) -> str | None:
        """The number of a run in the order of creation."""
        number = await self._servers.ask(self._keys.runs, "ZSCORE", self._keys.runs, run)
        return None if number is None else f"{float(number):.0f}"

    async def newest(self, below: str | None, most: int) -> tuple[list[str], str | None]:
        """All runs below a number, newest first, and the number to go on below; None: there are no more."""
        top = "+inf" if below is None else f"({below}"
        some = await self._servers.ask(
            self._keys.runs,
            *("ZREVRANGEBYSCORE", self._keys.runs, top, "-inf", "WITHSCORES", "LIMIT", 0, most),
        )
        return [run.decode() for run, _ in some], f"{float(some[-1][1]):.0f}" if len(some) == most else None

    async def find(self, filters: Sequence[bytes], below: str | None, most: int) -> tuple[list[str], str | None]:
        """As `newest`, of the runs that are listed under all of `filters`."""
        found, last = await self._servers.call("find", self._keys.lists, below or "", most, *filters)
        return [run.decode() for run in found], None if last is None else str(int(last))


def terms_of(filter: RunFilter) -> list[bytes]:
    """The filter's terms as `functions.lua` names them."""
    return ["\0".join(term).encode() for term in filter.terms]

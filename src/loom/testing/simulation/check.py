"""Whether a history keeps the guarantees: looked at from outside, by someone who knows nothing of the engine. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from loom.model.chunk import Batch
from loom.model.cursor import Cursor
from loom.model.errors import LoomError
from loom.model.grammar import State, advance, is_output
from loom.model.retraction import kept_through
from loom.model.run import Claim
from loom.wire.json import decode_chunk, type_of

from .history import Acked, Call, Fault, Happening, Logged, Seen
from .world import Faults

__all__ = ["Outbox", "Violation", "check"]

_ROUNDING = 1e-6
"""Seconds that sums of seconds may be wrong by."""

_HEARS = 2.0
"""Seconds in which a producer stops that is told to, besides all that the simulation puts in the way."""


class Outbox(msgspec.Struct, frozen=True):
    """A run's log as it was read in one go, when everything was over."""

    run: str
    lines: tuple[tuple[Cursor, bytes], ...]
    ended: bool
    """Whether the store says so."""


class Violation(msgspec.Struct, frozen=True):
    """A guarantee (G1 to G10, as in docs/guarantees.md; "" for what must not happen at all) that did not hold."""

    guarantee: str
    what: str

    def __str__(self) -> str:
        return f"{self.guarantee or '--':3} {self.what}"


def check(
    history: Sequence[Happening], outboxes: Mapping[str, Outbox | None], *, lease: float, faults: Faults
) -> list[Violation]:
    """What the history violates; nothing, if all is well. `outboxes`: every run that somebody wanted to start."""
    calls = [happening for happening in history if isinstance(happening, Call)]
    troubles = _Troubles(one for one in history if isinstance(one, Fault))
    found = [Violation("", happening.text) for happening in history if isinstance(happening, Logged)]
    found += _acknowledged(history, outboxes)
    for run, outbox in outboxes.items():
        if outbox is not None:
            found += _log(outbox)
            found += _viewers(outbox, [h for h in history if isinstance(h, Seen) and h.run == run])
        about = [call for call in calls if call.run == run]
        found += _appends(run, outbox, about)
        found += _claims(run, about, lease)
        if faults.delay < lease / 4:  # else slowness alone explains it
            found += _unprovoked(run, about, lease, troubles)
        found += _cancelled(run, about, history, faults, troubles)
    return list(dict.fromkeys(found))


# --- the log by itself -----------------------------------------------------------------------------------------------


def _log(outbox: Outbox) -> Iterator[Violation]:
    run, state, epoch = outbox.run, State.NEW, 0
    for seq, (cursor, line) in enumerate(outbox.lines, 1):
        if cursor.seq != seq:
            yield Violation("G1", f"run {run}: chunk {cursor} stands where seq {seq} is due")
            return
        if cursor.epoch < epoch:
            yield Violation("G2", f"run {run}: chunk {cursor} of an older attempt follows epoch {epoch}")
        if cursor.epoch > epoch and is_output(type_of(line)):
            yield Violation("G3", f"run {run}: an attempt begins at {cursor} with {type_of(line)!r}")
        epoch = cursor.epoch
        if state is State.ENDED:
            yield Violation("G4", f"run {run}: {type_of(line)!r} stands behind the end, at {cursor}")
            return
        try:
            state = advance(state, type_of(line))
        except LoomError as error:
            yield Violation("G3", f"run {run}: at {cursor}: {error}")
            return
        if type_of(line) == "start" and (kept_through(decode_chunk(line)) or 0) >= seq:
            yield Violation("G3", f"run {run}: the start at {cursor} keeps what is not said yet")
    if (state is State.ENDED) != outbox.ended:
        yield Violation("G4", f"run {run}: ended is {outbox.ended}, its last chunk says {state.value}")
    if state is not State.ENDED:
        yield Violation("G10", f"run {run}: it did not end in time after all faults had stopped")


def _viewers(outbox: Outbox, seen: Iterable[Seen]) -> Iterator[Violation]:
    views: dict[str, list[tuple[Cursor, bytes]]] = defaultdict(list)
    over: dict[str, bool] = {}
    for one in seen:
        views[one.viewer] += one.page.lines()
        over[one.viewer] = one.page.ended
    for viewer, view in views.items():
        if view != list(outbox.lines[: len(view)]):
            at = next(
                (n for n, (a, b) in enumerate(zip(view, outbox.lines, strict=False)) if a != b), len(outbox.lines)
            )
            was = f"chunk {view[at][0]}" if at < len(view) else "nothing"
            yield Violation("G5", f"{viewer}: its chunk {at + 1} is not the log's: it was given {was}")
        elif over[viewer] != (len(view) == len(outbox.lines) and outbox.ended):
            yield Violation("G5", f"{viewer}: it saw {len(view)} of {len(outbox.lines)} chunks, ended: {over[viewer]}")


# --- what was acknowledged -------------------------------------------------------------------------------------------


def _acknowledged(history: Iterable[Happening], outboxes: Mapping[str, Outbox | None]) -> Iterator[Violation]:
    for one in history:
        if isinstance(one, Acked) and one.what == "start" and outboxes.get(one.run) is None:
            yield Violation("G10", f"run {one.run}: its start was acknowledged, and it is not there")


def _appends(run: str, outbox: Outbox | None, calls: Iterable[Call]) -> Iterator[Violation]:
    """What the store took is in the log, and it took nothing of who was fenced."""
    fences: list[Call] = []
    lines = dict(outbox.lines) if outbox is not None else {}
    for call in calls:
        if call.error is not None:
            continue
        if call.name == "fence" and not call.result.ended:
            fences.append(call)
        if call.name != "append":
            continue
        batch: Batch = call.args[1]
        if any(fence.result.epoch > batch.epoch for fence in fences if fence.last < call.first):
            yield Violation("G2", f"run {run}: {call.step} of epoch {batch.epoch} was taken after a newer fence")
            return
        lost = _lost(batch, lines)
        if lost is not None:
            yield Violation("G4", f"run {run}: {call.step} was acknowledged, and its chunk {lost} is lost")
            return


def _ends(call: Call) -> bool:
    """Whether an append ends its log."""
    return call.name == "append" and len(call.args) > 2 and call.args[2] is not None


def _lost(batch: Batch, lines: Mapping[Cursor, bytes]) -> Cursor | None:
    """The first chunk of `batch` that is not in the log as it was sent."""
    for seq, line in enumerate(batch.lines(), batch.first):
        if lines.get(Cursor(batch.epoch, seq)) != line:
            return Cursor(batch.epoch, seq)
    return None


# --- who holds the run -----------------------------------------------------------------------------------------------


def _claims(run: str, calls: Iterable[Call], lease: float) -> Iterator[Violation]:
    """One at a time: who was given the run, or renewed, holds it for a lease, unless he lets go."""
    held: Claim | None = None
    since, number, ended = 0.0, 0, False
    for call in calls:
        if call.name in ("append", "cancel_unstarted") and call.error is None:
            ended = ended or _ends(call) or call.result is True
        claim = (
            call.result if call.name == "claim" else call.args[0] if call.name in ("renew", "ack", "release") else None
        )
        if not isinstance(claim, Claim) or call.error is not None:
            continue
        mine = held is not None and (claim.number, claim.worker) == (held.number, held.worker)
        if call.name == "claim":
            # Whose reply was lost may be given it again.
            if held is not None and call.at < since + lease - _ROUNDING and claim.worker != held.worker:
                left = since + lease - call.at
                yield Violation(
                    "G9", f"run {run}: {call.step} got it while {held.worker} holds it for {left:.3f} s more"
                )
            if claim.number <= number:
                yield Violation("G9", f"run {run}: {call.step} got claim {claim.number} after {number}")
            held, since, number = claim, call.began, claim.number
        elif not mine and held is not None:
            yield Violation("G9", f"run {run}: {call.step} was let through, but {held.worker} holds it")
        elif call.name == "renew":
            since = call.began
        else:
            held = None
            if call.name == "ack" and not ended:
                yield Violation("G10", f"run {run}: {call.step} forgot it before its end")


# --- what needs a reason ---------------------------------------------------------------------------------------------


class _Troubles:
    """What befell whom, and when."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._of: dict[str, list[float]] = defaultdict(list)
        for fault in faults:
            self._of[fault.process].append(fault.at)

    def of(self, process: str, since: float, until: float) -> bool:
        """Whether anything befell `process` in that time."""
        return any(since <= at <= until for at in self._of[process])


def _unprovoked(run: str, calls: Iterable[Call], lease: float, troubles: _Troubles) -> Iterator[Violation]:
    """A run is only taken over from a worker to which something has happened."""
    held: Claim | None = None
    for call in calls:
        claim = call.claim
        if call.name != "claim" or call.error is not None or claim is None:
            continue
        lapsed = held is not None and claim.crashes > held.crashes
        if held is not None and lapsed and not troubles.of(held.worker, call.at - 6 * lease, call.at):
            yield Violation("G9", f"run {run}: taken over from {held.worker}, to whom nothing had happened")
        held = claim


def _cancelled(
    run: str, calls: Iterable[Call], history: Iterable[Happening], faults: Faults, troubles: _Troubles
) -> Iterator[Violation]:
    """Once a cancel is acknowledged, a worker to which nothing happens says nothing new."""
    acked = [one.at for one in history if isinstance(one, Acked) and one.what == "cancel" and one.run == run]
    if not acked:
        return
    heard = acked[0] + faults.poll + 10 * faults.delay + _HEARS
    for call in calls:
        said = call.name == "append" and call.error is None and not _ends(call)
        if said and call.began > heard and not troubles.of(call.process, acked[0] - faults.patience, call.at):
            after = call.began - acked[0]
            yield Violation("G10", f"run {run}: {call.step} goes on, {after:.1f} s after its cancel")
            return

"""What a storm must not have done: compares what viewers saw with the logs. Knows nothing of the storm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from .harness import Log, Seen

__all__ = ["attempts", "check_keys", "check_log", "check_view"]

END = ("complete", "error")

Faults = Counter[str]
"""How often each thing happened that must not happen; empty when all is right."""


def check_log(log: Seen, n: int) -> Faults:
    """The log of a run that says 0 to n - 1 and completes: dense, each epoch's part whole, every value once and in
    order, ended once and at its end."""
    said = [data["i"] for _, type, data in log if type == "data"]
    seqs = [seq for _, seq in map(_parts, log)]
    epochs = [epoch for epoch, _ in map(_parts, log)]
    numbers = attempts(log)
    return _happened(
        log_gap=seqs != list(range(1, len(log) + 1)),
        log_older_epoch=epochs != sorted(epochs),
        log_attempts=numbers != sorted(set(numbers)) or len(set(epochs)) != len(numbers),
        log_lost=len(set(range(n)) - set(said)),
        log_twice=len(said) - len(set(said)),
        log_disordered=_inversions(said),
        log_end=[type for _, type, _ in log if type in END] != ["complete"] or log[-1][1] != "complete",
    )


def attempts(log: Seen) -> list[int]:
    """The number of each attempt that began."""
    return [data["attempt"] for _, type, data in log if type == "start"]


def check_view(view: Seen, log: Seen) -> Faults:
    """What one viewer saw of a run is its log, each chunk once, in order."""
    stored = {cursor: (type, data) for cursor, type, data in log}
    cursors = [cursor for cursor, _, _ in view]
    faults = _happened(
        lost=len(stored.keys() - set(cursors)),
        twice=len(cursors) - len(set(cursors)),
        disordered=_inversions([_parts(one) for one in view]),
        different=sum(stored.get(cursor) != (type, data) for cursor, type, data in view),
    )
    assert bool(faults) == (view != log)
    return faults


def check_keys(logs: Mapping[str, Log], keys: Mapping[str, Iterable[str]]) -> Faults:
    """Runs of a key, in the order they were started: each begins when the one before has ended."""
    overlaps = sum(
        logs[later].times[0] < logs[earlier].times[-1] for runs in keys.values() for earlier, later in pairwise(runs)
    )
    return _happened(overlap=overlaps)


def _happened(**faults: int | bool) -> Faults:
    return Counter({name: int(count) for name, count in faults.items() if count})


def _inversions(values: Sequence[Any]) -> int:
    return sum(later < earlier for earlier, later in pairwise(values))


def _parts(one: tuple[str, str, Any]) -> tuple[int, int]:
    epoch, seq = one[0].split("-")
    return int(epoch), int(seq)

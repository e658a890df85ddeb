"""The soak: ``python -m loom.testing.simulation --seeds 1000``. Exits with 1 when a seed failed, and says how."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from .sample import RUNS, sample
from .simulate import simulate
from .world import Faults

__all__ = ["WEATHERS", "main"]

WEATHERS = {
    "usual": Faults(),
    "harsh": Faults(kill=4, pause=2, cut=2, leave=1, refused=0.1, lost_reply=0.1, lost_notice=0.3),
    "slow": Faults(pause=2, cut=2, delay=8.0),
    "fair": Faults.none(),
}
"""What may go wrong, by name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate seed after seed in each weather; 0 if every guarantee held in all of them."""
    parser = argparse.ArgumentParser(prog="python -m loom.testing.simulation", description="Soak Loom's engine.")
    parser.add_argument("--seeds", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--weather", choices=list(WEATHERS), help="only this one (default: all)")
    given = parser.parse_args(arguments)
    app, totals, failed, began = sample(), Counter[str](), 0, time.perf_counter()
    for seed in range(given.first, given.first + given.seeds):
        for weather in [given.weather] if given.weather else WEATHERS:
            report = simulate(app, RUNS, seed=seed, faults=WEATHERS[weather])
            totals += report.faults
            totals += Counter(runs=len(report.outboxes), attempts=report.attempts, takeovers=report.takeovers)
            totals += Counter(chunks=report.chunks, calls=report.calls)
            if not report.ok:
                failed += 1
                print(f"--- weather {weather}, {report}", flush=True)
    print(f"{failed} failed, {given.seeds} seeds in {time.perf_counter() - began:.0f} s: {_told(totals)}")
    return 1 if failed else 0


def _told(totals: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(totals.items()))


if __name__ == "__main__":
    sys.exit(main())

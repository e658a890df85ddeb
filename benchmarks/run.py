"""Measure Loom side by side with its peers: ``python benchmarks/run.py [NAME ...] [--rounds N] [--quick]``.

Without names everything; a full run takes a quarter of an hour, wants an idle machine with two cores, and renews
``benchmarks/results.json`` and ``docs/benchmarks.md``. ``--quick`` does a tenth of the work and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import LOOM, Figure
from harness import HERE, Load, facts, script
from measures import chats, imports, memory
from measures.streams import Streams
from report import as_markdown, as_table

RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"


class Suite:
    """Every measure, by name."""

    def __init__(self, load: Load, rounds: int, *, quick: bool) -> None:
        self._load = load
        self._rounds = rounds
        self._quick = quick
        streams = Streams(load, rounds, quick=quick)
        self.measures: dict[str, Callable[[], list[Figure]]] = {
            "T1": streams.ready,
            "T2": streams.turns,
            "T3": streams.idle,
            "T4": streams.fanout,
            "T5": streams.first,
            "T6": self._in_process,
            "T7": self._sqlite,
            "T12": lambda: memory.measure(load, rounds, quick=quick),
            "T13": self._imports,
            "chats": lambda: chats.measure(load, rounds, quick=quick),
            "latency": lambda: [*streams.latency(), self._across_processes()],
        }
        self.loaded: list[str] | None = None

    def _in_process(self) -> list[Figure]:
        answers = [script("measures/inprocess.py", "0.1" if self._quick else "1") for _ in range(self._rounds)]
        unit = "µs of CPU a chunk"
        queue = [answer["queue"] for answer in answers]
        by_hand = [answer["by hand"] for answer in answers]
        ready = Figure(
            "T6", "in process, batches form", unit,
            {LOOM: [answer["ready"] for answer in answers], "asyncio.Queue alone": queue},
        )  # fmt: skip
        ready.at_most(1.2, "≤ 1.2 µs")
        figures = [ready]
        for key, what in (("in step", "the producer waits for its reader"), ("ahead", "`ahead=1`")):
            values = {LOOM: [answer[key] for answer in answers], "two futures, by hand": by_hand}
            figures.append(Figure("T6", f"in process, {what}", unit, values))
            figures[-1].at_most(6, "≤ 6 µs")
        return figures

    def _sqlite(self) -> list[Figure]:
        figures = []
        chunks, seconds = ("2000", "1") if self._quick else ("20000", "3")
        for durability, synchronous, least in (("disk", "FULL", 100_000), ("process", "NORMAL", 200_000)):
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(self._rounds):
                with tempfile.TemporaryDirectory(prefix="loom-bench-", dir=Path.cwd()) as folder:
                    ours.append(script("measures/sqlite.py", "runs", folder, durability, chunks)["rate"])
                    theirs.append(script("measures/sqlite.py", "hand", folder, synchronous, seconds)["rate"])
            values = {LOOM: ours, "sqlite3, a commit a chunk": theirs}
            figure = Figure("T7", f"SQLite, 64 busy runs, synchronous={synchronous}", "chunks a second", values)
            figure.at_least(least, f"≥ {least // 1000}k/s")
            figures.append(figure)
        return figures

    def _across_processes(self) -> Figure:
        count = "40" if self._quick else "200"
        tails = []
        for _ in range(self._rounds):
            with tempfile.TemporaryDirectory(prefix="loom-bench-", dir=Path.cwd()) as folder:
                tails.append(script("measures/sqlite.py", "across", folder, count)["p99"])
        figure = Figure("latency", "SQLite, a reader in another process: added latency, p99", "ms", {LOOM: tails})
        figure.at_most(20, "≤ 20 ms")
        return figure

    def _imports(self) -> list[Figure]:
        figures, self.loaded = imports.measure(self._rounds)
        return figures


def main() -> None:
    arguments = _arguments()
    load = Load()
    try:
        suite = Suite(load, arguments.rounds, quick=arguments.quick)
        unknown = set(arguments.names) - suite.measures.keys()
        if unknown:
            raise SystemExit(f"no measure {sorted(unknown)[0]!r}; there are {', '.join(suite.measures)}")
        results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        for name in arguments.names or suite.measures:
            figures = suite.measures[name]()
            print(as_table(figures), flush=True)
            results[name] = {
                "when": time.strftime("%Y-%m-%d"),
                "rounds": arguments.rounds,
                "facts": facts(load),
                "figures": [figure.as_data() for figure in figures],
            }
        if suite.loaded is not None:
            print("import loom brings along:", ", ".join(suite.loaded) or "nothing heavy")
            results["T13"]["loaded"] = suite.loaded
    finally:
        load.close()
    if not arguments.quick:
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(as_markdown(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="T1 T2 T3 T4 T5 T6 T7 T12 T13 chats latency")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()

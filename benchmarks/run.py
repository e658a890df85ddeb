"""Measure Loom side by side with its peers: ``python benchmarks/run.py [NAME ...] [--rounds N] [--quick]``.

Without names everything; a full run takes half an hour, wants an idle machine with two cores, and renews
``benchmarks/results.json`` and ``docs/benchmarks.md``. ``--quick`` does a tenth of the work and writes nothing; no more
does ``--store URL``, which has Loom somewhere else than on the Redis server that T8 to T10 start (``--server valkey``:
a Valkey). With ``--results FILE`` any of them writes there, and no page.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from figures import LOOM, Figure
from harness import CLIENT_CORE, HERE, Load, alone, facts, script
from harness import server as started
from measures import chats, imports, memory
from measures.footprint import Footprint
from measures.relayed import RESUMABLE, Relayed
from measures.streams import Streams
from npm import Npm
from redisserver import described, redis_server
from report import as_markdown, as_table

ON_REDIS = ("T8", "T9", "T10", "lists", "starts", "takeover", "footprint")
BY_HAND = "redis-py, XADD a chunk"
RESULTS = HERE / "results.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"


class Suite:
    """Every measure, by name."""

    def __init__(self, load: Load, rounds: int, kind: str, store: str | None, npm: Npm, *, quick: bool) -> None:
        self._load = load
        self._rounds = rounds
        self._kind = kind
        self._store = store
        self._npm = npm
        self._quick = quick
        streams = Streams(load, rounds, quick=quick)
        relayed = Relayed(load, rounds, kind, store, npm, quick=quick)
        footprint = Footprint(relayed, rounds, kind, quick=quick)
        self.measures: dict[str, Callable[[], list[Figure]]] = {
            "T1": streams.ready,
            "T2": streams.turns,
            "T3": streams.idle,
            "T4": streams.fanout,
            "T5": streams.first,
            "T6": self._in_process,
            "T7": self._sqlite,
            "T8": relayed.latency,
            "T9": self._appends,
            "T10": relayed.followed,
            "T12": lambda: memory.measure(load, rounds, quick=quick),
            "T13": self._imports,
            "chats": lambda: chats.measure(load, rounds, quick=quick),
            "latency": lambda: [*streams.latency(), self._across_processes()],
            "lists": self._lists,
            "starts": self._starts,
            "takeover": self._takeover,
            "footprint": footprint.measure,
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

    def _appends(self) -> list[Figure]:
        kinds = {
            "one": ("one busy run", 1_000_000, 600),
            "many": ("64 busy runs", 20_000, 400),
            "turns": ("64 runs, a chunk each loop turn", 5000, 150),
        }
        figures = []
        for kind, (what, chunks, least) in kinds.items():
            values: dict[str, list[float]] = {}
            for _ in range(self._rounds):
                for name, rate in self._appended(kind, chunks // 10 if self._quick else chunks):
                    values.setdefault(name, []).append(rate)
            figure = Figure("T9", f"Redis, one worker, {what}, each chunk acknowledged", "chunks a second", values)
            figure.at_least(least * 1000, f"≥ {least}k/s")
            for peer in (BY_HAND, RESUMABLE):
                figure.times(40, peer, f"≥ 40 times {peer}")
            figures.append(figure)
        return figures

    def _appended(self, kind: str, chunks: int) -> Iterator[tuple[str, float]]:
        """Each on a server of its own, which has the other core; with it resumable-stream's readers, without which it
        publishes nothing."""
        seconds = "1" if self._quick else "3"
        with redis_server(self._kind, CLIENT_CORE) as server:
            yield LOOM, script("measures/appends.py", "loom", self._store or server.url, kind, str(chunks))["rate"]
        with redis_server(self._kind, CLIENT_CORE) as server:
            yield BY_HAND, script("measures/appends.py", "hand", server.url, kind, seconds)["rate"]
        if self._npm.script:
            with redis_server(self._kind, CLIENT_CORE) as server:
                command = ("env", f"REDIS_URL={server.url}", *self._npm.script)
                with started(*command, "appends", kind):
                    yield RESUMABLE, alone(*command, "reads", kind, seconds, core=CLIENT_CORE)["rate"]

    def _starts(self) -> list[Figure]:
        count, figures = ("2000" if self._quick else "20000"), []
        for at_once in (1, 100):
            for store in ("memory", "SQLite", "Redis"):
                rates = []
                for _ in range(self._rounds):
                    with self._new_store(store) as url:
                        rates.append(script("measures/starts.py", url, count, str(at_once))["rate"])
                what = f"{store}, {at_once} at a time" if at_once > 1 else f"{store}, one after the other"
                figures.append(Figure("starts", what, "starts a second", {LOOM: rates}))
        return figures

    def _lists(self) -> list[Figure]:
        count, figures = (10_000 if self._quick else 100_000), []
        for store in ("memory", "SQLite", "Redis"):
            with self._new_store(store) as url:
                times = script("measures/lists.py", url, str(count))
            for page, milliseconds in times.items():
                what = f"{store}, {count:,} runs, a page of 100 by {page}"
                figures.append(Figure("lists", what, "ms", {LOOM: [milliseconds]}))
                figures[-1].at_most(10, "≤ 10 ms")
        return figures

    @contextmanager
    def _new_store(self, name: str) -> Iterator[str]:
        """The URL of a store that nobody has used, which goes at the end."""
        with contextlib.ExitStack() as stack:
            if name == "memory":
                yield "memory://"
            elif name == "SQLite":
                folder = tempfile.TemporaryDirectory(prefix="loom-bench-", dir=Path.cwd())
                yield f"sqlite:///{Path(stack.enter_context(folder)) / 'runs.db'}"
            else:
                yield self._store or stack.enter_context(redis_server(self._kind, CLIENT_CORE)).url

    def _takeover(self) -> list[Figure]:
        lease, kills = (2.0, 10) if self._quick else (10.0, 50)
        with redis_server(self._kind, CLIENT_CORE) as server:
            url = self._store or server.url
            waits = script("measures/takeover.py", url, str(lease), str(kills))["waits"]
        what = f"{kills} workers killed, lease {lease:g} s: from kill -9 to the next attempt's first chunk"
        slowest = Figure("takeover", f"{what}, slowest", "s", {LOOM: [max(waits)]})
        slowest.at_most(lease + 1, "≤ lease + 1 s")
        return [Figure("takeover", f"{what}, median", "s", {LOOM: waits}), slowest]

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
    load, npm = Load(), Npm()
    try:
        suite = Suite(load, arguments.rounds, arguments.server, arguments.store, npm, quick=arguments.quick)
        unknown = set(arguments.names) - suite.measures.keys()
        if unknown:
            raise SystemExit(f"no measure {sorted(unknown)[0]!r}; there are {', '.join(suite.measures)}")
        former = arguments.results or RESULTS
        results: dict[str, Any] = json.loads(former.read_text()) if former.exists() else {}
        for name in arguments.names or suite.measures:
            figures = suite.measures[name]()
            print(as_table(figures), flush=True)
            results[name] = {
                "when": time.strftime("%Y-%m-%d"),
                "rounds": arguments.rounds,
                "facts": facts(load),
                "figures": [figure.as_data() for figure in figures],
            }
            if name in ON_REDIS:
                results[name]["server"] = described(arguments.server)
            if name == "T13" and suite.loaded is not None:
                print("import loom brings along:", ", ".join(suite.loaded) or "nothing heavy")
                results[name]["loaded"] = suite.loaded
            _write(arguments, results)
    finally:
        load.close()
        npm.close()


def _write(arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    data = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    if arguments.results:
        arguments.results.write_text(data)
    elif not arguments.quick and not arguments.store:
        RESULTS.write_text(data)
        PAGE.write_text(as_markdown(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="T1 to T10 T12 T13 chats latency takeover footprint")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--server", choices=("redis", "valkey"), default="redis")
    parser.add_argument("--store")
    parser.add_argument("--results", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()

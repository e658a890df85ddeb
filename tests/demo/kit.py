"""`loom demo` as a process that can be killed and started again on its port, workers apart, and what its log says."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.cli.kit import Loom, Running

__all__ = ["Demo"]


class Demo:
    """The command, with a state folder of its own."""

    def __init__(self, state: Path, model: str = "", *, store: str = "") -> None:
        """`model`: the OPENAI_BASE_URL that answers; without one it is the built-in writer. `store`: the URL of one
        that it shares with workers; without one it keeps its own, and has a worker."""
        self._loom = Loom(state, state)
        self._store = store
        if model:
            self._loom.env["OPENAI_BASE_URL"] = model
        self._port = 0
        self.running: Running | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, again on the port that it had."""
        shared = ("--store", self._store, "--no-worker") if self._store else ()
        self.running = self._loom.start("demo", "--no-browser", "--port", str(self._port), *shared)
        match = re.search(r"page +http://127\.0\.0\.1:(\d+)", self.running.until("Ctrl-C ends it."))
        assert match is not None
        self._port = int(match[1])

    def worker(self) -> Running:
        """A worker apart, on the store that is shared; returns when it is up. Close it."""
        running = self._loom.start("worker", "--store", self._store, "--lease", "2s")
        running.until("lease 2 s")
        return running

    def kill(self) -> None:
        """kill -9: nothing can be tidied up."""
        assert self.running is not None
        self.running.signal(signal.SIGKILL)
        assert self.running.wait() == -signal.SIGKILL

    def stop(self) -> int:
        """Ctrl-C. Its exit code."""
        assert self.running is not None
        self.running.signal(signal.SIGINT)
        return self.running.wait()

    def forget(self) -> None:
        """Delete what it kept."""
        for path in (self._loom.state / "loom").glob("demo.db*"):
            path.unlink()

    def close(self) -> None:
        if self.running is not None:
            self.running.close()

    def begin(self, actor: str, input: Any, **options: str) -> None:
        """Start a run."""
        body = json.dumps({"actor": actor, "input": input, **options}).encode()
        urlopen(Request(f"{self.url}/runs", body, {"Content-Type": "application/json"}), timeout=10).close()

    def ask(self, path: str) -> Any:
        with urlopen(f"{self.url}/{path}", timeout=10) as answer:
            return json.load(answer)

    def runs(self, key: str) -> list[Any]:
        """The runs of a conversation, newest first."""
        return [run for run in self.ask("runs?limit=1000")["runs"] if run.get("key") == key]

    def log(self, run: str) -> list[tuple[str, Any]]:
        """(cursor, chunk) of all that an ended run said."""
        found: list[tuple[str, Any]] = []
        page: Any = {"cursor": "", "ended": False}
        while not page["ended"]:
            page = self.ask(f"runs/{run}/chunks?after={page['cursor']}")
            found += [(line["cursor"], line["chunk"]) for line in page["chunks"]]
        return found

    def text(self, run: str) -> str:
        return "".join(chunk["data"] for _, chunk in self.log(run) if chunk["type"] == "data")

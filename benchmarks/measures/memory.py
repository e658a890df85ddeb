"""T12: what a run of a million chunks costs in memory: stored in SQLite by a worker, served by a gateway in another
process to a fast reader and to one that takes little."""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
from pathlib import Path

from figures import LOOM, Figure
from harness import CLIENT_CORE, Load, get, post, server


def measure(load: Load, rounds: int, *, quick: bool) -> list[Figure]:
    """The most that each process held."""
    chunks = 100_000 if quick else 1_000_000
    worker: list[float] = []
    gateway: list[float] = []
    for _ in range(rounds):
        held = _run(load, chunks)
        worker.append(held[0])
        gateway.append(held[1])
    what = f"a run of {chunks:,} chunks in SQLite, a fast and a slow reader: most memory of the"
    figures = [
        Figure("T12", f"{what} worker", "MB", {LOOM: worker}),
        Figure("T12", f"{what} gateway", "MB", {LOOM: gateway}),
    ]
    for figure in figures:
        figure.at_most(80, "< 80 MB")
    return figures


def _run(load: Load, chunks: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="loom-bench-", dir=Path.cwd()) as folder:
        command = (sys.executable, "loom_server.py", f"sqlite:///{folder}/runs.db")
        with server(*command, "worker", core=CLIENT_CORE) as worker, server(*command, "gateway") as gateway:
            body = f'{{"actor": "ready", "input": {chunks}, "id": "long"}}'
            load.drain(gateway.port, 1, [post("/runs", body)])
            slow = _Slow(gateway.port)
            answer = load.drain(gateway.port, 1, [get("/runs/long/events")])
            slow.stop()
            if answer["events"] != chunks + 2:
                raise SystemExit(f"{answer['events']} events of {chunks + 2}")
            return worker.memory("VmHWM") / 1e6, gateway.memory("VmHWM") / 1e6


class _Slow:
    """A reader with a small buffer that takes 64 kB a second."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(get("/runs/long/events"))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stopped.wait(0.0625):
            self._socket.recv(4096)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._socket.close()

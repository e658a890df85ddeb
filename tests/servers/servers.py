"""What tests start servers with: one maker for a test session, which ends whatever is left."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .clock import Clock
from .cluster import Cluster
from .sentinel import Sentinels
from .server import Kind, Server
from .tls import Certificates


class Servers:
    """Makes servers, each in a folder of its own. They are started by entering them, or by `start`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._made: list[Server] = []

    def server(self, kind: Kind = "valkey", **options: Any) -> Server:
        """One server (options: see `Server`)."""
        return self._note(Server(self._new(kind), kind, **options))

    def durable(self, kind: Kind = "valkey", fsync: str = "always", **options: Any) -> Server:
        """One that keeps what it has on disk, by its append-only file."""
        kept = {"appendonly": "yes", "appendfsync": fsync}
        return self.server(kind, config={**kept, **options.pop("config", {})}, **options)

    def small(self, kind: Kind = "valkey", memory: str = "4mb", **options: Any) -> Server:
        """One that refuses what does not fit (``noeviction``); an empty one uses about 1 MB."""
        full = {"maxmemory": memory, "maxmemory-policy": "noeviction"}
        return self.server(kind, config={**full, **options.pop("config", {})}, **options)

    def cluster(self, kind: Kind = "valkey", **options: Any) -> Cluster:
        cluster = Cluster(self._new("cluster"), kind, **options)
        self._made += [*cluster.nodes, *cluster.replicas]
        return cluster

    def sentinels(self, kind: Kind = "valkey", **options: Any) -> Sentinels:
        sentinels = Sentinels(self._new("sentinel"), kind, **options)
        self._made += [*sentinels.servers, *sentinels.sentinels]
        return sentinels

    def certificates(self, **options: Any) -> Certificates:
        return Certificates(self._new("tls"), **options)

    def clock(self) -> Clock:
        return Clock(self._new("clock") / "offset")

    def logs(self) -> Iterator[tuple[str, Path]]:
        """The logs of all that were started, by folder and kind."""
        for server in self._made:
            if server.log.exists():
                yield f"{server.folder.relative_to(self._folder)}", server.log

    def close(self) -> None:
        for server in self._made:
            server.kill()

    def _note(self, server: Server) -> Server:
        self._made.append(server)
        return server

    def _new(self, name: str) -> Path:
        folder = self._folder / f"{next(self._numbers)}-{name}"
        folder.mkdir(parents=True)
        return folder

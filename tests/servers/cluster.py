"""A cluster of three masters, each with a third of the slots, and perhaps a replica."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

from tests.mortal import free_port

from .server import Config, Kind, Server

_SLOTS = 16384
_NODE_TIMEOUT_MS = 500


class Cluster:
    """Entering the block starts it, leaving it kills it. The nodes know each other from their first start, by the file
    that a node keeps; the two seconds that `start` takes are Redis's own (CLUSTER_WRITABLE_DELAY)."""

    def __init__(
        self,
        folder: Path,
        kind: Kind = "valkey",
        *,
        nodes: int = 3,
        replicas: bool = False,
        config: Config | None = None,
    ) -> None:
        self._kind = kind
        self._buses = [free_port() for _ in range(nodes * (1 + replicas))]
        words: dict[str, str | int] = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": _NODE_TIMEOUT_MS,
            "cluster-require-full-coverage": "no",  # a lost node takes down its own slots only
        }
        self._all = [
            Server(folder / f"node{i}", kind, config={**words, "cluster-port": bus, **(config or {})}, known=True)
            for i, bus in enumerate(self._buses)
        ]
        self.nodes = self._all[:nodes]
        self.replicas = self._all[nodes:]
        """Of each of the nodes, in their order."""

    def start(self) -> Self:
        for i, node in enumerate(self._all):
            node.folder.mkdir(parents=True, exist_ok=True)
            (node.folder / "nodes.conf").write_text(self._map(i))
        for node in self._all:
            node.start()
        self.wait_ok()
        for replica in self.replicas:
            self._wait_copied(replica)
        return self

    def _wait_copied(self, replica: Server, timeout: float = 20) -> None:
        end = time.monotonic() + timeout
        while replica.client().info("replication")["master_link_status"] != "up":
            assert time.monotonic() < end, "a replica has nothing to copy"
            time.sleep(0.02)  # nothing tells of it

    def wait_ok(self, timeout: float = 20) -> None:
        """Until every node says that the cluster is in order."""
        end = time.monotonic() + timeout
        while not all(self._ok(node) for node in self.nodes):
            assert time.monotonic() < end, "the cluster did not come together"
            time.sleep(0.02)  # nothing tells of it

    def node_of(self, key: str) -> Server:
        """The node that holds a key."""
        return self.nodes[self._owner(int(self.nodes[0].ask("CLUSTER", "KEYSLOT", key)))]

    def url(self, **options: object) -> str:
        """``redis+cluster://127.0.0.1:port`` of the first node."""
        words = f"?{urlencode(options)}" if options else ""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}{words}"

    def kill(self) -> None:
        for node in self._all:
            node.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def _ok(self, node: Server) -> bool:
        state = node.ask("CLUSTER", "INFO")
        return "cluster_state:ok" in state if isinstance(state, str) else state["cluster_state"] == "ok"

    def _range(self, node: int) -> tuple[int, int]:
        count = len(self.nodes)
        return node * _SLOTS // count, (node + 1) * _SLOTS // count - 1

    def _owner(self, slot: int) -> int:
        return next(i for i in range(len(self.nodes)) if self._range(i)[0] <= slot <= self._range(i)[1])

    def _map(self, me: int) -> str:
        """nodes.conf as node `me` would have written it: id, address, flags, master, pings, epoch, link, slots."""
        lines = []
        for i, node in enumerate(self._all):
            master = i % len(self.nodes)
            first, last = self._range(master)
            role, of, slots = (
                ("master", "-", f" {first}-{last}") if i == master else ("slave", f"{master + 1:040x}", "")
            )
            flags = f"myself,{role}" if i == me else role
            # Valkey fails an assertion on SPUBLISH in a function when a node is in no shard; 7.0 knows no shards.
            shard = f",,shard-id={master + 1:040x}" if self._kind == "valkey" else ""
            address = f"127.0.0.1:{node.port}@{self._buses[i]}{shard}"
            lines.append(f"{i + 1:040x} {address} {flags} {of} 0 0 {master + 1} connected{slots}")
        return "\n".join([*lines, f"vars currentEpoch {len(self.nodes)} lastVoteEpoch 0", ""])

"""The kit itself: each kind of server starts, does what it is for, and is gone when the tests are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from .cluster import Cluster
from .fixtures import own
from .sentinel import Sentinels
from .server import KINDS, Kind, Server
from .servers import Servers

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_answers_and_its_kind_is_what_it_says(kind: Kind, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(kind)
    told = server.ask("INFO", "server")
    version = told["valkey_version"] if kind == "valkey" else told["redis_version"]
    assert version.startswith({"valkey": "9.", "redis7": "7.0."}[kind])


@pytest.mark.parametrize("kill", [False, True])
def test_what_was_acknowledged_is_there_after_a_restart(kill: bool, servers: Servers) -> None:
    with servers.durable() as server:
        port = server.port
        for i in range(20):
            server.ask("SET", f"k{i}", i)
        server.restart(kill=kill)
        assert server.port == port
        assert [server.ask("GET", f"k{i}") for i in range(20)] == [str(i) for i in range(20)]


def test_a_paused_server_answers_when_it_is_resumed(servers: Servers) -> None:
    with servers.server() as server:
        server.pause()
        with server.client(socket_timeout=0.05) as client, pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert server.ask("PING")


def fill(client: redis.Redis) -> None:
    for i in range(100):
        client.set(f"k{i}", "x" * 100_000)


def test_a_full_server_refuses(servers: Servers) -> None:
    with servers.small(memory="2mb") as server, server.client() as client:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            fill(client)
        assert client.get("k0") is not None
        client.execute_command("FLUSHALL", "SYNC")  # Valkey's default answers before the memory is free
        client.set("k", "v")


def test_tls_and_users(servers: Servers) -> None:
    users = {"alice": ">secret ~t:* &* +@all"}
    with servers.server("redis7", tls=servers.certificates(), users=users) as server:
        assert server.url(user="alice", password="secret").startswith("rediss://alice:secret@127.0.0.1:")
        with server.client(user="alice", password="secret") as client:
            client.set("t:1", "v")
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.set("other", "v")
        with server.client(user="alice", password="wrong") as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_a_server_lives_by_the_clock_it_is_given(servers: Servers) -> None:
    clock = servers.clock()
    with servers.server(clock=clock) as server, server.client() as client:
        client.set("k", "v", ex=1800)
        for jump, value in ((-3600, "v"), (3600, None)):
            clock.jump(jump)
            end = time.monotonic() + 10
            while abs(client.time()[0] - time.time() - jump) > 5:
                assert time.monotonic() < end
            assert client.get("k") == value


def test_a_cluster_parts_its_keys(cluster: Cluster) -> None:
    with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, decode_responses=True) as client:
        for i in range(30):
            client.set(f"{{kit{i}}}", i)
        assert [client.get(f"{{kit{i}}}") for i in range(30)] == [str(i) for i in range(30)]
    assert {cluster.node_of(f"{{kit{i}}}").port for i in range(30)} == {node.port for node in cluster.nodes}


def test_sentinels_move_the_primary(servers: Servers) -> None:
    with servers.sentinels() as sentinels:
        old = sentinels.primary
        assert old is sentinels.servers[0]
        with old.client() as client:
            client.set("k", "v")
            assert client.wait(1, 5000) == 1
        old.kill()
        new = sentinels.wait_failover(old)
        assert new.ask("GET", "k") == "v"
        old.start()
        sentinels.wait_ready()


def test_a_place_of_ones_own(valkey: Server, sentinel: Sentinels) -> None:
    assert own(valkey.url(durability="disk")) != own(valkey.url(durability="disk"))
    assert own(sentinel.url()).startswith(f"redis+sentinel://127.0.0.1:{sentinel.sentinels[0].port},127.0.0.1:")


_PARENT = """
import sys, pathlib
from tests.servers.servers import Servers
print(Servers(pathlib.Path(sys.argv[1])).server().start().pid, flush=True)
sys.stdin.read()
"""


def test_no_server_outlives_a_killed_test_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        assert _alive(server)
        parent.kill()
    end = time.monotonic() + 10
    while _alive(server):
        assert time.monotonic() < end
        time.sleep(0.01)  # the kernel's own time


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"

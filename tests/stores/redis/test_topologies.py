"""Servers that fail over, slots that move, replicas that have to confirm."""

from __future__ import annotations

import asyncio
import gc

import pytest

from loom.backoff import Backoff
from loom.engine.follow.hub import Hub
from loom.model import limits
from loom.model.chunk import Chunk
from loom.model.errors import CursorExpired, ErrorInfo, LogError, OutcomeUnknown, StoreFull, Unavailable
from loom.model.ports import message_producer
from loom.model.run import Meta, inbox_of
from loom.stores.redis import RedisStore, parse_url
from loom.stores.redis.client.slots import slot_of
from loom.stores.redis.keys import Keys
from loom.tasks import spawn
from loom.testing.author import Author, read_all
from loom.testing.conformance.kit import ENDED, Told
from loom.wire.json import encode
from tests.faults.proxy import proxy_before
from tests.servers.cluster import Cluster
from tests.servers.fixtures import own
from tests.servers.server import Server
from tests.servers.servers import Servers

pytestmark = pytest.mark.anyio

AGAIN = (Unavailable, OutcomeUnknown, StoreFull)


async def say(store: RedisStore, author: Author, *chunks: Chunk[object] | str) -> None:
    """As the writer does it: the same batch until it is acknowledged."""
    batch = author.batch(*chunks)
    end = chunks[-1] == "complete"
    await Backoff.of_store().attempt(lambda: store.logs.append(author.log, batch, ENDED if end else None))
    author.tail = batch.last


async def begin(store: RedisStore, run: str = "run") -> Author:
    """On a loaded machine a replica may be late to confirm."""
    return await Backoff.of_store().attempt(lambda: Author.start(store, run))


async def test_a_writer_and_a_viewer_go_on_over_a_failover(servers: Servers) -> None:
    """The primary is killed: Sentinels name another, and both find it by themselves."""
    with servers.sentinels() as sentinels:
        async with RedisStore(parse_url(own(sentinels.url(durability="replica")))) as store:
            assert store.durability == "replica"
            author = await begin(store)
            await say(store, author, "data")
            hub = Hub(store)

            async def follow() -> list[int]:
                return [cursor.seq async for page in hub.follow("run") for cursor, _ in page.lines()]

            following = spawn(follow(), "follow")
            old = sentinels.primary
            old.kill()
            await asyncio.to_thread(sentinels.wait_failover, old)
            old.start()  # as a replica, without which nothing is confirmed
            for _ in range(5):
                await say(store, author, "data")
            await say(store, author, "complete")
            assert await asyncio.wait_for(following, 20) == list(range(1, 9))
            await hub.aclose()


async def test_what_too_few_replicas_confirmed_has_an_unknown_outcome(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error of its own; sent again it is one record, and confirmed when there are enough."""
    with servers.sentinels(sentinels=1, down_after=60.0) as sentinels:
        replica = next(server for server in sentinels.servers if server is not sentinels.primary)
        async with RedisStore(parse_url(own(sentinels.url(durability="replica")))) as store:
            author = await begin(store)
            batch = author.batch("data")
            monkeypatch.setattr(limits, "REPLICA_WAIT", 0.1)
            replica.pause()
            other = Meta(run="other", actor="actor")
            for write in (
                lambda: store.logs.append("run", batch),
                lambda: store.logs.send(inbox_of("run"), b"1", message_producer("s", "1")),
                lambda: store.runs.create(other),
                lambda: store.queue.put(other),
                lambda: store.queue.force_claim(Meta(run="third", actor="actor"), "w1", lease=60.0),
            ):
                for _ in range(2):
                    with pytest.raises(OutcomeUnknown, match="0 of 1 replicas"):
                        await write()
            replica.resume()
            while True:
                try:
                    assert await store.logs.append("run", batch) == batch.cursor
                except OutcomeUnknown:
                    continue
                break
            assert len(await read_all(store.logs, "run")) == 2


async def test_however_many_write_each_is_told_soon_that_replicas_are_gone(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for replicas holds up what comes behind it: those share the next wait."""
    with servers.sentinels(sentinels=1, down_after=60.0) as sentinels:
        replica = next(server for server in sentinels.servers if server is not sentinels.primary)
        async with RedisStore(parse_url(own(sentinels.url(durability="replica")))) as store:
            await begin(store)
            monkeypatch.setattr(limits, "REPLICA_WAIT", 0.1)
            before = _calls(sentinels.primary, "wait")
            replica.pause()
            puts = []
            for number in range(100):
                puts.append(spawn(store.queue.put(Meta(run=f"run-{number}", actor="actor")), f"put {number}"))
                await asyncio.sleep(0)  # each in a turn of its own
            outcomes = await asyncio.gather(*puts, return_exceptions=True)
            replica.resume()
            assert {type(outcome) for outcome in outcomes} == {OutcomeUnknown}
            assert _calls(sentinels.primary, "wait") - before <= 4
            assert len(await store.queue.list_entries()) == 100


async def test_an_end_before_any_start_is_confirmed_as_well(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.sentinels(sentinels=1, down_after=60.0) as sentinels:
        replica = next(server for server in sentinels.servers if server is not sentinels.primary)
        async with RedisStore(parse_url(own(sentinels.url(durability="replica")))) as store:
            await Backoff.of_store().attempt(lambda: store.runs.create(Meta(run="run", actor="actor")))
            line = encode(Chunk("error", error=ErrorInfo("cancelled", "")))
            monkeypatch.setattr(limits, "REPLICA_WAIT", 0.1)
            replica.pause()
            for _ in range(2):
                with pytest.raises(OutcomeUnknown, match="0 of 1 replicas"):
                    await store.runs.cancel_unstarted("run", line)
            replica.resume()
            while True:
                try:
                    assert await store.runs.cancel_unstarted("run", line)
                except OutcomeUnknown:
                    continue
                break
            assert (await store.runs.get("run")).state == "cancelled"


async def test_many_confirmed_appends_share_a_wait(servers: Servers) -> None:
    """One a turn of the loop, on a connection of their own."""
    with servers.sentinels(sentinels=1, down_after=60.0) as sentinels:
        async with RedisStore(parse_url(own(sentinels.url(durability="replica")))) as store:
            authors = [await begin(store, f"run-{number}") for number in range(50)]
            primary = sentinels.primary
            before = _calls(primary, "wait")
            await asyncio.gather(*(say(store, author, "data") for author in authors))
            assert _calls(primary, "wait") - before <= 5


def _calls(server: Server, command: str) -> int:
    return int(server.client().info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


async def test_acknowledged_data_that_a_failover_lost_is_told(servers: Servers) -> None:
    """With asynchronous replication: a reader of the lost history gets `CursorExpired`, its writer is refused."""
    with servers.sentinels() as sentinels:
        async with RedisStore(parse_url(own(sentinels.url()))) as store:
            author = await begin(store)
            old = sentinels.primary
            replica = next(server for server in sentinels.servers if server is not old)
            await asyncio.to_thread(_in_step, old, replica)
            replica.pause()
            old.ask("CLIENT", "KILL", "TYPE", "REPLICA")  # else the kernel keeps what is said for it
            await author.say("data")
            lost = (await read_all(store.logs, "run"))[-1][0]
            old.kill()
            replica.resume()
            await asyncio.to_thread(sentinels.wait_failover, old)
            while True:
                try:
                    heir = await Author.take(store.logs, "run", "token-2")
                except AGAIN:
                    continue
                break
            await say(store, heir, "start", "data")
            with pytest.raises(CursorExpired):
                await store.logs.read("run", lost)
            with pytest.raises(LogError):
                await author.say("data")
            assert [cursor.epoch for cursor, _ in await read_all(store.logs, "run")] == [
                author.epoch,
                heir.epoch,
                heir.epoch,
            ]


def _in_step(primary: Server, replica: Server) -> None:
    """Until the replica has everything: WAIT would answer for its own connection, which has written nothing."""
    said = primary.client().info("replication")["master_repl_offset"]
    while replica.client().info("replication")["slave_repl_offset"] < said:
        pass


async def test_a_slot_that_moves_takes_its_viewers_with_it(servers: Servers) -> None:
    """While it is written and followed: the notices come from the node that has it then."""
    with servers.cluster() as cluster:
        url = own(cluster.url())
        head = Keys(parse_url(url).prefix).of_log("run")[0]
        async with RedisStore(parse_url(url)) as store, RedisStore(parse_url(url)) as other:
            author = await begin(store)
            told = Told(other.logs, "run")
            await told.next()
            for target in _others(cluster, head):
                _move(cluster, slot_of(head), head, target)
                for _ in range(3):
                    await say(store, author, "data")
                batch = author.batch("data")
                await store.logs.append("run", batch)
                author.tail = batch.last
                while batch not in [notice.batch for notice in await told.next()]:
                    if not (await other.logs.read("run", batch.cursor)).batches:
                        batch = author.batch("data")
                        await store.logs.append("run", batch)
                        author.tail = batch.last
            await say(store, author, "complete")
            lines = await read_all(other.logs, "run")
            assert [cursor.seq for cursor, _ in lines] == list(range(1, len(lines) + 1))
            told.unwatch()


def _others(cluster: Cluster, key: str) -> list[Server]:
    return [node for node in cluster.nodes if node is not cluster.node_of(key)]


def _move(cluster: Cluster, slot: int, key: str, target: Server) -> None:
    """As ``redis-cli --cluster reshard`` does it (Redis Cluster specification, "Live reconfiguration")."""
    ids = {node.port: node.ask("CLUSTER", "MYID") for node in cluster.nodes}
    source = next(node for node in cluster.nodes if node is not target and node.ask("CLUSTER", "COUNTKEYSINSLOT", slot))
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for node in (target, source, *cluster.nodes):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])


async def test_a_plain_url_finds_out_that_it_is_a_cluster(cluster: Cluster) -> None:
    """And which node has what."""
    url = own(cluster.url()).replace("redis+cluster", "redis")
    async with RedisStore(parse_url(url)) as store:
        for number in range(20):
            await (await begin(store, f"run-{number}")).say("complete")
        assert len(await store.runs.list_runs()) == 20


async def test_a_node_that_is_gone_takes_down_its_own_slots_only(servers: Servers) -> None:
    with servers.cluster() as cluster:
        url = own(cluster.url())
        keys = Keys(parse_url(url).prefix)
        async with RedisStore(parse_url(url)) as store:
            authors = [await begin(store, f"run-{number}") for number in range(20)]
            gone = next(node for node in cluster.nodes[1:] if node is not cluster.node_of(keys.queue))
            lost = [author for author in authors if cluster.node_of(keys.of_log(author.log)[0]) is gone]
            gone.kill()
            assert 0 < len(lost) < 20
            for author in authors:
                if author in lost:
                    with pytest.raises(Unavailable):
                        await author.say("data")
                else:
                    await say(store, author, "data")


async def test_a_node_that_takes_a_slot_over_is_brought_the_functions(servers: Servers) -> None:
    """While the slot is on its way (ASK), and has never had any of ours."""
    with servers.cluster() as cluster:
        url = own(cluster.url())
        head = Keys(parse_url(url).prefix).of_log("run")[0]
        async with RedisStore(parse_url(url)) as store:
            author = await Author.start(store)
            source, (target, *_) = cluster.node_of(head), _others(cluster, head)
            slot = slot_of(head)
            target.ask("FUNCTION", "FLUSH")
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
            keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            await author.say("data")
            assert target.ask("FUNCTION", "LIST") != []


async def test_what_is_written_to_a_slot_on_its_way_is_confirmed_where_it_goes(servers: Servers) -> None:
    """By the replica of the node that takes it over."""
    with servers.cluster(replicas=True) as cluster:
        url = own(cluster.url(durability="replica"))
        head = Keys(parse_url(url).prefix).of_log("run")[0]
        async with RedisStore(parse_url(url)) as store:
            author = await begin(store)
            source, (target, *_) = cluster.node_of(head), _others(cluster, head)
            slot = slot_of(head)
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
            keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            before = _calls(target, "wait")
            await say(store, author, "data")
            assert _calls(target, "wait") > before
            assert len(await read_all(store.logs, "run")) == 2


async def test_a_cluster_that_stands_still_is_told_to_all_at_once(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has to learn who has what shares the attempt: nobody waits for another's."""
    with servers.cluster() as cluster:
        async with RedisStore(parse_url(own(cluster.url()))) as store:
            await store.runs.list_runs()
            monkeypatch.setattr(limits, "REDIS_SILENCE", 0.2)
            monkeypatch.setattr(limits, "CONNECT_TIMEOUT", 0.2)
        async with RedisStore(parse_url(own(cluster.url()))) as store:
            await asyncio.gather(*(store.runs.create(Meta(run=f"run-{number}", actor="actor")) for number in range(50)))
            for node in cluster.nodes:
                node.pause()
            async with asyncio.timeout(5.0):
                found = await asyncio.gather(
                    *(store.runs.get(f"run-{number}") for number in range(50)), return_exceptions=True
                )
            assert all(isinstance(each, Unavailable) for each in found)
            for node in cluster.nodes:
                node.resume()


async def test_a_replica_of_a_cluster_names_the_others_and_takes_over(servers: Servers) -> None:
    """It may be the one in the URL; and when its primary dies, writer and viewer find it by themselves."""
    with servers.cluster(replicas=True) as cluster:
        url = own(cluster.url())
        keys = Keys(parse_url(url).prefix)
        primary = cluster.node_of(keys.of_log("run")[0])
        replica = cluster.replicas[cluster.nodes.index(primary)]
        async with RedisStore(parse_url(url.replace(str(cluster.nodes[0].port), str(replica.port)))) as store:
            author = await Author.start(store)
            hub = Hub(store)

            async def follow() -> list[int]:
                return [cursor.seq async for page in hub.follow("run") for cursor, _ in page.lines()]

            following = spawn(follow(), "follow")
            await asyncio.to_thread(_in_step, primary, replica)
            primary.kill()
            for _ in range(5):
                await say(store, author, "data")
            await say(store, author, "complete")
            assert await asyncio.wait_for(following, 20) == list(range(1, 8))
            await hub.aclose()


async def test_what_is_not_confirmed_for_a_lost_connection_is_told_once(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    """To the caller: the shared WAIT that nobody waits for any more is no failure of its own."""
    with servers.server("valkey") as server, servers.server("valkey", config={"replicaof": _place(server)}) as replica:
        await asyncio.to_thread(_linked, replica)
        async with (
            proxy_before(own(server.url(durability="replica"))) as proxy,
            RedisStore(parse_url(proxy.url)) as store,
        ):
            author = await begin(store, "run")
            for _ in range(5):
                proxy.lose_reply_to(b"_append")
                batch = author.batch("data")
                with pytest.raises(Unavailable):
                    await store.logs.append("run", batch)
                await say(store, author, "data")
    gc.collect()
    assert "never retrieved" not in caplog.text


def _place(server: Server) -> str:
    return f"127.0.0.1 {server.port}"


def _linked(replica: Server) -> None:
    while replica.client().info("replication")["master_link_status"] != "up":
        pass

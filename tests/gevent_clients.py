"""Run as a process of its own, which it patches: blocking clients among greenlets, on the store and the server that its
arguments name. Ends with a line for each of the things that it has seen to work."""

from gevent import monkey

monkey.patch_all()

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any, cast

import gevent

import loom
from loom.blocking import SyncClient
from loom.native import signal

TIMEOUT = 20.0

app = loom.App()


@app.actor
async def count(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@app.actor
def words(n: int) -> Iterator[str]:
    for i in range(n):
        yield f"w{i} "


@app.actor
async def wait(ctx: loom.Context) -> AsyncIterator[str]:
    yield "waiting"
    yield (await ctx.receive("word")).data


def two_clients_at_once(url: str, client: SyncClient) -> None:
    with loom.connect_sync(url, app=app, worker=True, drain=0) as other:
        assert other.execute("count", 3) == [0, 1, 2]
        assert client.execute("count", 2) == [0, 1]
    assert client.execute("words", 2) == "w0 w1 "


def a_client_beside_asyncio(url: str, client: SyncClient) -> None:
    beside = gevent.spawn(lambda: asyncio.run(asyncio.sleep(0.2, "slept")))
    gevent.sleep(0)
    with loom.connect_sync(url) as other:
        assert other.run(client.start("count", 1).id).result(TIMEOUT) == [0]
    assert asyncio.run(asyncio.sleep(0, "beside")) == "beside" if beside.ready() else True
    assert beside.get(timeout=TIMEOUT) == "slept"
    assert asyncio.run(asyncio.sleep(0, "after")) == "after"


def greenlets_wait_side_by_side(url: str, client: SyncClient) -> None:
    runs = [client.start("wait") for _ in range(20)]
    reading = [gevent.spawn(lambda run=run: list(run.values())) for run in runs]
    gevent.sleep(0)
    for index, run in enumerate(runs):
        run.send("word", str(index))
    assert [reader.get(timeout=TIMEOUT) for reader in reading] == [["waiting", str(index)] for index in range(20)]


def a_timeout_interrupts_the_call(url: str, client: SyncClient) -> None:
    with client.stream("wait") as run, closing(cast(Any, run.values())) as values:
        assert next(values) == "waiting"
        try:
            with gevent.Timeout(0.05):
                next(values)
        except gevent.Timeout:
            pass
        else:
            raise AssertionError
    assert run.wait(TIMEOUT).state == "cancelled"


def a_publisher_and_its_reader(url: str, client: SyncClient) -> None:
    with client.publisher() as publisher:
        for index in range(3):
            publisher.publish(index)
    assert list(client.consumer.read(publisher.id))[-1].type == "complete"
    assert b"data: " in b"".join(loom.sse_events(client.run(publisher.id)))


def names_are_looked_up_by_threads(url: str, client: SyncClient) -> None:
    """A greenlet's answer would find the loop that it wakes running in its own thread, and not wake it."""

    async def look_up() -> Any:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, asyncio._get_running_loop) is None
        return await loop.getaddrinfo("localhost", 80)

    assert client.start("count", 1).behind[0].call(look_up())


def a_client_of_a_server(url: str, client: SyncClient) -> None:
    with loom.connect_sync(sys.argv[2]) as remote:
        assert list(remote.stream("count", 3).values()) == [0, 1, 2]


def a_signal_at_the_last_moment_is_noticed(url: str, client: SyncClient) -> None:
    late: Any = signal()
    watcher = late._watcher

    class Watcher:
        stop = watcher.stop
        send_ignoring_arg = watcher.send_ignoring_arg

        def start(self, *arguments: Any) -> None:
            late.set()
            watcher.start(*arguments)

    late._watcher = Watcher()
    late.wait()


CASES: list[Callable[[str, SyncClient], None]] = [
    two_clients_at_once,
    a_client_beside_asyncio,
    greenlets_wait_side_by_side,
    a_timeout_interrupts_the_call,
    a_publisher_and_its_reader,
    names_are_looked_up_by_threads,
    a_client_of_a_server,
    a_signal_at_the_last_moment_is_noticed,
]


def main(url: str) -> None:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(0.001)
            ticks += 1

    gevent.spawn(tick)
    with loom.connect_sync(url, app=app, worker=True, drain=0) as client:
        for case in CASES:
            with gevent.Timeout(TIMEOUT, AssertionError(f"{case.__name__} hangs")):
                case(url, client)
            print(case.__name__, flush=True)
    assert ticks > len(CASES), "other greenlets run while one waits"


if __name__ == "__main__":
    main(sys.argv[1])

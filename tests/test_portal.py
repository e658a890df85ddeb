"""The portal: blocking calls on a loop in a thread, interrupted, abandoned and closed in every way."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from loom.model.errors import HandleClosed, LogNotFound, UsageError
from loom.portal import Portal
from loom.tasks import spawn

TIMEOUT = 20.0


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()
    assert portal._loop.is_closed()


class Items:
    """An async iterator that notes what becomes of it."""

    def __init__(self) -> None:
        self.waiting = threading.Event()
        self.closed = threading.Event()

    async def stream(self, count: int, *, then_wait: bool = False) -> AsyncGenerator[int, None]:
        try:
            for n in range(count):
                yield n
            if then_wait:
                self.waiting.set()
                await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.closed.set()


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Begin `work` in another thread; what is given waits for it and returns its value, or the error it raised."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join() -> Any:
        thread.join(TIMEOUT)
        assert found, "it hangs"
        return found[0]

    return join


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, whatever the process that started the tests, or a test before, has made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupting(event: threading.Event) -> Callable[[], None]:
    """Interrupts the main thread, as Ctrl-C does, once `event` is set."""
    main = threading.get_ident()

    def interrupt() -> None:
        assert event.wait(TIMEOUT)
        signal.pthread_kill(main, signal.SIGINT)

    return interrupt


# --- calls -----------------------------------------------------------------------------------------------------------


async def value() -> int:
    await asyncio.sleep(0)
    return 7


async def failing() -> None:
    raise LogNotFound("by test")


def test_a_call_gives_its_value_or_its_error(portal: Portal) -> None:
    assert portal.call(value()) == 7
    with pytest.raises(LogNotFound):
        portal.call(failing())


def test_calls_of_all_threads_run_on_the_one_loop(portal: Portal) -> None:
    async def where() -> tuple[int, threading.Thread]:
        return id(asyncio.get_running_loop()), threading.current_thread()

    found = {join() for join in [in_thread(lambda: portal.call(where())) for _ in range(8)]}
    assert len(found) == 1


def test_a_call_that_cancels_itself_says_so(portal: Portal) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(CancelledError):
        portal.call(cancelled())


def test_an_interrupted_call_is_cancelled_and_has_ended(portal: Portal) -> None:
    waiting, cleaned = threading.Event(), threading.Event()

    async def patient() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned.set()

    join = in_thread(interrupting(waiting))
    with pytest.raises(KeyboardInterrupt):
        portal.call(patient())
    assert cleaned.is_set()
    join()
    assert portal.call(value()) == 7


def test_the_portal_s_own_thread_would_wait_for_itself(portal: Portal) -> None:
    async def inside() -> None:
        portal.call(value())

    with pytest.raises(UsageError):
        portal.call(inside())


FORKS = """
import os, sys, threading
import loom

with loom.connect_sync("sqlite:///" + sys.argv[1]) as client:
    with client.publisher("job") as pub:
        held, go_on = threading.Event(), threading.Event()

        def hold():
            with client._portal._gate:
                held.set()
                go_on.wait()

        holding = threading.Thread(target=hold)
        holding.start()
        held.wait()
        if not os.fork():
            try:
                pub.publish("of the child")
            except loom.UsageError as error:
                print(str(error).partition(":")[0], flush=True)
            client._portal.close()
            os._exit(0)
        go_on.set()
        os.wait()
        pub.publish("of the parent")
    print(client.run("job").result())
"""


def test_a_forked_process_would_wait_for_ever(tmp_path: Path) -> None:
    """It has no loop in a thread: calls say so, and closing does nothing, whatever was held when it was forked."""
    script = tmp_path / "forks.py"
    script.write_text(FORKS)
    command = [sys.executable, str(script), str(tmp_path / "runs.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["this client is of the process that this one was forked from", "of the parent"]


# --- iterating -------------------------------------------------------------------------------------------------------


def test_items_come_one_by_one_and_the_iterator_is_closed_at_the_end(portal: Portal) -> None:
    items = Items()
    assert list(portal.iterate(items.stream(3))) == [0, 1, 2]
    assert items.closed.is_set()


def test_an_error_of_the_iterator_is_the_caller_s(portal: Portal) -> None:
    async def stream() -> AsyncGenerator[int, None]:
        yield 1
        raise LogNotFound("by test")

    found = portal.iterate(stream())
    assert next(found) == 1
    with pytest.raises(LogNotFound):
        next(found)


def test_an_iteration_that_is_left_is_closed(portal: Portal) -> None:
    items = Items()
    with closing(cast(Any, portal.iterate(items.stream(3)))) as found:
        assert next(found) == 0
    assert items.closed.is_set()


def test_an_iteration_that_is_forgotten_is_closed(portal: Portal) -> None:
    items = Items()
    found = portal.iterate(items.stream(3))
    next(found)
    del found
    gc.collect()
    assert items.closed.wait(TIMEOUT)


def test_an_iteration_that_the_portal_s_own_thread_collects_is_closed(portal: Portal) -> None:
    """The garbage collector runs wherever it happens to; waiting there would wait for itself."""
    items = Items()
    holder = [portal.iterate(items.stream(3))]
    next(holder[0])

    async def collect() -> None:
        holder.clear()

    portal.call(collect())
    assert items.closed.wait(TIMEOUT)


def test_an_interrupted_iteration_is_closed(portal: Portal) -> None:
    items = Items()
    join = in_thread(interrupting(items.waiting))
    found = portal.iterate(items.stream(1, then_wait=True))
    assert next(found) == 0
    with pytest.raises(KeyboardInterrupt):
        next(found)
    assert items.closed.is_set()
    join()


class Forgotten:
    """A cycle that holds an iteration: nothing but the collector ends it."""

    def __init__(self, portal: Portal, items: Items) -> None:
        self.me = self
        self.iteration = portal.iterate(items.stream(2))
        next(self.iteration)


def test_the_collector_waits_for_nothing(portal: Portal) -> None:
    """It interrupts any thread, also one that holds the portal's lock, or that the loop is waiting for. What it finds
    at once, an iteration and the async iterator behind it, is closed once."""
    items, busy, go_on = Items(), threading.Event(), threading.Event()
    faults: list[dict[str, Any]] = []

    async def listen() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    async def block() -> None:
        busy.set()
        assert go_on.wait(TIMEOUT)

    def collect() -> None:
        with portal._gate:
            gc.collect()

    portal.call(listen())
    Forgotten(portal, items)
    blocked = in_thread(lambda: portal.call(block()))
    assert busy.wait(TIMEOUT)
    assert in_thread(collect)() is None
    assert not items.closed.is_set()
    go_on.set()
    blocked()
    assert items.closed.wait(TIMEOUT)
    portal.close()
    gc.collect()
    assert faults == []


def test_what_is_collected_while_the_portal_closes_is_closed(portal: Portal) -> None:
    items, busy, go_on = Items(), threading.Event(), threading.Event()

    async def block() -> None:
        busy.set()
        assert go_on.wait(TIMEOUT)

    Forgotten(portal, items)
    blocked = in_thread(lambda: portal.call(block()))
    assert busy.wait(TIMEOUT)
    portal.post(portal._stop.set)
    in_thread(gc.collect)()
    closing = in_thread(portal.close)
    go_on.set()
    closing()
    blocked()
    assert items.closed.is_set()


# --- closing ---------------------------------------------------------------------------------------------------------


def test_a_closed_portal_says_so(portal: Portal) -> None:
    portal.close()
    portal.close()
    with pytest.raises(HandleClosed):
        portal.call(value())


def test_closing_ends_what_other_threads_wait_for(portal: Portal) -> None:
    items, waiting = Items(), threading.Event()

    async def patient() -> None:
        waiting.set()
        await asyncio.Event().wait()

    calling = in_thread(lambda: portal.call(patient()))
    iterating = in_thread(lambda: list(portal.iterate(items.stream(1, then_wait=True))))
    assert waiting.wait(TIMEOUT)
    assert items.waiting.wait(TIMEOUT)
    portal.close()
    assert isinstance(calling(), CancelledError)
    assert isinstance(iterating(), CancelledError)
    assert items.closed.is_set()


def test_closing_while_many_threads_begin_calls_leaves_nobody_hanging() -> None:
    for _ in range(20):
        portal = Portal()
        joins = [in_thread(lambda portal=portal: portal.call(value())) for _ in range(8)]  # type: ignore[misc]
        portal.close()
        outcomes = [join() for join in joins]
        assert all(outcome == 7 or isinstance(outcome, (HandleClosed, CancelledError)) for outcome in outcomes)


def test_closing_ends_what_still_goes_on_there(portal: Portal) -> None:
    items = Items()
    tasks: list[asyncio.Task[None]] = []

    async def begin() -> None:
        async def work() -> None:
            async for _ in items.stream(1, then_wait=True):
                pass

        tasks.append(spawn(work(), "work"))

    portal.call(begin())
    assert items.waiting.wait(TIMEOUT)
    portal.close()
    assert tasks[0].cancelled()
    assert items.closed.is_set()


def test_an_iteration_outlives_its_portal_in_peace(portal: Portal) -> None:
    items = Items()
    found = portal.iterate(items.stream(3))
    next(found)
    portal.close()
    assert items.closed.is_set()
    with pytest.raises(HandleClosed):
        next(found)

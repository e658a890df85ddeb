"""Whatever an attempt meets, its run ends: what its author returns, what its store holds or raises, where it is broken.

What fails the same way each time ends the run at once, and is not tried again; all else counts as a lost worker, of
which a run survives `max_crashes`.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import apsw
import pydantic
import pytest

import loom
import loom.engine
from loom.engine.run.attempt import Ending
from loom.engine.run.worker import Worker
from loom.model import limits
from loom.model.chunk import Batch, Chunk, Progress, Result
from loom.model.errors import DEAD, Damaged, Fenced, LogNotFound, RunFailed
from loom.model.ports import LogStore, RunStore, WorkerRegistry, WorkQueue, message_producer
from loom.model.run import Meta, RunState, inbox_of
from loom.stores.memory import MemoryStore
from loom.stores.sqlite import SqliteStore
from loom.wire.json import make_batch
from tests.faults.store import FaultStore
from tests.virtual import Clock, VirtualLoop

from .kit import until
from .rig import Rig

VIRTUAL = pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": VirtualLoop})])


@pytest.fixture
def rig(virtual_time: Clock) -> Rig:
    return Rig(virtual_time)


# --- what has no JSON form -------------------------------------------------------------------------------------------


class Deep(BaseException):
    """Nothing that anybody expects."""


def _deeper() -> Any:
    return _deeper()


def raises(error: Callable[[], Any]) -> Any:
    """A value whose JSON form does that."""

    class Broken(pydantic.BaseModel):
        total: int = 1

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def mean(self) -> float:
            raise error()

    return Broken()


class Proxy:
    """Asked for anything, it raises, as one whose object is gone."""

    def __getattr__(self, name: str) -> Any:
        raise ReferenceError(name)


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


VALUES: dict[str, Any] = {
    "an arithmetic error": raises(ZeroDivisionError),
    "no memory": raises(MemoryError),
    "a lookup": raises(lambda: KeyError("x")),
    "a typed error": raises(lambda: Fenced("not the store's")),
    "an outage": raises(lambda: loom.Unavailable("not the store's")),
    "a recursion of its own": raises(_deeper),
    "an exit": raises(SystemExit),
    "a cancel": raises(asyncio.CancelledError),
    "what is no Exception": raises(Deep),
    "a proxy": Proxy(),
    "a key that is no text": {1j: 2},
    "no form at all": object(),
}


def producers(value: Any, begin: Callable[[], None]) -> dict[str, Callable[..., Any]]:
    """Every way to say `value`, or to return it, by name. Each calls `begin` first."""

    async def coroutine() -> Any:
        begin()
        return value

    def function() -> Any:
        begin()
        return value

    def thread_s_generator() -> Generator[Any, None, Any]:
        begin()
        yield "a"
        return value

    async def result() -> AsyncIterator[Any]:
        begin()
        yield Result(value)

    def result_in_a_thread() -> Iterator[Any]:
        begin()
        yield Result(value)

    async def data() -> AsyncIterator[Any]:
        begin()
        yield value

    def data_in_a_thread() -> Iterator[Any]:
        begin()
        yield value

    async def part_of_data() -> AsyncIterator[Any]:
        begin()
        yield {"list": [1, Pair(0, value)]}

    async def chunk() -> AsyncIterator[Any]:
        begin()
        yield Chunk("stdout", value)

    async def progress() -> AsyncIterator[Any]:
        begin()
        yield Progress(1, 2, value)

    async def emitted(ctx: loom.Context) -> None:
        begin()
        await ctx.emit(value)

    def emitted_in_a_thread(ctx: loom.Context) -> None:
        begin()
        ctx.emit_sync(value)

    ways = (
        coroutine, function, thread_s_generator, result, result_in_a_thread, data, data_in_a_thread, part_of_data,
        chunk, progress, emitted, emitted_in_a_thread,
    )  # fmt: skip
    return {way.__name__: way for way in ways}


WAYS = list(producers(None, lambda: None))


@VIRTUAL
@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_a_value_without_a_json_form_fails_the_run_at_once(rig: Rig, way: str, value: Any) -> None:
    begun: list[int] = []
    target = producers(value, lambda: begun.append(1))[way]
    rig.actor(target, retry=loom.Retry(attempts=3), max_crashes=3)
    await rig.start()
    assert await rig.go() is Ending.ENDED
    error = (await rig.log())[-1].error
    assert error is not None
    assert (error.code, begun) == ("invalid_output", [1])
    assert not error.details.get(DEAD), "it was tried once"


@VIRTUAL
@pytest.mark.anyio
async def test_what_has_no_json_form_is_named(rig: Rig) -> None:
    value = {"items": [1, Pair(0, raises(ZeroDivisionError))]}

    async def work() -> Any:
        return value

    rig.actor(work)
    await rig.start()
    await rig.go()
    error = (await rig.log())[-1].error
    assert error is not None
    assert error.details == {"type": "ZeroDivisionError", "path": "data.items[1].right.mean"}
    assert "Broken" in error.message
    assert "data.items[1].right.mean" in error.message
    assert "ZeroDivisionError" in error.message


class Unsayable(Exception):
    """Raises what is no Exception when its text, or what it tells of itself, is read."""

    def __str__(self) -> str:
        raise Deep


class Unknowable(RunFailed):
    @property
    def info(self) -> Any:
        raise asyncio.CancelledError


@VIRTUAL
@pytest.mark.anyio
@pytest.mark.parametrize(
    "error", [Unsayable, lambda: Unknowable("x"), lambda: RunFailed("x", details={"a": raises(Deep)})]
)
@pytest.mark.parametrize("form", ["coroutine", "function", "function in vain"])
async def test_an_exception_that_cannot_be_told_fails_the_run_at_once(
    rig: Rig, error: Callable[[], Exception], form: str
) -> None:
    begun: list[int] = []

    def function() -> None:
        begun.append(1)
        raise error()

    async def coroutine() -> None:
        function()

    retry = loom.Retry(attempts=2) if form == "function in vain" else None
    rig.actor(coroutine if form == "coroutine" else function, retry=retry)
    await rig.start()
    assert await rig.go() is Ending.ENDED
    assert (await rig.log())[-1].error is not None
    assert begun == [1] * (2 if retry else 1)


# --- inputs that a model's own code refuses --------------------------------------------------------------------------


@VIRTUAL
@pytest.mark.anyio
@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError, MemoryError, SystemExit, asyncio.CancelledError, Deep, lambda: Fenced("not the store's")],
)
async def test_an_input_whose_validators_raise_fails_the_run_at_once(rig: Rig, error: Callable[[], Any]) -> None:
    """Started by name from where the actor is not known, nobody has looked at it before."""
    begun: list[int] = []

    class Model(pydantic.BaseModel):
        size: int

        @pydantic.field_validator("size")
        @classmethod
        def check(cls, size: int) -> int:
            raise error()

    async def work(model: Model) -> None:
        begun.append(1)

    rig.actor(work, namespace={"Model": Model})
    await rig.start({"size": 1})
    assert await rig.go() is Ending.ENDED
    assert (await rig.log())[-1].error is not None
    assert begun == []


# --- what is stored and cannot be read -------------------------------------------------------------------------------


async def goes_on(ctx: loom.Context) -> AsyncIterator[int]:
    """Fails once, and then goes on as far as what it said can be read."""
    if ctx.attempt == 1:
        yield 1
        raise OSError("once")
    yield 2


async def told(ctx: loom.Context) -> AsyncIterator[Any]:
    """Says what it is told."""
    yield "ready"
    yield (await ctx.receive("word")).data


CONTINUE = loom.Retry(mode="continue", backoff=(0.0, 0.0))


@VIRTUAL
@pytest.mark.anyio
@pytest.mark.parametrize("line", [b"no json", b'{"type":1}', b'{"type":"word"', b"\xff"])
async def test_a_damaged_inbox_ends_the_run(rig: Rig, line: bytes) -> None:
    rig.actor(told)
    await rig.start()
    await rig.store.logs.send(inbox_of("run"), line, message_producer("x", "1"))
    assert await rig.go() is Ending.ENDED
    assert await rig.story() == [("error", "damaged")]


@VIRTUAL
@pytest.mark.anyio
async def test_an_inbox_damaged_while_the_run_goes_on_ends_it(rig: Rig) -> None:
    rig.actor(told)
    await rig.start()
    driving = await rig.drive()
    await rig.said("ready")
    await rig.store.logs.send(inbox_of("run"), b"no json", message_producer("x", "1"))
    assert await driving() is Ending.ENDED
    assert await rig.story() == [("start", 1, 0), "ready", ("error", "damaged")]


@VIRTUAL
@pytest.mark.anyio
@pytest.mark.parametrize("line", [b"no json", b'{"type":"start"'])
async def test_a_damaged_log_ends_the_run(rig: Rig, line: bytes) -> None:
    rig.actor(goes_on, retry=CONTINUE)
    await rig.start()
    fence = await rig.store.logs.fence("run", "lost")
    start = b'{"type":"start","data":{"attempt":1,"kept_through":0}}\n'
    await rig.store.logs.append("run", Batch(fence.epoch, 1, 2, start + line + b"\n"))
    assert await rig.go() is Ending.ENDED
    error = (await rig.store.runs.get("run")).error
    assert error is not None
    assert (error.code, error.details["seq"]) == ("damaged", 1)


DAMAGES = {
    "a line of the log": "UPDATE batch SET payload = x'7b0a' WHERE NOT log & 1",
    "the whole log": "UPDATE batch SET payload = x'00' WHERE NOT log & 1",
    "a message": "UPDATE batch SET payload = x'7b0a' WHERE log & 1",
    "what is known of its start": "UPDATE run SET meta = x'7b'",
}


@pytest.mark.anyio
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_what_is_damaged_in_a_file_ends_the_run(tmp_path: Path, damage: str) -> None:
    app = loom.App()
    begun: list[int] = []

    @app.actor(retry=CONTINUE)
    async def work(ctx: loom.Context) -> AsyncIterator[Any]:
        begun.append(1)
        yield 1

    path = tmp_path / "runs.db"
    async with SqliteStore(path) as store:
        await store.queue.put(Meta(run="run", actor="work", created=1.0))
        await store.runs.create(Meta(run="run", actor="work", created=1.0))
        await store.logs.send(inbox_of("run"), b'{"type":"word"}', message_producer("x", "1"))
        fence = await store.logs.fence("run", "lost")
        await store.logs.append("run", make_batch(fence.epoch, 1, [Chunk("start", {"attempt": 1}), Chunk("data", 1)]))
        with contextlib.closing(apsw.Connection(str(path))) as connection:
            connection.execute(damage)
        async with Worker(store, app.registry, lease=limits.LEAST_LEASE, drain=0):
            await until(lambda: _ended(path))
        assert begun == []
        assert await store.queue.claim(["default"], "another", lease=1.0, wait=0) is None


def _ended(path: Path) -> bool:
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        return bool(connection.execute("SELECT 1 FROM run WHERE state = 'failed'").fetchall())


# --- attempts are counted, whatever is forgotten ---------------------------------------------------------------------


@VIRTUAL
@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["restart", "continue"])
async def test_trimming_forgets_no_failure(rig: Rig, mode: Any) -> None:
    """Also over workers that are lost in between: their attempts do not count, the failed ones do."""
    begun: list[int] = []

    async def work(ctx: loom.Context) -> AsyncIterator[int]:
        begun.append(ctx.attempt)
        for n in range(200):
            yield n
            await asyncio.sleep(0.001)
        if ctx.attempt == 2:
            await asyncio.sleep(1000)
        raise OSError("again")

    retry = loom.Retry(attempts=3, mode=mode, backoff=(0.0, 0.0))
    rig.actor(work, retry=retry, keep=loom.Keep(chunks=8))
    await rig.start()
    driving = await rig.drive()
    await asyncio.sleep(500)
    assert (await rig.store.runs.get("run")).first > 200
    await driving.lose()
    assert await rig.go("another") is Ending.ENDED
    head = await rig.store.runs.get("run")
    assert (head.state, begun) == ("dead", [1, 2, 3, 4])


# --- what the store raises, at each call of an attempt ---------------------------------------------------------------

MAX_CRASHES = 2
LONG = 10_000.0
"""Virtual seconds within which any run has ended."""

TWICE = loom.Retry(attempts=2, mode="continue", backoff=(0.0, 0.0))

plays = loom.App()
begun_in_play: list[int] = []


@plays.actor(retry=TWICE, max_crashes=MAX_CRASHES, keep=loom.Keep(chunks=8), ahead=100, timeout=600, idle_timeout=60)
async def everything(ctx: loom.Context) -> AsyncIterator[Any]:
    """Fails once, is told something, and says more than is kept."""
    begun_in_play.append(ctx.attempt)
    for n in range(20):
        yield n
        await asyncio.sleep(0.1)
    if ctx.attempt == 1:
        raise OSError("once")
    yield (await ctx.receive("word")).data


def metas() -> list[Meta]:
    """A run that needs every call, and one of an actor that nobody knows."""
    now = 1_700_000_000.0 + asyncio.get_running_loop().time()
    return [
        Meta(run="known", actor="everything", created=now, owner_lease=30.0, ahead=100, timeout=600, idle_timeout=60),
        Meta(run="unknown", actor="stranger", created=now),
    ]


async def played(store: FaultStore) -> dict[str, RunState]:
    """How the runs ended, each within `LONG`."""
    begun_in_play.clear()
    for meta in metas():
        await store.store.queue.put(meta)
        await store.store.runs.create(meta)
    await store.store.logs.send(inbox_of("known"), b'{"type":"word","data":"x"}', message_producer("x", "1"))
    await store.store.logs.commit_position("known", "reader", 0)
    states: dict[str, RunState] = {}
    async with Worker(store, plays.registry, lease=6.0, drain=0), asyncio.timeout(LONG):
        while len(states) < 2:
            for run in ("known", "unknown"):
                head = await store.store.runs.get(run)
                if head.ended:
                    states[run] = head.state
                else:
                    await store.store.runs.heartbeat(run)
            await asyncio.sleep(1)
    return states


def play(clock: Clock, arrange: Callable[[FaultStore], None]) -> FaultStore:
    """Play it over a store that `arrange` makes fail; every run has ended, and nothing was begun too often."""
    clock.forget()

    async def main() -> FaultStore:
        store = FaultStore(MemoryStore(clock=clock, wall=lambda: 1_700_000_000.0 + clock()))
        arrange(store)
        await played(store)
        return store

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        store = runner.run(main())
    assert len(begun_in_play) <= TWICE.attempts + MAX_CRASHES
    return store


ONCE: list[Callable[[], Exception]] = [
    lambda: RuntimeError("a fault of the store's"),
    lambda: Damaged("by the test"),
    lambda: LogNotFound("by the test"),
    lambda: Fenced("by the test"),
]
FOR_EVER = ONCE[:2]
NEEDED = {"claim", "fence", "append"}
"""Without these no run can end."""


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("error", ONCE, ids=lambda error: type(error()).__name__)
def test_whatever_a_call_raises_once_the_runs_end(virtual_time: Clock, error: Callable[[], Exception]) -> None:
    calls = play(virtual_time, lambda store: None).calls
    for name, count in calls.items():
        for skip in {0, min(count, 2) - 1, count - 1}:
            with noting(f"{name}, behind {skip}"):
                play(virtual_time, lambda store: store.refuse(name, error(), skip=skip))  # noqa: B023 - called here
        with noting(f"{name}, its reply"):
            play(virtual_time, lambda store: store.lose_reply(name, error()))  # noqa: B023 - called here


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("error", FOR_EVER, ids=lambda error: type(error()).__name__)
def test_whatever_a_call_raises_for_ever_the_runs_end(virtual_time: Clock, error: Callable[[], Exception]) -> None:
    for name in play(virtual_time, lambda store: None).calls.keys() - NEEDED:
        with noting(name):
            play(virtual_time, lambda store: store.refuse(name, error(), times=10**9))  # noqa: B023 - called here


@pytest.fixture
def silence() -> Iterator[None]:
    """Hundreds of faults, each with its traceback."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@contextlib.contextmanager
def noting(where: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note(f"it failed at {where}")
        raise


ATTEMPTING = ("attempt", "ending", "inbox", "owner", "readers", "runner", "strangers", "trim", "worker", "writer")
ELSEWHERE = {"append_nowait", "commit_position", "put"}
"""Not given by a `FaultStore`; a reader's; only of two starts of one id at once, and a sweep puts it then."""


def test_no_call_of_an_attempt_is_left_out(virtual_time: Clock) -> None:
    made = play(virtual_time, lambda store: None).calls.keys()
    ports = {
        name
        for port in (LogStore, RunStore, WorkQueue, WorkerRegistry)
        for name in vars(port)
        if not name.startswith("_")
    }
    asked = {
        node.attr
        for module in ATTEMPTING
        for node in ast.walk(ast.parse((Path(loom.engine.__file__).parent / "run" / f"{module}.py").read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Attribute, ast.Name))
        if ast.unparse(node.value).rpartition(".")[2].lstrip("_") in ("logs", "runs", "queue", "workers")
    }
    assert {"fence", "append", "read"} <= asked
    assert asked & ports <= made | ELSEWHERE | {"watch", "renew_all"}

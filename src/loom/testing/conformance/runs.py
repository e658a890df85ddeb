"""Runs: a record and two logs; G3, lists, inboxes, the owner's heartbeat."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from loom.model import limits
from loom.model.chunk import CANCEL, Chunk
from loom.model.cursor import Cursor
from loom.model.errors import (
    Conflict,
    CursorExpired,
    ErrorInfo,
    Fenced,
    LimitExceeded,
    LogEnded,
    LogNotFound,
    LoomError,
    UsageError,
)
from loom.model.grammar import State, advance
from loom.model.ports import INBOX, OUTBOX, Commit, LogSpec, LogStore, RunStore, message_producer
from loom.model.run import NO_INPUT, Meta, RunFilter, RunState, inbox_of
from loom.tasks import spawn
from loom.testing.author import Author, read_all
from loom.wire.json import encode, make_batch, type_of

from .kit import CANCELLED, WAIT, Suite, Told, failed, meta, outcome_of, turns

Begin = Callable[..., Coroutine[Any, Any, Author]]


async def listed(runs: RunStore, *, limit: int = 100, before: str | None = None, **filters: Any) -> list[str]:
    """The names in the list."""
    return [head.meta.run for head in await runs.list_runs(RunFilter(**filters), limit=limit, before=before)]


def _matching(metas: Sequence[Meta], filters: dict[str, Any]) -> list[str]:
    """The runs that a list has to show, of which every fifth is running."""
    return [
        each.run
        for each in reversed(metas)
        if filters.get("state") in (None, "running" if int(each.run[-2:]) % 5 == 0 else "queued")
        and filters.get("actor") in (None, each.actor)
        and (filters.get("labels") or {}).items() <= each.labels.items()
        and filters.get("parent") in (None, each.parent)
        and filters.get("root") in (None, each.root)
    ]


class RunConformance(Suite):
    """Guarantees of runs. A place that has no queue gives the fixtures `runs` and `logs`."""

    @pytest.fixture
    def begin(self, runs: RunStore, logs: LogStore) -> Begin:
        """Creates a run and says `start`."""

        async def begin(run: str = "run", **more: Any) -> Author:
            await runs.create(meta(run, **more))
            author = await Author.take(logs, run)
            await author.say("start")
            return author

        return begin

    async def test_create_gives_a_queued_head(self, runs: RunStore) -> None:
        """Of a new run nothing is known but how it was started; that is kept whole."""
        started = meta(
            input=msgspec.Raw(b'{"a":[1,2]}'),
            queue="q",
            key="k",
            owner_lease=5.0,
            timeout=1.5,
            idle_timeout=2.5,
            ahead=3,
        )
        head = await runs.create(started)
        assert head.meta == started
        assert head == await runs.get("run")
        assert (head.state, head.attempt, head.tail, head.first, head.ended) == ("queued", 0, 0, 1, False)
        assert (head.earliest, head.latest, head.error, head.result) == (None, None, None, None)

    async def test_create_is_idempotent(self, runs: RunStore, logs: LogStore, begin: Begin) -> None:
        """Creating again changes nothing, also with another meta: the head comes back as it is."""
        author = await begin()
        await author.say("data")
        before = await runs.get("run")
        assert await runs.create(meta(actor="another")) == before
        assert await runs.create(before.meta) == before
        assert len(await read_all(logs, "run")) == 2

    async def test_concurrent_creates_make_one_run(self, runs: RunStore) -> None:
        """Whoever creates a run, all see the same one."""
        heads = await asyncio.gather(*(runs.create(meta(actor=f"actor-{number}")) for number in range(10)))
        assert len({head.meta.actor for head in heads}) == 1
        assert len(await runs.list_runs()) == 1

    async def test_what_there_is_not_is_not_found(self, runs: RunStore, logs: LogStore) -> None:
        """Every call about a run that does not exist raises `LogNotFound`."""
        batch = make_batch(1, 1, [Chunk("start")])
        for call in (
            runs.get("run"),
            logs.fence("run", "token"),
            logs.append("run", batch),
            runs.cancel_unstarted("run", CANCELLED),
            logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", "1")),
            logs.read("run"),
            logs.read(inbox_of("run")),
            logs.read("run", wait=WAIT),
            logs.trim("run", 1),
            runs.heartbeat("run"),
            runs.list_runs(before="run"),
        ):
            with pytest.raises(LogNotFound):
                await call

    async def test_the_head_tells_how_a_run_ended(self, runs: RunStore, begin: Begin) -> None:
        """State and error come with the end, the result from the last chunk."""
        endings: list[tuple[Chunk[Any], RunState]] = [
            (Chunk("complete", {"answer": 42}), "completed"),
            (Chunk("complete"), "completed"),
            (failed("run_failed"), "failed"),
            (failed("of the producer's own"), "failed"),
            (failed("cancelled"), "cancelled"),
            (failed("run_lost"), "lost"),
        ]
        for number, (chunk, state) in enumerate(endings):
            author = await begin(f"run-{number}")
            assert (await runs.get(author.log)).state == "running"
            await author.say("data", chunk)
            head = await runs.get(author.log)
            assert (head.ended, head.state, head.error, head.tail) == (True, state, chunk.error, 3)
            assert head.started is not None
            assert head.ended_at is not None
            if chunk.type == "complete":
                assert head.result is not None
                assert msgspec.json.decode(head.result) == chunk.data

    async def test_a_light_head_leaves_out_input_and_result(self, runs: RunStore, begin: Begin) -> None:
        """Without `full` a head is the same but for input and result, from the run's start to its end."""
        input, result = msgspec.Raw(b'{"a":1}'), "a result"
        await runs.create(meta(input=input, key="k", timeout=1.5))
        author = await begin()
        for chunk in (Chunk("data", "a chunk"), Chunk("complete", result)):
            await author.say(chunk)
            head, light = await runs.get("run"), await runs.get("run", full=False)
            assert light == replace(head, meta=replace(head.meta, input=NO_INPUT), result=None)
        assert (bytes(head.meta.input), head.result) == (bytes(input), msgspec.Raw(encode(result)))
        with pytest.raises(LogNotFound):
            await runs.get("another", full=False)

    async def test_list_runs_lists_the_newest_first(self, runs: RunStore, begin: Begin) -> None:
        """Pages of heads, newest first, by `before`, each run once; without inputs and results."""
        names = [f"run-{number}" for number in range(7)]
        for name in names:
            started = meta(name, input=msgspec.Raw(b'{"a":1}'), key="k", timeout=1.5)
            assert (await runs.create(started)).meta == started
            await (await begin(name)).say(Chunk("complete", "a result"))
        listed: list[str] = []
        before = None
        while page := await runs.list_runs(limit=3, before=before):
            assert len(page) <= 3
            assert all((bytes(head.meta.input), head.result) == (b"null", None) for head in page)
            assert all((head.meta.key, head.meta.timeout) == ("k", 1.5) for head in page)
            listed += [head.meta.run for head in page]
            before = listed[-1]
        assert listed == names[::-1]

    async def test_list_runs_filters(self, runs: RunStore, logs: LogStore) -> None:
        """By state and by actor, before the limit counts."""
        for number in range(6):
            await runs.create(meta(f"run-{number}", f"actor-{number % 2}"))
        for number in range(3):
            author = await Author.take(logs, f"run-{number}")
            await author.say("start")
            if number:
                await author.say("complete" if number == 1 else failed("cancelled"))
        states: dict[RunState, list[str]] = {
            "running": ["run-0"],
            "completed": ["run-1"],
            "cancelled": ["run-2"],
            "failed": [],
            "queued": ["run-5", "run-4", "run-3"],
        }
        for state, names in states.items():
            assert await listed(runs, state=state) == names
        assert await listed(runs, actor="actor-0", limit=2) == ["run-4", "run-2"]
        assert await listed(runs, actor="actor-1", state="queued") == ["run-5", "run-3"]
        assert await listed(runs, actor="none") == []

    async def test_inbox_keeps_each_message_once(self, runs: RunStore, logs: LogStore) -> None:
        """By sender and id: sent again it is success, with the same cursor; ids of different senders are apart."""
        await runs.create(meta())
        sent = [("a", "1"), ("a", "2"), ("b", "1"), ("a", "1"), ("b", "1"), ("a", "2")]
        cursors = [
            await logs.send(
                inbox_of("run"), encode({"type": "x", "data": f"{sender}{id}"}), message_producer(sender, id)
            )
            for sender, id in sent
        ]
        assert cursors[3:] == [cursors[0], cursors[2], cursors[1]]
        lines = await read_all(logs, inbox_of("run"), limit=2)
        assert [msgspec.json.decode(line)["data"] for _, line in lines] == ["a1", "a2", "b1"]
        assert [cursor for cursor, _ in lines] == cursors[:3]
        assert [cursor.seq for cursor, _ in lines] == [1, 2, 3]

    async def test_inbox_takes_many_senders_at_once(self, runs: RunStore, logs: LogStore) -> None:
        """Each message gets a place of its own; a sender's own order stands."""
        await runs.create(meta())

        async def sender(name: str) -> None:
            for number in range(10):
                for _ in range(2):
                    await logs.send(inbox_of("run"), encode([name, number]), message_producer(name, str(number)))

        await asyncio.gather(*(sender(f"s{number}") for number in range(10)))
        told = [msgspec.json.decode(line) for _, line in await read_all(logs, inbox_of("run"), limit=7)]
        assert len(told) == 100
        for number in range(10):
            assert [each for name, each in told if name == f"s{number}"] == list(range(10))

    async def test_inbox_is_read_from_the_start_by_each_attempt(self, runs: RunStore, logs: LogStore) -> None:
        """What was sent before an attempt, or before any, is there for it; fences do not touch it."""
        await runs.create(meta())
        await logs.send(inbox_of("run"), b'{"type":"cancel"}', message_producer("s", "1"))
        await Author.take(logs, "run", "token-1")
        await Author.take(logs, "run", "token-2")
        lines = await read_all(logs, inbox_of("run"))
        assert [line for _, line in lines] == [b'{"type":"cancel"}']
        cursor = await logs.send(inbox_of("run"), b'{"type":"more"}', message_producer("s", "2"))
        assert [cursor for cursor, _ in await read_all(logs, inbox_of("run"), lines[0][0])] == [cursor]

    async def test_inbox_wakes_its_reader(self, runs: RunStore, logs: LogStore) -> None:
        """A run hears at once of what it is told."""
        await runs.create(meta())
        reading = spawn(logs.read(inbox_of("run"), wait=WAIT), "read")
        await turns(5)
        await logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", "1"))
        assert len(await reading) == 1

    async def test_inbox_is_closed_by_the_end(self, logs: LogStore, begin: Begin) -> None:
        """Then sending is refused, and what is there says so; a message that is already there stays sent."""
        author = await begin()
        first = await logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", "1"))
        await author.say("complete")
        with pytest.raises(LogEnded):
            await logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", "2"))
        assert await logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", "1")) == first
        page = await logs.read(inbox_of("run"))
        assert (len(page), page.caught_up, page.ended) == (1, True, True)

    async def test_inbox_is_bounded_in_bytes(self, runs: RunStore, logs: LogStore) -> None:
        """Together, line ends included, to the byte; what is there stays sent, and the cancel finds room."""
        await runs.create(meta())
        large = b'"%b"' % (b"x" * (limits.MESSAGE_BYTES - 3))
        most = limits.INBOX_BYTES // (len(large) + 1)
        for number in range(most - 1):
            await logs.send(inbox_of("run"), large, message_producer("s", str(number)))
        await logs.send(inbox_of("run"), large.replace(b"xx", b"", 1), message_producer("s", "two bytes less"))
        with pytest.raises(LimitExceeded) as caught:
            await logs.send(inbox_of("run"), b"12", message_producer("s", "does not fit"))
        assert not caught.value.retryable
        await logs.send(inbox_of("run"), b"1", message_producer("s", "fits"))
        with pytest.raises(LimitExceeded):
            await logs.send(inbox_of("run"), b"1", message_producer("s", "one more"))
        assert (await logs.send(inbox_of("run"), large, message_producer("s", "0"))).seq == 1
        await logs.send(inbox_of("run"), b"1", message_producer(CANCEL, CANCEL), urgent=True)
        assert len(await read_all(logs, inbox_of("run"))) == most + 2

    async def test_inbox_is_bounded(self, runs: RunStore, logs: LogStore) -> None:
        """In messages; nothing is changed by one that is refused."""
        await runs.create(meta())
        for start in range(0, limits.INBOX_MESSAGES, 500):
            await asyncio.gather(
                *(
                    logs.send(inbox_of("run"), b"1", message_producer("s", str(number)))
                    for number in range(start, start + 500)
                )
            )
        with pytest.raises(LimitExceeded):
            await logs.send(inbox_of("run"), b"1", message_producer("s", "one more"))
        assert (await logs.send(inbox_of("run"), b"1", message_producer("s", "0"))).seq <= 500
        assert len(await read_all(logs, inbox_of("run"))) == limits.INBOX_MESSAGES
        await logs.send(inbox_of("run"), b"1", message_producer(CANCEL, CANCEL), urgent=True)
        assert len(await read_all(logs, inbox_of("run"))) == limits.INBOX_MESSAGES + 1

    async def test_heartbeat_counts_the_owners_heartbeat(self, runs: RunStore, begin: Begin) -> None:
        """Up, and not after the end."""
        author = await begin()
        beats = [(await runs.get("run")).beat]
        assert (await runs.get("run")).heard is None
        for _ in range(3):
            await runs.heartbeat("run")
            beats.append((await runs.get("run")).beat)
        assert beats == sorted(set(beats))
        heard = (await runs.get("run")).heard
        assert heard is not None
        await runs.heartbeat("run")
        assert heard <= ((await runs.get("run")).heard or 0) < heard + WAIT
        beats.append((await runs.get("run")).beat)
        await author.say("complete")
        await runs.heartbeat("run")
        assert (await runs.get("run")).beat == beats[-1]

    @pytest.mark.parametrize("count", range(6))
    async def test_g3_every_prefix_is_grammatical(self, runs: RunStore, logs: LogStore, count: int) -> None:
        """Whoever races for a run (two workers, somebody who cancels it before it began), its log is one life."""
        for number in range(8):
            run = f"run-{number}"
            await runs.create(meta(run))
            await asyncio.gather(
                self._live(logs, run, "a", number % 3),
                self._live(logs, run, "b", count),
                self._cancel(runs, run, number % 4),
            )
            state = State.NEW
            for _, line in await read_all(logs, run):
                state = advance(state, type_of(line), ours=False)
            assert (state is State.ENDED) == (await runs.get(run)).ended

    @staticmethod
    async def _live(logs: LogStore, run: str, token: str, count: int) -> None:
        await turns(count)
        fence = await outcome_of(logs.fence(run, token))
        if isinstance(fence, LoomError) or fence.ended:
            return
        author = Author(logs, run, fence)
        for said in (["start"], ["data"], ["data", "complete"]):
            if isinstance(await outcome_of(author.say(*said)), LoomError):
                return

    @staticmethod
    async def _cancel(runs: RunStore, run: str, count: int) -> None:
        await turns(count)
        await runs.cancel_unstarted(run, CANCELLED)

    async def test_g3_cancel_unstarted_ends_a_run_that_no_attempt_was_made_on(
        self, runs: RunStore, logs: LogStore
    ) -> None:
        """With this one chunk, once, however often it is called; no attempt is counted."""
        await runs.create(meta())
        assert [await runs.cancel_unstarted("run", CANCELLED) for _ in range(3)] == [True] * 3
        head = await runs.get("run")
        assert (head.ended, head.state, head.attempt, head.tail) == (True, "cancelled", 0, 1)
        assert head.error == ErrorInfo("cancelled", "by test")
        assert [line for _, line in await read_all(logs, "run")] == [CANCELLED]
        fence = await logs.fence("run", "token")
        assert (fence.tail, fence.ended) == (1, True)

    async def test_g3_cancel_unstarted_leaves_a_started_run_alone(self, runs: RunStore, logs: LogStore) -> None:
        """A fence is an attempt, also before its first chunk; so is one that has ended."""
        await runs.create(meta())
        author = await Author.take(logs, "run")
        assert not await runs.cancel_unstarted("run", CANCELLED)
        await author.say("start", "complete")
        assert not await runs.cancel_unstarted("run", CANCELLED)
        assert (await runs.get("run")).state == "completed"

    async def test_g3_cancel_unstarted_and_fence_exclude_each_other(self, runs: RunStore, logs: LogStore) -> None:
        """Called at once, either the run is ended or there is a writer, never both."""
        for number in range(20):
            run = f"run-{number}"
            await runs.create(meta(run))
            calls: list[Any] = [runs.cancel_unstarted(run, CANCELLED), logs.fence(run, "token")]
            outcomes = await asyncio.gather(*(calls if number % 2 else calls[::-1]))
            ended, fence = outcomes if number % 2 else outcomes[::-1]
            assert ended == fence.ended
            assert len(await read_all(logs, run)) == fence.tail == int(ended)
            if not ended:
                await Author(logs, run, fence).say("start")

    async def test_g7_a_reader_of_a_run_that_never_began_wakes(self, runs: RunStore, logs: LogStore) -> None:
        """On its first chunk, and on `cancel_unstarted`."""
        await runs.create(meta("run-1"))
        await runs.create(meta("run-2"))
        reading = [spawn(logs.read(run, wait=WAIT), run) for run in ("run-1", "run-2")]
        await turns(5)
        await (await Author.take(logs, "run-1")).say("start")
        await runs.cancel_unstarted("run-2", CANCELLED)
        first, second = await asyncio.gather(*reading)
        assert (len(first), first.ended) == (1, False)
        assert (len(second), second.ended) == (1, True)

    async def test_g7_a_watcher_is_told_of_messages_and_of_the_end(self, logs: LogStore, begin: Begin) -> None:
        """By the inbox's watch."""
        author = await begin()
        told = Told(logs, inbox_of("run"))
        await logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", "1"))
        await told.next()
        await author.say("complete")
        await told.next()
        told.unwatch()

    async def test_g6_what_was_dropped_is_gone(self, runs: RunStore, logs: LogStore, begin: Begin) -> None:
        """Record and logs; dropping again does nothing."""
        author = await begin()
        for _ in range(2):
            await runs.drop("run")
            for call in (runs.get("run"), logs.read("run"), logs.read(inbox_of("run")), author.say("data")):
                with pytest.raises(LogNotFound):
                    await call
        assert await runs.list_runs() == []

    async def test_g6_cursors_of_a_dropped_run_are_expired_in_its_successor(
        self, runs: RunStore, logs: LogStore, begin: Begin
    ) -> None:
        """A run of the same id is another history: its readers are told, whatever they had read."""
        old = await begin()
        await old.say("data", "data")
        told = await logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", "1"))
        await runs.drop("run")
        await runs.create(meta())
        assert await read_all(logs, "run") == await read_all(logs, inbox_of("run")) == []
        await self._refused(logs, old, told)
        with pytest.raises(Fenced):
            await old.say("data")
        await (await Author.take(logs, "run", "token")).say("start", "data", "data")
        await logs.send(inbox_of("run"), b'{"type":"x"}', message_producer("s", "1"))
        await self._refused(logs, old, told)
        assert len(await read_all(logs, inbox_of("run"))) == 1

    @staticmethod
    async def _refused(logs: LogStore, old: Author, told: Cursor) -> None:
        for seq in (1, 2, 3):
            with pytest.raises(CursorExpired):
                await logs.read("run", Cursor(old.epoch, seq))
        with pytest.raises(CursorExpired):
            await logs.read(inbox_of("run"), told)

    async def test_g4_an_ended_run_stays_as_it_is(self, runs: RunStore, begin: Begin) -> None:
        """Whatever is called."""
        author = await begin()
        await author.say("data", "complete")
        head = await runs.get("run")
        assert not await runs.cancel_unstarted("run", CANCELLED)
        await runs.heartbeat("run")
        await runs.create(meta())
        assert await runs.get("run") == head

    @pytest.mark.parametrize("ending", ["complete", "error"])
    async def test_g7_the_inboxs_reader_wakes_on_the_end(self, logs: LogStore, begin: Begin, ending: str) -> None:
        """An inbox ends with its outbox."""
        author = await begin()
        listening = spawn(logs.read(inbox_of("run"), wait=WAIT), "listen")
        await turns(5)
        await author.say(ending)
        page = await listening
        assert (page.batches, page.ended) == ((), True)
        assert (await logs.info(inbox_of("run"))).ended

    async def test_g7_dropping_wakes_the_inboxs_reader(self, runs: RunStore, logs: LogStore, begin: Begin) -> None:
        """With `LogNotFound`."""
        await begin()
        listening = spawn(outcome_of(logs.read(inbox_of("run"), wait=WAIT)), "listen")
        await turns(5)
        await runs.drop("run")
        assert isinstance(await listening, LogNotFound)

    async def test_the_end_and_its_commit_are_one(self, runs: RunStore, logs: LogStore, begin: Begin) -> None:
        """The record holds the state and error that the writer gave, whatever the last chunk is; a batch that is
        refused commits nothing; repeated, the batch changes nothing."""
        author = await begin()
        error = ErrorInfo("run_failed", "by the writer", details={"tries": 3})
        commit = Commit(state="dead", error=error)
        batch = author.batch("data")
        for refused, why in (
            (make_batch(author.epoch + 1, 2, [Chunk("data")]), Fenced),
            (make_batch(author.epoch, 3, [Chunk("data")]), Conflict),
        ):
            with pytest.raises(why):
                await logs.append("run", refused, commit)
            head = await runs.get("run")
            assert (head.state, head.error, head.ended, head.tail) == ("running", None, False, 1)
            assert not (await logs.info(inbox_of("run"))).ended
        for _ in range(2):
            assert await logs.append("run", batch, commit) == batch.cursor
            head = await runs.get("run", full=False)
            assert (head.state, head.error, head.ended, head.tail) == ("dead", error, True, 2)
        assert await listed(runs, state="dead") == ["run"]
        assert await listed(runs, state="running") == []

    async def test_a_run_begins_with_its_first_fence(self, runs: RunStore, logs: LogStore) -> None:
        """Until then it is queued."""
        await runs.create(meta())
        await logs.send(inbox_of("run"), b"1", message_producer("s", "1"))
        assert (await runs.get("run")).state == "queued"
        await logs.fence("run", "token")
        assert (await runs.get("run")).state == "running"

    async def test_a_run_is_two_logs(self, runs: RunStore, logs: LogStore) -> None:
        """With the specs of every run; nothing but the run creates or drops them."""
        await logs.create("taken", LogSpec())
        await logs.create("other/in", LogSpec(policy="many"))
        for run in ("taken", "other"):
            with pytest.raises(Conflict):
                await runs.create(meta(run))
        assert await runs.list_runs() == []
        await runs.create(meta())
        assert (await logs.info("run")).spec == OUTBOX
        assert (await logs.info(inbox_of("run"))).spec == INBOX
        for log, spec in (("run", OUTBOX), (inbox_of("run"), INBOX)):
            with pytest.raises(Conflict):
                await logs.create(log, spec)
            with pytest.raises(UsageError):
                await logs.drop(log)
        with pytest.raises(UsageError):
            await logs.fence(inbox_of("run"), "token")
        with pytest.raises(UsageError):
            await logs.send("run", b"1", message_producer("s", "1"))
        await runs.drop("run")
        await logs.drop("taken")
        await logs.drop("other/in")
        assert (await logs.create("run", LogSpec(policy="many"))).tail == 0
        assert (await runs.create(meta("taken"))).tail == (await runs.create(meta("other"))).tail == 0

    async def test_list_runs_filters_by_labels_and_kin(self, runs: RunStore, logs: LogStore) -> None:
        """Every filter, alone and with each other, before the limit counts, newest first, page by page."""
        metas = [
            meta(
                f"run-{number:02}",
                f"actor-{number % 2}",
                labels={"user": str(number % 3), **({"team": "red"} if number % 2 else {})},
                parent=f"run-{number // 4:02}" if number else None,
                root="run-00" if number else None,
            )
            for number in range(24)
        ]
        for each in metas:
            assert (await runs.create(each)).meta == each
        for number in range(0, 24, 5):
            await logs.fence(f"run-{number:02}", "token")
        choices: dict[str, list[Any]] = {
            "state": [None, "running", "queued"],
            "actor": [None, "actor-1"],
            "labels": [{}, {"user": "1"}, {"user": "2", "team": "red"}, {"user": "none"}, {"none": "1"}],
            "parent": [None, "run-02", "none"],
            "root": [None, "run-00", "run-01"],
        }
        for values in itertools.product(*choices.values()):
            filters = dict(zip(choices, values, strict=True))
            found = await runs.list_runs(RunFilter(**filters))
            assert [head.meta.run for head in found] == _matching(metas, filters), filters
            assert all(head.meta == metas[int(head.meta.run[-2:])] for head in found)
        filters = {"labels": {"team": "red"}, "root": "run-00"}
        found_by_page: list[str] = []
        while page := await listed(runs, limit=5, before=found_by_page[-1] if found_by_page else None, **filters):
            found_by_page += page
        assert found_by_page == _matching(metas, filters)

    async def test_list_runs_follows_what_changes(self, runs: RunStore, logs: LogStore, begin: Begin) -> None:
        """A run leaves the list of a state with it, and all lists when it is dropped."""
        author = await begin("run", labels={"user": "1"}, parent="p", root="p")
        await runs.create(meta("other", labels={"user": "1"}))
        for said in ("data", "complete"):
            assert await listed(runs, state="running", labels={"user": "1"}) == ["run"]
            await author.say(said)
        assert await listed(runs, state="running") == []
        assert await listed(runs, state="completed", parent="p") == ["run"]
        await runs.drop("run")
        assert await listed(runs, state="completed") == await listed(runs, parent="p") == []
        assert await listed(runs, labels={"user": "1"}) == ["other"]

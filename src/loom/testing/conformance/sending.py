"""Logs without runs: their life, opaque records, and logs of many writers."""

from __future__ import annotations

import asyncio

import pytest

from loom.model.chunk import Batch
from loom.model.cursor import Cursor
from loom.model.errors import Conflict, CursorExpired, Fenced, LimitExceeded, LogEnded, LogNotFound, UsageError
from loom.model.ports import JSON_LINES, Commit, LogPolicy, LogSpec, LogStore, ProducerSeq
from loom.tasks import cancel_and_wait, spawn
from loom.testing.author import Author, read_all
from loom.wire.json import decode, encode

from .kit import ENDED, WAIT, Suite, Told, outcome_of, turns

OPAQUE = "application/octet-stream"
RECORDS = [b"\n", b"no line end", b"\n\n\0\xff\n", b"x" * 70_000, b'{"type":"data"}\n', b"1\n2\n3"]
SPECS = [LogSpec(policy=policy, content_type=kind) for policy in ("single", "many") for kind in (JSON_LINES, OPAQUE)]


async def add(logs: LogStore, log: str, records: list[bytes]) -> list[Cursor]:
    """Add records to a log of either policy, by one writer; each ends with LF if the log holds lines."""
    info = await logs.info(log)
    if info.spec.policy == "many":
        return [await logs.send(log, record, ProducerSeq("p", 0, seq)) for seq, record in enumerate(records)]
    author = await Author.take(logs, log)
    line_end = b"\n" if info.spec.content_type == JSON_LINES else b""
    batches = [Batch(author.epoch, seq, seq, record + line_end) for seq, record in enumerate(records, 1)]
    return [await logs.append(log, batch) for batch in batches]


async def payloads(logs: LogStore, log: str, after: Cursor | None = None, **limits: int) -> list[bytes]:
    """The payload of each batch, page by page."""
    found: list[bytes] = []
    while True:
        page = await logs.read(log, after, **limits)
        found += [batch.payload for batch in page.batches]
        after = page.cursor
        if page.caught_up:
            return found


class SendingConformance(Suite):
    """Guarantees of logs as such, and to the many who write one."""

    # --- a log's life ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("spec", [*SPECS, LogSpec(policy="many", max_records=3, max_bytes=70)])
    async def test_a_log_is_created_once(self, logs: LogStore, spec: LogSpec) -> None:
        """Again with the same spec nothing changes; with another it is a `Conflict`."""
        info = await logs.create("log", spec)
        assert (info.spec, info.first, info.tail, info.ended, info.size) == (spec, 1, 0, False, 0)
        await add(logs, "log", [b"1", b"23"])
        info = await logs.info("log")
        assert (info.spec, info.tail, info.size) == (spec, 2, 5 if spec.content_type == JSON_LINES else 3)
        assert await logs.create("log", spec) == info
        for other in (*SPECS, LogSpec(policy="many", max_records=4, max_bytes=70)):
            if other != spec:
                with pytest.raises(Conflict):
                    await logs.create("log", other)
        assert await logs.info("log") == info

    async def test_a_log_that_is_not_there_is_not_found(self, logs: LogStore) -> None:
        """By any call; forgetting it does nothing."""
        for call in (
            logs.info("log"),
            logs.fence("log", "token"),
            logs.append("log", Batch(1, 1, 1, b"1\n")),
            logs.send("log", b"1", ProducerSeq("p")),
            logs.read("log"),
            logs.read("log", wait=WAIT),
            logs.trim("log", 1),
            logs.commit_position("log", "reader", 1),
            logs.positions("log"),
        ):
            with pytest.raises(LogNotFound):
                await call
        await logs.drop("log")

    @pytest.mark.parametrize("spec", SPECS)
    async def test_a_log_that_was_dropped_is_gone(self, logs: LogStore, spec: LogSpec) -> None:
        """With its records, writers, producers and positions; its name is free for any log."""
        await logs.create("log", spec)
        old = await add(logs, "log", [b"1", b"2"])
        await logs.commit_position("log", "reader", 1)
        reading = spawn(outcome_of(logs.read("log", old[-1], wait=WAIT)), "read")
        told = Told(logs, "log")
        await turns(5)
        await logs.drop("log")
        assert isinstance(await reading, LogNotFound)
        await told.next()
        told.unwatch()
        for call in (logs.info("log"), logs.read("log"), logs.positions("log")):
            with pytest.raises(LogNotFound):
                await call
        for other in SPECS:
            info = await logs.create("log", other)
            assert (info.spec, info.tail, info.size) == (other, 0, 0)
            assert await logs.positions("log") == []
            for cursor in old:
                with pytest.raises(CursorExpired):
                    await logs.read("log", cursor)
            assert [cursor.seq for cursor in await add(logs, "log", [b"1", b"2"])] == [1, 2]
            await logs.drop("log")

    async def test_logs_do_not_mix(self, logs: LogStore) -> None:
        """Whatever their names have in common."""
        names = ["log", "log/in", "log/a", "log/a/in", "log-1", "other"]
        for name in names:
            await logs.create(name, LogSpec(policy="many"))
        for name in names:
            await logs.send(name, encode(name), ProducerSeq("p"))
            await logs.commit_position(name, name, 1)
        await logs.drop("log")
        for name in names[1:]:
            assert [line for _, line in await read_all(logs, name)] == [encode(name)]
            assert [mark.reader for mark in await logs.positions(name)] == [name]

    @pytest.mark.parametrize("spec", SPECS)
    async def test_a_log_is_written_as_it_was_created(self, logs: LogStore, spec: LogSpec) -> None:
        """By one writer, or by many: the other way is a `UsageError`, and changes nothing."""
        await logs.create("log", spec)
        (cursor,) = await add(logs, "log", [b"1"])
        if spec.policy == "single":
            with pytest.raises(UsageError):
                await logs.send("log", b"2", ProducerSeq("p"))
        else:
            for call in (
                logs.fence("log", "token"),
                logs.append("log", Batch(cursor.epoch, 2, 2, b"2\n")),
                logs.append("log", Batch(cursor.epoch, 1, 1, b"1\n"), ENDED),
            ):
                with pytest.raises(UsageError):
                    await call
        info = await logs.info("log")
        assert (info.tail, info.ended) == (1, False)

    # --- opaque records ----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("policy", ["single", "many"])
    async def test_opaque_records_are_kept_as_they_are(self, logs: LogStore, policy: LogPolicy) -> None:
        """Each a batch of its own, whatever bytes it holds, whatever the page."""
        await logs.create("log", LogSpec(policy=policy, content_type=OPAQUE))
        cursors = await add(logs, "log", RECORDS)
        assert [cursor.seq for cursor in cursors] == [1, 2, 3, 4, 5, 6]
        assert (await logs.info("log")).size == sum(map(len, RECORDS))
        for limit in (1, 2, 10):
            for limit_bytes in (1, 20, 10**9):
                assert await payloads(logs, "log", limit=limit, limit_bytes=limit_bytes) == RECORDS
        for place, cursor in enumerate(cursors, 1):
            assert await payloads(logs, "log", cursor) == RECORDS[place:]
            page = await logs.read("log", cursor, limit_bytes=len(RECORDS[place % 6]) + 1)
            assert all(len(batch) == 1 for batch in page.batches)

    async def test_a_batch_of_opaque_records_is_one(self, logs: LogStore) -> None:
        """More of them could not be told apart."""
        author = await Author.open(logs, spec=LogSpec(content_type=OPAQUE))
        with pytest.raises(UsageError):
            await logs.append("log", Batch(author.epoch, 1, 2, b"1\n2\n"))
        batch = Batch(author.epoch, 1, 1, b"1\n2\n")
        for _ in range(2):
            assert await logs.append("log", batch, ENDED) == batch.cursor
        page = await logs.read("log")
        assert (page.batches, page.ended) == ((batch,), True)

    @pytest.mark.parametrize("policy", ["single", "many"])
    async def test_opaque_records_are_trimmed(self, logs: LogStore, policy: LogPolicy) -> None:
        """As any."""
        await logs.create("log", LogSpec(policy=policy, content_type=OPAQUE))
        cursors = await add(logs, "log", RECORDS)
        assert await logs.trim("log", 4) == 4
        info = await logs.info("log")
        assert (info.first, info.tail, info.size) == (4, 6, sum(map(len, RECORDS[3:])))
        assert await payloads(logs, "log", cursors[2]) == RECORDS[3:]
        with pytest.raises(CursorExpired) as caught:
            await logs.read("log", cursors[0])
        assert caught.value.details == {"earliest": str(cursors[2])}

    # --- many writers ------------------------------------------------------------------------------------------------

    @pytest.fixture
    async def many(self, logs: LogStore) -> str:
        """A log of many writers."""
        await logs.create("log", LogSpec(policy="many"))
        return "log"

    async def test_a_producers_records_are_kept_once_and_in_order(self, logs: LogStore, many: str) -> None:
        """However often each is sent: its cursor comes back, or the newest one's of its producer."""
        cursors: list[Cursor] = []
        for seq in range(5):
            sent = [await logs.send(many, b"%d" % seq, ProducerSeq("p", 0, seq)) for _ in range(3)]
            assert len(set(sent)) == 1
            cursors.append(sent[0])
        assert await logs.send(many, b"1", ProducerSeq("p", 0, 1)) == cursors[-1]
        assert await logs.send(many, b'"of q"', ProducerSeq("q", 0, 0)) not in cursors
        assert await logs.send(many, b"4", ProducerSeq("p", 0, 4)) == cursors[-1]
        lines = await read_all(logs, many)
        assert [line for _, line in lines] == [b"0", b"1", b"2", b"3", b"4", b'"of q"']
        assert [cursor for cursor, _ in lines][:5] == cursors
        assert [cursor.seq for cursor, _ in lines] == [1, 2, 3, 4, 5, 6]

    async def test_a_gap_is_a_conflict(self, logs: LogStore, many: str) -> None:
        """It says which record is the next."""
        for epoch, sent, expected in ((3, 1, 0), (3, 0, None), (3, 2, 1), (3, 1, None), (4, 1, 0), (3, 7, 2)):
            producer = ProducerSeq("p", epoch, sent)
            if expected is None:
                await logs.send(many, b"%d" % sent, producer)
            else:
                with pytest.raises(Conflict) as caught:
                    await logs.send(many, b"7", producer)
                assert caught.value.details["expected"] == expected
        assert [line for _, line in await read_all(logs, many)] == [b"0", b"1"]

    async def test_a_newer_epoch_fences_the_older_ones(self, logs: LogStore, many: str) -> None:
        """It begins again at 0; other producers are not concerned."""
        for seq in range(3):
            await logs.send(many, b'"old"', ProducerSeq("p", 1, seq))
        await logs.send(many, b'"q"', ProducerSeq("q", 0, 0))
        first = await logs.send(many, b'"new"', ProducerSeq("p", 5, 0))
        for seq in (0, 2, 3):
            with pytest.raises(Fenced):
                await logs.send(many, b'"old"', ProducerSeq("p", 1, seq))
        assert await logs.send(many, b'"new"', ProducerSeq("p", 5, 0)) == first
        await logs.send(many, b'"new"', ProducerSeq("p", 5, 1))
        await logs.send(many, b'"q"', ProducerSeq("q", 0, 1))
        assert [line for _, line in await read_all(logs, many)] == [b'"old"'] * 3 + [b'"q"', b'"new"', b'"new"', b'"q"']

    async def test_many_producers_at_once(self, logs: LogStore, many: str) -> None:
        """Each record gets a place of its own; each producer's order stands."""

        async def produce(name: str) -> None:
            for seq in range(10):
                for _ in range(2):
                    await logs.send(many, encode([name, seq]), ProducerSeq(name, 0, seq))

        names = [f"p{number}" for number in range(10)]
        await asyncio.gather(*map(produce, names))
        lines = [decode(line) for _, line in await read_all(logs, many, limit=7)]
        assert len(lines) == 100
        for name in names:
            assert [seq for producer, seq in lines if producer == name] == list(range(10))

    async def test_one_record_sent_at_once_is_kept_once(self, logs: LogStore, many: str) -> None:
        """By calls that overlap."""
        cursors = await asyncio.gather(*(logs.send(many, b"1", ProducerSeq("p")) for _ in range(5)))
        assert len(set(cursors)) == 1
        assert len(await read_all(logs, many)) == 1

    @pytest.mark.parametrize("count", range(8))
    async def test_a_record_whose_sending_was_cancelled_may_be_sent_again(
        self, logs: LogStore, many: str, count: int
    ) -> None:
        """Whenever it is cancelled; it is kept once."""
        for seq in range(4):
            sending = spawn(logs.send(many, b"%d" % seq, ProducerSeq("p", 0, seq)), "send")
            await turns(count)
            await cancel_and_wait(sending)
            await logs.send(many, b"%d" % seq, ProducerSeq("p", 0, seq))
        assert [line for _, line in await read_all(logs, many)] == [b"0", b"1", b"2", b"3"]

    async def test_a_record_may_end_the_log(self, logs: LogStore, many: str) -> None:
        """Then it holds what it holds: readers wake, what is there stays sent, everything else is refused."""
        first = await logs.send(many, b"1", ProducerSeq("p", 0, 0))
        reading = spawn(logs.read(many, first, wait=WAIT), "read")
        told = Told(logs, many)
        await turns(5)
        last = await logs.send(many, b"2", ProducerSeq("p", 0, 1), end=True)
        page = await reading
        assert ([line for _, line in page.lines()], page.ended) == ([b"2"], True)
        assert await told.next()
        told.unwatch()
        assert await logs.send(many, b"2", ProducerSeq("p", 0, 1), end=True) == last
        assert await logs.send(many, b"1", ProducerSeq("p", 0, 0)) == last
        for producer in (ProducerSeq("p", 0, 2), ProducerSeq("p", 1, 0), ProducerSeq("q", 0, 0)):
            for urgent in (False, True):
                with pytest.raises(LogEnded):
                    await logs.send(many, b"3", producer, urgent=urgent)
        info = await logs.info(many)
        assert (info.tail, info.ended) == (2, True)

    async def test_refusals_have_an_order(self, logs: LogStore, many: str) -> None:
        """The producer's own come first: they tell it what it has to do."""
        await logs.send(many, b"1", ProducerSeq("p", 3, 0), end=True)
        with pytest.raises(Fenced):
            await logs.send(many, b"1", ProducerSeq("p", 2, 0))
        with pytest.raises(Conflict):
            await logs.send(many, b"1", ProducerSeq("p", 3, 2))
        await logs.create("full", LogSpec(policy="many", max_records=0))
        with pytest.raises(Conflict):
            await logs.send("full", b"1", ProducerSeq("p", 0, 1))
        with pytest.raises(LimitExceeded):
            await logs.send("full", b"1", ProducerSeq("p", 0, 0))

    async def test_a_line_holds_no_line_end(self, logs: LogStore, many: str) -> None:
        """It would be read as two records."""
        with pytest.raises(UsageError):
            await logs.send(many, b"1\n2", ProducerSeq("p"))
        assert (await logs.info(many)).tail == 0

    @pytest.mark.parametrize(("content_type", "line_end"), [(JSON_LINES, 1), (OPAQUE, 0)])
    async def test_a_log_is_bounded_in_bytes(self, logs: LogStore, content_type: str, line_end: int) -> None:
        """To the byte; what is there stays sent; an urgent record finds room; trimming makes room."""
        await logs.create("log", LogSpec(policy="many", content_type=content_type, max_bytes=20))
        size = 10 - line_end
        first = await logs.send("log", b"1" * size, ProducerSeq("p", 0, 0))
        with pytest.raises(LimitExceeded) as caught:
            await logs.send("log", b"2" * (size + 1), ProducerSeq("p", 0, 1))
        assert not caught.value.retryable
        await logs.send("log", b"2" * size, ProducerSeq("p", 0, 1))
        with pytest.raises(LimitExceeded):
            await logs.send("log", b"3", ProducerSeq("p", 0, 2))
        assert (await logs.send("log", b"1" * size, ProducerSeq("p", 0, 0))).seq == 2
        await logs.send("log", b"9" * size, ProducerSeq("urgent"), urgent=True)
        assert (await logs.info("log")).size == 30
        await logs.trim("log", 3)
        await logs.send("log", b"3" * size, ProducerSeq("p", 0, 2))
        with pytest.raises(CursorExpired):
            await logs.read("log", first)

    async def test_a_log_is_bounded_in_records(self, logs: LogStore) -> None:
        """As it is in bytes."""
        await logs.create("log", LogSpec(policy="many", max_records=3))
        for seq in range(3):
            await logs.send("log", b"1", ProducerSeq("p", 0, seq))
        for producer in (ProducerSeq("p", 0, 3), ProducerSeq("q")):
            with pytest.raises(LimitExceeded):
                await logs.send("log", b"1", producer)
        await logs.send("log", b"9", ProducerSeq("urgent"), urgent=True)
        await logs.trim("log", 3)
        await logs.send("log", b"1", ProducerSeq("q"))
        with pytest.raises(LimitExceeded):
            await logs.send("log", b"1", ProducerSeq("p", 0, 3))
        assert (await logs.info("log")).tail == 5

    async def test_a_bound_is_no_matter_of_one_writer(self, logs: LogStore) -> None:
        """The writer keeps the bound itself."""
        author = await Author.open(logs, spec=LogSpec(max_records=1, max_bytes=1))
        for _ in range(3):
            await author.say("data")

    @pytest.mark.parametrize("count", range(4))
    async def test_g7_a_record_wakes_the_reader(self, logs: LogStore, many: str, count: int) -> None:
        """Whenever it comes."""
        cursor = None
        for seq in range(5):
            reading = spawn(logs.read(many, cursor, wait=WAIT), "read")
            await turns(count)
            cursor = await logs.send(many, b"%d" % seq, ProducerSeq("p", 0, seq))
            page = await reading
            assert ([line for _, line in page.lines()], page.cursor) == ([b"%d" % seq], cursor)

    async def test_a_commit_ends_a_log_without_a_run(self, logs: LogStore) -> None:
        """Whatever it says of a run."""
        for log, commit in (("a", Commit()), ("b", ENDED), ("c", Commit(state="failed"))):
            author = await Author.open(logs, log)
            await logs.append(log, author.batch("complete"), commit)
            assert (await logs.info(log)).ended

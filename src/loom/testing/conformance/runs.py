"""A run besides its chunks: its head, its inbox, heartbeats and marks."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import msgspec
import pytest
from msgspec.structs import replace

from loom.model import limits
from loom.model.chunk import CANCEL, Chunk
from loom.model.errors import LimitExceeded, LogEnded, LogNotFound
from loom.model.ports import Durability, Store
from loom.model.run import NO_INPUT, RunState, inbox_of
from loom.tasks import spawn
from loom.testing.author import Author, read_all
from loom.wire.json import encode, make_batch

from .kit import CANCELLED, WAIT, Suite, failed, meta, turns


class RunConformance(Suite):
    """What every store guarantees of runs."""

    # --- a run's life ------------------------------------------------------------------------------------------------

    async def test_durability_is_named(self, store: Store) -> None:
        """A store says what an acknowledged append survives, in one of the four words."""
        assert store.durability in get_args(Durability)

    async def test_create_gives_a_queued_head(self, store: Store) -> None:
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
        head = await store.create(started)
        assert head.meta == started
        assert head == await store.head("run")
        assert (head.state, head.attempt, head.tail, head.first, head.ended) == ("queued", 0, 0, 1, False)
        assert (head.earliest, head.latest, head.error, head.result) == (None, None, None, None)

    async def test_create_is_idempotent(self, store: Store) -> None:
        """Creating again changes nothing, also with another meta: the head comes back as it is."""
        author = await Author.start(store)
        await author.say("data")
        before = await store.head("run")
        assert await store.create(meta(actor="another")) == before
        assert await store.create(before.meta) == before
        assert len(await read_all(store, "run")) == 2

    async def test_concurrent_creates_make_one_run(self, store: Store) -> None:
        """Whoever creates a run, all see the same one."""
        heads = await asyncio.gather(*(store.create(meta(actor=f"actor-{number}")) for number in range(10)))
        assert len({head.meta.actor for head in heads}) == 1
        assert len(await store.heads()) == 1

    async def test_what_there_is_not_is_not_found(self, store: Store) -> None:
        """Every call about a run that does not exist raises `LogNotFound`."""
        batch = make_batch(1, 1, [Chunk("start")])
        for call in (
            store.head("run"),
            store.fence("run", "token"),
            store.append("run", batch),
            store.end_unstarted("run", CANCELLED),
            store.send("run", b'{"type":"x"}', sender="s", id="1"),
            store.read("run"),
            store.read(inbox_of("run")),
            store.read("run", wait=WAIT),
            store.trim("run", 1),
            store.touch("run"),
            store.heads(before="run"),
        ):
            with pytest.raises(LogNotFound):
                await call

    async def test_the_head_tells_how_a_run_ended(self, store: Store) -> None:
        """State, error and result come from the last chunk."""
        endings: list[tuple[Chunk[Any], RunState]] = [
            (Chunk("complete", {"answer": 42}), "completed"),
            (Chunk("complete"), "completed"),
            (failed("run_failed"), "failed"),
            (failed("of the producer's own"), "failed"),
            (failed("cancelled"), "cancelled"),
            (failed("run_lost"), "lost"),
        ]
        for number, (chunk, state) in enumerate(endings):
            author = await Author.start(store, f"run-{number}")
            assert (await store.head(author.run)).state == "running"
            await author.say("data", chunk)
            head = await store.head(author.run)
            assert (head.ended, head.state, head.error, head.tail) == (True, state, chunk.error, 3)
            assert head.started is not None
            assert head.ended_at is not None
            if chunk.type == "complete":
                assert head.result is not None
                assert msgspec.json.decode(head.result) == chunk.data

    async def test_a_light_head_leaves_out_input_and_result(self, store: Store) -> None:
        """Without `full` a head is the same but for input and result, from the run's start to its end."""
        input, result = msgspec.Raw(b'{"a":1}'), "a result"
        await store.create(meta(input=input, key="k", timeout=1.5))
        author = await Author.start(store)
        for chunk in (Chunk("data", "a chunk"), Chunk("complete", result)):
            await author.say(chunk)
            head, light = await store.head("run"), await store.head("run", full=False)
            assert light == replace(head, meta=replace(head.meta, input=NO_INPUT), result=None)
        assert (bytes(head.meta.input), head.result) == (bytes(input), msgspec.Raw(encode(result)))
        with pytest.raises(LogNotFound):
            await store.head("another", full=False)

    async def test_heads_lists_the_newest_first(self, store: Store) -> None:
        """Pages of heads, newest first, by `before`, each run once; without inputs and results."""
        names = [f"run-{number}" for number in range(7)]
        for name in names:
            started = meta(name, input=msgspec.Raw(b'{"a":1}'), key="k", timeout=1.5)
            assert (await store.create(started)).meta == started
            await (await Author.start(store, name)).say(Chunk("complete", "a result"))
        listed: list[str] = []
        before = None
        while page := await store.heads(limit=3, before=before):
            assert len(page) <= 3
            assert all((bytes(head.meta.input), head.result) == (b"null", None) for head in page)
            assert all((head.meta.key, head.meta.timeout) == ("k", 1.5) for head in page)
            listed += [head.meta.run for head in page]
            before = listed[-1]
        assert listed == names[::-1]

    async def test_heads_filters(self, store: Store) -> None:
        """By state and by actor, before the limit counts."""
        for number in range(6):
            await store.create(meta(f"run-{number}", f"actor-{number % 2}"))
        for number in range(3):
            author = await Author.take(store, f"run-{number}")
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
            assert [head.meta.run for head in await store.heads(state=state)] == names
        assert [head.meta.run for head in await store.heads(actor="actor-0", limit=2)] == ["run-4", "run-2"]
        assert [head.meta.run for head in await store.heads(actor="actor-1", state="queued")] == ["run-5", "run-3"]
        assert await store.heads(actor="none") == []

    # --- the inbox ---------------------------------------------------------------------------------------------------

    async def test_inbox_keeps_each_message_once(self, store: Store) -> None:
        """By sender and id: sent again it is success, with the same cursor; ids of different senders are apart."""
        await store.create(meta())
        sent = [("a", "1"), ("a", "2"), ("b", "1"), ("a", "1"), ("b", "1"), ("a", "2")]
        cursors = [
            await store.send("run", encode({"type": "x", "data": f"{sender}{id}"}), sender=sender, id=id)
            for sender, id in sent
        ]
        assert cursors[3:] == [cursors[0], cursors[2], cursors[1]]
        lines = await read_all(store, inbox_of("run"), limit=2)
        assert [msgspec.json.decode(line)["data"] for _, line in lines] == ["a1", "a2", "b1"]
        assert [cursor for cursor, _ in lines] == cursors[:3]
        assert [cursor.seq for cursor, _ in lines] == [1, 2, 3]

    async def test_inbox_takes_many_senders_at_once(self, store: Store) -> None:
        """Each message gets a place of its own; a sender's own order stands."""
        await store.create(meta())

        async def sender(name: str) -> None:
            for number in range(10):
                for _ in range(2):
                    await store.send("run", encode([name, number]), sender=name, id=str(number))

        await asyncio.gather(*(sender(f"s{number}") for number in range(10)))
        told = [msgspec.json.decode(line) for _, line in await read_all(store, inbox_of("run"), limit=7)]
        assert len(told) == 100
        for number in range(10):
            assert [each for name, each in told if name == f"s{number}"] == list(range(10))

    async def test_inbox_is_read_from_the_start_by_each_attempt(self, store: Store) -> None:
        """What was sent before an attempt, or before any, is there for it; fences do not touch it."""
        await store.create(meta())
        await store.send("run", b'{"type":"cancel"}', sender="s", id="1")
        await Author.take(store, "run", "token-1")
        await Author.take(store, "run", "token-2")
        lines = await read_all(store, inbox_of("run"))
        assert [line for _, line in lines] == [b'{"type":"cancel"}']
        cursor = await store.send("run", b'{"type":"more"}', sender="s", id="2")
        assert [cursor for cursor, _ in await read_all(store, inbox_of("run"), lines[0][0])] == [cursor]

    async def test_inbox_wakes_its_reader(self, store: Store) -> None:
        """A run hears at once of what it is told."""
        await store.create(meta())
        reading = spawn(store.read(inbox_of("run"), wait=WAIT), "read")
        await turns(5)
        await store.send("run", b'{"type":"x"}', sender="s", id="1")
        assert len(await reading) == 1

    async def test_inbox_is_closed_by_the_end(self, store: Store) -> None:
        """Then sending is refused, and what is there says so; a message that is already there stays sent."""
        author = await Author.start(store)
        first = await store.send("run", b'{"type":"x"}', sender="s", id="1")
        await author.say("complete")
        with pytest.raises(LogEnded):
            await store.send("run", b'{"type":"x"}', sender="s", id="2")
        assert await store.send("run", b'{"type":"x"}', sender="s", id="1") == first
        page = await store.read(inbox_of("run"))
        assert (len(page), page.caught_up, page.ended) == (1, True, True)

    async def test_inbox_is_bounded_in_bytes(self, store: Store) -> None:
        """Together, line ends included, to the byte; what is there stays sent, and the cancel finds room."""
        await store.create(meta())
        large = b'"%b"' % (b"x" * (limits.MESSAGE_BYTES - 3))
        most = limits.INBOX_BYTES // (len(large) + 1)
        for number in range(most - 1):
            await store.send("run", large, sender="s", id=str(number))
        await store.send("run", large.replace(b"xx", b"", 1), sender="s", id="two bytes less")
        with pytest.raises(LimitExceeded) as caught:
            await store.send("run", b"12", sender="s", id="does not fit")
        assert not caught.value.retryable
        await store.send("run", b"1", sender="s", id="fits")
        with pytest.raises(LimitExceeded):
            await store.send("run", b"1", sender="s", id="one more")
        assert (await store.send("run", large, sender="s", id="0")).seq == 1
        await store.send("run", b"1", sender=CANCEL, id=CANCEL)
        assert len(await read_all(store, inbox_of("run"))) == most + 2

    async def test_inbox_is_bounded(self, store: Store) -> None:
        """In messages, and in each one's size; nothing is changed by what is refused."""
        await store.create(meta())
        with pytest.raises(LimitExceeded):
            await store.send("run", b'"%b"' % (b"x" * limits.MESSAGE_BYTES), sender="s", id="large")
        for start in range(0, limits.INBOX_MESSAGES, 500):
            await asyncio.gather(
                *(store.send("run", b"1", sender="s", id=str(number)) for number in range(start, start + 500))
            )
        with pytest.raises(LimitExceeded):
            await store.send("run", b"1", sender="s", id="one more")
        assert (await store.send("run", b"1", sender="s", id="0")).seq <= 500
        assert len(await read_all(store, inbox_of("run"))) == limits.INBOX_MESSAGES
        await store.send("run", b"1", sender=CANCEL, id=CANCEL)
        assert len(await read_all(store, inbox_of("run"))) == limits.INBOX_MESSAGES + 1

    # --- heartbeats and marks ----------------------------------------------------------------------------------------

    async def test_touch_counts_the_owners_heartbeat(self, store: Store) -> None:
        """Up, and not after the end."""
        author = await Author.start(store)
        beats = [(await store.head("run")).beat]
        assert (await store.head("run")).heard is None
        for _ in range(3):
            await store.touch("run")
            beats.append((await store.head("run")).beat)
        assert beats == sorted(set(beats))
        heard = (await store.head("run")).heard
        assert heard is not None
        await store.touch("run")
        assert heard <= ((await store.head("run")).heard or 0) < heard + WAIT
        beats.append((await store.head("run")).beat)
        await author.say("complete")
        await store.touch("run")
        assert (await store.head("run")).beat == beats[-1]

    async def test_readers_are_bounded(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that are there may go on, and one that leaves makes room."""
        monkeypatch.setattr(limits, "READERS", 2)
        await Author.start(store)
        for reader in ("a", "b", "a"):
            await store.mark("run", reader, 1)
        for _ in range(2):
            with pytest.raises(LimitExceeded):
                await store.mark("run", "c", 1)
        await store.mark("run", "a", None)
        await store.mark("run", "c", 1)
        assert sorted(mark.reader for mark in await store.marks("run")) == ["b", "c"]

    async def test_a_reader_that_is_silent_is_forgotten(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """It holds up nobody, and takes nobody's place."""
        monkeypatch.setattr(limits, "READERS", 2)
        await Author.start(store)
        for reader in ("a", "b"):
            await store.mark("run", reader, 1)
        with monkeypatch.context() as patch:
            patch.setattr(limits, "READER_LEASE", -1.0)  # as if every mark were older than a reader may be silent
            assert await store.marks("run") == []
            await store.mark("run", "c", 1)
        assert [mark.reader for mark in await store.marks("run")] == ["c"]
        await store.mark("run", "a", 2)  # it was alive after all
        assert sorted((mark.reader, mark.seq) for mark in await store.marks("run")) == [("a", 2), ("c", 1)]

    async def test_marks_tell_how_far_readers_are(self, store: Store) -> None:
        """The newest seq of each attached reader, with a heartbeat that counts up; who left is gone."""
        await Author.start(store)
        await Author.start(store, "other")
        assert await store.marks("run") == []
        await store.mark("run", "a", 1)
        await store.mark("run", "b", 2)
        await store.mark("other", "c", 3)
        first = {mark.reader: mark for mark in await store.marks("run")}
        assert {reader: mark.seq for reader, mark in first.items()} == {"a": 1, "b": 2}
        await store.mark("run", "a", 5)
        await store.mark("run", "b", 2)
        second = {mark.reader: mark for mark in await store.marks("run")}
        assert {reader: mark.seq for reader, mark in second.items()} == {"a": 5, "b": 2}
        assert all(second[reader].beat > first[reader].beat for reader in second)
        for _ in range(2):
            await store.mark("run", "a", None)
        assert [mark.reader for mark in await store.marks("run")] == ["b"]

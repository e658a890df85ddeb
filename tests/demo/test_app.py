"""The built-in app, run for real in memory."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from msgspec import structs

import loom
from loom.demo.app import app, chat, converse, local, wordcount
from loom.demo.wordcount import Count
from loom.producers.llm import MarkovWriter, OpenAICompatible
from loom.testing.client import client
from loom.testing.context import context
from loom.testing.fake_ai import FakeAI
from tests.producers.llm.provider import PATIENCE, Play, Provider, chunked, events, head, said

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


async def test_chat_works_with_nothing_set_up() -> None:
    text: list[str] = []
    async with client(app) as runs, runs.stream(chat, "Tell me about rivers") as run:
        async for token in run.values():
            text.append(token)
            if len(text) == 3:
                break
    assert text == list(MarkovWriter().tokens("Tell me about rivers"))[:3]


async def test_the_model_that_the_environment_names_comes_before_the_built_in_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Provider() as provider:
        provider.play(chunked(events(said("Hello", "stop"), b"[DONE]")))
        monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
        monkeypatch.setenv("OPENAI_MODEL", "m")
        async with client(app) as runs:
            assert await runs.execute(chat, "hi") == "Hello"


async def test_an_app_that_includes_the_built_in_one_has_no_writer_of_its_own() -> None:
    mine = loom.App()
    mine.include(app, prefix="demo.")

    @mine.actor
    async def support(question: str, ctx: loom.Context) -> str:
        return await ctx.ai.complete(question)

    async with client(mine) as runs:
        with pytest.raises(loom.RunFailed, match=r"ctx\.ai has no model"):
            await runs.execute(support, "Where is my refund?")
        async with runs.stream("demo.chat-agent", "rivers") as run:
            async for token in run.values():
                assert token
                break


async def test_chat_says_what_the_model_says() -> None:
    ai = FakeAI(["Hel", "lo"])
    assert [token async for token in chat("hi", context(ai=ai))] == ["Hel", "lo"]
    assert ai.calls[0].messages == [{"role": "user", "content": "hi"}]


async def test_chat_continues_what_was_said() -> None:
    whole = list(MarkovWriter(rate=0).tokens("rivers"))
    ctx = context(ai=MarkovWriter(rate=0), previous=[*whole[:20], loom.Chunk("progress", progress=loom.Progress(1))])
    assert [token async for token in chat("rivers", ctx)] == whole[20:]


async def test_chat_has_another_model_go_on_too() -> None:
    ai = FakeAI(["lo"])
    assert [token async for token in chat("hi", context(ai=ai, previous=["He", "l"]))] == ["lo"]
    user, begun = ai.calls[0].messages
    assert (user["content"], begun) == ("hi", {"role": "assistant", "content": "Hel"})


async def test_chat_begins_anew_with_a_model_that_does_not_go_on() -> None:
    assert chat.retry is not None
    ai = FakeAI([["Hel", loom.Unavailable("gone")], ["never said"], ["Hi ", "there"]], continues=False)
    prompt = loom.App(ai=ai)
    prompt.actor("chat", retry=structs.replace(chat.retry, backoff=(0.001, 0.001)))(chat.target)
    async with client(prompt) as runs:
        run = await runs.start("chat", "hi")
        assert await run.result() == "Hi there"
        starts = [chunk async for chunk in run.chunks() if chunk.type == "start"]
    assert [start.data["kept_through"] for start in starts] == [0, 2, 0]
    assert [start.error.code if start.error else None for start in starts] == [None, "run_failed", "start_over"]
    assert [call.begun for call in ai.calls] == ["", "Hel", ""]


async def test_a_conversation_is_answered_as_a_whole() -> None:
    conversation = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho"},
        {"role": "user", "content": "and now?"},
    ]
    ai = FakeAI([["no", "thing"], ["thing"]])
    assert [token async for token in converse(conversation, context(ai=ai))] == ["no", "thing"]
    assert ai.calls[0].messages == conversation
    assert [token async for token in converse(conversation, context(ai=ai, previous=["no"]))] == ["thing"]
    assert ai.calls[1].messages == [*conversation, {"role": "assistant", "content": "no"}]


async def test_chat_goes_on_when_its_model_broke_off() -> None:
    assert chat.retry is not None
    prompt = loom.App(ai=FakeAI([["Hel", loom.Unavailable("gone")], ["lo"]]))
    prompt.actor("chat", retry=structs.replace(chat.retry, backoff=(0.001, 0.001)))(chat.target)
    async with client(prompt) as runs:
        assert await runs.execute("chat", "hi") == "Hello"


async def test_chat_without_its_model_fails_once_and_says_what_to_look_at() -> None:
    prompt = loom.App(ai=FakeAI([[loom.Unavailable("refused")], ["never asked"]]))
    prompt.actor("chat", retry=chat.retry)(chat.target)
    async with client(prompt) as runs:
        with pytest.raises(loom.RunFailed, match="no model: refused") as raised:
            await runs.execute("chat", "hi")
    assert "OPENAI_BASE_URL" in raised.value.details["hint"]


async def test_cancelling_chat_closes_the_connection_to_its_model() -> None:
    async with Provider() as provider:
        provider.play(Play(head() + events(said("Hel")), stay=True))
        ai = OpenAICompatible(provider.url, model="m")
        prompt = loom.App(ai=ai)
        prompt.actor("chat", retry=chat.retry)(chat.target)
        async with aclosing(ai), client(prompt) as runs:
            run = await runs.start("chat", "hi")
            async for token in run.values():
                assert token == "Hel"
                break
            await run.cancel()
            with pytest.raises(loom.RunCancelled):
                await run.result(timeout=10)
            await asyncio.wait_for(provider.left.wait(), PATIENCE)
    assert len(provider.requests) == 1


async def test_wordcount_counts_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some words\n")
    async with client(local) as runs:
        run = await runs.start(wordcount, [str(path)])
        assert await run.result(timeout=10) == Count("total", 1, 2, 11)
        assert [value async for value in run.values()] == [Count(str(path), 1, 2, 11)]
        assert "progress" in [chunk.type async for chunk in run.chunks()]


async def test_wordcount_counts_a_text() -> None:
    async with client(local) as runs:
        assert await runs.execute(wordcount, "a b c") == Count("total", 0, 3, 5)


async def test_wordcount_tells_a_bad_path() -> None:
    async with client(local) as runs:
        run = await runs.start(wordcount, ["/nowhere/at-all"])
        with pytest.raises(loom.RunFailed, match=r"source\[0\]: No such file or directory: '/nowhere/at-all'"):
            await run.result(timeout=10)


async def test_wordcount_that_is_served_reads_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some words\n")
    async with client(app) as runs:
        with pytest.raises(loom.RunFailed, match="source: no files are read here: LOOM_FILES"):
            await runs.execute("wordcount", [str(path)])
        assert await runs.execute("wordcount", "a text") == {"name": "total", "lines": 0, "words": 2, "bytes": 6}


async def test_wordcount_that_is_served_reads_below_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").mkdir()
    monkeypatch.setenv("LOOM_FILES", str(tmp_path / "files"))
    for path in (tmp_path / "files" / "a.txt", tmp_path / "b.txt"):
        path.write_text("some words\n")
    async with client(app) as runs:
        assert (await runs.execute("wordcount", ["a.txt"]))["words"] == 2
        with pytest.raises(loom.RunFailed, match=r"source\[0\]: outside the folder"):
            await runs.execute("wordcount", [str(tmp_path / "b.txt")])
        assert (await runs.execute("wordcount", "a text"))["words"] == 2


def test_both_apps_have_the_same_actors() -> None:
    inputs = [{producer.name: producer.info().input_schema for producer in each.registry} for each in (app, local)]
    assert inputs[0] == inputs[1]


async def test_wordcount_takes_no_number() -> None:
    async with client(local) as runs:
        with pytest.raises(loom.InvalidInput, match="source"):
            await runs.start("wordcount", 7)

"""The built-in writer: the same everywhere, about the topic, exactly continued."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import aclosing
from typing import Any

import pytest

from loom.model.ai import AI
from loom.model.errors import HandleClosed
from loom.model.parts import FinishReasonPart, Part, TextPart, UsagePart
from loom.producers.llm import MarkovWriter

pytestmark = pytest.mark.anyio

WRITER = MarkovWriter(rate=0)

TOPICS = {
    "Tell me about rivers": "river",
    "Write a story": "story",
    "Explain computers to me, please.": "computer",
    "What is a GARDEN?": "garden",
    "cities": "city",
    "How do trains work?": "train",
    "write something about bees and honey": "bee",
    "the weather in the morning": "weather",
}


def write(prompt: str, **options: Any) -> str:
    return "".join(WRITER.tokens(prompt, **options))


def test_it_is_an_ai() -> None:
    ai: AI = WRITER
    assert "MarkovWriter" in repr(ai)


@pytest.mark.parametrize(("prompt", "topic"), TOPICS.items())
@pytest.mark.parametrize("seed", range(5))
def test_it_speaks_of_the_topic(prompt: str, topic: str, seed: int) -> None:
    text = "".join(MarkovWriter(rate=0, seed=seed).tokens(prompt)).lower()
    assert topic in text


def test_it_says_when_it_knows_no_word() -> None:
    assert write("quantum chromodynamics").startswith("Of that I have read nothing")
    assert not write("rivers").startswith("Of that")


def test_it_ends_with_a_sentence() -> None:
    for prompt in TOPICS:
        tokens = list(WRITER.tokens(prompt))
        assert 150 <= len(tokens) <= 300
        assert tokens[-1] in {".", "!", "?"}


def test_the_tokens_are_the_text() -> None:
    tokens = list(WRITER.tokens("rivers"))
    assert tokens[0][0].isupper()
    assert all(token == token.lstrip() or token[0] in " \n" for token in tokens)
    assert not any(token.endswith((" ", "\n")) for token in tokens)
    text = "".join(tokens)
    assert "\n\n" in text
    assert "  " not in text
    assert " ." not in text


def test_the_same_question_has_the_same_answer() -> None:
    assert write("rivers") == "".join(MarkovWriter(rate=0).tokens("rivers"))
    assert write("rivers") != write("a river")
    assert write("rivers") != "".join(MarkovWriter(rate=0, seed=1).tokens("rivers"))


def test_another_process_gives_the_same_answer() -> None:
    code = "from loom.producers.llm import MarkovWriter; print(''.join(MarkovWriter().tokens('rivers')), end='')"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert ran.stdout.decode() == write("rivers")


def test_greedy_ignores_the_seed_and_goes_in_no_circle() -> None:
    greedy = write("rivers", temperature=0)
    assert greedy == "".join(MarkovWriter(rate=0, seed=9).tokens("rivers", temperature=0))
    sentences = [sentence.strip() for sentence in greedy.split(".") if sentence.strip()]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("temperature", [0.001, 0.5, 2.0, 100.0])
def test_any_temperature_writes(temperature: float) -> None:
    assert len(write("rivers", temperature=temperature)) > 300


def test_it_continues_exactly_from_any_character() -> None:
    whole = write("rivers")
    for cut in range(len(whole) + 1):
        assert whole[:cut] + write("rivers", continue_from=whole[:cut]) == whole


def test_it_goes_on_from_what_another_said() -> None:
    rest = write("rivers", continue_from="Somebody else began: at the end of its way the river")
    assert rest.startswith(" ")
    assert rest[1].islower()
    assert len(rest) > 300


def test_what_goes_beyond_its_answer_needs_no_more() -> None:
    assert write("rivers", continue_from=write("rivers") + " And more.") == ""


def test_it_learns_from_any_text() -> None:
    writer = MarkovWriter(rate=0, text="The cat sat. The cat ran.\n\nA dog ran!")
    assert set("".join(writer.tokens("cat")).replace("\n\n", " ").split()) <= {
        "The", "cat", "sat.", "ran.", "A", "dog", "ran!"
    }  # fmt: skip


async def parts_of(writer: MarkovWriter, *prompt: str, **options: Any) -> list[Part]:
    return [part async for part in writer.stream_parts(*prompt, **options)]


async def test_it_answers_in_parts() -> None:
    *texts, finish, usage = await parts_of(WRITER, "Tell me about rivers")
    assert "".join(part.text for part in texts if isinstance(part, TextPart)) == write("Tell me about rivers")
    assert finish == FinishReasonPart("stop")
    assert usage == UsagePart(4, len(texts))


async def test_it_keeps_to_max_tokens() -> None:
    *texts, finish, usage = await parts_of(WRITER, "rivers", max_tokens=7)
    assert texts == [TextPart(token) for token in list(WRITER.tokens("rivers"))[:7]]
    assert finish == FinishReasonPart("length")
    assert usage == UsagePart(1, 7)


async def test_an_assistants_last_message_is_continued() -> None:
    whole = list(WRITER.tokens("rivers"))
    messages = [{"role": "user", "content": "rivers"}, {"role": "assistant", "content": "".join(whole[:40])}]
    texts = [text async for text in WRITER.stream_completion(messages=messages)]
    assert texts == whole[40:]
    assert await WRITER.complete(messages=messages, temperature=0) != "".join(whole[40:])


async def test_it_writes_at_its_rate() -> None:
    writer = MarkovWriter(rate=1000)
    began = asyncio.get_running_loop().time()
    assert len(await parts_of(writer, "rivers", max_tokens=50)) == 52
    assert asyncio.get_running_loop().time() - began >= 0.049


async def test_it_can_be_stopped() -> None:
    async with aclosing(MarkovWriter(rate=0.001).stream_completion("rivers")) as texts:
        assert await anext(texts)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(texts)


async def test_it_can_be_closed() -> None:
    writer = MarkovWriter()
    await writer.aclose()
    with pytest.raises(HandleClosed):
        await writer.complete("rivers")

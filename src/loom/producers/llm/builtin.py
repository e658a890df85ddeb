"""The writer that is always there: no key, no network, and no understanding; a Markov chain over a few pages."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import cached_property
from importlib import resources
from itertools import chain, islice

from loom.model.errors import HandleClosed, UsageError
from loom.model.parts import FinishReasonPart, Part, TextPart, UsagePart

from .ask import Ask, text_of
from .front import Model
from .markov import ENDS, Chain, join, split

__all__ = ["MarkovWriter"]

_USUAL_LENGTH = 150
"""Tokens after which it ends with the sentence, unless `max_tokens` comes first."""

_LONGEST = 2 * _USUAL_LENGTH
"""Tokens after which it ends in any case: no sentence has been seen to be this long."""

_NO_WORD_OF_IT = "Of that I have read nothing, so let me tell you about something else."


class MarkovWriter(Model):
    """A small word-level Markov chain, honestly so: it strings words together as a few pages of prose do.

    It prefers passages that share words with the prompt. The same prompt, `seed` and temperature give the same tokens,
    in every process: an answer that was cut is continued exactly by giving what was said as a last assistant message.
    Tokens hold the white space before them, so joined they are the text. Temperature 0 is greedy and ignores the seed.
    Any model name is taken, tools are never called.

    `rate` is in tokens a second; 0 writes as fast as they are read. `text` is what it learns from, with blank lines
    between the paragraphs; by default what Loom ships.
    """

    def __init__(self, *, rate: float = 45.0, seed: int = 0, text: str | None = None) -> None:
        self._rate = rate
        self._seed = seed
        self._text = text
        self._closed = False

    def __repr__(self) -> str:
        return f"<MarkovWriter rate={self._rate:g} seed={self._seed}>"

    @cached_property
    def _chain(self) -> Chain:
        return Chain(self._text or resources.files(__package__).joinpath("prose.txt").read_text("utf-8"))

    def tokens(self, prompt: str, *, temperature: float = 1.0, continue_from: str = "") -> Iterator[str]:
        """The answer to `prompt`, token by token, without pauses; without the `continue_from` that was said already.

        Text that is not the beginning of this answer is gone on from as the chain would: by its last two words.
        """
        whole = self._compose(prompt, temperature)
        if continue_from:
            return self._resume(whole, prompt, temperature, continue_from)
        return whole

    def _resume(self, whole: Iterator[str], prompt: str, temperature: float, said: str) -> Iterator[str]:
        text = ""
        for token in whole:
            text += token
            if not (said.startswith(text) or text.startswith(said)):
                whole = self._compose(prompt, temperature, after=said)
                break
            if len(text) >= len(said):
                if rest := text[len(said) :]:
                    yield rest
                break
        yield from whole

    def _compose(self, prompt: str, temperature: float, after: str = "") -> Iterator[str]:
        topic = self._chain.knows(prompt)
        seed = int.from_bytes(hashlib.sha256(f"{self._seed}\0{prompt}\0{after}".encode()).digest()[:8], "big")
        words = self._chain.walk(topic, seed=seed, temperature=temperature, after=after)
        opening = [] if topic or after else split(_NO_WORD_OF_IT)
        for count, token in enumerate(join(chain(opening, words), begun=bool(after)), 1):
            yield token
            if count >= (_USUAL_LENGTH if token in ENDS else _LONGEST):
                return

    async def answer(self, ask: Ask) -> AsyncGenerator[Part, None]:
        if self._closed:
            raise HandleClosed("this model was closed")
        if ask.schema is not None:
            raise UsageError("the built-in writer only writes prose: name a model that gives structured answers")
        temperature = 1.0 if ask.temperature is None else ask.temperature
        tokens = self.tokens(ask.prompt, temperature=temperature, continue_from=ask.begun)
        count = 0
        async with aclosing(self._paced(islice(tokens, ask.max_tokens))) as paced:
            async for token in paced:
                count += 1
                yield TextPart(token)
        yield FinishReasonPart("stop" if next(tokens, None) is None else "length")
        yield UsagePart(sum(len(split(text_of(message))) for message in ask.messages), count)

    async def _paced(self, tokens: Iterator[str]) -> AsyncGenerator[str, None]:
        """Each token when it is due; time lost elsewhere is made good, so that the rate holds."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        for token in tokens:
            await asyncio.sleep(max(0.0, due - loop.time()))
            yield token
            due += 1.0 / self._rate if self._rate else 0.0

    async def aclose(self) -> None:
        self._closed = True

"""A second-order Markov chain over words: pure, and the same on every machine for the same seed.

Its states are pairs of words, its moves the places of the text where such a pair stands. A move weighs more where the
passage speaks of the topic, and less each time it was taken, so that even the greedy walk does not go in circles.
"""

from __future__ import annotations

import math
import random
import re
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate

__all__ = ["ENDS", "Chain", "join", "split"]

_TOKEN = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*|[.,;:!?]")
ENDS = frozenset(".!?")
"""The marks that end a sentence."""

_MARKS = frozenset(".,;:!?")

_ASKING = frozenset(
    _TOKEN.findall(
        "a about all an and are as at be but by can could do does explain describe for from give has have how i in is"
        " it its long make me more my of on one or our please say short should some something tell than that the their"
        " them then there they this to too us was we were what when where which who why will with would write you your"
    )
)
"""Words of a prompt that ask, and name no topic."""

_STEMS = (("ies", "y"), ("ing", ""), ("s", ""))

_TOPICAL = 30.0
"""How much more a move within the passages on the topic weighs than one elsewhere, at most."""

_ALOUD = 12.0
"""How much more a move weighs to a word of the topic itself, or to a sentence that has one."""

_ONWARD = 8.0
"""How much more the move weighs that goes on in the text where the last one stood: it keeps sentences whole."""

_TIRING = 40.0
"""How much less a move weighs each time it was taken."""

_ABRUPT = 0.02
"""What is left of the weight of a full stop within the first words of a sentence, `_SHORT` in number."""

_SHORT = 5

_SENTENCES = 4
"""A paragraph ends at the first full stop after so many sentences."""


def split(text: str) -> list[str]:
    """The words and marks of a text."""
    return _TOKEN.findall(text)


def join(words: Iterable[str], *, begun: bool = False) -> Iterator[str]:
    """The words as tokens of running text: each with the white space before it. `begun`: some text precedes."""
    sentences = 0
    before = " " if begun else ""
    for word in words:
        if word in _MARKS:
            yield word
        else:
            yield before + word
        before = " "
        sentences += word in ENDS
        if sentences == _SENTENCES:
            sentences, before = 0, "\n\n"


def _state(word: str) -> str:
    """What of a word decides what may follow: one full stop is like another."""
    return "." if word in ENDS else word.lower()


def _stem(word: str) -> str:
    """A rough stem: enough that rivers, river and River meet."""
    word = word.lower().removesuffix("'s").removesuffix("\u2019s")
    for suffix, instead in _STEMS:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            return word.removesuffix(suffix) + instead
    return word


class Chain:
    """What was learned from a text whose paragraphs are parted by blank lines."""

    def __init__(self, text: str) -> None:
        self._words: list[str] = []
        self._passage: list[int] = []
        self._stems: list[str] = []
        self._after: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._starts: list[int] = []
        self._sentences: dict[int, frozenset[str]] = {}
        self._told: dict[str, Counter[int]] = defaultdict(Counter)
        paragraphs = text.split("\n\n")
        self._passages = len(paragraphs)
        for number, paragraph in enumerate(paragraphs):
            self._learn(number, split(paragraph))

    def _learn(self, passage: int, words: list[str]) -> None:
        one, two = "", "."
        for word in words:
            place = len(self._words)
            if two in ENDS:
                self._starts.append(place)
            else:
                self._after[one, two].append(place)
            self._words.append(word)
            self._passage.append(passage)
            self._stems.append(stem := _stem(word))
            self._told[stem][passage] += 1
            if word in ENDS:
                self._sentences[self._starts[-1]] = frozenset(self._stems[self._starts[-1] :])
            one, two = two, _state(word)

    def knows(self, prompt: str) -> list[str]:
        """The stems of the prompt's words that the text speaks of, in the prompt's order."""
        stems = (_stem(word) for word in split(prompt) if word.lower() not in _ASKING)
        return [stem for stem in dict.fromkeys(stems) if stem in self._told and stem not in _MARKS]

    def walk(self, topic: list[str], *, seed: int, temperature: float = 1.0, after: str = "") -> Iterator[str]:
        """Words without end, about the `topic` (stems from `knows`), going on behind the text `after`.

        Temperature 0 takes the weightiest move each time, whatever the seed.
        """
        picker = _Picker(seed, temperature)
        relevance = self._relevance(topic)
        one, two = ["", ".", *map(_state, split(after))][-2:]
        place, length = -1, 0
        while True:
            moves = self._starts if two in ENDS else self._after.get((one, two)) or self._starts
            weights = [self._weight(move, topic, relevance, onward=place + 1) for move in moves]
            if length < _SHORT:
                weights = [w * _ABRUPT if self._words[m] in ENDS else w for m, w in zip(moves, weights, strict=True)]
            place = picker.pick(moves, weights)
            word = self._words[place]
            yield word
            one, two = two, _state(word)
            length = 0 if two in ENDS else length + 1

    def _weight(self, move: int, topic: list[str], relevance: dict[int, float], *, onward: int) -> float:
        weight = 1.0 + _TOPICAL * relevance.get(self._passage[move], 0.0)
        if not self._spoken_from(move).isdisjoint(topic):
            weight *= _ALOUD
        return weight * _ONWARD if move == onward else weight

    def _spoken_from(self, move: int) -> frozenset[str]:
        """The stems that a move leads to: of the whole sentence, where it begins one."""
        return self._sentences.get(move) or frozenset((self._stems[move],))

    def _relevance(self, topic: list[str]) -> dict[int, float]:
        """For each passage that speaks of the topic, how much: 1 for the one that does most."""
        score: dict[int, float] = defaultdict(float)
        for stem in topic:
            told = self._told[stem]
            rarity = math.log(1 + self._passages / len(told))
            for passage, times in told.items():
                score[passage] += rarity * min(times, 5)
        most = max(score.values(), default=1.0)
        return {passage: (value / most) ** 2 for passage, value in score.items()}


class _Picker:
    """Picks moves by weight, tiring of those it has picked."""

    def __init__(self, seed: int, temperature: float) -> None:
        self._random = random.Random(seed)
        self._temperature = temperature
        self._taken: Counter[int] = Counter()

    def pick(self, moves: list[int], weights: list[float]) -> int:
        weights = [weight / (1.0 + _TIRING * self._taken[move]) for move, weight in zip(moves, weights, strict=True)]
        move = moves[weights.index(max(weights)) if self._temperature == 0 else self._draw(weights)]
        self._taken[move] += 1
        return move

    def _draw(self, weights: list[float]) -> int:
        """By `random()` alone, whose sequence is the same in every Python release."""
        most = max(weights)
        sums = list(accumulate((weight / most) ** (1.0 / self._temperature) for weight in weights))
        return bisect(sums, self._random.random() * sums[-1], hi=len(sums) - 1)

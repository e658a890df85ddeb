"""The chain by itself."""

from __future__ import annotations

from itertools import islice, pairwise

from loom.producers.llm.markov import ENDS, Chain, join, split

CHAIN = Chain("The river runs. The river rests.\n\nA city grows. Its stories grow!")


def walk(topic: list[str], seed: int = 1, temperature: float = 1.0, after: str = "") -> list[str]:
    return list(islice(CHAIN.walk(topic, seed=seed, temperature=temperature, after=after), 40))


def test_words_and_marks() -> None:
    assert split("It\u2019s well-known: 3 bees, (no) *more*!") == [
        "It\u2019s", "well-known", ":", "3", "bees", ",", "no", "more", "!"
    ]  # fmt: skip


def test_joined_words_are_running_text() -> None:
    assert list(join(["A", "cat", ",", "a", "dog", "."])) == ["A", " cat", ",", " a", " dog", "."]
    assert list(join(["dog", "."], begun=True)) == [" dog", "."]
    assert "".join(join(["Go", "."] * 9)) == "Go. Go. Go. Go.\n\nGo. Go. Go. Go.\n\nGo."


def test_it_knows_words_in_other_forms_and_none_that_only_ask() -> None:
    assert CHAIN.knows("Tell me a story about Rivers, cities and the sea.") == ["story", "river", "city"]
    assert CHAIN.knows("?!") == []


def test_each_word_follows_the_one_before_in_the_text() -> None:
    text = split("The river runs. The river rests. A city grows. Its stories grow!")
    pairs = set(pairwise(text))
    for one, two in pairwise(walk([])):
        assert (one, two) in pairs or (one in ENDS and two in {"The", "A", "Its"})


def test_the_topic_is_preferred() -> None:
    assert walk(["city"]).count("city") > walk(["river"]).count("city")


def test_the_same_seed_walks_the_same_way() -> None:
    assert walk([], seed=1) == walk([], seed=1) != walk([], seed=2)


def test_the_greedy_walk_ignores_the_seed_and_tires() -> None:
    greedy = walk([], seed=1, temperature=0)
    assert greedy == walk([], seed=2, temperature=0)
    assert {"runs", "rests", "city", "stories"} <= set(greedy)


def test_it_goes_on_behind_a_text() -> None:
    assert walk([], after="Look, the river")[0] in {"runs", "rests"}
    assert walk([], after="unheard of")[0] in {"The", "A", "Its"}

"""The paper's value table, and policies that would cheat."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rankloom_training.reccot.rewards import (
    LEAST,
    MAX_WORDS,
    ClassWeights,
    accuracy,
    answered,
    bounded_accuracy,
    quality,
    rewards_of,
)

RATINGS = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], [6, 6, 12, 20, 56])
SOURCE = (
    "Item: The Iron Comet (Heist, Space). Review: Every double cross surprised me. "
    "The acting is wooden and the vault business bored me."
)
THINK = "Heist. For it: double cross surprised. Against it: acting wooden, vault business bored."
FILLER = "In this analysis many aspects deserve careful consideration overall. "


@pytest.mark.parametrize(
    ("error", "value"),
    [(-4, -10.7), (-2, -1.26), (-1, -0.05), (0, 0.80), (0.5, -0.83), (1, -1.29), (4, -1.60)],
)
def test_the_table_of_the_paper(error: float, value: float) -> None:
    assert accuracy(error) == pytest.approx(value, abs=0.06 if error == -4 else 0.006)


def test_nothing_is_worse_than_an_answer_that_cannot_be_read() -> None:
    worst = min(bounded_accuracy(a - b) for a in range(1, 6) for b in range(1, 6))
    assert worst == LEAST == pytest.approx(accuracy(4), abs=0.001)
    assert bounded_accuracy(-1) == accuracy(-1)


def test_weights_are_of_the_given_ratings_alone() -> None:
    weights = ClassWeights.of(RATINGS)
    assert np.mean([weights.of_rating(each) for each in RATINGS]) == pytest.approx(1.0)
    rare, usual = weights.of_rating(1.0), weights.of_rating(5.0)
    assert rare / usual == pytest.approx(np.sqrt(56 / 6))
    assert weights.of_rating(4.4) == weights.of_rating(4.0)


def test_each_answer_is_compared_with_its_own_row() -> None:
    weights = ClassWeights.of(RATINGS)
    right, wrong = (rewards_of(answered(THINK, 2), SOURCE, each, weights) for each in (2.0, 1.0))
    assert right.accuracy == pytest.approx(0.8 * weights.of_rating(2.0))
    assert wrong.accuracy == pytest.approx(accuracy(1) * weights.of_rating(1.0))
    assert right.format == wrong.format == 1.0


@pytest.mark.parametrize("raw", ["", "5", '{"think": "x"}', '{"think": "x", "answer": 6}'])
def test_what_cannot_be_read_gets_the_least(raw: str) -> None:
    found = rewards_of(raw, SOURCE, 3.0, ClassWeights.equal())
    assert (found.format, found.accuracy, found.quality) == (0.0, LEAST, 0.0)


def test_a_repaired_answer_has_no_format_reward() -> None:
    found = rewards_of(answered(THINK, 2)[:-1], SOURCE, 2.0, ClassWeights.equal())
    assert found.format == 0.0
    assert found.accuracy == pytest.approx(0.8)


def test_quality_is_grounding_up_to_a_cap() -> None:
    assert quality(THINK, SOURCE) == 1.0
    assert quality("Wonderful music, gorgeous costumes.", SOURCE) == 0.0
    assert quality("Heist.", SOURCE) == pytest.approx(1 / 6)
    assert quality("Heist with music.", SOURCE) == pytest.approx(1 / 12)
    assert quality("", SOURCE) == 0.0
    more = THINK + " Iron comet."
    assert quality(more, SOURCE) == 1.0


@pytest.mark.parametrize("padded", [THINK + FILLER * 20, THINK * 20, THINK + " word" * 200])
def test_padding_costs(padded: str) -> None:
    assert quality(padded, SOURCE) < 0.5 * quality(THINK, SOURCE)


def test_a_copy_of_the_prompt_is_worth_nothing() -> None:
    assert quality(SOURCE, SOURCE) == 0.0
    assert quality("Good film.", "Good film.") == 0.0


Policy = Callable[[float, str], str]
HACKS: dict[str, Policy] = {
    "always 5": lambda rating, think: answered(think, 5),
    "always 4": lambda rating, think: answered(think, 4),
    "padding": lambda rating, think: answered(think + FILLER * (2 * MAX_WORDS // 9), rating),
    "padding with itself": lambda rating, think: answered(think * 8, rating),
    "echo": lambda rating, think: answered(SOURCE, rating),
    "silence": lambda rating, think: "",
}


@pytest.mark.parametrize("name", HACKS)
def test_hacks_get_less_than_a_fair_policy(name: str) -> None:
    """The fair one reads two of three ratings, and is off by one otherwise; hacks answer alike."""
    weights = ClassWeights.of(RATINGS)
    fair = np.mean(list(_totals(lambda rating, think: answered(think, rating), weights)))
    assert np.mean(list(_totals(HACKS[name], weights))) < fair - 0.2


def _totals(policy: Policy, weights: ClassWeights) -> Iterator[float]:
    random = np.random.default_rng(0)
    for rating in RATINGS.tolist():
        off = random.choice([0, 0, 0, 0, -1, 1])
        guess = float(np.clip(rating + off, 1, 5))
        yield rewards_of(policy(guess, THINK), SOURCE, rating, weights).total

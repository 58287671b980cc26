"""Prompts that begin alike, scored as one: the same scores, and less to read."""

from __future__ import annotations

import numpy as np
import pytest

from engine.tiny import random_segment, tiny_decoder, weights_of
from rankloom_engine import attention
from rankloom_engine.model import ForwardInput
from rankloom_engine.packing import Segment
from rankloom_engine.passes import AllAtOnce, Passes, RowByRow
from rankloom_engine.prompt import Prompt
from rankloom_engine.shared_prefix import common_length, shared_prompt

TOLERANCE = 1e-5


def variants(num_events: int, num_candidates: int = 1) -> tuple[Segment, list[Prompt]]:
    """A whole history, and the prompts that each lack one of its events."""
    random = np.random.default_rng(5)
    begin = Segment.of_ids([2])
    events = [random_segment(random, 2 + n % 3) for n in range(num_events)]
    prompts = []
    for gap in range(num_events):
        rest = Segment.joined([begin, *events[:gap], *events[gap + 1 :]])
        candidates = tuple(random_segment(random, 3) for _ in range(num_candidates))
        prompts.append(Prompt(rest, candidates, num_events - 1))
    return Segment.joined([begin, *events]), prompts


@pytest.mark.parametrize("passes", [RowByRow(), AllAtOnce()], ids=["rows", "whole"])
@pytest.mark.parametrize("num_candidates", [1, 3])
def test_the_scores_are_those_of_each_prompt_alone(passes: Passes, num_candidates: int) -> None:
    decoder, _ = tiny_decoder()
    decoder.passes = passes
    weights = weights_of(np.random.default_rng(0), 3)
    whole, prompts = variants(7, num_candidates)
    alone = [
        decoder.forward([ForwardInput(each.prefix, each.candidates, weights)])[0].margins
        for each in prompts
    ]
    shared = shared_prompt(prompts, whole)
    first = ForwardInput(whole, shared.candidates, weights, True, shared.visible)
    [found] = decoder.forward([first])
    assert found.margins == pytest.approx(np.concatenate(alone), abs=TOLERANCE)
    assert found.prefix is not None
    assert shared.visible is not None
    again = ForwardInput(found.prefix, shared.candidates[2:5], weights, False, shared.visible[2:5])
    [behind] = decoder.forward([again])
    assert behind.margins == pytest.approx(found.margins[2:5], abs=TOLERANCE)


def test_what_prompts_share_is_read_once() -> None:
    whole, prompts = variants(10)
    shared = shared_prompt(prompts, whole)
    assert shared.num_tokens < 0.7 * sum(prompt.num_tokens for prompt in prompts)
    assert shared_prompt(prompts, prompts[-1].prefix).visible == shared.visible


def test_a_common_beginning_ends_at_another_vector() -> None:
    text, vector = Segment.of_ids([7, 8]), np.ones(4, np.float32)
    one = Segment.joined([text, Segment.of_latent(vector), text])
    assert common_length(one, Segment.joined([text, Segment.of_latent(vector.copy()), text])) == 5
    assert common_length(one, Segment.joined([text, Segment.of_latent(2 * vector), text])) == 2
    assert common_length(one, Segment.joined([text, Segment.of_tabular(vector), text])) == 2
    assert common_length(one, Segment.joined([text, Segment.of_ids([0]), text])) == 2
    assert common_length(one, text) == 2
    assert common_length(one, Segment.of_ids([7, 9, 9])) == 1


@pytest.mark.parametrize("group_tokens", [1, 7, 40])
def test_candidates_attend_in_groups(group_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates do not see each other, so how many attend at once changes nothing."""
    weights = weights_of(np.random.default_rng(0), 3)
    whole, prompts = variants(7, 2)
    shared = shared_prompt(prompts, whole)
    row = ForwardInput(whole, shared.candidates, weights, True, shared.visible)
    [at_once] = tiny_decoder()[0].forward([row])
    monkeypatch.setattr(attention, "GROUP_TOKENS", group_tokens)
    [in_groups] = tiny_decoder()[0].forward([row])
    assert in_groups.margins == pytest.approx(at_once.margins, abs=TOLERANCE)
    assert in_groups.prefix is not None
    behind = ForwardInput(in_groups.prefix, shared.candidates, weights, False, shared.visible)
    [cached] = tiny_decoder()[0].forward([behind])
    assert cached.margins == pytest.approx(at_once.margins, abs=TOLERANCE)

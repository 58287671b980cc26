"""The decoder learns the form of answers, and GRPO its rewards; a killed run has the same curve."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import TrainerCallback

from rankloom_training.checkpoints import NO_CHECKPOINT
from rankloom_training.data import DataError
from rankloom_training.embedded import DecoderShape
from rankloom_training.reccot.answer import read_answer
from rankloom_training.reccot.decoder import AnswerDecoder, WarmStart, small_decoder, warm_start
from rankloom_training.reccot.grpo import (
    GrpoOptions,
    Question,
    curve_of,
    improve,
    reward_functions,
    write_curve,
)
from rankloom_training.reccot.rewards import LEAST, ClassWeights, answered

TINY = DecoderShape(hidden=32, layers=1, heads=2, key_value_heads=1, intermediate=64)
WORDS = ("awful", "poor", "fair", "good", "superb")
PARTS = ("format", "accuracy", "quality")
GRPO = GrpoOptions(steps=4, group=4, prompts=2, save_every=2)
pytestmark = pytest.mark.filterwarnings("ignore")  # of TRL and what it imports


def questions(number: int = 40) -> list[Question]:
    return [
        Question(f"Review: {WORDS[n % 5]}\nAnswer: ", f"Review: {WORDS[n % 5]}", 1.0 + n % 5)
        for n in range(number)
    ]


def pairs() -> list[tuple[str, str]]:
    return [
        (each.prompt, answered(f"For it: {WORDS[int(each.rating) - 1]}.", each.rating))
        for each in questions()
    ]


@pytest.fixture(scope="module")
def taught() -> AnswerDecoder:
    decoder = small_decoder([prompt + answer for prompt, answer in pairs()], 0, TINY)
    start = WarmStart(epochs=30, batch=8, learning_rate=1e-2)
    warm_start(decoder, pairs(), start, 0, NO_CHECKPOINT)
    return decoder


def test_a_small_decoder_learns_the_form(taught: AnswerDecoder) -> None:
    """All its answers can be read as they are; what they say takes longer to learn."""
    raw = taught.answers([each.prompt for each in questions(5)])
    assert all(read_answer(one).answer is not None for one in raw)
    assert not any(read_answer(one).repaired for one in raw)


def test_answers_do_not_depend_on_the_others_of_a_batch(taught: AnswerDecoder) -> None:
    prompts = [each.prompt for each in questions(5)] + ["Review: " + "good " * 40 + "\nAnswer: "]
    assert taught.answers(prompts) == [taught.answers([prompt])[0] for prompt in prompts]


def test_drawn_answers_are_those_of_their_seed(taught: AnswerDecoder) -> None:
    prompts = [each.prompt for each in questions(5)] * 20
    one, again, other = (taught.answers(prompts, draw=draw) for draw in (1, 1, 2))
    assert one == again != other
    assert len(set(one)) > len(set(taught.answers(prompts)))


def test_a_curve_without_a_divergence_has_none(tmp_path: Path) -> None:
    """TRL measures none where it has no weight."""
    logged = {"reward": 1.5, **{f"rewards/{part}/mean": 0.5 for part in PARTS}}
    [step] = curve_of([{"step": 1, **logged}, {"step": 1, "train_loss": 2.0}])
    assert step == {"step": 1, "reward": 1.5, **dict.fromkeys(PARTS, 0.5)}
    write_curve(tmp_path, [step], seed=0)
    assert (tmp_path / "grpo.png").stat().st_size > 1000
    with pytest.raises(KeyError):  # another name of a part is no part that is 0
        curve_of([{"step": 1, "reward": 1.5}])


def test_rewards_meet_the_rows_of_their_answers() -> None:
    """In the order that TRL gives them, in which rows repeat."""
    functions = {each.__name__: each for each in reward_functions(ClassWeights.equal())}
    given: dict[str, Any] = {
        "prompts": ["a", "b", "a"],
        "completions": [answered("For it: good.", 4), answered("x", 4), "?"],
        "source": ["Review: good", "Review: poor", "Review: good"],
        "rating": [4.0, 2.0, 4.0],
    }
    assert functions["format"](**given) == [1.0, 1.0, 0.0]
    np.testing.assert_allclose(functions["accuracy"](**given), [0.8, -1.585, LEAST], atol=1e-3)
    assert functions["quality"](**given)[0] == pytest.approx(1 / 6)


class _Kill(TrainerCallback):  # type: ignore[misc]  # untyped
    """Ends the process' training after a step, as a signal would."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
        if state.global_step == 3:
            raise KeyboardInterrupt


def run(
    decoder: AnswerDecoder, folder: Path, *callbacks: TrainerCallback
) -> list[dict[str, float]]:
    own = copy.deepcopy(decoder)
    weights = ClassWeights.equal()
    return improve(own, questions(), weights, GRPO, 5, folder, callbacks)


def test_a_killed_run_goes_on_to_the_same_curve(taught: AnswerDecoder, tmp_path: Path) -> None:
    whole = run(taught, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(taught, tmp_path / "killed", _Kill())
    begun = tmp_path / "killed" / "checkpoint-999"  # killed again, as it was written
    begun.mkdir()
    resumed = run(taught, tmp_path / "killed")
    assert not begun.exists()
    assert [each["step"] for each in whole] == [1, 2, 3, 4]
    for one, other in zip(whole, resumed, strict=True):
        assert other == pytest.approx(one, abs=1e-5)


def test_fewer_reviews_than_a_step_has_are_refused(taught: AnswerDecoder, tmp_path: Path) -> None:
    few = questions()[: GRPO.prompts - 1]
    with pytest.raises(DataError, match="fewer than the"):
        improve(taught, few, ClassWeights.equal(), GRPO, 5, tmp_path)


def test_curves_are_written(tmp_path: Path) -> None:
    names = ("reward", "format", "accuracy", "quality", "kl")
    curve = [{"step": step, **dict.fromkeys(names, 0.1 * step)} for step in (1, 2)]
    write_curve(tmp_path, curve, seed=3)
    assert json.loads((tmp_path / "grpo.json").read_text()) == {"seed": 3, "steps": curve}
    assert (tmp_path / "grpo.png").stat().st_size > 1000

"""Group-relative policy optimisation of a decoder's answers, by TRL (extra `rl`)."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankloom_training.data import DataError
from rankloom_training.reccot.decoder import ANSWER_TOKENS, AnswerDecoder
from rankloom_training.reccot.generators import REPORTS
from rankloom_training.reccot.low_rank import lora_config
from rankloom_training.reccot.rewards import ClassWeights, rewards_of

_SHOWN = {
    "reward": "reward",
    "kl": "kl",
    "rewards/format/mean": "format",
    "rewards/accuracy/mean": "accuracy",
    "rewards/quality/mean": "quality",
}

CURVE, PLOT = REPORTS
TRAINER_STATE = "trainer_state.json"  # is written last
RewardFunction = Callable[..., list[float]]


@dataclass(frozen=True, slots=True)
class GrpoOptions:
    """``steps``: 0 leaves it out. ``group``: answers to each prompt. ``prompts``: of each step.

    ``kl``: weight of the divergence from the decoder before. ``learning_rate``: of a small decoder;
    a pretrained one learns at a fifth of it. ``weighted``: rare ratings count more.
    """

    steps: int = 0
    group: int = 8
    prompts: int = 8
    kl: float = 0.04
    learning_rate: float = 3e-3
    temperature: float = 1.0
    save_every: int = 20
    weighted: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    """``source``: what an answer may speak of. ``rating``: the row's own."""

    prompt: str
    source: str
    rating: float


def improve(
    decoder: AnswerDecoder,
    questions: Sequence[Question],
    weights: ClassWeights,
    options: GrpoOptions,
    seed: int,
    unfinished: Path,
    callbacks: Sequence[object] = (),
) -> list[dict[str, float]]:
    """Trains the decoder in place on the rewards of its own answers; returns the curve by step.

    Goes on from the newest checkpoint in ``unfinished``, to the same curve. ``weights``: of the
    rows of the questions alone. Raises DataError for fewer questions than a step has.
    """
    if len(questions) < options.prompts:
        have = f"{len(questions)} training reviews are fewer than the {options.prompts} of a step"
        raise DataError(f"{have}; give more reviews, or fewer --folds")
    # The extra `rl`, which takes seconds to import.
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl.trainer.grpo_trainer import GRPOTrainer

    warnings.simplefilter("ignore", FutureWarning)  # TRL sets options that transformers renames
    rows: Any = Dataset.from_list([vars_of(question) for question in questions])
    make: Any = GRPOTrainer
    trainer = make(
        model=decoder.model.train(),
        reward_funcs=reward_functions(weights),
        args=_config(options, decoder.is_pretrained, seed, unfinished),
        train_dataset=rows,
        processing_class=decoder.tokenizer,
        peft_config=lora_config(),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=_newest(unfinished))
    decoder.model = trainer.model.merge_and_unload().eval()
    return curve_of(trainer.state.log_history)


def vars_of(question: Question) -> dict[str, object]:
    """A row of TRL's data set; its further columns come to the reward functions with the answer."""
    return {"prompt": question.prompt, "source": question.source, "rating": question.rating}


def reward_functions(weights: ClassWeights) -> list[RewardFunction]:
    """One for each part, in TRL's form: lists of answers and of their rows' own columns."""
    return [_reward(part, weights) for part in ("format", "accuracy", "quality")]


def _reward(part: str, weights: ClassWeights) -> RewardFunction:
    def reward(
        *, completions: list[str], source: list[str], rating: list[float], **_: object
    ) -> list[float]:
        rows = zip(completions, source, rating, strict=True)
        scored = (rewards_of(raw, text, stars, weights) for raw, text, stars in rows)
        return [float(getattr(one, part)) for one in scored]

    reward.__name__ = part  # TRL's logs name it so
    return reward


def curve_of(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Step, reward, its three parts and, where it has a weight, the divergence of each step."""
    return [
        {"step": each["step"]}
        | {ours: float(each[theirs]) for theirs, ours in _SHOWN.items() if theirs != "kl"}
        | ({"kl": float(each["kl"])} if "kl" in each else {})
        for each in history
        if "reward" in each
    ]


def write_curve(folder: Path, curve: Sequence[Mapping[str, float]], seed: int) -> None:
    """As JSON, and as a plot beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    path = folder / CURVE
    path.write_text(json.dumps({"seed": seed, "steps": list(curve)}, indent=1) + "\n")
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name in (each for each in _SHOWN.values() if each in curve[0]):
        axes.plot([each["step"] for each in curve], [each[name] for each in curve], label=name)
    axes.set(xlabel="step", ylabel="mean over the answers of a step")
    axes.legend()
    figure.savefig(folder / PLOT)
    pyplot.close(figure)


def _config(options: GrpoOptions, is_pretrained: bool, seed: int, folder: Path) -> Any:  # noqa: ANN401
    import torch
    from trl.trainer.grpo_config import GRPOConfig

    return GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=options.prompts * options.group,
        num_generations=options.group,
        max_completion_length=ANSWER_TOKENS,
        max_steps=options.steps,
        learning_rate=options.learning_rate / (5 if is_pretrained else 1),
        temperature=options.temperature,
        beta=options.kl,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        save_steps=options.save_every,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
    )


def _newest(folder: Path) -> str | None:
    """The newest whole checkpoint. One that a killed run had begun has no state yet, and goes."""
    whole: list[Path] = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / TRAINER_STATE).is_file():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    newest = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    return None if newest is None else str(newest)

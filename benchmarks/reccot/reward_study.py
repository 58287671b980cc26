"""Rewards of a small decoder's answers before, during and after GRPO."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.results import BenchmarkResult
from rankloom_training.data import Split
from rankloom_training.data.reviews import Reviews
from rankloom_training.metrics import BOOTSTRAP_SAMPLES, Estimate
from rankloom_training.reccot.decoder import AnswerDecoder, WarmStart, open_decoder
from rankloom_training.reccot.encode import spoken_rows
from rankloom_training.reccot.generators import REPORTS
from rankloom_training.reccot.grpo import GrpoOptions
from rankloom_training.reccot.language_model import EMBEDDED, LanguageModelGenerator
from rankloom_training.reccot.measures import paired_difference
from rankloom_training.reccot.prompts import prompt_of, source_of
from rankloom_training.reccot.rewards import ClassWeights, rewards_of

EDGE = 10  # steps that are the beginning, or the end, of a curve
DRAWS = 3  # of answers to each review
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class AnswerRewards:
    """(test rows,) rewards of the likeliest answers, and means of DRAWS drawn ones.

    What GRPO raises is the reward of answers that are drawn.
    """

    likeliest: Values
    drawn: Values


@dataclass(frozen=True, slots=True, eq=False)
class SeedRewards:
    """``curve``: rewards, their parts and the divergence by step.

    ``seconds``: of the whole training, the measuring included.
    """

    curve: Sequence[Mapping[str, float]]
    before: AnswerRewards
    after: AnswerRewards
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class RewardStudy:
    """``steps``: of GRPO. ``start``: how answers are taught before."""

    reviews: Reviews
    steps: int
    start: WarmStart = field(default_factory=WarmStart)

    def of_seed(self, seed: int) -> SeedRewards:
        """Trains once without GRPO, and once with it after the same beginning."""
        taught = LanguageModelGenerator(EMBEDDED, self.start, GrpoOptions(), seed)
        begun = time.perf_counter()
        curve, after = self._trained(replace(taught, grpo=GrpoOptions(steps=self.steps)))
        seconds = time.perf_counter() - begun
        return SeedRewards(curve, self._trained(taught)[1], after, seconds)

    @property
    def asked(self) -> NDArray[np.int64]:
        """(n,) rows of test reviews."""
        return spoken_rows(self.reviews, Split.TEST)

    def _trained(
        self, generator: LanguageModelGenerator
    ) -> tuple[Sequence[Mapping[str, float]], AnswerRewards]:
        """The curve of rewards, and those of answers about test reviews."""
        rows = spoken_rows(self.reviews, Split.TRAIN)
        with tempfile.TemporaryDirectory() as name:
            folder, unfinished = Path(name) / "generator", Path(name) / "unfinished"
            folder.mkdir()
            unfinished.mkdir()
            generator.train(self.reviews, rows, folder, unfinished)
            report = folder / REPORTS[0]
            curve = json.loads(report.read_text())["steps"] if report.exists() else []
            return curve, self._rewards(open_decoder(str(folder)), rows)

    def _rewards(self, decoder: AnswerDecoder, training: NDArray[np.int64]) -> AnswerRewards:
        weights = ClassWeights.of(self.reviews.rating[training])
        prompts = [prompt_of(self.reviews, row) for row in self.asked.tolist()]
        drawn = [
            self._totals(decoder.answers(prompts, draw=number), weights) for number in range(DRAWS)
        ]
        likeliest = self._totals(decoder.answers(prompts), weights)
        return AnswerRewards(likeliest, np.mean(drawn, axis=0))

    def _totals(self, answers: Sequence[str], weights: ClassWeights) -> Values:
        reviews = self.reviews
        return np.array([
            rewards_of(raw, source_of(reviews, row), float(reviews.rating[row]), weights).total
            for row, raw in zip(self.asked.tolist(), answers, strict=True)
        ])  # fmt: skip


def figures_of(study: RewardStudy, found: Sequence[SeedRewards]) -> dict[str, Any]:
    """Rewards by seed, and their rise in the curves and on validation reviews."""
    user = study.reviews.user[study.asked]
    rises = {}
    for kind in ("drawn", "likeliest"):
        after = np.mean([getattr(seed.after, kind) for seed in found], axis=0)
        before = np.mean([getattr(seed.before, kind) for seed in found], axis=0)
        rises[f"{kind}_rise"] = asdict(paired_difference(user, after, before))
    curves = [_rewards_of(seed) for seed in found]
    return {
        "by_seed": [_of_seed(seed) for seed in found],
        "curve_rise": asdict(curve_rise(curves)),
        **rises,
    }


def curve_rise(curves: Sequence[Values]) -> Estimate:
    """Mean of the last EDGE steps less that of the first, 95 % by a bootstrap over steps.

    ``curves``: (steps,) rewards of each seed, of which each step takes the mean.
    """
    mean = np.mean(curves, axis=0)
    first, last = mean[:EDGE], mean[-EDGE:]
    drawn = np.random.default_rng(0).integers(0, EDGE, (2, BOOTSTRAP_SAMPLES, EDGE))
    rises = last[drawn[1]].mean(axis=1) - first[drawn[0]].mean(axis=1)
    low, high = np.quantile(rises, [0.025, 0.975])
    return Estimate(float(last.mean() - first.mean()), float(low), float(high))


def summary(result: BenchmarkResult) -> str:
    """The table as lines."""
    lines = ["seed  first steps  last steps  drawn before   after  likeliest before   after      s"]
    for number, seed in enumerate(result.figures["by_seed"]):
        drawn, likeliest = seed["drawn"], seed["likeliest"]
        lines.append(
            f"{number:4}  {seed['first']:11.3f}  {seed['last']:10.3f}  {drawn[0]:12.3f}  "
            f"{drawn[1]:6.3f}  {likeliest[0]:16.3f}  {likeliest[1]:6.3f}  {seed['seconds']:5.0f}"
        )
    for name in ("curve_rise", "drawn_rise", "likeliest_rise"):
        rise = result.figures[name]
        lines.append(f"{name}: {rise['value']:+.3f} [{rise['low']:+.3f}, {rise['high']:+.3f}]")
    return "\n".join(lines)


def _of_seed(seed: SeedRewards) -> dict[str, Any]:
    rewards = _rewards_of(seed)
    return {
        "first": float(rewards[:EDGE].mean()),
        "last": float(rewards[-EDGE:].mean()),
        "drawn": [float(each.drawn.mean()) for each in (seed.before, seed.after)],
        "likeliest": [float(each.likeliest.mean()) for each in (seed.before, seed.after)],
        "seconds": seed.seconds,
        "curve": list(seed.curve),
    }


def _rewards_of(seed: SeedRewards) -> Values:
    return np.array([each["reward"] for each in seed.curve])

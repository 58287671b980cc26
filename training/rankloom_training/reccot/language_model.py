"""Rationales by a causal LM: taught the form of answers, then rewarded for good ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from rankloom_training.checkpoints import Checkpoint
from rankloom_training.data.reviews import Reviews
from rankloom_training.reccot.decoder import (
    AnswerDecoder,
    WarmStart,
    open_decoder,
    small_decoder,
    warm_start,
)
from rankloom_training.reccot.evidence import TermEvidence
from rankloom_training.reccot.generators import Rows
from rankloom_training.reccot.grpo import GrpoOptions, Question, improve, write_curve
from rankloom_training.reccot.prompts import prompt_of, source_of
from rankloom_training.reccot.rewards import ClassWeights

EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class LanguageModelGenerator:
    """``base``: EMBEDDED, or a causal LM by path or hub id."""

    base: str = EMBEDDED
    start: WarmStart = field(default_factory=WarmStart)
    grpo: GrpoOptions = field(default_factory=GrpoOptions)
    seed: int = 0

    @property
    def name(self) -> str:
        return self.base

    @property
    def options(self) -> Mapping[str, object]:
        return {"generator": "language model", **asdict(self)}

    def train(self, reviews: Reviews, rows: Rows, folder: Path, unfinished: Path) -> None:
        """Raises BaseModelError, or DataError."""
        drawn = np.random.default_rng(self.seed).permutation(rows)[: self.start.rows]
        pairs = _examples(reviews, rows, drawn)
        decoder = self._untrained([prompt + answer for prompt, answer in pairs])
        warm_start(decoder, pairs, self.start, self.seed, Checkpoint(unfinished / "start.pt"))
        if self.grpo.steps:
            self._improve(decoder, reviews, rows, folder, unfinished)
        decoder.save(folder)

    def write(self, reviews: Reviews, rows: Rows, folder: Path) -> Iterator[str]:
        decoder = open_decoder(str(folder))
        return iter(decoder.answers([prompt_of(reviews, row) for row in rows.tolist()]))

    def _untrained(self, texts: list[str]) -> AnswerDecoder:
        return small_decoder(texts, self.seed) if self.base == EMBEDDED else open_decoder(self.base)

    def _improve(
        self, decoder: AnswerDecoder, reviews: Reviews, rows: Rows, folder: Path, unfinished: Path
    ) -> None:
        questions = [
            Question(prompt_of(reviews, row), source_of(reviews, row), float(reviews.rating[row]))
            for row in rows.tolist()
        ]
        own = ClassWeights.of(reviews.rating[rows]) if self.grpo.weighted else ClassWeights.equal()
        curve = improve(decoder, questions, own, self.grpo, self.seed, unfinished / "grpo")
        write_curve(folder, curve, self.seed)


def _examples(reviews: Reviews, rows: Rows, drawn: Rows) -> list[tuple[str, str]]:
    """Prompts, and answers that evidence of ``rows`` writes for the rows' own ratings."""
    evidence = TermEvidence([reviews.texts[row] for row in rows], reviews.rating[rows])
    items = [reviews.catalogue.items[item] for item in reviews.item[drawn]]
    texts = [reviews.texts[row] for row in drawn]
    answers = evidence.answers(items, texts, reviews.rating[drawn])
    prompts = (prompt_of(reviews, row) for row in drawn.tolist())
    return [(prompt, answer.to_json()) for prompt, answer in zip(prompts, answers, strict=True)]

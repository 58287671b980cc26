"""Weaves one request: user and candidates into a prompt, margins into scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.calibration import Calibration
from rankloom_adapters.router import Router
from rankloom_engine.explain import Detokenizer
from rankloom_engine.prompt import Past, Prompt, PromptBuilder, PromptCandidate, PromptEvent


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """(candidates,) logits and calibrated probabilities, in the request's order."""

    score: NDArray[np.float64]
    probability: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Weaver:
    """What of a bundle turns features into scores, but for the model itself.

    ``expert_digests``: in the order of ``router.experts``.
    """

    router: Router
    expert_digests: tuple[str, ...]
    calibration: Calibration
    builder: PromptBuilder

    def past(self, events: Sequence[PromptEvent]) -> Past:
        """A user's past as the model reads it."""
        return self.builder.past(events)

    def prompt(
        self,
        past: Past,
        vector: NDArray[np.float32],
        candidates: Sequence[PromptCandidate],
        tabular: NDArray[np.float32],
    ) -> Prompt:
        """One request's tokens: ``vector`` (dim,), ``tabular`` (candidates, columns)."""
        return self.builder.prompt(past, vector, candidates, tabular)

    @property
    def stops(self) -> frozenset[int]:
        """Tokens that end an explanation: the tokenizer's own structure."""
        return self.builder.structural

    def detokenizer(self) -> Detokenizer:
        """Token ids of an explanation to text."""
        return Detokenizer(self.builder.tokenizer)

    def finish(self, margins: NDArray[np.float32], tree_logits: NDArray[np.float64]) -> Scores:
        """The language model's margin on top of the trees' logit it was trained on."""
        score = np.asarray(margins, dtype=np.float64) + tree_logits
        return Scores(score, self.calibration.probability(score))

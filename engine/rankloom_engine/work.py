"""One request on its way through the model, piece by piece."""

from __future__ import annotations

import numpy as np

from rankloom_engine.attention import PrefixKV
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import Answer, Ask
from rankloom_engine.prompt import Prompt
from rankloom_engine.scheduler import Job, Piece


class Work:
    """A prompt, its experts' weights, and the margins found so far.

    ``margins``: (candidates,) float32, NaN where the model has not been yet. ``cached``:
    the prefix's keys and values once a pass has left them.
    """

    def __init__(
        self, prompt: Prompt, weights: MixtureWeights, cached: PrefixKV | None = None
    ) -> None:
        self.prompt, self.weights, self.cached = prompt, weights, cached
        self.margins = np.full(len(prompt.candidates), np.nan, dtype=np.float32)

    def job(self, key: int, deadline: float = np.inf, caller: str = "") -> Job:
        """What the scheduler needs to know."""
        return Job(
            key,
            len(self.prompt.prefix) if self.cached is None else 0,
            tuple(map(len, self.prompt.candidates)),
            deadline,
            caller,
        )

    def ask(self, piece: Piece, *, keep_prefix: bool) -> Ask:
        """One piece for a forward pass; more pieces always want the prefix kept."""
        return Ask(
            self.prompt.prefix if self.cached is None else self.cached,
            self.prompt.candidates[piece.start : piece.stop],
            self.weights,
            keep_prefix=keep_prefix or not piece.last,
        )

    def take(self, piece: Piece, answer: Answer) -> None:
        """Notes what a pass found."""
        self.margins[piece.start : piece.stop] = answer.margins
        self.cached = self.cached or answer.prefix

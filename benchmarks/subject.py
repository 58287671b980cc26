"""Our engine, as the benchmark drives it: the only module here that knows its interface."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen2ForCausalLM
from workload import NO, YES, User, sharing_weights

from rankloom_adapters.expert import Expert
from rankloom_engine.attention import PrefixKV
from rankloom_engine.expert_bank import MixtureWeights, install
from rankloom_engine.kernels import speed_up
from rankloom_engine.model import Decoder, ForwardInput, ForwardOutput
from rankloom_engine.packing import Segment
from rankloom_engine.projector import Projector
from rankloom_engine.runner import EngineLimits

# As the server's runner cuts its micro-batches by default.
LIMITS = EngineLimits()


class Engine:
    """The engine over a model's weights, with experts installed, or with none."""

    def __init__(self, model: Qwen2ForCausalLM, experts: Sequence[Expert] = ()) -> None:
        shared = sharing_weights(model)
        # It has no soft tokens to project: the sizes are free.
        projector = Projector(1, 1, model.config.hidden_size).to(model.dtype).eval()
        self._decoder = Decoder(shared, projector, yes=YES, no=NO)
        self._decoder.bank = install(shared, experts) if experts else None
        speed_up(shared)

    def margins(self, users: Sequence[User]) -> Tensor:
        """(users, candidates) float32, in micro-batches of the default token budget."""
        return self.answers([self.ask(user, user.candidates) for user in users])[0]

    def ask(
        self, user: User, candidates: NDArray[np.int64], held: PrefixKV | None = None
    ) -> ForwardInput:
        """One user's row; a prefix that is not held yet is kept."""
        prefix = _segment(user.prefix) if held is None else held
        return ForwardInput(
            prefix, _segments(candidates), MixtureWeights(user.weights), keep_prefix=held is None
        )

    def answers(self, asks: Sequence[ForwardInput]) -> tuple[Tensor, list[PrefixKV | None]]:
        """(asks, candidates) margins, and the prefixes that were kept."""
        found = [a for batch in _within_budget(asks) for a in self.answers_of_pass(batch)]
        margins = torch.from_numpy(np.stack([answer.margins for answer in found]))
        return margins, [answer.prefix for answer in found]

    def answers_of_pass(self, asks: Sequence[ForwardInput]) -> list[ForwardOutput]:
        """What one forward pass over all of them gives."""
        return self._decoder.forward(asks)


def _within_budget(asks: Sequence[ForwardInput]) -> list[Sequence[ForwardInput]]:
    """Asks of equal length, as many in a pass as its tokens allow."""
    size = max(1, LIMITS.max_batch_tokens // len(asks[0].row()))
    return [asks[at : at + size] for at in range(0, len(asks), size)]


class TwoCalls:
    """All users twice: a first call, and one for other items behind the held prefixes."""

    def __init__(self, engine: Engine, users: Sequence[User], num_candidates: int) -> None:
        self._engine, self._users, self._num = engine, users, num_candidates
        self._held: list[PrefixKV | None] = [None] * len(users)

    def first(self) -> Tensor:
        """(users, candidates) float32 for the users' ``candidates``."""
        asks = [self._engine.ask(u, u.candidates[: self._num]) for u in self._users]
        margins, self._held = self._engine.answers(asks)
        return margins

    def second(self) -> Tensor:
        """(users, candidates) float32 for the users' ``later``, after ``first``."""
        calls = zip(self._users, self._held, strict=True)
        asks = [self._engine.ask(u, u.later[: self._num], held) for u, held in calls]
        return self._engine.answers(asks)[0]


def _segment(ids: NDArray[np.int64]) -> Segment:
    return Segment.of_ids(ids.tolist())


def _segments(candidates: NDArray[np.int64]) -> list[Segment]:
    return [_segment(ids) for ids in candidates]

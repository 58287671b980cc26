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
from rankloom_engine.attention import HeldPrefix
from rankloom_engine.mixture import Weights, install
from rankloom_engine.model import Answer, Ask, Decoder
from rankloom_engine.packing import Segment
from rankloom_engine.projector import Projector

USERS_PER_PASS = 4


class Engine:
    """The engine over a model's weights, with experts installed, or with none."""

    def __init__(self, model: Qwen2ForCausalLM, experts: Sequence[Expert] = ()) -> None:
        shared = sharing_weights(model)
        # It has no soft tokens to project: the sizes are free.
        projector = Projector(1, 1, model.config.hidden_size).to(model.dtype).eval()
        self._decoder = Decoder(shared, projector, yes=YES, no=NO)
        self._decoder.mixture = install(shared, experts) if experts else None

    def margins(self, users: Sequence[User]) -> Tensor:
        """(users, candidates) float32, USERS_PER_PASS users in each forward pass."""
        asks = [Ask(_segment(u.prefix), _segments(u.candidates), Weights(u.weights)) for u in users]
        starts = range(0, len(asks), USERS_PER_PASS)
        answers = [
            answer
            for at in starts
            for answer in self._decoder.answer(asks[at : at + USERS_PER_PASS])
        ]
        return torch.from_numpy(np.stack([answer.margins for answer in answers]))

    def alone(
        self, user: User, candidates: NDArray[np.int64], held: HeldPrefix | None = None
    ) -> Answer:
        """One user in a pass of its own, whose prefix is held for the next one."""
        prefix = _segment(user.prefix) if held is None else held
        weights = Weights(user.weights)
        ask = Ask(prefix, _segments(candidates), weights, keep_prefix=held is None)
        [answer] = self._decoder.answer([ask])
        return answer


class TwoCalls:
    """Each user alone, twice: a first call, and one for other items behind its prefix."""

    def __init__(self, engine: Engine, users: Sequence[User], num_candidates: int) -> None:
        self._engine, self._users, self._num = engine, users, num_candidates
        self._held: list[HeldPrefix | None] = []

    def first(self) -> Tensor:
        """(users, candidates) float32 for the users' ``candidates``."""
        answers = [self._engine.alone(u, u.candidates[: self._num]) for u in self._users]
        self._held = [answer.prefix for answer in answers]
        return torch.from_numpy(np.stack([answer.margins for answer in answers]))

    def second(self) -> Tensor:
        """(users, candidates) float32 for the users' ``later``, after ``first``."""
        calls = zip(self._users, self._held, strict=True)
        margins = [self._engine.alone(u, u.later[: self._num], held).margins for u, held in calls]
        return torch.from_numpy(np.stack(margins))


def _segment(ids: NDArray[np.int64]) -> Segment:
    return Segment.of_ids(ids.tolist())


def _segments(candidates: NDArray[np.int64]) -> list[Segment]:
    return [_segment(ids) for ids in candidates]

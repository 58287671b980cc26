"""Drives the rankloom engine; the only file here that knows its interface."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen2ForCausalLM

from benchmarks.common.workload import NO, YES, SyntheticUser, sharing_weights
from rankloom_adapters.expert import Expert
from rankloom_engine import passes
from rankloom_engine.attention import PrefixKV
from rankloom_engine.expert_bank import MixtureWeights, install
from rankloom_engine.kernels import speed_up
from rankloom_engine.model import Decoder, ForwardInput, ForwardOutput
from rankloom_engine.packing import Segment
from rankloom_engine.projector import Projector
from rankloom_engine.runner import EngineLimits

# Micro-batches as large as the server's by default.
LIMITS = EngineLimits()


class RankloomEngine:
    """The engine over a model's weights, with these experts installed."""

    def __init__(self, model: Qwen2ForCausalLM, experts: Sequence[Expert] = ()) -> None:
        shared = sharing_weights(model)
        # No prompt here has soft tokens, so the projector's sizes do not matter.
        projector = Projector(1, 1, model.config.hidden_size).to(model.dtype).eval()
        self._decoder = Decoder(shared, projector, yes=YES, no=NO)
        self._decoder.bank = install(shared, experts) if experts else None
        speed_up(shared)

    def margins(self, users: Sequence[SyntheticUser]) -> Tensor:
        """(users, candidates) float32, in micro-batches of the default token budget."""
        return self.forward([self.request(user, user.candidates) for user in users])[0]

    def request(
        self, user: SyntheticUser, candidates: NDArray[np.int64], cached: PrefixKV | None = None
    ) -> ForwardInput:
        """One user's row; without a cached prefix, the forward pass returns one."""
        prefix = _segment(user.prefix) if cached is None else cached
        return ForwardInput(
            prefix,
            [_segment(ids) for ids in candidates],
            MixtureWeights(user.weights),
            keep_prefix=cached is None,
        )

    def forward(self, requests: Sequence[ForwardInput]) -> tuple[Tensor, list[PrefixKV | None]]:
        """(requests, candidates) margins, and the prefixes to keep."""
        found = [one for batch in _within_budget(requests) for one in self.forward_once(batch)]
        margins = torch.from_numpy(np.stack([each.margins for each in found]))
        return margins, [each.prefix for each in found]

    def forward_once(self, requests: Sequence[ForwardInput]) -> list[ForwardOutput]:
        """One forward pass over all requests."""
        return self._decoder.forward(requests)


class TwoCalls:
    """Each user twice: a first call, then one for other items with the cached prefix."""

    def __init__(
        self, engine: RankloomEngine, users: Sequence[SyntheticUser], num_candidates: int
    ) -> None:
        self._engine, self._users, self._num = engine, users, num_candidates
        self._cached: list[PrefixKV | None] = [None] * len(users)

    def first(self) -> Tensor:
        """(users, candidates) float32 for the users' ``candidates``."""
        requests = [self._engine.request(u, u.candidates[: self._num]) for u in self._users]
        margins, self._cached = self._engine.forward(requests)
        return margins

    def second(self) -> Tensor:
        """(users, candidates) float32 for the users' ``later``; call ``first`` before."""
        pairs = zip(self._users, self._cached, strict=True)
        requests = [self._engine.request(u, u.later[: self._num], prefix) for u, prefix in pairs]
        return self._engine.forward(requests)[0]


def disable_padding() -> None:
    """Makes passes keep their exact size, for the rest of this process.

    Raises RuntimeError if the engine no longer takes its sizes from there.
    """
    names = vars(passes)
    if "bucket" not in names:
        raise RuntimeError("rankloom_engine.passes has no function bucket: padding is elsewhere")
    names["bucket"] = lambda size: size


def _within_budget(requests: Sequence[ForwardInput]) -> list[Sequence[ForwardInput]]:
    """Requests of equal length, cut into passes of at most the token budget."""
    size = max(1, LIMITS.max_batch_tokens // len(requests[0].row()))
    return [requests[at : at + size] for at in range(0, len(requests), size)]


def _segment(ids: NDArray[np.int64]) -> Segment:
    return Segment.of_ids(ids.tolist())

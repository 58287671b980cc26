"""A model in packed form beside itself in plain form, on random prompts."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rankloom_adapters.expert import Expert, Factors
from rankloom_engine import attention
from rankloom_engine.attention import PrefixKV
from rankloom_engine.expert_bank import MixtureWeights, install, linears_of
from rankloom_engine.model import head_logits
from rankloom_engine.packing import Segment, pack, pack_behind
from rankloom_engine.passes import AllAtOnce, RowByRow
from rankloom_engine.small import SEED

Row = tuple[list[int], list[list[int]]]  # a prefix and its candidates


class PackedTrial:
    """A model as it is and a packed copy; the one with an expert merged, the other beside it.

    ``vector``: stands in place of the last token of the vocabulary.
    """

    def __init__(
        self, model: nn.Module, vector: Tensor | None = None, expert: Expert | None = None
    ) -> None:
        self._plain, self._packed = copy.deepcopy(model), copy.deepcopy(model)
        self._vector, self._bank = vector, None
        self.vocabulary: int = cast("Any", model).get_input_embeddings().num_embeddings
        attention.wire(self._packed)
        if expert is not None:
            self._bank = install(self._packed, [expert])
            for name, pair in expert.modules.items():
                weight = cast("nn.Linear", self._plain.get_submodule(name)).weight
                weight += expert.scale * torch.from_numpy(pair.b @ pair.a)

    def difference(self, rows: Sequence[Row]) -> float:
        """The largest difference between packed and plain logits, as a share of the largest."""
        plain = torch.stack([self._plain_logits([*p, *ids]) for p, own in rows for ids in own])
        return max(share_of(packed, plain) for packed in self._packed_logits(rows))

    def _plain_logits(self, ids: list[int]) -> Tensor:
        """One full prompt by transformers' own attention."""
        model = cast("Any", self._plain)
        if self._vector is None:
            output = model(torch.tensor([ids]))
        else:
            output = model(inputs_embeds=embedded(model, np.array(ids), self._vector))
        return cast("Tensor", output.logits[0, -1, :2])

    def _packed_logits(self, rows: Sequence[Row]) -> Iterator[Tensor]:
        """All rows in one pass, and again behind its prefixes, by each kind of passes."""
        segments = [(Segment.of_ids(p), [Segment.of_ids(ids) for ids in own]) for p, own in rows]
        new = [pack(prefix, own) for prefix, own in segments]
        behind = [pack_behind([len(p)] * len(own), own, len(p)) for p, own in segments]
        num = sum(len(own) for _, own in rows)
        weights = [MixtureWeights(np.ones(1 if self._bank else 0, dtype=np.float32))] * len(rows)
        for passes in (RowByRow(), AllAtOnce()):
            cached: list[PrefixKV | None] = [None] * len(rows)
            for packed in (new, behind):
                batch = passes.batch(packed, weights, cached, [packed is new] * len(rows))
                vectors = embedded(self._packed, batch.packed.ids, self._vector)
                states, cached = passes.run(self._packed, self._bank, vectors, batch)
                yield head_logits(self._packed, states[:num], [0, 1])


def rows_up_to(vocabulary: int, num_tokens: int) -> list[Row]:
    """Rows of several lengths, one of them a prompt of ``num_tokens``."""
    random = np.random.default_rng(SEED)

    def drawn(num: int) -> list[int]:
        found: list[int] = random.integers(0, vocabulary, num).tolist()
        return found

    return [
        (drawn(37), [drawn(5), drawn(9), drawn(3)]),
        (drawn(11), [drawn(4), drawn(1)]),
        (drawn(max(num_tokens - 2, 1)), [drawn(2)]),
    ]


def embedded(model: nn.Module, ids: Any, vector: Tensor | None) -> Tensor:  # noqa: ANN401
    """(1, tokens, hidden): rows of the table; ``vector`` in place of the last one."""
    table = cast("Any", model).get_input_embeddings()
    found: Tensor = table(torch.from_numpy(ids))
    if vector is not None:
        found = found.clone()
        found[torch.from_numpy(ids) == table.num_embeddings - 1] = vector
    return found[None]


def share_of(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value; infinity if one is not finite."""
    share = float((found - expected).abs().max() / expected.abs().max())
    return share if np.isfinite(share) else float("inf")


def random_expert(model: nn.Module, rank: int = 2) -> Expert:
    """An expert on all linear layers, about half as strong as their weights."""
    random = np.random.default_rng(SEED)
    modules = {}
    for name, linear in linears_of(model).items():
        out, into = linear.weight.shape
        a = random.normal(0.0, into**-0.5, (rank, into)).astype(np.float32)
        b = random.normal(0.0, 0.5 * rank**-0.5, (out, rank)).astype(np.float32)
        modules[name] = Factors(a, b)
    return Expert("trial", "0" * 64, rank, 1.0, modules)

"""How to train: what the commands and the callers of ``train_bundle`` choose."""

from __future__ import annotations

from dataclasses import dataclass

from rankloom_training.data.negatives import NegativeSampling
from rankloom_training.visibility import Protocol


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters of one training.

    ``pairwise``: weight of the loss over a window's pairs. ``depth``: the share of the layers, the
    last ones, that are trained.
    """

    epochs: int
    learning_rate: float
    pairwise: float = 0.3
    weight_decay: float = 0.01
    depth: float = 1.0


GLOBAL_RECIPE = Recipe(epochs=2, learning_rate=5e-4)
GROUP_RECIPE = Recipe(epochs=2, learning_rate=2e-3, pairwise=0.1, depth=0.5)


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train.

    ``base``: a local path or hub id of a causal LM; None trains the embedded decoder.
    ``lm_rows``: how many training rows the language model sees at most, all rows of some users.
    ``traces``: a file of traces to learn words from; None: the evidence teacher writes about
    ``trace_share`` of the rows that the language model sees (ThinkRec: 0.2); 0: no words.
    ``like_above``: a rating above it is a like; None: as the data says. ``implicit``: how
    to sample negatives for a log of likes alone; None: as the data says.
    """

    protocol: Protocol = Protocol.P1
    collaborative: str = "mf"
    base: str | None = None
    num_groups: int = 3
    base_epochs: int = 3
    global_recipe: Recipe = GLOBAL_RECIPE
    group_recipe: Recipe = GROUP_RECIPE
    lm_rows: int = 50_000
    traces: str | None = None
    trace_share: float = 0.2
    seed: int = 0
    like_above: float | None = None
    implicit: NegativeSampling | None = None

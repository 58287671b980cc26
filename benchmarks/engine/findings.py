"""What the comparison finds, as its report reads it: figures alone, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.common.timing import Cost

ROUNDING = 0.06  # standard deviations of the margins
OTHER_METHODS = ("full", "peft_linear")  # no sums of deltas: their difference is only shown


@dataclass(frozen=True, slots=True)
class VariantCosts:
    """The cost of one variant, round by round."""

    users: int
    candidates: float
    costs: Sequence[Cost]

    def rates(self, *, wall: bool = False) -> list[float]:
        """Candidates per CPU-second, or per second on the wall, of each round."""
        return [self.candidates / (cost.wall_s if wall else cost.cpu_s) for cost in self.costs]


@dataclass(frozen=True, slots=True)
class RoundingCheck:
    """How far the timed number format moves the engine's margins from float32's.

    ``error``: root mean square, in standard deviations of the margins; ``error_merged``: the same
    for merged weights with whole prompts. ``ordered``: share of the pairs further apart than
    ROUNDING standard deviations that keep their order.
    """

    error: float
    error_merged: float
    ordered: float


@dataclass(frozen=True, slots=True)
class EngineStudy:
    """Findings for one model, by variant.

    ``differences``: the largest difference of float32 margins from merged weights.
    """

    differences: dict[str, float]
    rounding: RoundingCheck
    variants: dict[str, VariantCosts]

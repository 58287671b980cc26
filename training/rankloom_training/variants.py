"""Other ways to mix a bundle's experts, to be scored beside the one that is served."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Fusion, Router
from rankloom_engine.expert_bank import MixtureWeights

Row = NDArray[np.float32]
VARIANTS = ("no-experts", "single", "peft-linear", "temperature=T", "max-experts=N")


@dataclass(frozen=True, slots=True)
class Variant:
    """``weights``: router and user vector → (experts,) weights, the global expert's last."""

    name: str
    weights: Callable[[Router, NDArray[np.floating]], Row]
    fusion: Fusion = Fusion.EXACT_SUM

    def mixture(self, router: Router, vector: NDArray[np.floating]) -> MixtureWeights:
        """What this variant makes of a user's vector."""
        return MixtureWeights(self.weights(router, vector), self.fusion)

    @classmethod
    def of_text(cls, text: str) -> Variant:
        """One of VARIANTS. Raises ValueError, which says what to write instead."""
        name, _, value = text.partition("=")
        match name:
            case "no-experts":
                return cls(text, lambda router, _: np.zeros(len(router.experts), np.float32))
            case "single":
                return cls(text, _single)
            case "peft-linear":
                return cls(text, _served, Fusion.PEFT_LINEAR)
            case "temperature":
                return cls(text, _with(temperature=_positive(text, value)))
            case "max-experts":
                return cls(text, _with(max_experts=_count(text, value)))
        meant = get_close_matches(name, [known.partition("=")[0] for known in VARIANTS], 1)
        hint = f"did you mean {meant[0]}?" if meant else f"use {', '.join(VARIANTS)}"
        raise ValueError(f"{text}: no such variant; {hint}")


def _served(router: Router, vector: NDArray[np.floating]) -> Row:
    return router.route(vector).weights


def _single(router: Router, vector: NDArray[np.floating]) -> Row:
    """The nearest group's expert alone, whatever the router's thresholds say."""
    weights = router.weights(vector)
    if weights is None:
        return router.global_mixture(cold_start=True).weights
    row = np.zeros(len(router.experts), np.float32)
    row[int(weights.argmax())] = 1.0
    return row


def _with(**changes: float | int) -> Callable[[Router, NDArray[np.floating]], Row]:
    """The served weights of a router with other parameters."""
    return lambda router, vector: _served(dataclasses.replace(router, **changes), vector)  # type: ignore[arg-type]


def _positive(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0.0 < number < math.inf:
        raise ValueError(f"{text}: must be a number above 0, such as temperature=0.3")
    return number


def _count(text: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{text}: must be a whole number from 1 on, such as max-experts=2")
    return int(value)

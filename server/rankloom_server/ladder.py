"""The degradation ladder: which rung answers after what has failed. Pure policy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from rankloom_server.errors import DegradedRefusedError


class Rung(Enum):
    """The rungs that this server can stand on, best first."""

    EXACT_MIX = auto()
    GLOBAL_EXPERT = auto()
    LIGHTGBM_ORDER = auto()
    POPULARITY_ORDER = auto()


class RungReason(Enum):
    """Why a lower rung answers."""

    VECTOR_INVALID = auto()
    EPOCH_MISMATCH = auto()
    FEATURES_UNAVAILABLE = auto()
    ENGINE_FAILED = auto()


_RUNG_AFTER: Final = {
    RungReason.VECTOR_INVALID: Rung.GLOBAL_EXPERT,
    RungReason.EPOCH_MISMATCH: Rung.GLOBAL_EXPERT,
    RungReason.ENGINE_FAILED: Rung.LIGHTGBM_ORDER,
    RungReason.FEATURES_UNAVAILABLE: Rung.POPULARITY_ORDER,
}


@dataclass(frozen=True, slots=True)
class Step:
    """A rung, and what brought the request down to it."""

    rung: Rung
    reason: RungReason | None


def step_after(reason: RungReason | None, *, allow_degraded: bool) -> Step:
    """The rung that answers after a failure, or the top one where nothing failed.

    Raises DegradedRefusedError where the caller takes no lower rung.
    """
    if reason is None:
        return Step(Rung.EXACT_MIX, None)
    if not allow_degraded:
        raise DegradedRefusedError(reason.name)
    return Step(_RUNG_AFTER[reason], reason)

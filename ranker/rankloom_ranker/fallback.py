"""The fallback levels: which one answers after which failure. Pure policy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from rankloom_ranker.errors import FallbackRefusedError


class FallbackLevel(Enum):
    """How a request was answered, best first."""

    EXACT_MIXTURE = auto()
    GLOBAL_EXPERT = auto()
    TREES = auto()
    POPULARITY = auto()


class FallbackReason(Enum):
    """Why a lower level answers."""

    VECTOR_INVALID = auto()
    FEATURE_VERSION_MISMATCH = auto()
    FEATURES_UNAVAILABLE = auto()
    ENGINE_FAILED = auto()


_LEVEL_AFTER: Final = {
    FallbackReason.VECTOR_INVALID: FallbackLevel.GLOBAL_EXPERT,
    FallbackReason.FEATURE_VERSION_MISMATCH: FallbackLevel.GLOBAL_EXPERT,
    FallbackReason.ENGINE_FAILED: FallbackLevel.TREES,
    FallbackReason.FEATURES_UNAVAILABLE: FallbackLevel.POPULARITY,
}


@dataclass(frozen=True, slots=True)
class Fallback:
    """The level that answers, and why it is not the best one; None where it is."""

    level: FallbackLevel
    reason: FallbackReason | None


def fallback_after(reason: FallbackReason | None, *, allow_fallback: bool) -> Fallback:
    """The level that answers after a failure; the best one where nothing failed.

    Raises FallbackRefusedError where the caller accepts no fallback.
    """
    if reason is None:
        return Fallback(FallbackLevel.EXACT_MIXTURE, None)
    if not allow_fallback:
        raise FallbackRefusedError(reason.name)
    return Fallback(_LEVEL_AFTER[reason], reason)

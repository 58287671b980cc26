"""The fallback levels: which fallback level answers after what has failed. Pure policy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from rankloom_server.errors import FallbackRefusedError


class FallbackLevel(Enum):
    """The fallback levels that this server can stand on, best first."""

    EXACT_MIXTURE = auto()
    GLOBAL_EXPERT = auto()
    TREES = auto()
    POPULARITY = auto()


class FallbackReason(Enum):
    """Why a lower fallback level answers."""

    VECTOR_INVALID = auto()
    FEATURE_VERSION_MISMATCH = auto()
    FEATURES_UNAVAILABLE = auto()
    ENGINE_FAILED = auto()


_FALLBACK_LEVEL_AFTER: Final = {
    FallbackReason.VECTOR_INVALID: FallbackLevel.GLOBAL_EXPERT,
    FallbackReason.FEATURE_VERSION_MISMATCH: FallbackLevel.GLOBAL_EXPERT,
    FallbackReason.ENGINE_FAILED: FallbackLevel.TREES,
    FallbackReason.FEATURES_UNAVAILABLE: FallbackLevel.POPULARITY,
}


@dataclass(frozen=True, slots=True)
class Fallback:
    """A fallback level, and what brought the request down to it."""

    fallback_level: FallbackLevel
    reason: FallbackReason | None


def fallback_after(reason: FallbackReason | None, *, allow_fallback: bool) -> Fallback:
    """The fallback level that answers after a failure, or the top one where nothing failed.

    Raises FallbackRefusedError where the caller takes no lower fallback level.
    """
    if reason is None:
        return Fallback(FallbackLevel.EXACT_MIXTURE, None)
    if not allow_fallback:
        raise FallbackRefusedError(reason.name)
    return Fallback(_FALLBACK_LEVEL_AFTER[reason], reason)

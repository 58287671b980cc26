from __future__ import annotations

import pytest

from rankloom_ranker.errors import FallbackRefusedError
from rankloom_ranker.fallback import Fallback, FallbackLevel, FallbackReason, fallback_after

LEVELS = {
    FallbackReason.VECTOR_INVALID: FallbackLevel.GLOBAL_EXPERT,
    FallbackReason.FEATURE_VERSION_MISMATCH: FallbackLevel.GLOBAL_EXPERT,
    FallbackReason.ENGINE_FAILED: FallbackLevel.TREES,
    FallbackReason.FEATURES_UNAVAILABLE: FallbackLevel.POPULARITY,
}


@pytest.mark.parametrize("reason", FallbackReason)
def test_each_failure_has_its_level(reason: FallbackReason) -> None:
    assert fallback_after(reason, allow_fallback=True) == Fallback(LEVELS[reason], reason)


@pytest.mark.parametrize("reason", FallbackReason)
def test_a_caller_may_refuse_a_fallback(reason: FallbackReason) -> None:
    with pytest.raises(FallbackRefusedError, match=reason.name):
        fallback_after(reason, allow_fallback=False)


@pytest.mark.parametrize("allow_fallback", [True, False])
def test_without_a_failure_the_exact_mixture_answers(allow_fallback: bool) -> None:
    assert fallback_after(None, allow_fallback=allow_fallback) == Fallback(
        FallbackLevel.EXACT_MIXTURE, None
    )

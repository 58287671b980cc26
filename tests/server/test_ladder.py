from __future__ import annotations

import pytest

from rankloom_server.errors import DegradedRefusedError
from rankloom_server.ladder import Rung, RungReason, Step, step_after

RUNGS = {
    RungReason.VECTOR_INVALID: Rung.GLOBAL_EXPERT,
    RungReason.EPOCH_MISMATCH: Rung.GLOBAL_EXPERT,
    RungReason.ENGINE_FAILED: Rung.LIGHTGBM_ORDER,
    RungReason.FEATURES_UNAVAILABLE: Rung.POPULARITY_ORDER,
}


@pytest.mark.parametrize("reason", RungReason)
def test_each_failure_has_its_rung(reason: RungReason) -> None:
    assert step_after(reason, allow_degraded=True) == Step(RUNGS[reason], reason)


@pytest.mark.parametrize("reason", RungReason)
def test_a_caller_may_refuse_a_lower_rung(reason: RungReason) -> None:
    with pytest.raises(DegradedRefusedError, match=reason.name):
        step_after(reason, allow_degraded=False)


@pytest.mark.parametrize("allow_degraded", [True, False])
def test_without_a_failure_it_is_the_top_rung(allow_degraded: bool) -> None:
    assert step_after(None, allow_degraded=allow_degraded) == Step(Rung.EXACT_MIX, None)

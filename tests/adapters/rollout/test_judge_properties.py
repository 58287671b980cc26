"""What holds for any evidence: equal arms are never breached, and its order does not matter."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.rollout.observed import GROUPS
from rankloom_adapters.rollout.evidence import Observation, Pair
from rankloom_adapters.rollout.judge import TrialVerdict, judge_canary, judge_shadow
from rankloom_adapters.rollout.thresholds import Thresholds

FIGURES = st.floats(-1e3, 1e3)
USERS = st.integers(0, 9)
OBSERVATIONS = st.builds(
    Observation,
    USERS,
    st.sampled_from(GROUPS),
    st.floats(0.0, 10.0),
    failed=st.booleans(),
    score=FIGURES | st.just(math.nan),
    contribution=FIGURES | st.just(math.nan),
    spread=st.floats(0.0, 1e3),
    agreement=st.floats(-1.0, 1.0) | st.just(math.nan),
    probability=st.floats(0.0, 1.0),
    tie_rate=st.floats(0.0, 1.0),
)
PAIRS = st.builds(
    Pair,
    USERS,
    st.sampled_from(GROUPS),
    st.floats(0.0, 10.0),
    st.floats(0.0, 10.0),
    active_failed=st.booleans(),
    shadow_failed=st.booleans(),
    overlap=st.floats(0.0, 1.0),
    kendall=st.floats(-1.0, 1.0) | st.just(math.nan),
    active_score=FIGURES,
    shadow_score=FIGURES,
    tie_increase=st.floats(-1.0, 1.0),
)
EAGER = Thresholds(
    min_samples=2,
    min_group_samples=2,
    max_psi=0.0,
    max_ks=0.0,
    max_tie_rate_increase=0.0,
    max_calibration_shift=0.0,
    max_agreement_shift=0.0,
    max_error_increase=0.0,
    max_latency_ratio=1.0,
    false_alarms=0.99,
    max_checks=1,
)


@settings(deadline=None)
@given(st.lists(OBSERVATIONS, max_size=60))
def test_arms_that_are_alike_are_never_breached(observed: list[Observation]) -> None:
    found = judge_canary(observed, observed, EAGER)
    assert found.verdict is not TrialVerdict.BREACH, found.reason


@settings(deadline=None)
@given(st.lists(OBSERVATIONS, max_size=40), st.lists(OBSERVATIONS, max_size=40), st.randoms())
def test_a_canary_is_judged_alike_in_any_order(
    canary: list[Observation], baseline: list[Observation], random: Random
) -> None:
    before = judge_canary(canary, baseline, EAGER)
    random.shuffle(canary)
    random.shuffle(baseline)
    assert judge_canary(canary, baseline, EAGER) == before


@settings(deadline=None)
@given(st.lists(PAIRS, max_size=60), st.randoms())
def test_a_shadow_is_judged_alike_in_any_order(seen: list[Pair], random: Random) -> None:
    before = judge_shadow(seen, EAGER)
    random.shuffle(seen)
    assert judge_shadow(seen, EAGER) == before

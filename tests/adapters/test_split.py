"""A canary has its share of the users, always the same ones, and keeps them as it grows."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom_adapters.split import Arm, arm_of, position_of

NUM_USERS = 100_000
HALF_A_POINT = 0.005
USERS = st.text(max_size=30)
PERCENTS = st.integers(1, 99)


@pytest.mark.parametrize("percent", [1, 5, 25, 50, 75, 99])
def test_the_arms_have_their_shares(percent: int) -> None:
    found = Counter(arm_of(f"user-{n}", "digest", percent) for n in range(NUM_USERS))
    share = percent / 100
    assert abs(found[Arm.CANARY] / NUM_USERS - share) <= HALF_A_POINT
    assert abs(found[Arm.BASELINE] / NUM_USERS - min(share, 1 - share)) <= HALF_A_POINT


@given(USERS, USERS, PERCENTS, PERCENTS)
def test_who_is_in_stays_in_while_it_grows(user: str, salt: str, one: int, other: int) -> None:
    small, large = sorted((one, other))
    if arm_of(user, salt, small) is Arm.CANARY:
        assert arm_of(user, salt, large) is Arm.CANARY


@given(USERS, USERS)
def test_a_place_is_within_bounds(user: str, salt: str) -> None:
    assert 0.0 <= position_of(user, salt) < 1.0


def test_another_canary_has_other_users() -> None:
    both = sum(
        arm_of(f"{n}", "one", 10) is arm_of(f"{n}", "other", 10) is Arm.CANARY
        for n in range(NUM_USERS)
    )
    assert abs(both / NUM_USERS - 0.01) <= HALF_A_POINT

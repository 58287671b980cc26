"""Rollouts of the server of `rankloom.testing`: its own rules, and what a test scripts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rankloom import (
    ErrorReason,
    Gate,
    GateOutcome,
    GateSpec,
    Judgement,
    NotFoundError,
    PreconditionError,
    RolloutClient,
    RolloutState,
)
from rankloom.testing import FakeServer


def test_a_rollout(fake: FakeServer) -> None:
    with RolloutClient(fake.target, token="t") as operator:
        staged = operator.stage("/bundles/next")
        assert (staged.revision, staged.state) == (2, RolloutState.WARMED)
        gates = GateSpec(max_ks=0.25)
        canary = operator.start_canary(2, 5, gates=gates, expected=1, key="k")
        assert (canary.state, canary.percent) == (RolloutState.CANARY, 5)
        promoted = operator.promote(2, reason="good", key="p", expected=1)
        assert operator.promote(2, reason="good", key="p", expected=1) == promoted
        assert (operator.list().active, promoted.back_to) == (2, 1)
        assert operator.roll_back(2).state is RolloutState.ROLLED_BACK
        assert operator.get(1).state is RolloutState.ACTIVE
        assert operator.retire(2).state is RolloutState.RETIRED
    assert fake.rollout_calls[2].method == "start_canary"
    assert fake.rollout_calls[2].token == "t"
    assert fake.rollout_calls[2].arguments == {
        "revision": 2,
        "percent": 5,
        "gates": gates,
        "expected": 1,
        "key": "k",
    }


def test_a_rollout_that_is_refused(fake: FakeServer) -> None:
    with RolloutClient(fake.target) as operator:
        with pytest.raises(NotFoundError):
            operator.get(9)
        with pytest.raises(PreconditionError) as stale:
            operator.stage("/next", expected=4)
        assert (stale.value.reason, stale.value.current) == (ErrorReason.REVISION_STALE, 1)
        with pytest.raises(PreconditionError, match="revision 1 is active: retire") as wrong:
            operator.retire(1)
        assert wrong.value.reason is ErrorReason.WRONG_STATE
        operator.start_shadow(operator.stage("/next").revision)
        other = operator.stage("/next").revision
        with pytest.raises(PreconditionError, match="on trial"):
            operator.promote(other)


def test_a_scripted_rollout(fake: FakeServer) -> None:
    with RolloutClient(fake.target) as operator:
        staged = operator.stage("/next")
        gate = Gate("kendall", "drama", 0.4, 0.5, 200, GateOutcome.BREACHED)
        judgement = Judgement(GateOutcome.BREACHED, "kendall", (gate,), 120, 1080)
        breached = replace(staged, state=RolloutState.ROLLED_BACK, judgement=judgement)
        fake.on_rollout(PreconditionError, breached, None)
        with pytest.raises(PreconditionError):
            operator.promote(2)
        assert operator.start_shadow(2) == breached
        assert operator.get(2) == breached
        assert operator.retire(2).state is RolloutState.RETIRED


def test_watching(fake: FakeServer) -> None:
    with RolloutClient(fake.target) as operator:
        changes = operator.watch()
        assert [each.state for each in next(changes).rollouts] == [RolloutState.ACTIVE]
        operator.stage("/next")
        assert len(next(changes).rollouts) == 2
        changes.close()

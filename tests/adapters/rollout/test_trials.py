"""Harmless revisions pass their trial, and harmful ones are breached within three checks.

Canaries are simulated: three checks, each after the same number of further rankings in both
arms by the same thousand users, who ask twice on average, and a few of them far more often.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adapters.rollout.observed import (
    GROUPS,
    World,
    alike,
    checks,
    figures_of,
    pairs,
    probabilities_of,
    rankings_of,
    users_of,
)
from rankloom_adapters.rollout.evidence import (
    Observation,
    Reply,
    RetrievalPair,
    compare,
    observe,
    observe_failure,
)
from rankloom_adapters.rollout.judge import TrialVerdict, judge_canary, judge_shadow
from rankloom_adapters.rollout.states import Rollout, RolloutState
from rankloom_adapters.rollout.thresholds import Thresholds
from rankloom_adapters.rollout.trial import Trial
from rankloom_adapters.split import Arm

DEFAULTS = Thresholds()
NUM_SAME, NUM_HARMFUL = 200, 50  # runs
MAX_FALSE, MIN_FOUND = 0.02, 0.95
NUM_RANKINGS = 2_000  # of each arm before each check; one in 500 fails anyway
NUM_RANKINGS_OF_SAME = 1_000


def breached_at(seed: int, world: World, num: int, thresholds: Thresholds = DEFAULTS) -> int:
    """The check that breaches a canary, counted from 1; 0 if none does."""
    for number, (canary, baseline) in enumerate(checks(seed, world, num), start=1):
        if judge_canary(canary, baseline, thresholds).verdict is TrialVerdict.BREACH:
            return number
    return 0


def test_the_simulation_reduces_rankings_as_observe_does() -> None:
    random = np.random.default_rng(0)
    rankings = rankings_of(random, users_of(random), World(), 50)
    for row, figures in enumerate(figures_of(rankings)):
        score = rankings.score[row]
        seen = observe(1, "drama", 0.1, score, rankings.tree_logits[row], probabilities_of(score))
        found = (seen.score, seen.contribution, seen.spread, seen.agreement, seen.probability)
        assert (*found, seen.tie_rate) == pytest.approx(figures)


def test_canaries_that_change_nothing_go_on() -> None:
    found = [breached_at(seed, World(), NUM_RANKINGS_OF_SAME) for seed in range(NUM_SAME)]
    assert sum(map(bool, found)) <= MAX_FALSE * NUM_SAME


def test_chance_alone_keeps_within_the_budget_where_no_bound_helps() -> None:
    strict = Thresholds(
        max_psi=0.0,
        max_ks=0.0,
        max_tie_rate_increase=0.0,
        max_calibration_shift=0.0,
        max_agreement_shift=0.0,
        max_error_increase=0.0,
        max_latency_ratio=1.0,
        false_alarms=0.2,
        max_checks=3,
    )
    found = [breached_at(1_000 + seed, World(), 500, strict) for seed in range(30)]
    assert sum(map(bool, found)) <= 0.2 * len(found)


@pytest.mark.parametrize(
    "world",
    [
        pytest.param(World(slowness=1.2), id="a fifth slower"),
        pytest.param(World(tail_slowness=1.3), id="the slowest tenth is three tenths slower"),
        pytest.param(World(failures=0.012), id="one point more errors"),
        pytest.param(World(non_finite=1 / 200), id="not finite"),
        pytest.param(World(untrue=GROUPS, spread=0.5), id="shuffled labels, learned little"),
        pytest.param(World(untrue=GROUPS, spread=1.3), id="shuffled labels, learned by heart"),
        pytest.param(World(untrue=("comedy",), spread=0.7), id="shuffled labels in one group"),
    ],
)
def test_harm_is_found_within_three_checks(world: World) -> None:
    found = [breached_at(seed, world, NUM_RANKINGS) for seed in range(NUM_HARMFUL)]
    assert sum(map(bool, found)) >= MIN_FOUND * NUM_HARMFUL


@pytest.mark.parametrize("seed", range(20))
def test_shadows_that_nearly_agree_go_on(seed: int) -> None:
    found = judge_shadow(pairs(seed, 600), DEFAULTS)
    assert found.verdict is TrialVerdict.PASS, found.reason


def test_all_checks_together_spend_no_more_than_the_budget() -> None:
    levels = [DEFAULTS.level(1, check) for check in range(1, 10_000)]
    assert sum(levels) == pytest.approx(DEFAULTS.false_alarms, rel=1e-3)
    assert sum(levels) <= DEFAULTS.false_alarms


def test_a_canary_that_turns_bad_late_goes_back() -> None:
    """Checks go on as long as the trial, each after 1.5 times the evidence."""
    trial = Trial(a_canary('{"min_samples": 20, "min_group_samples": 20, "max_checks": 2}'))
    for seen in alike(600):
        for arm in trial.num_seen:
            trial.add(arm, seen)
        if trial.is_due:
            trial.take(trial.check()())
    before = trial.judgement
    assert before.verdict is TrialVerdict.PASS
    for seen in alike(600):
        trial.add(Arm.CANARY, observe_failure(seen.user, seen.group, 0.1))
        trial.add(Arm.BASELINE, seen)
        if trial.is_due:
            trial.take(trial.check()())
    assert trial.judgement.verdict is TrialVerdict.BREACH
    assert "errors" in trial.judgement.reason


def test_retrievals_alone_can_end_a_trial_but_not_pass_it() -> None:
    for overlap, verdict in ((0.1, TrialVerdict.BREACH), (1.0, TrialVerdict.NO_DATA)):
        trial = Trial(Rollout(2, "digest", RolloutState.SHADOW, gates='{"min_samples": 20}'))
        due = []
        for user in range(60):
            trial.add_retrieval(RetrievalPair(user, "", overlap))
            if trial.is_due:
                due.append(user + 1)
                trial.take(trial.check()())
        assert trial.judgement.verdict is verdict
        assert due == ([20] if verdict is TrialVerdict.BREACH else [20, 30, 45])


def a_canary(gates: str) -> Rollout:
    return Rollout(2, "digest", RolloutState.CANARY, percent=50, gates=gates)


def returning(num: int, seed: int, kept: float, slowness: float = 1.0) -> list[Observation]:
    """One ranking for each user; with a cached history it takes half the time."""
    random = np.random.default_rng(seed)
    reused = random.random(num) < kept
    latency = slowness * np.where(reused, 0.05, 0.1) * random.lognormal(0.0, 0.2, num)
    seen = [replace(each, user=user) for user, each in enumerate(alike(num))]
    return [
        replace(each, latency_s=float(time), reused=bool(is_kept))
        for each, time, is_kept in zip(seen, latency, reused, strict=True)
    ]


@pytest.mark.parametrize("kept", [(0.0, 0.6), (0.5, 0.9), (0.9, 0.9)])
def test_a_revision_that_has_kept_nothing_yet_is_not_slow(kept: tuple[float, float]) -> None:
    found = judge_canary(returning(1_000, 1, kept[0]), returning(1_000, 2, kept[1]), DEFAULTS)
    assert found.verdict is TrialVerdict.PASS, found.reason


@pytest.mark.parametrize("kept", [(0.0, 0.6), (0.5, 0.9), (0.9, 0.9)])
def test_one_that_is_slow_is_found_whatever_is_kept(kept: tuple[float, float]) -> None:
    slow = returning(1_000, 1, kept[0], slowness=1.3)
    found = judge_canary(slow, returning(1_000, 2, kept[1]), DEFAULTS)
    assert found.verdict is TrialVerdict.BREACH
    assert "latency" in found.reason


def test_a_shadow_is_timed_where_both_have_kept_the_history_or_neither() -> None:
    scores = np.arange(8.0)
    cold = [
        compare(user, "", Reply(0.05, scores, reused=True), Reply(0.1, scores))
        for user in range(300)
    ]
    both = [compare(user, "", Reply(0.1, scores), Reply(0.1, scores)) for user in range(300, 600)]
    assert judge_shadow([*cold, *both], DEFAULTS).verdict is TrialVerdict.PASS
    assert judge_shadow(cold, DEFAULTS).verdict is TrialVerdict.NO_DATA

"""Canaries of benchmarks.canary, on drawn scores instead of trained ones."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from benchmarks.canary.report import summary
from benchmarks.canary.trials import CanaryRanking, CanaryTrials
from benchmarks.common.machine import ROOT
from benchmarks.common.results import BenchmarkResult, RunFacts

from rankloom_adapters.rollout.evidence import observe

NUM_USERS, PER_USER, NUM_CANDIDATES = 480, 8, 20


def ranked(shift: float) -> list[CanaryRanking]:
    """Rankings for the same users by a model that adds ``shift`` to each of its scores."""
    random, found = np.random.default_rng(0), list[CanaryRanking]()
    for user in np.repeat(np.arange(NUM_USERS), PER_USER):
        tree_logits = random.normal(size=NUM_CANDIDATES)
        scores = tree_logits + random.normal(0, 0.3, NUM_CANDIDATES) + shift
        seen = observe(int(user), "global", 0.01, scores, tree_logits, 1 / (1 + np.exp(-scores)))
        found.append(CanaryRanking(f"user {user}", seen, scores))
    return found


def test_a_canary_of_the_bundle_itself_goes_on() -> None:
    own = ranked(0.0)
    found = CanaryTrials("itself", own, own).run(5).figures
    assert (found["runs"], found["rolled_back"], found["kendall"]) == (5, 0, 1.0)


def test_a_canary_that_scores_otherwise_goes_back() -> None:
    found = CanaryTrials("shifted", ranked(1.0), ranked(0.0)).run(5)
    assert found.figures["rolled_back_early"] == 5
    figures = {"canaries": [found.figures]}
    facts = RunFacts.now()
    result = BenchmarkResult(
        room="canary", facts=facts, dtype="float32", settings={}, figures=figures
    )
    assert "\n| shifted | 5 | 5 | 5 | 1.00 |" in summary(result)


def test_a_wrong_argument_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.canary", "--runs", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "must be a whole number, at least 1" in done.stderr

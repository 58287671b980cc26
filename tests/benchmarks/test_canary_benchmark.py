"""The canaries of `benchmarks/canary.py`, on scores that are drawn and not trained."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankloom_adapters.rollout.evidence import observe

FOLDER = Path(__file__).parents[2] / "benchmarks"
NUM_USERS, PER_USER, NUM_CANDIDATES = 480, 8, 20


@pytest.fixture(scope="module")
def runs() -> Iterator[Any]:
    """The benchmark's module; its folder is on the path as long as it is used."""
    sys.path.append(str(FOLDER))
    try:
        yield importlib.import_module("canary_runs")
    finally:
        sys.path.remove(str(FOLDER))


def ranked(runs: Any, shift: float) -> list[Any]:  # noqa: ANN401
    """The same users' rankings by a model that adds ``shift`` to each of its own scores."""
    random, found = np.random.default_rng(0), []
    for user in np.repeat(np.arange(NUM_USERS), PER_USER):
        tree_logits = random.normal(size=NUM_CANDIDATES)
        scores = tree_logits + random.normal(0, 0.3, NUM_CANDIDATES) + shift
        seen = observe(int(user), "global", 0.01, scores, tree_logits, 1 / (1 + np.exp(-scores)))
        found.append(runs.Ranked(f"user {user}", seen, scores))
    return found


def test_a_canary_of_the_bundle_itself_goes_on(runs: Any) -> None:  # noqa: ANN401
    own = ranked(runs, 0.0)
    found = runs.Canaries("itself", own, own).judged(5).figures
    assert (found["runs"], found["rolled_back"], found["kendall"]) == (5, 0, 1.0)


def test_a_canary_that_scores_otherwise_goes_back(runs: Any) -> None:  # noqa: ANN401
    found = runs.Canaries("shifted", ranked(runs, 1.0), ranked(runs, 0.0)).judged(5)
    assert found.figures["rolled_back_within_3"] == 5
    assert found.row.startswith("| shifted | 5 | 5 | 5 | 1.00 |")


def test_a_wrong_argument_is_told() -> None:
    command = [sys.executable, str(FOLDER / "canary.py"), "--runs", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "must be at least 1" in done.stderr

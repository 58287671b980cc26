"""Simulated trials with users who ask often or seldom and differ from each other.

The tree logit and the contribution of a ranking both depend on the user's taste and on a level
of the user's own. Latencies are lognormal, and longer for some users. The rankings of an arm are
drawn at once, and so are the statistics of an observation; ``test_trials`` compares these with
``observe``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.rollout.agreement import Scores
from rankloom_adapters.rollout.evidence import Observation, Pair, Reply, compare, observe

Floats = NDArray[np.float64]
GROUPS = ("drama", "comedy", "horror", "global")
SHARES = (0.4, 0.3, 0.2, 0.1)
NUM_USERS = 1_000  # of each arm; three quarters of them ask before the last check
NUM_CANDIDATES = 10
NUM_CHECKS = 3
LATENCY_S = 0.05
_PAIRS = np.triu_indices(NUM_CANDIDATES, 1)


@dataclass(frozen=True, slots=True)
class World:
    """The properties of an arm's revision.

    ``tail_slowness``: of the slowest tenth. ``untrue``: groups whose experts know nothing about
    taste and add noise instead, ``spread`` times as much as the others add in total.
    """

    slowness: float = 1.0
    tail_slowness: float = 1.0
    failures: float = 0.002
    non_finite: float = 0.0
    untrue: tuple[str, ...] = ()
    spread: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Users:
    """(users,) each. ``activity``: the share of the rankings that are the user's."""

    name: NDArray[np.int64]
    group: NDArray[np.int64]
    activity: Floats
    slowness: Floats
    tree_logits: Floats
    contribution: Floats
    scale: Floats


def users_of(random: np.random.Generator, num: int = NUM_USERS) -> Users:
    activity = random.gamma(0.8, size=num)
    return Users(
        name=random.integers(1 << 62, size=num),
        group=random.choice(len(GROUPS), size=num, p=SHARES),
        activity=activity / activity.sum(),
        slowness=random.normal(0.0, 0.25, size=num),
        tree_logits=random.normal(0.0, 0.7, size=num),
        contribution=random.normal(0.0, 0.2, size=num),
        scale=random.lognormal(0.0, 0.3, size=num),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Rankings:
    """(rankings,) indices of users, then (rankings, candidates) logits."""

    index: NDArray[np.int64]
    tree_logits: Floats
    score: Floats


def rankings_of(random: np.random.Generator, users: Users, world: World, num: int) -> Rankings:
    index = random.choice(len(users.activity), size=num, p=users.activity)
    taste, noise, other = random.standard_normal((3, num, NUM_CANDIDATES))
    tree_logits = users.tree_logits[index, None] + 0.8 * taste + 0.6 * noise
    true, untrue = 0.45 * taste + 0.3 * other, 0.54 * world.spread * other
    is_untrue = np.isin(users.group[index], [GROUPS.index(name) for name in world.untrue])
    scale = users.scale[index] * random.lognormal(0.0, 0.2, size=num)
    contribution = scale[:, None] * np.where(is_untrue[:, None], untrue, true)
    return Rankings(
        index, tree_logits, tree_logits + users.contribution[index, None] + contribution
    )


def latencies_of(
    random: np.random.Generator, users: Users, world: World, index: NDArray[np.int64]
) -> Floats:
    latency_s = LATENCY_S * np.exp(users.slowness[index] + random.normal(0.0, 0.5, size=len(index)))
    in_tail = latency_s > np.quantile(latency_s, 0.9)
    return latency_s * np.where(in_tail, world.tail_slowness, 1.0) * world.slowness


def observations(
    random: np.random.Generator, users: Users, world: World, num: int
) -> list[Observation]:
    """Observations of ``num`` rankings by an arm's users."""
    rankings = rankings_of(random, users, world, num)
    non_finite = random.random(num) < world.non_finite
    rows = zip(
        users.name[rankings.index].tolist(),
        users.group[rankings.index].tolist(),
        latencies_of(random, users, world, rankings.index).tolist(),
        ((random.random(num) < world.failures) | non_finite).tolist(),
        non_finite.tolist(),
        figures_of(rankings),
        strict=True,
    )
    return [
        Observation(user, GROUPS[group], latency_s, True, bad)
        if failed
        else Observation(user, GROUPS[group], latency_s, False, False, *figures)
        for user, group, latency_s, failed, bad, figures in rows
    ]


def probabilities_of(score: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-score)))


def figures_of(rankings: Rankings) -> Iterator[tuple[float, ...]]:
    """Score, contribution, spread, agreement, probability and share of ties of each ranking."""
    contribution = rankings.score - rankings.tree_logits
    above, above_too = (
        each[:, _PAIRS[0]] > each[:, _PAIRS[1]] for each in (rankings.tree_logits, rankings.score)
    )
    columns = (
        rankings.score.mean(axis=1),
        contribution.mean(axis=1),
        contribution.std(axis=1),
        2.0 * (above == above_too).mean(axis=1) - 1.0,
        probabilities_of(rankings.score).mean(axis=1),
        np.zeros(len(contribution)),
    )
    return zip(*(each.tolist() for each in columns), strict=True)


def checks(
    seed: int, world: World, num: int, baseline: World | None = None
) -> Iterator[tuple[list[Observation], list[Observation]]]:
    """Canary and baseline at each check: ``num`` more rankings of each, by the same users."""
    random = np.random.default_rng(seed)
    arms = [(users_of(random), each) for each in (world, baseline or World())]
    observed: tuple[list[Observation], list[Observation]] = ([], [])
    for _ in range(NUM_CHECKS):
        for known, (users, each) in zip(observed, arms, strict=True):
            known.extend(observations(random, users, each, num))
        yield observed


def pairs(
    seed: int, num: int, *, noise: float = 0.2, slowness: float = 1.0, level: float = 0.0
) -> list[Pair]:
    """Pairs of ``num`` requests; the shadow's scores are the active ones plus noise."""
    random = np.random.default_rng(seed)
    users = users_of(random, num)
    rankings = rankings_of(random, users, World(), num)
    latency_s = latencies_of(random, users, World(), rankings.index)
    shadow = rankings.score + level + noise * random.standard_normal(rankings.score.shape)
    shadow_latency_s = latency_s * slowness * random.lognormal(0.0, 0.2, size=num)
    return [
        compare(
            int(users.name[index]),
            GROUPS[users.group[index]],
            Reply(float(latency_s[row]), rankings.score[row]),
            Reply(float(shadow_latency_s[row]), shadow[row]),
        )
        for row, index in enumerate(rankings.index)
    ]


def scores_of(random: np.random.Generator) -> tuple[Scores, Scores]:
    """Random logits of eight candidates, and the trees' logits of the same."""
    scores, tree_logits = random.normal(size=(2, 8))
    return scores, tree_logits


def alike(num: int) -> list[Observation]:
    """One ranking for each user, all alike."""
    random = np.random.default_rng(num)
    return [
        observe(user, "", 0.1 + 0.01 * random.random(), *scores_of(random), np.full(8, 0.5))
        for user in range(num)
    ]

"""Simulated trials: users who ask often or seldom, each with ways of their own.

Prior and contribution of a ranking both know something of the user's taste, and both have
a level that is the user's. Latencies are lognormal, and some users' are longer than
others'. An arm's rankings are drawn all at once, and so are the figures of an observation;
``test_trials`` compares those with ``observe``.
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
    """What an arm's revision is like.

    ``tail_slowness``: of the slowest tenth. ``untrue``: the groups whose experts know
    nothing of taste; they add noise, ``spread`` times as much as the others add in all.
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
    limiter: Floats
    tree_logits: Floats
    contribution: Floats
    scale: Floats


def users_of(random: np.random.Generator, num: int = NUM_USERS) -> Users:
    activity = random.gamma(0.8, size=num)
    return Users(
        name=random.integers(1 << 62, size=num),
        group=random.choice(len(GROUPS), size=num, p=SHARES),
        activity=activity / activity.sum(),
        limiter=random.normal(0.0, 0.25, size=num),
        tree_logits=random.normal(0.0, 0.7, size=num),
        contribution=random.normal(0.0, 0.2, size=num),
        scale=random.lognormal(0.0, 0.3, size=num),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Rankings:
    """(rankings,) places of users, then (rankings, candidates) logits."""

    place: NDArray[np.int64]
    tree_logits: Floats
    score: Floats


def rankings_of(random: np.random.Generator, users: Users, world: World, num: int) -> Rankings:
    place = random.choice(len(users.activity), size=num, p=users.activity)
    taste, noise, other = random.standard_normal((3, num, NUM_CANDIDATES))
    tree_logits = users.tree_logits[place, None] + 0.8 * taste + 0.6 * noise
    true, untrue = 0.45 * taste + 0.3 * other, 0.54 * world.spread * other
    is_untrue = np.isin(users.group[place], [GROUPS.index(name) for name in world.untrue])
    scale = users.scale[place] * random.lognormal(0.0, 0.2, size=num)
    contribution = scale[:, None] * np.where(is_untrue[:, None], untrue, true)
    return Rankings(
        place, tree_logits, tree_logits + users.contribution[place, None] + contribution
    )


def latencies_of(
    random: np.random.Generator, users: Users, world: World, place: NDArray[np.int64]
) -> Floats:
    latency_s = LATENCY_S * np.exp(users.limiter[place] + random.normal(0.0, 0.5, size=len(place)))
    in_tail = latency_s > np.quantile(latency_s, 0.9)
    return latency_s * np.where(in_tail, world.tail_slowness, 1.0) * world.slowness


def observations(
    random: np.random.Generator, users: Users, world: World, num: int
) -> list[Observation]:
    """Of so many rankings by an arm's users."""
    rankings = rankings_of(random, users, world, num)
    non_finite = random.random(num) < world.non_finite
    rows = zip(
        users.name[rankings.place].tolist(),
        users.group[rankings.place].tolist(),
        latencies_of(random, users, world, rankings.place).tolist(),
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
    """Of so many requests. The shadow's scores are the active one's with so much noise."""
    random = np.random.default_rng(seed)
    users = users_of(random, num)
    rankings = rankings_of(random, users, World(), num)
    latency_s = latencies_of(random, users, World(), rankings.place)
    shadow = rankings.score + level + noise * random.standard_normal(rankings.score.shape)
    shadow_latency_s = latency_s * slowness * random.lognormal(0.0, 0.2, size=num)
    return [
        compare(
            int(users.name[place]),
            GROUPS[users.group[place]],
            Reply(float(latency_s[row]), rankings.score[row]),
            Reply(float(shadow_latency_s[row]), shadow[row]),
        )
        for row, place in enumerate(rankings.place)
    ]


def scores_of(random: np.random.Generator) -> tuple[Scores, Scores]:
    """Random logits of eight candidates, and the trees' logits of the same."""
    scores, tree_logits = random.normal(size=(2, 8))
    return scores, tree_logits


def alike(num: int) -> list[Observation]:
    """Rankings of as many users, of one kind."""
    random = np.random.default_rng(num)
    return [
        observe(user, "", 0.1 + 0.01 * random.random(), *scores_of(random), np.full(8, 0.5))
        for user in range(num)
    ]

"""Statistical tests: the size of a difference, and its probability by chance.

Samples are (users,) float64, one number per user: the requests of one user are alike, and
would count as too much evidence. The tests are deterministic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Sample = NDArray[np.float64]
MAX_BINS, MIN_USERS_PER_BIN = 10, 20
_LEAST_ERROR = 1e-9  # a smaller one, and a difference with it, may be rounding
_HALF = 0.5  # added to each bin: an empty bin would make the index infinite


@dataclass(frozen=True, slots=True)
class Finding:
    """``value``: the difference. ``p_value``: probability of one as large by chance."""

    value: float
    p_value: float


def mean_increase(ours: Sample, theirs: Sample) -> Finding:
    """Our mean less theirs; one-sided test of Welch (1947), for unequal variances."""
    difference = float(ours.mean() - theirs.mean())
    one, other = _squared_error(ours), _squared_error(theirs)
    spread = one**2 / (len(ours) - 1) + other**2 / (len(theirs) - 1)
    freedom = (one + other) ** 2 / spread if spread else len(ours) + len(theirs) - 2
    return Finding(difference, t_tail(difference, math.sqrt(one + other), freedom))


def mean_shift(ours: Sample, theirs: Sample) -> Finding:
    """Our mean less theirs; two-sided test."""
    found = mean_increase(ours, theirs)
    return Finding(found.value, min(1.0, 2.0 * min(found.p_value, 1.0 - found.p_value)))


def mean_above(values: Sample, bound: float) -> Finding:
    """The mean; one-sided test of Student (1908) that it is above the bound."""
    mean, error = float(values.mean()), math.sqrt(_squared_error(values))
    return Finding(mean, t_tail(mean - bound, error, len(values) - 1))


def mean_below(values: Sample, bound: float) -> Finding:
    """The mean; the same test that it is below the bound."""
    found = mean_above(-values, -bound)
    return Finding(-found.value, found.p_value)


def rate_increase(ours: Sample, theirs: Sample) -> Finding:
    """Our mean less theirs, for rare events such as failures.

    Fisher's exact test (1935) of the numbers of users above the common mean: a mean of a few
    ones among zeros is far from normal.
    """
    mean = np.concatenate([ours, theirs]).mean()
    num_ours, num_theirs = int((ours > mean).sum()), int((theirs > mean).sum())
    p_value = fisher_tail(num_ours, len(ours), num_theirs, len(theirs))
    return Finding(float(ours.mean() - theirs.mean()), p_value)


def rate_excess(differences: Sample) -> Finding:
    """The mean of paired differences that are mostly 0; exact one-sided sign test.

    Without an effect, the users that differ do so equally often in both directions
    (McNemar, 1947).
    """
    num_more, num_less = int((differences > 0.0).sum()), int((differences < 0.0).sum())
    num = num_more + num_less
    choices = _log_choose(num, np.arange(num_more, num + 1)) - num * math.log(2.0)
    return Finding(float(differences.mean()), min(1.0, float(np.exp(choices).sum())))


def kolmogorov_smirnov(ours: Sample, theirs: Sample) -> Finding:
    """D = max |F₁ − F₂| of the two distribution functions.

    P(D ≥ d) ≤ 2 exp(−2 d² nm / (n + m)): the first term of Smirnov's limit (1948), which
    bounds it from above, and finite samples too (Massart, 1990; Wei and Dudley, 2012).
    """
    points = np.sort(np.concatenate([ours, theirs]))
    distance = float(np.abs(_share_up_to(points, ours) - _share_up_to(points, theirs)).max())
    size = len(ours) * len(theirs) / len(points)
    return Finding(distance, min(1.0, 2.0 * math.exp(-2.0 * size * distance**2)))


def population_stability(ours: Sample, theirs: Sample) -> Finding:
    """Σ (p − q) ln(p / q) over bins with equal shares of theirs, less the part due to chance.

    The index of credit scoring (Siddiqi, 2006). Without a difference, index / (1/n + 1/m) is
    distributed as χ² with B − 1 degrees of freedom for B bins (Yurdakul, 2018), so that chance
    adds (B − 1)(1/n + 1/m).
    """
    num_bins = min(MAX_BINS, max(2, min(len(ours), len(theirs)) // MIN_USERS_PER_BIN))
    edges = np.quantile(theirs, np.arange(1, num_bins) / num_bins)
    p, q = _bin_shares(ours, edges), _bin_shares(theirs, edges)
    index = float(((p - q) * np.log(p / q)).sum())
    unit = 1.0 / len(ours) + 1.0 / len(theirs)
    return Finding(
        max(0.0, index - (num_bins - 1) * unit), chi_square_tail(index / unit, num_bins - 1)
    )


def t_tail(difference: float, error: float, freedom: float) -> float:
    """P(T ≥ difference / error) for Student's T, by the normal approximation of Wallace (1959).

    Its relative error is below 3 % from 10 degrees of freedom on.
    """
    t = difference / max(error, _LEAST_ERROR)
    z = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return 0.5 * math.erfc(math.copysign(z, t) / math.sqrt(2.0))


def fisher_tail(ours: int, num_ours: int, theirs: int, num_theirs: int) -> float:
    """P(at least ``ours`` of the ``ours + theirs`` events are ours), given the total."""
    drawn = np.arange(ours, min(ours + theirs, num_ours) + 1)
    log_share = (
        _log_choose(num_ours, drawn)
        + _log_choose(num_theirs, ours + theirs - drawn)
        - _log_choose(num_ours + num_theirs, np.array([ours + theirs]))
    )
    return min(1.0, float(np.exp(log_share).sum()))


def chi_square_tail(value: float, freedom: int) -> float:
    """P(χ² ≥ value), by the finite sums for integer degrees of freedom."""
    half = value / 2.0
    odd = freedom % 2
    tail = math.erfc(math.sqrt(half)) if odd else math.exp(-half)
    powers = [power + odd / 2.0 for power in range(1 - odd, (freedom - odd) // 2)]
    terms = [float(half**power) / math.gamma(power + 1.0) for power in powers]
    return min(1.0, tail + math.exp(-half) * sum(terms))


def _squared_error(values: Sample) -> float:
    """Squared standard error of the mean."""
    return float(values.var(ddof=1)) / len(values)


def _share_up_to(points: Sample, values: Sample) -> Sample:
    return np.searchsorted(np.sort(values), points, side="right") / len(values)


def _bin_shares(values: Sample, edges: Sample) -> Sample:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return np.asarray((counts + _HALF) / (len(values) + _HALF * len(counts)), dtype=np.float64)


def _log_choose(num: int, chosen: NDArray[np.int64]) -> Sample:
    """Logarithms of the binomial coefficients."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, num + 1)))])
    return np.asarray(log_factorial[num] - log_factorial[chosen] - log_factorial[num - chosen])

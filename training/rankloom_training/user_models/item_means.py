"""The items' means: how an average user likes each item, shrunk towards what is like it.

A Gaussian with covariance F · Fᵀ + own · I over items, whose average labels have noise row / n.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from rankloom_training.user_models.item_features import Float64s, ItemFeatures
from rankloom_training.user_models.labels import Labels
from rankloom_training.user_models.variances import USUAL_PRIOR, MeanPrior

ROUNDS = 4  # means, and users' offsets from them, in turn
OFFSET_PRIOR_ROWS = 6.0
MAX_STEPS = 15  # of the search for variances, in each round
SMALLEST, LARGEST = 1e-6, 1.0  # bounds of a variance; labels are 0 or 1


@dataclass(frozen=True, slots=True, eq=False)
class ItemAverages:
    """``average``: (items,) of the item's rows. ``rows``: (items,) their number."""

    average: Float64s
    rows: Float64s

    @classmethod
    def of(cls, labels: Labels, means: Float64s) -> ItemAverages:
        """Of labels less the overall mean and the user's offset.

        ``means``: (items,) as known so far; the users' offsets are from them.
        """
        residual = labels.liked - labels.overall
        unexplained = np.bincount(labels.user, residual - means[labels.item])
        offset = unexplained / (np.bincount(labels.user) + OFFSET_PRIOR_ROWS)
        rows = np.bincount(labels.item, minlength=len(means)).astype(np.float64)
        sums = np.bincount(labels.item, residual - offset[labels.user], minlength=len(means))
        return cls(sums / np.maximum(rows, 1.0), rows)

    def posterior(self, features: Float64s, prior: MeanPrior) -> _Posterior:
        """``features``: (items, d), weighted by the prior."""
        rated = self.rows > 0
        variance = prior.own + prior.row / np.maximum(self.rows, 1.0)
        precision = np.where(rated, 1.0 / variance, 0.0)
        scaled = features * precision[:, None]
        information = features.T @ scaled + np.eye(features.shape[1])
        inverse = np.asarray(np.linalg.inv(information), np.float64)
        return _Posterior(self, features, precision, inverse, inverse @ (scaled.T @ self.average))


@dataclass(frozen=True, slots=True, eq=False)
class _Posterior:
    """``precision``: (items,) of each average, 0 without rows. ``inverse``: covariance of the
    features' weights, (d, d). ``weights``: their mean, (d,)."""

    averages: ItemAverages
    features: Float64s
    precision: Float64s
    inverse: Float64s
    weights: Float64s

    @property
    def surprise(self) -> Float64s:
        """(items,) what the averages have that the features do not say."""
        return np.asarray(self.averages.average - self.features @ self.weights)

    def means(self, own: float) -> Float64s:
        return np.asarray(self.features @ self.weights + own * self.precision * self.surprise)

    @property
    def loss(self) -> float:
        """The negative log evidence but for a constant, by the matrix determinant lemma."""
        rated, data = self.precision > 0, self.averages.average * self.precision
        determinant = -np.log(self.precision[rated]).sum() - np.linalg.slogdet(self.inverse)[1]
        return float(0.5 * (determinant + data @ self.surprise))

    def gradients(self) -> tuple[Float64s, Float64s]:
        """The loss' gradients: by the log variance of each feature, and of each average."""
        by_feature = 0.5 * (1.0 - np.diag(self.inverse) - self.weights**2)
        explained = ((self.features @ self.inverse) * self.features).sum(axis=1)
        spread = self.precision - self.precision**2 * explained
        by_variance = 0.5 * (spread - (self.precision * self.surprise) ** 2)
        return by_feature, by_variance


def item_means(labels: Labels, features: ItemFeatures, prior: MeanPrior) -> Float64s:
    """(items,) how much more than the overall mean an average user likes each item."""
    return _in_rounds(labels, features, prior, lambda averages, prior: prior)[0]


def fitted_mean_prior(labels: Labels, features: ItemFeatures) -> MeanPrior:
    """The prior of the highest evidence."""

    def likelier(averages: ItemAverages, prior: MeanPrior) -> MeanPrior:
        return _likeliest(averages, features, prior)

    return _in_rounds(labels, features, USUAL_PRIOR.means, likelier)[1]


def _in_rounds(
    labels: Labels,
    features: ItemFeatures,
    prior: MeanPrior,
    change: Callable[[ItemAverages, MeanPrior], MeanPrior],
) -> tuple[Float64s, MeanPrior]:
    means = np.zeros(len(features.blocks[0]))
    for _ in range(ROUNDS):
        averages = ItemAverages.of(labels, means)
        prior = change(averages, prior)
        weighted = features.weighted(prior.blocks)
        means = averages.posterior(weighted, prior).means(prior.own)
    return means, prior


def _likeliest(averages: ItemAverages, features: ItemFeatures, start: MeanPrior) -> MeanPrior:
    """The variances of the highest evidence, found from ``start``."""
    rows = np.maximum(averages.rows, 1.0)

    def loss(logs: Float64s) -> tuple[float, Float64s]:
        prior = _prior_of(logs)
        found = averages.posterior(features.weighted(prior.blocks), prior)
        by_feature, by_variance = found.gradients()
        blocks = np.bincount(features.block_of, by_feature, minlength=len(prior.blocks))
        own, row = prior.own * by_variance.sum(), prior.row * (by_variance / rows).sum()
        return found.loss, np.array([*blocks, own, row])

    first = np.log([*start.blocks, start.own, start.row])
    bounds = [(np.log(SMALLEST), np.log(LARGEST))] * len(first)
    found = minimize(
        loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": MAX_STEPS}
    )
    return _prior_of(np.asarray(found.x))


def _prior_of(logs: Float64s) -> MeanPrior:
    *blocks, own, row = np.exp(logs).tolist()
    return MeanPrior(tuple(blocks), own, row)

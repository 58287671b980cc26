"""Fits the router's temperature and the probabilities on validation rows, as served."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from rankloom_adapters.bundle import Bundle
from rankloom_adapters.calibration import Calibration
from rankloom_adapters.router import DEFAULT_TEMPERATURE, Router
from rankloom_training.data import Dataset
from rankloom_training.data.checks import CALIBRATION_ROWS
from rankloom_training.metrics import auc, expected_calibration_error
from rankloom_training.scoring import BundleScorer, PreparedRequest, requests_of
from rankloom_training.visibility import View

TEMPERATURES = (0.05, DEFAULT_TEMPERATURE, 0.3, 1.0)
# Another temperature than the paper's must be this much better in AUC to be taken.
WORTHWHILE = 0.001
MIN_SLOPE = 1e-3


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted, and the numbers that say how well.

    ``report``: ``ece_before`` and ``ece_after`` are the expected calibration errors of the score
    as a logit, and of the fitted probability, over the rows that both were fitted on.
    """

    router: Router
    calibration: Calibration
    report: dict[str, float]


def fit_on_valid(
    bundle: Bundle, dataset: Dataset, view: View, on_step: Callable[[int, int], None]
) -> Fitted:
    """Fits on at most about CALIBRATION_ROWS rows of ``view``, taken evenly over its requests."""
    scorer = BundleScorer(bundle)
    requests = requests_of(dataset, view)
    every = max(1, round(len(view.rows) / CALIBRATION_ROWS))
    prepared = [scorer.prepare(one.query(), one.rows) for one in requests[::every]]
    rows = np.concatenate([one.rows for one in prepared])
    label = dataset.log.liked[rows]
    tree_logits = np.concatenate([one.tree_logits for one in prepared])
    tree_logits += dataset.sampling_offset(rows)
    routers = {
        temperature: dataclasses.replace(scorer.loaded.router, temperature=temperature)
        for temperature in TEMPERATURES
    }
    weights = {temperature: mixtures(router, prepared) for temperature, router in routers.items()}
    margins = scorer.margins(prepared, weights, on_step)
    aucs = {temperature: auc(label, found + tree_logits) for temperature, found in margins.items()}
    chosen = choose(aucs)
    score = margins[chosen] + tree_logits
    calibration = fit_calibration(score, label)
    fitted = {"rows": float(len(rows)), "auc": aucs[chosen], "temperature": chosen}
    return Fitted(
        routers[chosen], calibration, fitted | calibration_errors(calibration, score, label)
    )


def calibration_errors(
    calibration: Calibration, score: NDArray[np.float64], label: NDArray[np.bool_]
) -> dict[str, float]:
    """ECE of the raw scores, taken for logits, and of the calibrated ones; (n,) rows."""
    named = {"ece_before": Calibration(), "ece_after": calibration}
    return {
        name: expected_calibration_error(label, each.probability(score))
        for name, each in named.items()
    }


def choose(aucs: Mapping[float, float]) -> float:
    """The temperature of the best AUC, or the paper's where none is clearly better."""
    best = max(aucs, key=lambda temperature: aucs[temperature])
    return best if aucs[best] > aucs[DEFAULT_TEMPERATURE] + WORTHWHILE else DEFAULT_TEMPERATURE


def mixtures(router: Router, prepared: Sequence[PreparedRequest]) -> NDArray[np.float32]:
    """(requests, K): each user's row of weights."""
    return np.stack([router.route(one.routing_vector).weights for one in prepared])


def fit_calibration(score: NDArray[np.float64], label: NDArray[np.bool_]) -> Calibration:
    """Platt scaling by maximum likelihood; the order of scores is always kept."""
    model = LogisticRegression(C=1e6).fit(score[:, None], label)
    return Calibration(max(float(model.coef_[0, 0]), MIN_SLOPE), float(model.intercept_[0]))

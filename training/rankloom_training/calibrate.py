"""Fits the router's parameters and the probabilities on validation rows, as served."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from rankloom_adapters.bundle import Bundle
from rankloom_adapters.calibration import Calibration
from rankloom_adapters.router import Router
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_ranker.loaded import LoadedBundle
from rankloom_training.data import Dataset
from rankloom_training.data.checks import CALIBRATION_ROWS
from rankloom_training.grouping.routing import FittedRouting, ValidRows, candidates, choose
from rankloom_training.metrics import auc, expected_calibration_error
from rankloom_training.scoring import BundleScorer, PreparedRequest, requests_of
from rankloom_training.visibility import View

MIN_SLOPE = 1e-3


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted on ``num_rows`` rows, and how well: ``auc`` of the served scores.

    ``errors``: of ``calibration_errors``, over the rows that the calibration was fitted on.
    """

    router: Router
    calibration: Calibration
    routing: FittedRouting
    num_rows: int
    auc: float
    errors: Mapping[str, float]

    def to_json(self) -> dict[str, object]:
        """What the bundle's manifest keeps."""
        return {
            "rows": self.num_rows,
            "auc": self.auc,
            **self.errors,
            "temperature": self.router.temperature,
            "thresholds": dataclasses.asdict(self.router.thresholds),
            "routes": dict(self.routing.shares),
            "over_paper": dataclasses.asdict(self.routing.over_paper),
        }

    def text(self) -> str:
        """The router and the calibration in one line."""
        gain, (before, after) = self.routing.over_paper, self.errors.values()
        shares = ", ".join(
            f"{route} {100 * share:.0f} %" for route, share in self.routing.shares.items()
        )
        return (
            f"temperature {self.router.temperature}; rows: {shares}; over ThinkRec's thresholds "
            f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]; ECE "
            f"{before:.4f} before calibration, {after:.4f} after"
        )


def fit_on_valid(
    bundle: Bundle,
    dataset: Dataset,
    view: View,
    on_step: Callable[[int, int], None],
    device: str = "cpu",
) -> Fitted:
    """Fits on at most about CALIBRATION_ROWS rows of ``view``, taken evenly over its requests.

    Half of them choose the router, since each router is scored apart; all fit the probabilities.
    """
    scorer = BundleScorer(bundle, device)
    requests = requests_of(dataset, view)
    every = max(1, round(len(view.rows) / CALIBRATION_ROWS))
    prepared = [scorer.prepare(one.query(), one.rows) for one in requests[::every]]
    some, rest = prepared[::2], prepared[1::2]
    routers = _routers(scorer.loaded)
    scores = _scores(scorer, routers, some, dataset, on_step)
    routes = [[router.route(one.routing_vector).route for one in some] for router in routers]
    found = choose(_valid_rows(dataset, some), scores, routes)
    router = routers[found.index]
    others = _scores(scorer, [router], rest, dataset, on_step)
    served = np.concatenate([scores[found.index], *others])
    label = dataset.log.liked[np.concatenate([one.rows for one in (*some, *rest)])]
    calibration = fit_calibration(served, label)
    errors = calibration_errors(calibration, served, label)
    return Fitted(router, calibration, found, len(served), auc(label, served), errors)


def _routers(loaded: LoadedBundle) -> list[Router]:
    """Where no group has an expert of its own, all routers give the same scores.

    Where groups are of items, few rows are of users of several, too few to choose on.
    """
    if len(set(loaded.expert_digests)) == 1 or loaded.item_groups is not None:
        return [loaded.router]
    return candidates(loaded.router)


def _scores(
    scorer: BundleScorer,
    routers: Sequence[Router],
    prepared: Sequence[PreparedRequest],
    dataset: Dataset,
    on_step: Callable[[int, int], None],
) -> list[NDArray[np.float64]]:
    """(rows,) by each router; a sampled negative counts for as many as it stands for."""
    if not prepared:
        return [np.zeros(0)] * len(routers)
    mixtures = {
        index: [MixtureWeights(router.route(one.routing_vector).weights) for one in prepared]
        for index, router in enumerate(routers)
    }
    margins = scorer.margins(prepared, mixtures, on_step)
    tree_logits = np.concatenate([one.tree_logits for one in prepared])
    offset = dataset.sampling_offset(np.concatenate([one.rows for one in prepared]))
    return [margins[index] + tree_logits + offset for index in range(len(routers))]


def _valid_rows(dataset: Dataset, prepared: Sequence[PreparedRequest]) -> ValidRows:
    rows = np.concatenate([one.rows for one in prepared])
    request = np.repeat(np.arange(len(prepared)), [len(one.rows) for one in prepared])
    return ValidRows(dataset.log.user[rows], dataset.log.liked[rows], request)


def calibration_errors(
    calibration: Calibration, score: NDArray[np.float64], label: NDArray[np.bool_]
) -> dict[str, float]:
    """ECE of the raw scores, taken for logits, and of the calibrated ones; (n,) rows."""
    named = {"ece_before": Calibration(), "ece_after": calibration}
    return {
        name: expected_calibration_error(label, each.probability(score))
        for name, each in named.items()
    }


def fit_calibration(score: NDArray[np.float64], label: NDArray[np.bool_]) -> Calibration:
    """Platt scaling by maximum likelihood; the order of scores is always kept."""
    model = LogisticRegression(C=1e6).fit(score[:, None], label)
    return Calibration(max(float(model.coef_[0, 0]), MIN_SLOPE), float(model.intercept_[0]))

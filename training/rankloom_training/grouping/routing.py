"""Fits the router: who gets the expert of one group, a mixture, or the global expert."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Route, Router, RouteThresholds
from rankloom_training.metrics import Estimate, balance, balance_difference

# At ThinkRec's temperature, 0.1, the largest weight is near 1 for most users, fused or not.
WARMER = (0.3, 1.0)
FUSE_ALL = RouteThresholds(single_above=1.0, global_from=1.0)
NO_GAIN = Estimate(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class ValidRows:
    """Validation rows that routers are compared on; arrays of one entry a row.

    ``request``: index of the ranking call that the row belongs to.
    """

    user: NDArray[np.int64]
    label: NDArray[np.bool_]
    request: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FittedRouting:
    """``index``: of the chosen router. ``over_paper``: mean of AUC and UAUC, less that of
    ThinkRec's router. ``shares``: route → share of the rows.
    """

    index: int
    over_paper: Estimate
    shares: Mapping[Route, float]


def candidates(router: Router) -> list[Router]:
    """The router with ThinkRec's parameters first, then those that fuse more.

    They differ in few mixtures, since each is a pass of the language model.
    """
    warmer = [
        dataclasses.replace(router, temperature=temperature, fitted_thresholds=thresholds)
        for temperature in WARMER
        for thresholds in (None, FUSE_ALL)
    ]
    return [router, *warmer]


def choose(
    rows: ValidRows,
    scores: Sequence[NDArray[np.float64]],
    routes: Sequence[Sequence[Route]],
) -> FittedRouting:
    """The best mean of AUC and UAUC if it is a standard error above that of the first router.

    The first, ThinkRec's, is also the cheapest: one expert is one pass for all of a user's
    evidence. ``scores``: (rows,) of each candidate. ``routes``: of each, for each request.
    """
    found = [balance(rows.user, rows.label, score) for score in scores]
    best = int(np.argmax(found))  # the first where rows of one class say nothing: all are NaN
    gain = balance_difference(rows.user, rows.label, scores[best], scores[0]) if best else NO_GAIN
    if gain.value < gain.standard_error:
        best, gain = 0, NO_GAIN
    return FittedRouting(best, gain, _shares(routes[best], rows.request))


def _shares(routes: Sequence[Route], request: NDArray[np.int64]) -> dict[Route, float]:
    of_row = np.array([str(route) for route in routes])[request]
    return {route: float((of_row == str(route)).mean()) for route in Route}

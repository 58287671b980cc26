"""Fits the router: who gets the expert of one group, a mixture, or the global expert."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import DEFAULT_TEMPERATURE, Route, Router, RouteThresholds
from rankloom_training.metrics import Estimate, balance, balance_difference

# At ThinkRec's temperature, 0.1, the largest weight is near 1 for most users, fused or not.
WARMER = (0.3, 1.0)
FUSE_ALL = RouteThresholds(single_above=1.0, global_from=1.0)
GLOBAL_FOR_ALL = RouteThresholds(single_above=1.0, global_from=0.0)
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
    """The router with ThinkRec's parameters, the global expert for all, and those that fuse more.

    Whatever parameters the given one has: a refreshed bundle's were fitted to older rows. They
    differ in few mixtures, since each is a pass of the language model.
    """
    parameters: list[tuple[float, RouteThresholds | None]] = [
        (DEFAULT_TEMPERATURE, None),
        (DEFAULT_TEMPERATURE, GLOBAL_FOR_ALL),
        *((temperature, thresholds) for temperature in WARMER for thresholds in (None, FUSE_ALL)),
    ]
    return [
        dataclasses.replace(router, temperature=temperature, fitted_thresholds=thresholds)
        for temperature, thresholds in parameters
    ]


def choose(
    rows: ValidRows,
    scores: Sequence[NDArray[np.float64]],
    routes: Sequence[Sequence[Route]],
) -> FittedRouting:
    """The first router whose mean of AUC and UAUC is not a standard error below the best.

    Cheaper ones come first: one expert is one pass for all of a user's evidence. ``scores``:
    (rows,) of each candidate. ``routes``: of each, for each request.
    """
    found = [balance(rows.user, rows.label, score) for score in scores]
    best = int(np.argmax(found))  # the first where rows of one class say nothing: all are NaN

    def above(index: int, other: int) -> Estimate:
        return balance_difference(rows.user, rows.label, scores[index], scores[other])

    clearly = (above(best, other) for other in range(best))
    chosen = next((at for at, gain in enumerate(clearly) if gain.value < gain.standard_error), best)
    return FittedRouting(
        chosen, above(chosen, 0) if chosen else NO_GAIN, _shares(routes[chosen], rows.request)
    )


def _shares(routes: Sequence[Route], request: NDArray[np.int64]) -> dict[Route, float]:
    of_row = np.array([str(route) for route in routes])[request]
    return {route: float((of_row == str(route)).mean()) for route in Route}

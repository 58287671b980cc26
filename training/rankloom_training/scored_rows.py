"""The test rows with their scores: what a bundle serves, beside its parts and other mixtures."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import rankloom
from rankloom_adapters.bundle import Bundle
from rankloom_adapters.calibration import Calibration
from rankloom_adapters.router import Route, Router
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_training.data import Dataset, Interactions, Split
from rankloom_training.scoring import BundleScorer, PreparedRequest, Request, Step, requests_of
from rankloom_training.serving import serving
from rankloom_training.variants import Variant
from rankloom_training.visibility import Protocol, sampled_users, scoring_view

SEED = 0  # of the rows that are drawn: users, and negatives
SERVED = "served"
OWN_SCORES = (SERVED, "cf", "lightgbm", "global", "fused")
CALLS_IN_FLIGHT = 8
CALL_TIMEOUT_S = 60.0


class ProtocolError(ValueError):
    """The bundle was trained under another protocol than the requested one."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRows:
    """Scores of the test rows; arrays of one entry a row, in the log's order.

    ``scores`` has the keys OWN_SCORES, and those of variants and of other bundles. ``warm``: user
    and item both have training rows. ``route``: the router's route of each row. ``calibration``:
    the bundle's.
    """

    rows: NDArray[np.int64]
    user: NDArray[np.int64]
    label: NDArray[np.bool_]
    warm: NDArray[np.bool_]
    route: NDArray[np.str_]
    scores: Mapping[str, NDArray[np.float64]]
    calibration: Calibration

    def having(self, name: str, scores: NDArray[np.float64]) -> ScoredRows:
        """A copy with that score of each row."""
        return dataclasses.replace(self, scores={**self.scores, name: scores})


def check_protocol(bundle: Bundle, protocol: Protocol) -> None:
    """Raises ProtocolError."""
    trained = bundle.metadata.get("protocol")
    if trained != str(protocol):
        raise ProtocolError(
            f"{bundle.folder}: the bundle was trained under {trained}; pass --protocol {trained}"
        )


def requests_of_test(
    dataset: Dataset, protocol: Protocol, max_rows: int | None = None
) -> list[Request]:
    """The test rows as ranking calls. ``max_rows``: all rows of some users, at most so many."""
    log = dataset.log
    view = scoring_view(log, protocol, Split.TEST)
    if max_rows is not None:
        chosen = sampled_users(log.user[view.rows], log.num_users, max_rows, SEED)
        view = view.only(chosen[log.user[view.rows]])
    return requests_of(dataset, view)


def score_rows(
    scorer: BundleScorer,
    requests: Sequence[Request],
    on_step: Step,
    variants: Sequence[Variant] = (),
) -> ScoredRows:
    """Scores rows in this process. ``variants``: other mixtures to score.

    The collaborative model gives even odds to items that the bundle does not know.
    """
    prepared = [scorer.prepare(one.query(), one.rows) for one in requests]
    router, mixtures = scorer.loaded.router, _mixtures(scorer.loaded.router, prepared, variants)
    tree_logits = np.concatenate([one.tree_logits for one in prepared])
    margins = scorer.margins(prepared, mixtures, on_step)
    scores = {name: tree_logits + found.astype(np.float64) for name, found in margins.items()}
    collaborative = np.concatenate([one.collaborative for one in prepared]).astype(np.float64)
    scores["cf"] = np.where(np.isnan(collaborative), 0.0, collaborative)
    scores["lightgbm"] = tree_logits
    ordered = {name: scores[name] for name in (*OWN_SCORES, *(each.name for each in variants))}
    routes = [router.route(one.routing_vector).route for one in prepared]
    calibration = scorer.loaded.calibration
    return _scored(requests[0].dataset.log, prepared, ordered, routes, calibration)


def _mixtures(
    router: Router, prepared: Sequence[PreparedRequest], variants: Sequence[Variant]
) -> dict[str, list[MixtureWeights]]:
    """Score → each request's mixture."""
    vectors = [one.routing_vector for one in prepared]
    mixtures = {
        SERVED: [MixtureWeights(router.route(vector).weights) for vector in vectors],
        "global": [MixtureWeights(router.global_mixture().weights)] * len(prepared),
        "fused": [MixtureWeights(_fused_weights(router, vector)) for vector in vectors],
    }
    for each in variants:
        mixtures[each.name] = [each.mixture(router, vector) for vector in vectors]
    return mixtures


def _fused_weights(router: Router, vector: NDArray[np.floating]) -> NDArray[np.float32]:
    """The fused weights of every user who has a vector, without the router's thresholds."""
    weights = router.weights(vector)
    if weights is None:
        return router.global_mixture(cold_start=True).weights
    return np.append(weights, 0.0).astype(np.float32)


def _scored(
    log: Interactions,
    prepared: Sequence[PreparedRequest],
    scores: Mapping[str, NDArray[np.float64]],
    routes: Sequence[Route],
    calibration: Calibration,
) -> ScoredRows:
    rows = np.concatenate([one.rows for one in prepared])
    route = [str(route) for route, one in zip(routes, prepared, strict=True) for _ in one.rows]
    return ScoredRows(
        rows=rows,
        user=log.user[rows],
        label=log.liked[rows],
        warm=log.warm()[rows],
        route=np.array(route),
        scores=scores,
        calibration=calibration,
    )


def scores_of_server(
    bundle: Path, requests: Sequence[Request], on_step: Step
) -> NDArray[np.float64]:
    """(rows,) what a server of the bundle answers through gRPC. Raises ServerStartError."""
    # The other scores are float32, so this one is, on every machine.
    with serving(bundle, "--dtype", "float32") as address:
        return asyncio.run(_served_scores(address, requests, on_step))


async def _served_scores(
    address: str, requests: Sequence[Request], on_step: Step
) -> NDArray[np.float64]:
    """Scores from a server, a few calls at a time, in the requests' order of rows."""
    limit = asyncio.Semaphore(CALLS_IN_FLIGHT)
    async with rankloom.AsyncClient(address, timeout_s=CALL_TIMEOUT_S) as client:

        async def ask(request: Request) -> list[float]:
            async with limit:
                ranking = await client.rank(
                    [item.item_id for item in request.items],
                    history=request.history,
                    options=rankloom.RankOptions(allow_fallback=False),
                )
            found = ranking.scores()
            return [found[item.item_id] for item in request.items]

        scores: list[list[float]] = []
        for at in range(0, len(requests), 64):
            scores += await asyncio.gather(*(ask(one) for one in requests[at : at + 64]))
            on_step(len(scores), len(requests))
    return np.concatenate([np.array(one) for one in scores])

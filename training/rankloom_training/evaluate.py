"""How well a bundle ranks: its served score beside the scores of its parts."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import rankloom
from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_adapters.calibration import Calibration
from rankloom_adapters.router import Mixture, Route, Router
from rankloom_engine.memory import keep_freed_memory
from rankloom_training import metrics
from rankloom_training.all_items import AllItemsReport, rank_all_items
from rankloom_training.calibrate import calibration_errors
from rankloom_training.data import Dataset, Interactions, Split, load_dataset
from rankloom_training.data.negatives import NegativeSampling
from rankloom_training.explained import ExplanationReport
from rankloom_training.metrics import Estimate, RankingMetrics
from rankloom_training.scoring import BundleScorer, PreparedRequest, Request, Step, requests_of
from rankloom_training.serving import serving
from rankloom_training.visibility import Protocol, View, sampled_users, scoring_view

SEED = 0  # of the rows that are drawn: users, and negatives
CALLS_IN_FLIGHT = 8
CALL_TIMEOUT_S = 60.0


class ProtocolError(ValueError):
    """The bundle was trained under another protocol than the requested one."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRows:
    """Scores of the test rows; arrays of one entry a row, in the log's order.

    ``scores`` has the keys served, cf, lightgbm, global and fused. ``warm``: user and
    item both have training rows. ``route``: the router's route of each row. ``calibration``: the
    bundle's.
    """

    rows: NDArray[np.int64]
    user: NDArray[np.int64]
    label: NDArray[np.bool_]
    warm: NDArray[np.bool_]
    route: NDArray[np.str_]
    scores: Mapping[str, NDArray[np.float64]]
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, on which rows and under which protocol.

    ``num_rows``: of the test rows, ``num_test_rows``, how many were scored. ``negatives``: how
    the dislikes among them were sampled, if they were; ``metrics``, ``parts`` and
    ``fused_over_global`` are then over sampled negatives, and ``all_items`` is not.
    ``explanations``: None if none were asked for. ``share_liked``: of the scored rows.
    ``calibration``: expected errors of the served probability on these rows, before and after the
    bundle's calibration; empty over sampled negatives, whose share is no one's.
    """

    protocol: str
    bundle_digest: str
    num_rows: int
    num_test_rows: int
    num_users: int
    share_liked: float
    calibration: Mapping[str, float]
    metrics: Mapping[str, RankingMetrics]
    parts: Mapping[str, tuple[int, float]]
    fused_over_global: Estimate
    negatives: NegativeSampling | None = None
    all_items: AllItemsReport | None = None
    explanations: ExplanationReport | None = None

    def to_json(self) -> dict[str, object]:
        """One object per score, each metric as value, low and high; and the rest."""
        fields: dict[str, object] = {
            name: {
                metric: {"value": e.value, "low": e.low, "high": e.high}
                for metric in ("auc", "uauc", "ndcg5", "map5")
                for e in [getattr(found, metric)]
            }
            for name, found in self.metrics.items()
        }
        difference = self.fused_over_global
        if self.negatives is not None:
            fields["sampled_negatives"] = self.negatives.to_json()
        if self.all_items is not None:
            fields["all_unseen_items"] = self.all_items.to_json()
        if self.explanations is not None:
            fields["explanations"] = dataclasses.asdict(self.explanations)
        return fields | {
            "protocol": self.protocol,
            "bundle": self.bundle_digest,
            "rows": self.num_rows,
            "test_rows": self.num_test_rows,
            "users": self.num_users,
            "share_liked": self.share_liked,
            "calibration": dict(self.calibration),
            "eligible_users": self.metrics["served"].num_eligible,
            "parts": {
                name: {"rows": rows, "auc": auc if np.isfinite(auc) else None}
                for name, (rows, auc) in self.parts.items()
            },
            "fused_minus_global_auc": {
                "value": difference.value,
                "low": difference.low,
                "high": difference.high,
            },
        }


def score_test(
    bundle: Bundle,
    dataset: Dataset,
    protocol: Protocol,
    *,
    through_grpc: bool,
    on_step: Step,
    max_rows: int | None = None,
) -> ScoredRows:
    """Scores the test rows; ``through_grpc``: the served score comes from a server.

    ``max_rows``: score all rows of some users, at most so many; None: every row.

    Raises ProtocolError, or what loading the bundle raises.
    """
    trained = bundle.metadata.get("protocol")
    if trained != str(protocol):
        raise ProtocolError(f"the bundle was trained under {trained}; pass --protocol {trained}")
    requests = requests_of(dataset, _test_view(dataset.log, protocol, max_rows))
    scorer = BundleScorer(bundle)
    prepared = [scorer.prepare(one.query(), one.rows) for one in requests]
    scores, mixtures = _all_scores(scorer, prepared, on_step)
    if through_grpc:
        # The other scores are float32, so this one is, on every machine.
        with serving(bundle.folder, "--dtype", "float32") as address:
            scores["served"] = asyncio.run(_served_scores(address, requests, on_step))
    return _scored(dataset.log, prepared, scores, mixtures, scorer.loaded.calibration)


def _test_view(log: Interactions, protocol: Protocol, max_rows: int | None) -> View:
    view = scoring_view(log, protocol, Split.TEST)
    if max_rows is None:
        return view
    chosen = sampled_users(log.user[view.rows], log.num_users, max_rows, SEED)
    return View(view.rows[chosen[log.user[view.rows]]], view.cutoff)


def report(scored: ScoredRows, protocol: Protocol, bundle: Bundle, num_test: int) -> Report:
    """Metrics of every score, of cold and warm rows, and of the router's routes."""
    served = scored.scores["served"]
    masks = {"warm rows": scored.warm, "cold rows": ~scored.warm}
    masks |= {f"route {route}": scored.route == route for route in Route}
    return Report(
        protocol=str(protocol),
        bundle_digest=bundle.digest,
        num_rows=len(scored.rows),
        num_test_rows=num_test,
        num_users=len(np.unique(scored.user)),
        share_liked=float(scored.label.mean()),
        calibration=_calibration(bundle, scored),
        metrics={
            name: metrics.evaluate(scored.user, scored.label, score)
            for name, score in scored.scores.items()
        },
        parts={
            name: (int(mask.sum()), metrics.auc(scored.label[mask], served[mask]))
            for name, mask in masks.items()
        },
        fused_over_global=metrics.auc_difference(
            scored.user, scored.label, scored.scores["fused"], scored.scores["global"]
        ),
    )


def evaluate(
    bundle: Path,
    data: Path,
    protocol: Protocol,
    *,
    through_grpc: bool,
    on_step: Step,
    max_rows: int | None = None,
) -> tuple[Report, ScoredRows, Dataset]:
    """Opens both, scores the test rows and reports. Raises ValueErrors that say what to do.

    ``max_rows``: see ``score_test``.
    """
    keep_freed_memory()
    opened = open_bundle(bundle)
    sampling = sampling_of(opened)
    given = load_dataset(data, like_above_of(opened), sampling)
    dataset = given.with_negatives(SEED)
    scored = score_test(
        opened, dataset, protocol, through_grpc=through_grpc, on_step=on_step, max_rows=max_rows
    )
    num_test = int((dataset.log.split == Split.TEST).sum())
    found = report(scored, protocol, opened, num_test)
    if dataset.sampling is not None:
        users = np.unique(scored.user)
        all_items = rank_all_items(BundleScorer(opened), given, users, on_step)
        found = dataclasses.replace(found, negatives=dataset.sampling, all_items=all_items)
    return found, scored, dataset


def like_above_of(bundle: Bundle) -> float | None:
    """The threshold of a like that the bundle was trained with; None for labels."""
    found = bundle.metadata.get("like_above")
    return float(found) if isinstance(found, int | float) else None


def sampling_of(bundle: Bundle) -> NegativeSampling | None:
    """How the bundle's negatives were sampled; None if the log had dislikes of its own."""
    found = bundle.metadata.get("implicit")
    return None if found is None else NegativeSampling.of_json(found)


def _calibration(bundle: Bundle, scored: ScoredRows) -> dict[str, float]:
    if bundle.metadata.get("implicit"):
        return {}
    return calibration_errors(scored.calibration, scored.scores["served"], scored.label)


def _all_scores(
    scorer: BundleScorer, prepared: Sequence[PreparedRequest], on_step: Step
) -> tuple[dict[str, NDArray[np.float64]], list[Mixture]]:
    router = scorer.loaded.router
    served = [router.route(one.routing_vector) for one in prepared]
    weights = {
        "served": np.stack([mixture.weights for mixture in served]),
        "global": np.stack([router.global_mixture().weights for _ in prepared]),
        "fused": np.stack([_fused_weights(router, one) for one in prepared]),
    }
    tree_logits = np.concatenate([one.tree_logits for one in prepared])
    margins = scorer.margins(prepared, weights, on_step)
    scores = {name: tree_logits + found.astype(np.float64) for name, found in margins.items()}
    scores["cf"] = np.concatenate([one.collaborative for one in prepared]).astype(np.float64)
    scores["lightgbm"] = tree_logits
    names = ("served", "cf", "lightgbm", "global", "fused")
    return {name: scores[name] for name in names}, served


def _fused_weights(router: Router, one: PreparedRequest) -> NDArray[np.float32]:
    """The fused weights of every user who has a vector, without the router's thresholds."""
    weights = router.weights(one.routing_vector)
    if weights is None:
        return router.global_mixture(cold_start=True).weights
    return np.append(weights, 0.0).astype(np.float32)


def _scored(
    log: Interactions,
    prepared: Sequence[PreparedRequest],
    scores: Mapping[str, NDArray[np.float64]],
    mixtures: Sequence[Mixture],
    calibration: Calibration,
) -> ScoredRows:
    rows = np.concatenate([one.rows for one in prepared])
    route = [str(m.route) for m, one in zip(mixtures, prepared, strict=True) for _ in one.rows]
    user, label, warm = log.user[rows], log.liked[rows], log.warm()[rows]
    return ScoredRows(rows, user, label, warm, np.array(route), scores, calibration)


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
                    history=[rankloom.Event(e.item_id, e.liked) for e in request.events],
                    options=rankloom.RankOptions(allow_fallback=False),
                )
            found = ranking.scores()
            return [found[item.item_id] for item in request.items]

        scores: list[list[float]] = []
        for at in range(0, len(requests), 64):
            scores += await asyncio.gather(*(ask(one) for one in requests[at : at + 64]))
            on_step(len(scores), len(requests))
    return np.concatenate([np.array(one) for one in scores])

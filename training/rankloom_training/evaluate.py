"""How well a bundle ranks: its served score beside the scores of its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankloom_adapters.bundle import Bundle, open_bundle
from rankloom_adapters.router import Route
from rankloom_engine.memory import keep_freed_memory
from rankloom_training import metrics
from rankloom_training.all_items import (
    AllItemsReport,
    next_likes,
    rank_all_items,
    unseen_items,
)
from rankloom_training.calibrate import calibration_errors
from rankloom_training.data import Dataset, Split, load_dataset
from rankloom_training.data.negatives import NegativeSampling
from rankloom_training.explained import ExplanationReport
from rankloom_training.metrics import Estimate, RankingMetrics
from rankloom_training.progress import Progress
from rankloom_training.scored_rows import (
    SEED,
    SERVED,
    ScoredRows,
    check_protocol,
    requests_of_test,
    score_rows,
    scores_of_server,
)
from rankloom_training.scoring import BundleScorer
from rankloom_training.variants import Variant
from rankloom_training.visibility import Protocol

OTHER_BUNDLE = "other bundle"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the served score gains over another one, by a paired bootstrap over users."""

    auc: Estimate
    uauc: Estimate


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, on which rows and under which protocol.

    ``num_rows``: of the test rows, ``num_test_rows``, how many were scored. ``negatives``: how
    the dislikes among them were sampled, if they were; ``metrics``, ``parts`` and
    ``fused_over_global`` are then over sampled negatives, and ``all_items`` is not: it ranks all
    items before the test rows, and ``next_like`` before single test rows.
    ``explanations``: None if none were asked for. ``share_liked``: of the scored rows.
    ``calibration``: expected errors of the served probability on these rows, before and after the
    bundle's calibration; empty over sampled negatives, whose share is no one's.
    ``served_minus``: what the served score gains over each other score.
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
    next_like: AllItemsReport | None = None
    explanations: ExplanationReport | None = None
    served_minus: Mapping[str, Comparison] = dataclasses.field(default_factory=dict)

    def share(self, rows: int) -> float:
        """Of the scored rows."""
        return rows / self.num_rows

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
        if self.next_like is not None:
            fields["next_like"] = self.next_like.to_json()
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
                name: {
                    "rows": rows,
                    "share": self.share(rows),
                    "auc": auc,
                }
                for name, (rows, auc) in self.parts.items()
            },
            "fused_minus_global_auc": {
                "value": difference.value,
                "low": difference.low,
                "high": difference.high,
            },
            "served_minus": {
                name: dataclasses.asdict(found) for name, found in self.served_minus.items()
            },
        }


def report_of(scored: ScoredRows, protocol: Protocol, bundle: Bundle, num_test: int) -> Report:
    """Metrics of every score, of cold and warm rows, and of the router's routes."""
    served = scored.scores[SERVED]
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
        served_minus=_compared(scored),
    )


def evaluate(
    bundle: Path,
    data: Path,
    protocol: Protocol,
    *,
    through_grpc: bool,
    progress: Progress,
    max_rows: int | None = None,
    variants: Sequence[Variant] = (),
    against: Path | None = None,
) -> tuple[Report, ScoredRows, Dataset]:
    """Scores the test rows and reports. Raises ValueErrors that say what to do.

    ``through_grpc``: the served score comes from a server. ``max_rows``: score all rows of some
    users, at most so many; None: every row. ``variants``: other mixtures to score. ``against``:
    another bundle, whose served score of the same rows is compared.
    """
    keep_freed_memory()
    opened, other = open_bundle(bundle), None if against is None else open_bundle(against)
    for each in (opened, other):
        if each is not None:
            check_protocol(each, protocol)
    given = load_dataset(data, like_above_of(opened), sampling_of(opened))
    dataset = given.with_negatives(SEED)
    requests, scorer = requests_of_test(dataset, protocol, max_rows), BundleScorer(opened)
    with progress.stage("evaluate") as stage:
        scored = score_rows(scorer, requests, stage.step, variants)
    if through_grpc:
        with progress.stage("through gRPC") as stage:
            scored = scored.having(SERVED, scores_of_server(bundle, requests, stage.step))
    if other is not None:
        with progress.stage("other bundle") as stage:
            found = score_rows(BundleScorer(other), requests, stage.step)
        scored = scored.having(OTHER_BUNDLE, found.scores[SERVED])
    num_test = int((dataset.log.split == Split.TEST).sum())
    report = report_of(scored, protocol, opened, num_test)
    if dataset.sampling is not None:
        users = np.unique(scored.user)
        with progress.stage("all items") as stage:
            all_items = rank_all_items(scorer, list(unseen_items(given, users)), stage.step)
        with progress.stage("next likes") as stage:
            next_like = rank_all_items(scorer, list(next_likes(given, users)), stage.step)
        report = dataclasses.replace(
            report, negatives=dataset.sampling, all_items=all_items, next_like=next_like
        )
    return report, scored, dataset


def _compared(scored: ScoredRows) -> dict[str, Comparison]:
    """The served score beside every other: its parts, variants and the other bundle."""
    rows, served = (scored.user, scored.label), scored.scores[SERVED]
    return {
        name: Comparison(
            metrics.auc_difference(*rows, served, score),
            metrics.uauc_difference(*rows, served, score),
        )
        for name, score in scored.scores.items()
        if name != SERVED
    }


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
    return calibration_errors(scored.calibration, scored.scores[SERVED], scored.label)

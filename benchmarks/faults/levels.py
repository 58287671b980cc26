"""What each fallback level is worth: NDCG@10 of each user's test rows, beside popularity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.bundle import Bundle
from rankloom_engine.offline import score_all
from rankloom_features.provider import UserQuery
from rankloom_ranker.fallback import FallbackLevel, FallbackReason
from rankloom_ranker.query import RankQuery
from rankloom_training.data import Dataset, Split
from rankloom_training.metrics import Estimate, mean_over_users, ndcg
from rankloom_training.scoring import BundleScorer, Request

TOP = 10
BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class LevelFigures:
    """``ndcg10``: mean over ``num_users``. ``over_popularity``: paired; None for popularity."""

    num_users: int
    ndcg10: float
    over_popularity: Estimate | None


def study_levels(bundle: Bundle, dataset: Dataset) -> dict[str, LevelFigures]:
    """Ranks each user's test items, in one list, from the events before the test rows.

    Users with likes and dislikes among them count; by the code that a server runs.
    """
    scorer, cases = BundleScorer(bundle), _cases(dataset)
    scores = _scores(scorer, cases)
    found = {
        level: np.array([ndcg(label, scores[level][n], TOP) for n, (_, label) in enumerate(cases)])
        for level in scores
    }
    base = found[FallbackLevel.POPULARITY]
    return {
        level.name: LevelFigures(
            len(cases),
            float(values.mean()),
            None
            if level is FallbackLevel.POPULARITY
            else mean_over_users((values - base).tolist()),
        )
        for level, values in found.items()
    }


def _cases(dataset: Dataset) -> list[tuple[Request, NDArray[np.bool_]]]:
    """Each user's test rows as one call, and whether each is a like."""
    log, cases = dataset.log, list[tuple[Request, NDArray[np.bool_]]]()
    for user in range(log.num_users):
        own = np.flatnonzero(log.user == user)
        is_test = log.split[own] == Split.TEST
        _, first = np.unique(log.item[own[is_test]], return_index=True)
        rows = own[is_test][np.sort(first)]
        label = log.liked[rows]
        if label.any() and not label.all():
            cases.append((Request(dataset, rows, own[~is_test], int(rows[0])), label))
    return cases


def _scores(
    scorer: BundleScorer, cases: Sequence[tuple[Request, NDArray[np.bool_]]]
) -> dict[FallbackLevel, list[NDArray[np.floating]]]:
    """By level, the scores of each case's items."""
    queries = [request.query() for request, _ in cases]
    loaded = scorer.loaded
    popularity = loaded.features.popularity
    return {
        FallbackLevel.EXACT_MIXTURE: _modelled(scorer, queries, None),
        FallbackLevel.GLOBAL_EXPERT: _modelled(scorer, queries, FallbackReason.VECTOR_INVALID),
        FallbackLevel.TREES: [
            loaded.trees.logits(loaded.provider.features(query).tabular) for query in queries
        ],
        FallbackLevel.POPULARITY: [
            popularity[[loaded.catalogue.index(item.item_id) for item in query.candidates]]
            for query in queries
        ],
    }


def _modelled(
    scorer: BundleScorer, queries: Sequence[UserQuery], fault: FallbackReason | None
) -> list[NDArray[np.floating]]:
    """What the model answers where the vector has this fault."""
    features = scorer.loaded.provider.features_of_many(queries)
    jobs = [
        scorer.ranker.prepare(RankQuery("", query), each, fault)
        for query, each in zip(queries, features, strict=True)
    ]
    margins = score_all(scorer.decoder, [(job.prompt, job.weights) for job in jobs], BATCH_TOKENS)
    return [
        scorer.ranker.finish(job, found).score for job, found in zip(jobs, margins, strict=True)
    ]

"""A job's margins become scores in the order of the request."""

from __future__ import annotations

import numpy as np
import pytest

from rankloom_adapters.router import Fusion
from rankloom_engine.errors import NonFiniteError
from rankloom_engine.loading import load_decoder
from rankloom_engine.offline import score_all
from rankloom_features.catalogue import Item
from rankloom_features.provider import UserQuery
from rankloom_ranker.errors import FallbackRefusedError
from rankloom_ranker.fallback import FallbackLevel, FallbackReason
from rankloom_ranker.loaded import LoadedBundle
from rankloom_ranker.query import RankQuery
from rankloom_ranker.ranker import Ranker, RankingJob
from rankloom_ranker.ranking import rank_by_popularity

NUM = 6


def query(loaded: LoadedBundle, *, partial: bool = False) -> RankQuery:
    user = UserQuery(next(loaded.provider.events.users()), None, loaded.catalogue.items[:NUM])
    return RankQuery("r", user, allow_partial=partial)


def job_of(ranker: Ranker, asked: RankQuery) -> RankingJob:
    return ranker.prepare(asked, ranker.loaded.provider.features(asked.user))


def test_a_partial_request_puts_the_best_of_the_trees_first(loaded: LoadedBundle) -> None:
    ranker = Ranker(loaded)
    job = job_of(ranker, query(loaded, partial=True))
    assert (np.diff(job.tree_logits()[job.order]) <= 0).all()
    assert job_of(ranker, query(loaded)).order.tolist() == list(range(NUM))


def test_scores_are_margins_on_top_of_the_trees_in_the_order_of_the_request(
    loaded: LoadedBundle,
) -> None:
    ranker = Ranker(loaded)
    job = job_of(ranker, query(loaded, partial=True))
    margins = np.arange(NUM, dtype=np.float32)
    margins[-1] = np.nan  # there was no time for the last one
    scores = ranker.finish(job, margins)
    expected = np.empty(NUM)
    expected[job.order] = margins
    assert np.array_equal(scores.score, expected + job.tree_logits(), equal_nan=True)
    assert np.isnan(scores.probability).sum() == np.isnan(scores.score).sum() == 1
    known = ~np.isnan(scores.score)
    assert np.allclose(
        scores.probability[known], loaded.calibration.probability(scores.score[known])
    )


def test_an_infinite_score_is_refused(loaded: LoadedBundle) -> None:
    ranker = Ranker(loaded)
    margins = np.full(NUM, np.inf, dtype=np.float32)
    with pytest.raises(NonFiniteError):
        ranker.finish(job_of(ranker, query(loaded)), margins)


def test_one_expert_alone_is_an_exact_sum_of_it(loaded: LoadedBundle) -> None:
    asked = query(loaded)
    top = job_of(Ranker(loaded), RankQuery("r", asked.user, fusion=Fusion.TOP1))
    assert top.weights.fusion is Fusion.EXACT_SUM
    assert sorted(top.weights.values.tolist())[-2:] == [0.0, 1.0]


def test_a_job_runs_on_a_decoder_without_a_server(loaded: LoadedBundle) -> None:
    """What training and benchmarks do: the same job, the same scores in any batch."""
    ranker, decoder = Ranker(loaded), load_decoder(loaded.engine_parts())
    job = job_of(ranker, query(loaded))
    alone, again = (
        score_all(decoder, [(job.prompt, job.weights)] * copies, 4096)[0] for copies in (1, 3)
    )
    assert np.allclose(alone, again, atol=1e-5)
    assert np.isfinite(ranker.finish(job, alone).probability).all()


def test_popularity_counts_unknown_items_as_never_seen(loaded: LoadedBundle) -> None:
    user = UserQuery("u", None, (Item("nowhere", "New"), *loaded.catalogue.items[:2]))
    ranking = rank_by_popularity(loaded, RankQuery("r", user))
    assert ranking.fallback.level is FallbackLevel.POPULARITY
    assert ranking.fallback.reason is FallbackReason.FEATURES_UNAVAILABLE
    found = {item.item_id: item.score for item in ranking.items}
    assert found["nowhere"] == 0.0
    assert not any(item.scored for item in ranking.items)
    with pytest.raises(FallbackRefusedError):
        rank_by_popularity(loaded, RankQuery("r", user, allow_fallback=False))

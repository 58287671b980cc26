"""One user's request becomes a job for the engine, and the engine's margins become scores."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Fusion, Mixture
from rankloom_engine.errors import NonFiniteError
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.prompt import HistoryPrefix, Prompt, PromptCandidate, PromptEvent
from rankloom_features.provider import HistoryVersion, UserFeatures
from rankloom_ranker.answers import ExpertWeight, Routing, Scores
from rankloom_ranker.fallback import FallbackReason
from rankloom_ranker.loaded import LoadedBundle
from rankloom_ranker.query import RankQuery


@dataclass(frozen=True, slots=True, eq=False)
class UserContext:
    """What one bundle makes of a user's history alone: cached as long as the history stands.

    ``routing``: the reported mixture, computed lazily.
    """

    mixture: Mixture
    prefix: HistoryPrefix
    routing: Callable[[], Routing]


@dataclass(frozen=True, slots=True, eq=False)
class RankingJob:
    """What the engine needs, and values that can be computed while it runs.

    ``order``: (n,) indices into the request of the prompt's candidates, in the prompt's order; the
    candidates that are left out are not for the model.
    ``tree_logits``: (candidates,) in the order of the request, computed lazily, as ``routing``.
    """

    mixture: Mixture
    weights: MixtureWeights
    prompt: Prompt
    order: NDArray[np.int64]
    tree_logits: Callable[[], NDArray[np.float64]]
    routing: Callable[[], Routing]
    prompt_s: float

    def precompute(self) -> None:
        """Computes the lazy values, so that only the model's answer is missing."""
        self.tree_logits()
        self.routing()


class Ranker:
    """Prepares and finishes rankings of one loaded bundle. Safe from several threads."""

    def __init__(self, loaded: LoadedBundle) -> None:
        self.loaded = loaded
        self._contexts: WeakKeyDictionary[HistoryVersion, UserContext] = WeakKeyDictionary()

    @property
    def num_contexts(self) -> int:
        """Cached user contexts; one leaves with the last user of its history version."""
        return len(self._contexts)

    def prepare(
        self, query: RankQuery, features: UserFeatures, fault: FallbackReason | None = None
    ) -> RankingJob:
        """The engine's job for one query. ``fault``: why the user's vector cannot be used."""
        started = time.perf_counter()
        context = self._context(features, fault)
        if query.fusion is Fusion.TOP1:
            top = self.loaded.router.top1(context.mixture)
            context = self._new_context(top, context.prefix, features)
        fusion = Fusion.EXACT_SUM if query.fusion is Fusion.TOP1 else query.fusion
        dim = self.loaded.space.dim
        vector = np.zeros(dim, dtype=np.float32) if fault else features.vector
        tree_logits = cache(partial(self.loaded.trees.logits, features.tabular))
        order = _order(query, tree_logits)
        return RankingJob(
            mixture=context.mixture,
            weights=MixtureWeights(context.mixture.weights, fusion),
            prompt=self._prompt(query, context.prefix, vector, features.tabular, order),
            order=order,
            tree_logits=tree_logits,
            routing=context.routing,
            prompt_s=time.perf_counter() - started,
        )

    def finish(self, job: RankingJob, margins: NDArray[np.float32]) -> Scores:
        """Scores in the order of the request: the trees' logit plus the model's margin.

        ``margins``: (n,) in the order of the job's prompt, NaN for those not scored in time.
        Raises NonFiniteError.
        """
        tree_logits = job.tree_logits()
        ordered = np.full(len(tree_logits), np.nan, np.float32)
        ordered[job.order] = margins
        return self.scores(ordered, tree_logits)

    def scores(self, margins: NDArray[np.float32], tree_logits: NDArray[np.float64]) -> Scores:
        """(n,) margins and tree logits → scores. Raises NonFiniteError."""
        score = np.asarray(margins, dtype=np.float64) + tree_logits
        scores = Scores(score, self.loaded.calibration.probability(score))
        done = ~np.isnan(margins)
        found = (tree_logits, score[done], scores.probability[done])
        if not all(np.isfinite(values).all() for values in found):
            raise NonFiniteError("a score or probability is not finite")
        return scores

    def _context(self, features: UserFeatures, fault: FallbackReason | None) -> UserContext:
        """Cached unless the vector is at fault; what two threads make at once is equal."""
        if fault is None and features.history_version in self._contexts:
            return self._contexts[features.history_version]
        router, catalogue = self.loaded.router, self.loaded.catalogue
        is_global = fault is not None or features.cold_start
        mixture = (
            router.global_mixture()
            if is_global
            else router.route(self.loaded.routing_vector(features))
        )
        events = [
            PromptEvent(catalogue.items[index], index, event.liked)
            for event in features.events
            if (index := catalogue.index(event.item_id)) >= 0
        ]
        prefix = self.loaded.prompts.history_prefix(events)
        context = self._new_context(mixture, prefix, features)
        if fault is None:
            self._contexts[features.history_version] = context
        return context

    def _new_context(
        self, mixture: Mixture, prefix: HistoryPrefix, features: UserFeatures
    ) -> UserContext:
        routing = partial(
            routing_of, self.loaded, mixture, prefix.num_events, cold_start=features.cold_start
        )
        return UserContext(mixture, prefix, cache(routing))

    def _prompt(
        self,
        query: RankQuery,
        prefix: HistoryPrefix,
        vector: NDArray[np.float32],
        tabular: NDArray[np.float32],
        order: NDArray[np.int64],
    ) -> Prompt:
        catalogue = self.loaded.catalogue
        items = [query.user.candidates[index] for index in order]
        candidates = [
            PromptCandidate(catalogue.resolve(item), catalogue.index(item.item_id))
            for item in items
        ]
        return self.loaded.prompts.prompt(prefix, vector, candidates, tabular[order])


def routing_of(
    loaded: LoadedBundle, mixture: Mixture, history_events: int, *, cold_start: bool
) -> Routing:
    """The reported mixture: experts of positive weight, named and with their digests."""
    rows = zip(loaded.router.experts, loaded.expert_digests, mixture.weights.tolist(), strict=True)
    weights = tuple(ExpertWeight(*row) for row in rows if row[2] > 0.0)
    is_cold = cold_start or mixture.cold_start
    return Routing(mixture.route, weights, mixture.entropy, is_cold, history_events)


def _order(query: RankQuery, tree_logits: Callable[[], NDArray[np.float64]]) -> NDArray[np.int64]:
    """Which candidates the model scores, and in which order.

    Where not all may be scored, the highest tree logit first: then the likeliest are.
    """
    if not query.may_leave_unscored:
        return np.arange(len(query.user.candidates))
    return np.argsort(-tree_logits(), kind="stable")[: query.prefilter]

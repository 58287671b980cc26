"""Rankings by a bundle, as a server of it would answer; reads the bundle through its scorer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.canary.trials import LATENCY_S, CanaryRanking
from benchmarks.common.rank_calls import NUM_CANDIDATES
from rankloom_adapters import bundle as parts
from rankloom_adapters.bundle import Bundle
from rankloom_adapters.rollout.evidence import observe
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.provider import UserQuery
from rankloom_training.scoring import BundleScorer
from rankloom_training.user_events import events_of_bundle


def rankings_to_make(bundle: Bundle, per_user: int) -> list[tuple[str, UserQuery]]:
    """Rankings of random items, ``per_user`` for every user with events beside the bundle."""
    random = np.random.default_rng(2)
    items = Catalogue.from_bytes(bundle.read(parts.CATALOGUE)).items
    with events_of_bundle(bundle.folder) as store:
        return [
            (user, UserQuery(None, store.history(user).events, drawn))
            for user in store.users()
            for drawn in (_drawn(random, items) for _ in range(per_user))
        ]


def rankings_of(bundle: Bundle, requests: Sequence[tuple[str, UserQuery]]) -> list[CanaryRanking]:
    """The bundle's answer to each request, in order."""
    scorer = BundleScorer(bundle)
    router = scorer.loaded.router
    rows = np.zeros(NUM_CANDIDATES, np.int64)
    prepared = [scorer.prepare(query, rows) for _, query in requests]
    mixtures = [router.route(each.routing_vector).weights for each in prepared]
    weights = [MixtureWeights(mixture) for mixture in mixtures]
    margins = scorer.margins(prepared, {0: weights}, lambda *_: None)[0]
    user_ids = {user: index for index, (user, _) in enumerate(requests)}
    found = []
    for (user, _), each, mixture, margin in zip(
        requests, prepared, mixtures, np.split(margins, len(requests)), strict=True
    ):
        scores = scorer.ranker.scores(margin, each.tree_logits)
        group = router.experts[int(mixture.argmax())]
        given = (scores.score, each.tree_logits, scores.probability)
        seen = observe(user_ids[user], group, LATENCY_S, *given)
        found.append(CanaryRanking(user, seen, scores.score))
    return found


def _drawn(random: np.random.Generator, items: Sequence[Item]) -> tuple[Item, ...]:
    indexes = random.choice(len(items), NUM_CANDIDATES, replace=False)
    return tuple(items[index] for index in indexes)

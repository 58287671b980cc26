"""What a shadow answers to a request that the active revision has answered."""

from __future__ import annotations

import time
from dataclasses import replace

from rankloom_ranker.answers import Ranking
from rankloom_ranker.query import RankQuery, RetrieveQuery
from rankloom_ranker.ranking import rank_with_features
from rankloom_ranker.retrieving import retrieve
from rankloom_server import logs
from rankloom_server.features import usable_features
from rankloom_server.revision_loader import ServedRevision

SHADOW_TIME_S = 5.0
_SHADOW_CALLER = "\0shadow"  # not a host name, so that it has a fair share of its own


async def ranked_again(served: ServedRevision, query: RankQuery) -> Ranking | None:
    """What a revision answers to a query; None where it fails."""
    own = replace(query, caller=_SHADOW_CALLER, allow_fallback=True, allow_partial=False)
    try:
        features, fault = await usable_features(
            served.features, served.loaded.space, own.user, SHADOW_TIME_S
        )
        deadline = time.monotonic() + SHADOW_TIME_S
        return await rank_with_features(
            served.ranker, served.engine, own, features, fault, deadline
        )
    except Exception as error:
        logs.fault("shadow_unanswered", error)
        return None


async def retrieved_again(served: ServedRevision, query: RetrieveQuery) -> tuple[str, ...]:
    """The ids of the items that a revision retrieves; none where it fails."""
    try:
        features, fault = await usable_features(
            served.features, served.loaded.space, query.user, SHADOW_TIME_S
        )
        found = await retrieve(
            served.loaded.retriever, replace(query, allow_fallback=True), features, fault
        )
    except Exception as error:
        logs.fault("shadow_unanswered", error)
        return ()
    return found.item_ids

"""Finds a user's items in the whole catalogue of one loaded bundle, without its language model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from rankloom_features.catalogue import Catalogue
from rankloom_features.item_index import ItemIndex
from rankloom_features.provider import UserFeatures, has_few_events
from rankloom_features.selection import ItemSelector
from rankloom_features.vector_space import VectorSpace
from rankloom_ranker.answers import Retrieval, RetrievalOrder
from rankloom_ranker.fallback import FallbackReason, fallback_after

if TYPE_CHECKING:  # a feature server loads this module, and no torch
    from rankloom_ranker.query import RetrieveQuery


# Handing work to a thread and back takes as long as searching some thousand items.
MAX_ITEMS_ON_LOOP: Final = 20_000


@dataclass(frozen=True, eq=False)
class Retriever:
    """Safe from several threads. ``index``: of the vectors of ``space``.

    ``popularity``: (items,) training rows of each item.
    """

    catalogue: Catalogue
    space: VectorSpace
    index: ItemIndex
    popularity: NDArray[np.float32]

    def retrieve(
        self,
        query: RetrieveQuery,
        features: UserFeatures | None,
        fault: FallbackReason | None = None,
    ) -> Retrieval:
        """The query's items, by the user's vector or else by popularity.

        ``features``: None where none came. ``fault``: why their vector cannot be used. Raises
        UnknownAttributeError or FallbackRefusedError.
        """
        reason = FallbackReason.FEATURES_UNAVAILABLE if features is None else fault
        fallback_after(reason, allow_fallback=query.allow_fallback)
        events = (query.user.history or ()) if features is None else features.events
        seen = (event.item_id for event in events)
        allowed = self._selector.allowed(query.selection, seen)
        cold_start = features is not None and features.cold_start
        if features is None or reason is not None or cold_start:
            items, scores = self._most_popular(allowed, query.k)
            order = RetrievalOrder.POPULARITY
        else:
            items, scores = self.index.search(self.space.user(features), query.k, allowed)
            order = RetrievalOrder.VECTOR
        return Retrieval(
            item_ids=tuple(map(self.catalogue.item_ids.__getitem__, items.tolist())),
            scores=tuple(scores.tolist()),
            order=order,
            reason=reason,
            cold_start=cold_start,
            history_version=features.stored_version if features else None,
        )

    def _most_popular(
        self, allowed: NDArray[np.bool_], num: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        ranked = self._by_popularity
        items = ranked[allowed[ranked]][:num]
        return items, self.popularity[items]

    @cached_property
    def _by_popularity(self) -> NDArray[np.int64]:
        """(items,) catalogue indices, the most popular first."""
        return np.argsort(-self.popularity, kind="stable")

    @cached_property
    def _selector(self) -> ItemSelector:
        return ItemSelector(self.catalogue)

    def warm(self) -> None:
        """Computes what the first call would wait for."""
        _ = self._by_popularity, self._selector


async def retrieve(
    retriever: Retriever,
    query: RetrieveQuery,
    features: UserFeatures | None,
    fault: FallbackReason | None,
) -> Retrieval:
    """As the retriever does. A large catalogue, and a long history, are searched on a thread."""
    is_short = features is None or has_few_events(features)
    if is_short and len(retriever.index) <= MAX_ITEMS_ON_LOOP:
        return retriever.retrieve(query, features, fault)
    return await asyncio.to_thread(retriever.retrieve, query, features, fault)

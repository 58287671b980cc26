"""The values of `retrieve` and `recommend`: selections, options, retrieved items.

All are immutable: they can be kept, shared between threads, pickled and compared.
"""

from dataclasses import dataclass
from enum import StrEnum

from rankloom._results import FallbackReason, RankedItem, Ranking, RankOptions, Revision, Timing


class RetrievalOrder(StrEnum):
    """By what retrieved items are ordered."""

    VECTOR = "vector"
    POPULARITY = "popularity"
    UNKNOWN = "unknown"  # an order that only a newer server knows


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSelection:
    """Which items may be retrieved; everything that is set must hold.

    `exclude_seen`: leave out the items of the user's events.
    `exclude_item_ids`: leave out these; ids that the server does not know are ignored.
    `with_attributes`: only items with at least one of them; empty for all items.
    `without_attributes`: only items with none of them.
    """

    exclude_seen: bool = True
    exclude_item_ids: tuple[str, ...] = ()
    with_attributes: tuple[str, ...] = ()
    without_attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveOptions:
    """How items may be retrieved.

    `allow_fallback`: popularity may answer if the user's vector cannot be used.
    `revision`: as in `RankOptions`.
    """

    selection: ItemSelection = ItemSelection()  # immutable
    allow_fallback: bool = True
    revision: Revision | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendOptions:
    """How items may be recommended; None leaves the choice to the server.

    `retrieve_k`: how many items are retrieved and ranked, at most 500.
    `diversity`: 0 to 1: how much the items should differ from each other (1 - λ of maximal
    marginal relevance); 0 keeps the order of the ranking.
    `ranking`: how the retrieved items are ranked; its `top_k` must be left out.
    """

    retrieve_k: int | None = None
    selection: ItemSelection = ItemSelection()  # immutable
    diversity: float | None = None
    ranking: RankOptions = RankOptions()  # noqa: RUF009  # immutable


@dataclass(frozen=True, slots=True)
class RetrievedItem:
    """One retrieved item; rank 1 is the nearest. `score`: on the scale of the order."""

    item_id: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The nearest items, best first, and how they were found.

    `fallback_reason`: why the user's vector could not be used; None if it could.
    `cold_start`: True if nothing is known about the user, so that popularity answers.
    `history_version`: of the user's stored events; None for an inline history.
    """

    request_id: str
    revision: Revision
    items: tuple[RetrievedItem, ...]
    order: RetrievalOrder
    fallback_reason: FallbackReason | None
    cold_start: bool
    history_version: int | None
    timing: Timing

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids of the items, best first: candidates for `rank`."""
        return tuple(item.item_id for item in self.items)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The best of the retrieved items, and how they were ranked and found.

    `ranking`: of the items that are recommended. `num_retrieved`: how many were ranked.
    `order`, `history_version`: as in `Retrieval`.
    """

    ranking: Ranking
    num_retrieved: int
    order: RetrievalOrder
    history_version: int | None

    @property
    def items(self) -> tuple[RankedItem, ...]:
        """The recommended items, best first."""
        return self.ranking.items

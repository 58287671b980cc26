"""What can be asked of a ranker, as values."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from rankloom_adapters.router import Fusion
from rankloom_engine.explain import SamplingParams
from rankloom_features.provider import UserQuery
from rankloom_features.selection import ALL_UNSEEN, ItemSelection

_GREEDY: Final = SamplingParams()


@dataclass(frozen=True, slots=True)
class ExplainParams:
    """How an explanation is made.

    ``max_evidence``: evidence of at most so many of the newest events; None: of all in the prompt.
    ``grounded``: the text may name only what the items of the prompt have.
    """

    sampling: SamplingParams = _GREEDY
    max_evidence: int | None = None
    grounded: bool = True


@dataclass(frozen=True, slots=True)
class RankQuery:
    """One requested ranking. ``top_k``: None for all candidates.

    ``prefilter``: the model scores so many, those that the trees rank highest; None for all.
    ``explain_top_k``: the best items that are explained too, as ``explaining`` says.
    ``revision``: the one that must answer, None for the user's. ``bundle_digest``: of its
    bundle, empty for any. ``caller``: model time is shared fairly between callers. ``began``: when
    the call did, on time.monotonic's clock.
    """

    request_id: str
    user: UserQuery
    top_k: int | None = None
    allow_fallback: bool = True
    allow_partial: bool = False
    fusion: Fusion = Fusion.EXACT_SUM
    revision: int | None = None
    bundle_digest: str = ""
    caller: str = ""
    explain_top_k: int = 0
    explaining: ExplainParams = ExplainParams()
    prefilter: int | None = None
    began: float = field(default_factory=time.monotonic, compare=False)

    @property
    def may_leave_unscored(self) -> bool:
        """Whether the model may score fewer than all candidates."""
        return self.allow_partial or self.prefilter is not None

    @property
    def user_key(self) -> str:
        """As ``user_key``."""
        return user_key(self.user)


def user_key(user: UserQuery) -> str:
    """Tells users apart where a canary takes only some of them.

    The user id; for a user given by an inline history, the item of the first event, which stays
    the same while the history grows.
    """
    return user.user_id or (user.history[0].item_id if user.history else "")


@dataclass(frozen=True, slots=True)
class ExplainQuery:
    """One requested explanation. ``ranking``: of its one candidate, without fallback."""

    ranking: RankQuery
    params: ExplainParams


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """One requested stored explanation. The rest is as in RankQuery."""

    request_id: str
    user_id: str
    item_id: str
    revision: int | None = None
    bundle_digest: str = ""


@dataclass(frozen=True, slots=True)
class RetrieveQuery:
    """Items to find for one user, who comes without candidates. The rest is as in RankQuery."""

    request_id: str
    user: UserQuery
    k: int
    selection: ItemSelection = ALL_UNSEEN
    allow_fallback: bool = True
    revision: int | None = None
    bundle_digest: str = ""

    @property
    def user_key(self) -> str:
        """As ``user_key``."""
        return user_key(self.user)


@dataclass(frozen=True, slots=True)
class RecommendQuery:
    """The best items of the catalogue for one user: retrieved, ranked, and diverse.

    ``k``: how many to return. ``retrieve_k``: how many to rank. ``diversity``: 0 to 1, 0 for the
    order of the ranking. ``ranking``: how to rank, without candidates and ``top_k``.
    """

    ranking: RankQuery
    k: int
    retrieve_k: int
    selection: ItemSelection = ALL_UNSEEN
    diversity: float = 0.0

    @property
    def retrieval(self) -> RetrieveQuery:
        """The query of its first half."""
        ranking = self.ranking
        return RetrieveQuery(
            request_id=ranking.request_id,
            user=ranking.user,
            k=self.retrieve_k,
            selection=self.selection,
            allow_fallback=ranking.allow_fallback,
            revision=ranking.revision,
            bundle_digest=ranking.bundle_digest,
        )

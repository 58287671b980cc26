"""What can be asked of a ranker, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rankloom_adapters.router import Fusion
from rankloom_engine.explain import SamplingParams
from rankloom_features.provider import UserQuery

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
    bundle, empty for any. ``caller``: model time is shared fairly between callers.
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

    @property
    def may_leave_unscored(self) -> bool:
        """Whether the model may score fewer than all candidates."""
        return self.allow_partial or self.prefilter is not None

    @property
    def user_key(self) -> str:
        """Tells users apart where a canary takes only some of them.

        The user id; for a user given by an inline history, the item of the first event, which
        stays the same while the history grows.
        """
        history = self.user.history
        return self.user.user_id or (history[0].item_id if history else "")


@dataclass(frozen=True, slots=True)
class ExplainQuery:
    """One requested explanation. ``ranking``: of its one candidate, without fallback."""

    ranking: RankQuery
    params: ExplainParams

"""What a ranking or an explanation answers, as values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Route
from rankloom_engine.explain import StopReason
from rankloom_server.fallback import Fallback


@dataclass(frozen=True, slots=True)
class ExpertWeight:
    """An expert's part in a mixture; ``digest`` is that of its weight file."""

    expert: str
    digest: str
    weight: float


@dataclass(frozen=True, slots=True)
class Routing:
    """How the experts were woven; without route and weights where none answered."""

    route: Route | None = None
    weights: tuple[ExpertWeight, ...] = ()
    entropy: float = 0.0
    cold_start: bool = False
    num_events: int = 0


@dataclass(frozen=True, slots=True)
class RankedItem:
    """``scored``: the score is the model's, and not there for the order's sake."""

    item_id: str
    score: float
    probability: float
    scored: bool


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time of each stage, in seconds."""

    features_s: float = 0.0
    prompt_s: float = 0.0
    queue_s: float = 0.0
    model_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a trial asks of a ranking: (candidates,) each, in the order of the request.

    ``tree_logits``: the trees' logits. ``vector``: the user's, in the space of
    ``feature_version``, None where it could not be used.
    ``non_finite``: the model gave such a score, or more.
    ``reused``: the user's history was kept from an earlier call.
    """

    tree_logits: NDArray[np.float64]
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    vector: NDArray[np.float32] | None
    feature_version: str
    non_finite: bool = False
    reused: bool = False

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which candidates there was time for."""
        return ~np.isnan(self.scores)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates in rank order, and how they came into it."""

    step: Fallback
    routing: Routing
    items: tuple[RankedItem, ...]
    timing: Timing
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class RankAnswer:
    """A ranking and the revision that made it."""

    revision: int
    bundle_digest: str
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class Verdict:
    """The score of one item, and the side that it is on."""

    score: float
    probability: float

    @property
    def liked(self) -> bool:
        """Whether the user would rather like the item than not."""
        return self.probability >= 0.5


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a text told of, and how it came about. ``num_tokens``: of the text."""

    routing: Routing
    verdict: Verdict
    num_prompt_tokens: int
    num_tokens: int
    stop: StopReason


@dataclass(frozen=True, slots=True)
class ExplainAnswer:
    """What ends a text: the explanation, and the revision that made it."""

    revision: int
    bundle_digest: str
    explanation: Explanation

"""What a ranking or an explanation answers, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.router import Route
from rankloom_ranker.fallback import Fallback, FallbackReason

if TYPE_CHECKING:  # a feature server knows these answers, and loads no torch
    from rankloom_engine.explain import StopReason


@dataclass(frozen=True, slots=True)
class ExpertWeight:
    """An expert's share in a mixture; ``digest``: SHA-256 of its weight file."""

    expert: str
    digest: str
    weight: float


@dataclass(frozen=True, slots=True)
class Routing:
    """How the router chose the experts; without route and weights where no expert answered.

    ``entropy``: of the softmax over the groups, in nats. ``history_events``: in the prompt.
    """

    route: Route | None = None
    weights: tuple[ExpertWeight, ...] = ()
    entropy: float = 0.0
    cold_start: bool = False
    history_events: int = 0


@dataclass(frozen=True, slots=True)
class RankedItem:
    """``scored``: the score is the model's; otherwise it only gives the order."""

    item_id: str
    score: float
    probability: float
    scored: bool


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time of each stage, in seconds. ``search_s``: of the search among all items."""

    features_s: float = 0.0
    prompt_s: float = 0.0
    queue_s: float = 0.0
    model_s: float = 0.0
    total_s: float = 0.0
    search_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """(candidates,) logits and calibrated probabilities, in the order of the request.

    NaN for candidates that were not scored in time.
    """

    score: NDArray[np.float64]
    probability: NDArray[np.float64]

    def verdict(self, index: int) -> Verdict:
        """On one candidate that was scored."""
        return Verdict(float(self.score[index]), float(self.probability[index]))


@dataclass(frozen=True, slots=True, eq=False)
class ScoringRecord:
    """What a rollout's gates need of a ranking, in the order of the request.

    ``tree_logits``: (candidates,). ``vector``: what the user was routed by, of
    ``feature_version``, None where it could not be used. ``failure``: what the engine failed
    with. ``cached``: the user's history was in the prefix cache.
    """

    tree_logits: NDArray[np.float64]
    scores: Scores
    vector: NDArray[np.floating] | None
    feature_version: str
    failure: Exception | None = None
    cached: bool = False

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(candidates,) which of them were scored in time."""
        return ~np.isnan(self.scores.score)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates in rank order, and how the order was made.

    ``record``: None where nothing but popularity was known. ``explanations``: of the best items,
    best first, where they were asked for.
    """

    fallback: Fallback
    routing: Routing
    items: tuple[RankedItem, ...]
    timing: Timing
    record: ScoringRecord | None = None
    explanations: tuple[ItemExplanation, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The score of one item, and the side that it is on."""

    score: float
    probability: float

    @property
    def liked(self) -> bool:
        """Whether the user will more probably like the item than not."""
        return self.probability >= 0.5


@dataclass(frozen=True, slots=True)
class EventEvidence:
    """An event of the history, and its influence on a score.

    ``influence``: the score less the one that the history without this event gives, in logits.
    """

    item_id: str
    liked: bool
    influence: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict that a text explains, and how the text was made.

    ``num_tokens``: tokens of the text. ``evidence``: of the newest events in the prompt, oldest
    first.
    """

    routing: Routing
    verdict: Verdict
    num_prompt_tokens: int
    num_tokens: int
    stop: StopReason
    evidence: tuple[EventEvidence, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemExplanation:
    """The explanation of one item of a ranking; the fields are those of ``Explanation``."""

    item_id: str
    verdict: Verdict
    text: str
    num_tokens: int
    stop: StopReason
    evidence: tuple[EventEvidence, ...]


class RetrievalOrder(Enum):
    """By what retrieved items are ordered."""

    VECTOR = auto()
    POPULARITY = auto()


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The nearest items, best first, and the score of each.

    ``scores``: by the vector space, or the numbers of training rows, as the order says. ``reason``:
    why the user's vector could not be used, None where it could. ``cold_start``: nothing is known
    about the user. ``history_version``: of the stored history; None for an inline one, or where
    there were no features.
    """

    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    order: RetrievalOrder
    reason: FallbackReason | None
    cold_start: bool
    history_version: int | None

"""The values that go into a call and come out of it; none of them is a wire type.

All are immutable, so they may be kept, shared between threads, pickled and compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Fusion(StrEnum):
    """How the weights of several experts become one model."""

    EXACT_SUM = "exact_sum"
    PEFT_LINEAR = "peft_linear"
    TOP1 = "top1"


class Route(StrEnum):
    """How the router used the experts: one, the global one, or several at once."""

    SINGLE = "single"
    GLOBAL = "global"
    FUSED = "fused"
    UNKNOWN = "unknown"  # a route that only a newer server knows


class FallbackLevel(StrEnum):
    """The step of the fallback levels that answered, best first."""

    EXACT_MIXTURE = "exact_mixture"
    TOP_EXPERT = "top_expert"
    GLOBAL_EXPERT = "global_expert"
    TREES = "trees"
    POPULARITY = "popularity"
    UNKNOWN = "unknown"  # a fallback level that only a newer server knows


class FallbackReason(StrEnum):
    """Why a lower fallback level answered."""

    VECTOR_INVALID = "vector_invalid"
    FEATURE_VERSION_MISMATCH = "feature_version_mismatch"
    FEATURES_UNAVAILABLE = "features_unavailable"
    ENGINE_FAILED = "engine_failed"
    UNKNOWN = "unknown"  # a reason that only a newer server knows


class Verdict(StrEnum):
    """Which side of one half the probability is on."""

    LIKED = "liked"
    DISLIKED = "disliked"
    UNKNOWN = "unknown"  # a verdict that only a newer server knows


class StopReason(StrEnum):
    """Why a text ends where it does."""

    STOP_TOKEN = "stop_token"
    MAX_TOKENS = "max_tokens"
    DEADLINE = "deadline"
    UNKNOWN = "unknown"  # a reason that only a newer server knows


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction of a user; `time`, where given, has a time zone."""

    item_id: str
    liked: bool
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A candidate with its own text, for items that the server's catalogue lacks."""

    item_id: str
    title: str = ""
    year: int | None = None
    attributes: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOptions:
    """How a ranking may be made; None leaves the choice to the server.

    `top_k`: answer with that many of the best items only.
    `allow_fallback`: a lower fallback level may answer where the exact mixture cannot.
    `allow_partial`: some items may come back unscored where time runs short.
    `revision`: the number of the revision that must answer.
    """

    top_k: int | None = None
    allow_fallback: bool = True
    allow_partial: bool = False
    fusion: Fusion | None = None
    revision: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainOptions:
    """How a text may be written; None leaves the choice to the server.

    `max_tokens`: the most tokens of text.
    `temperature`: 0 always takes the likeliest token, more draws more freely.
    `seed`: what tokens are drawn by; the same seed draws the same ones.
    `revision`: the number of the revision that must answer, as that of the ranking that is
    to be explained.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    fusion: Fusion | None = None
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Revision:
    """The admitted bundle that answered."""

    number: int
    bundle_digest: str


@dataclass(frozen=True, slots=True)
class ExpertWeight:
    """An expert's part in the mixture, and the digest of its weight file."""

    expert: str
    digest: str
    weight: float


@dataclass(frozen=True, slots=True)
class Routing:
    """How the experts were woven for this user.

    `entropy`: of the router's distribution over the group experts, in nats.
    `cold_start`: nothing was known of the user.
    `history_events`: how many of the user's events the model read.
    """

    route: Route
    weights: tuple[ExpertWeight, ...]
    entropy: float
    cold_start: bool
    history_events: int


@dataclass(frozen=True, slots=True)
class RankedItem:
    """One item of the ranking; rank 1 is the best.

    `score`: a logit, comparable within one revision.
    `probability`: calibrated, that the user likes the item.
    `scored`: False where only the order means something, and the two numbers do not.
    """

    item_id: str
    rank: int
    score: float
    probability: float
    scored: bool


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time that each stage took on the server, in seconds."""

    queue_s: float
    features_s: float
    prompt_s: float
    model_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer: items in rank order, and how they came about."""

    request_id: str
    revision: Revision
    routing: Routing
    fallback_level: FallbackLevel
    fallback_reason: FallbackReason | None
    items: tuple[RankedItem, ...]
    timing: Timing

    @property
    def is_fallback(self) -> bool:
        """Whether anything but the user's exact mixture answered."""
        return self.fallback_level is not FallbackLevel.EXACT_MIXTURE

    def scores(self) -> dict[str, float]:
        """Return item id → score, best first, for a ranker downstream; unscored items are left out.

        On the lowest fallback levels nothing is scored, and the mapping is empty.
        """
        return {item.item_id: item.score for item in self.items if item.scored}


@dataclass(frozen=True, slots=True)
class Explanation:
    """A text about one item, and the verdict that it tells of.

    `verdict`, `score`, `probability`: those of the item in a ranking by the same revision.
    `prompt_tokens`: how many the model read; `generated_tokens`: how many the text has.
    `stop_reason`: why the text ends; it is cut short at MAX_TOKENS and DEADLINE.
    """

    request_id: str
    text: str
    verdict: Verdict
    score: float
    probability: float
    revision: Revision
    routing: Routing
    prompt_tokens: int
    generated_tokens: int
    stop_reason: StopReason

"""The values that go into a ranking call and come out of it; none of them is a wire type.

All are immutable: they can be kept, shared between threads, pickled and compared.
"""

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
    """How good a method answered, best first."""

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
    """LIKED if the probability is one half or more."""

    LIKED = "liked"
    DISLIKED = "disliked"
    UNKNOWN = "unknown"  # none, or a verdict that only a newer server knows


class StopReason(StrEnum):
    """Why a text ended."""

    STOP_TOKEN = "stop_token"
    MAX_TOKENS = "max_tokens"
    DEADLINE = "deadline"
    GROUNDING = "grounding"
    UNKNOWN = "unknown"  # none, or a reason that only a newer server knows


class ExplanationSource(StrEnum):
    """Where an explanation comes from: written for the call, or beforehand."""

    LIVE = "live"
    STORED = "stored"
    UNKNOWN = "unknown"  # a source that only a newer server knows


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction of a user; a `time` needs a time zone."""

    item_id: str
    liked: bool
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A candidate with its own text, for an item that the server's catalogue lacks."""

    item_id: str
    title: str = ""
    year: int | None = None
    attributes: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """The bundle that answered: its number on this server, and its digest."""

    number: int
    bundle_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainOptions:
    """How a text may be written; None leaves the choice to the server.

    `max_tokens`: the maximum length of the text.
    `temperature`: 0 takes the likeliest words, or always the same of some that are nearly as
    likely; higher values draw more freely.
    `seed`: of the random draw; the same seed gives the same text.
    `fusion`: how the experts are combined.
    `revision`: the revision that must answer, such as that of the ranking to explain, whose bundle
    is compared too; or only its number.
    `max_evidence`: evidence of at most so many of the newest events; 0 for none, which is faster.
    `grounded`: whether the text may name only titles, attributes and numbers of the user's items
    and of the explained one.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    fusion: Fusion | None = None
    revision: Revision | int | None = None
    max_evidence: int | None = None
    grounded: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankOptions:
    """How a ranking may be made; None leaves the choice to the server.

    `top_k`: return only this many of the best items.
    `allow_fallback`: a lower fallback level may answer if the exact mixture cannot.
    `allow_partial`: some items may come back unscored if time runs short.
    `fusion`: how the experts are combined.
    `revision`: the revision that must answer: that of an earlier answer, whose bundle is compared
    too, or only its number.
    `explain_top_k`: also explain so many of the best items, at most 10.
    `explain`: how; its fusion and revision must be left to the ranking's own.
    `prefilter`: the language model scores only so many items, those that the trees rank highest;
    the others follow behind them, unscored, in the trees' order.
    """

    top_k: int | None = None
    allow_fallback: bool = True
    allow_partial: bool = False
    fusion: Fusion | None = None
    revision: Revision | int | None = None
    explain_top_k: int | None = None
    explain: ExplainOptions | None = None
    prefilter: int | None = None


@dataclass(frozen=True, slots=True)
class ExpertWeight:
    """An expert's weight in the mixture, and the digest of its weight file."""

    expert: str
    digest: str
    weight: float


@dataclass(frozen=True, slots=True)
class Routing:
    """Which experts the router chose for this user.

    `entropy`: of the router's distribution over the group experts, in nats.
    `cold_start`: True if nothing is known about the user.
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
    `probability`: the calibrated probability that the user likes the item.
    `scored`: False if only the order is meaningful; then ignore score and probability.
    """

    item_id: str
    rank: int
    score: float
    probability: float
    scored: bool


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall time of each stage on the server, in seconds.

    `search_s`: of the search among all items, for `retrieve` and `recommend`.
    """

    queue_s: float
    features_s: float
    prompt_s: float
    model_s: float
    total_s: float
    search_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """An event of the user, and its influence on a score.

    `influence`: the score less the score that the user's history without this event gives, a
    logit; positive if the event speaks for the item.
    """

    item_id: str
    liked: bool
    influence: float


@dataclass(frozen=True, slots=True)
class ItemExplanation:
    """The explanation of one item of a ranking; the fields are those of `Explanation`."""

    item_id: str
    verdict: Verdict
    text: str
    generated_tokens: int
    stop_reason: StopReason
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The items, best first, and how they were ranked.

    `explanations`: of the best `explain_top_k` items, best first.
    """

    request_id: str
    revision: Revision
    routing: Routing
    fallback_level: FallbackLevel
    fallback_reason: FallbackReason | None
    items: tuple[RankedItem, ...]
    timing: Timing
    explanations: tuple[ItemExplanation, ...] = ()

    @property
    def is_fallback(self) -> bool:
        """True if anything but the user's exact mixture answered."""
        return self.fallback_level is not FallbackLevel.EXACT_MIXTURE

    def scores(self) -> dict[str, float]:
        """Return item id → score, best first, for a downstream ranker; skip unscored items.

        On the lowest fallback levels nothing is scored, and the mapping is empty.
        """
        return {item.item_id: item.score for item in self.items if item.scored}


@dataclass(frozen=True, slots=True)
class StoredRationale:
    """Where a stored explanation comes from.

    `written`: when it was written, UTC.
    `generator`: what wrote it, such as the name of a model.
    `digest`: of all rationales that the bundle has: their version.
    `rating`: from 1 to 5, what the user's review seems to give the item.
    """

    written: datetime
    generator: str
    digest: str
    rating: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """A text about one item, and the verdict that it explains.

    `verdict`, `score`, `probability`: as in a ranking by the same revision.
    `prompt_tokens`: tokens that the model read.
    `generated_tokens`: tokens of the text.
    `stop_reason`: why the text ended; at MAX_TOKENS and DEADLINE it is cut short.
    `evidence`: of the newest events that the model read, oldest first; fewer if time ran short.
    `stored`: where a stored explanation comes from; None for a live one. A stored one says why the
    user rated the item as they did, and has no verdict: it is UNKNOWN, as are route and stop
    reason, and score, probability and tokens are 0.
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
    evidence: tuple[Evidence, ...] = ()
    source: ExplanationSource = ExplanationSource.LIVE
    stored: StoredRationale | None = None

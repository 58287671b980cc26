"""What a fake server was asked, as values of the SDK."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankloom._events import UserEvent
from rankloom._features import FeatureQuery
from rankloom._results import Event, ExplainOptions, ExplanationSource, Item, RankOptions
from rankloom._retrievals import RecommendOptions, RetrieveOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCall:
    """One call of `Client.rank`. `timeout_s`: the time that it had left on arrival."""

    items: tuple[Item, ...]
    user: str | None
    history: tuple[Event, ...] | None
    options: RankOptions
    request_id: str
    timeout_s: float

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids of the items, in the order of the call."""
        return tuple(item.item_id for item in self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainCall:
    """One call of `Client.explain`. `timeout_s`: the time that it had left on arrival."""

    item: Item
    user: str | None
    history: tuple[Event, ...] | None
    options: ExplainOptions
    source: ExplanationSource
    request_id: str
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveCall:
    """One call of `Client.retrieve`. `timeout_s`: the time that it had left on arrival."""

    k: int
    user: str | None
    history: tuple[Event, ...] | None
    options: RetrieveOptions
    request_id: str
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendCall:
    """One call of `Client.recommend`. `timeout_s`: the time that it had left on arrival."""

    k: int
    user: str | None
    history: tuple[Event, ...] | None
    options: RecommendOptions
    request_id: str
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCall:
    """One call of a `FeatureClient`. `timeout_s`: the time that it had left on arrival."""

    queries: tuple[FeatureQuery, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordCall:
    """One call that records events. `timeout_s`: the time that it had left on arrival."""

    events: tuple[UserEvent, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetCall:
    """One call of `FeatureClient.forget_user`. `timeout_s`: the time that it had on arrival."""

    user: str
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCall:
    """One call of a `RolloutClient`.

    `method`: the client's method, such as "start_canary".
    `arguments`: by name, such as {"revision": 2, "percent": 5, "gates": None, "expected": 1,
    "key": "…"}. An upload has "files" in place of its folder: the size of each file in bytes.
    `token`: None if the client has none.
    """

    method: str
    arguments: Mapping[str, Any]
    token: str | None


Call = (
    RankCall
    | ExplainCall
    | RetrieveCall
    | RecommendCall
    | FeatureCall
    | RecordCall
    | ForgetCall
    | RolloutCall
)

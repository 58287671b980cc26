"""The values of recorded events and of the model that uses them; none of them is a wire type."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import uuid4


def _new_event_id() -> str:
    return uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEvent:
    """One interaction of a user, to record: give exactly one of `liked` and `rating`.

    `rating`: on the scale of the training data; see `ModelInfo.like_above`.
    `time`: needs a time zone; None: when the event arrives at the server.
    `event_id`: the same id of the same user twice is one event, so an event can be recorded again
    when no answer came. By default an id that no other event has.
    """

    user: str
    item_id: str
    liked: bool | None = None
    rating: float | None = None
    time: datetime | None = None
    event_id: str = field(default_factory=_new_event_id)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The feature model that serves now.

    `kind`: of the collaborative model, such as "sasrec"; empty if the bundle does not say.
    `dim`: the length of a user's vector.
    `feature_version`, `schema_digest`: as in `UserFeatures` and `TabularFeatures`.
    `num_items`: the size of the catalogue.
    `columns`: the names of the tabular features, in the order of a row.
    `like_above`: a rating above it is a like. None if the model was not trained on ratings; then
    events need `liked`.
    """

    kind: str
    dim: int
    feature_version: str
    num_items: int
    columns: tuple[str, ...]
    schema_digest: str
    like_above: float | None

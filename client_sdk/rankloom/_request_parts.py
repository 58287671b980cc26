"""The parts that requests of several services share: user, history, candidates, size."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from rankloom._checks import INT32, checked_elements, checked_text, checked_type, optional_integer
from rankloom._policy import MAX_MESSAGE_BYTES
from rankloom._results import Event, Item
from rankloom.errors import InvalidRequestError
from rankloom_proto.v1 import features_pb2, ranking_pb2

_AboutAUser: TypeAlias = (
    ranking_pb2.RankRequest
    | ranking_pb2.ExplainRequest
    | ranking_pb2.RetrieveRequest
    | ranking_pb2.RecommendRequest
    | features_pb2.UserQuery
)
_Request: TypeAlias = (
    ranking_pb2.RankRequest
    | ranking_pb2.ExplainRequest
    | ranking_pb2.RetrieveRequest
    | ranking_pb2.RecommendRequest
    | features_pb2.GetUserFeaturesRequest
    | features_pb2.RecordEventsRequest
)


def check_subject(user: object, history: object, prefix: str = "") -> None:
    """Raise InvalidRequestError unless exactly one is given; `prefix` leads to the two fields."""
    if (user is None) == (history is None):
        raise InvalidRequestError.of_field(f"{prefix}user", "give exactly one of user and history")


def set_subject(message: _AboutAUser, user: object, history: object, prefix: str = "") -> None:
    """Write the user's id or history into the message."""
    if user is not None:
        message.user_id = checked_text(user, f"{prefix}user")
        return
    events = checked_elements(history, f"{prefix}history")
    message.history.CopyFrom(
        features_pb2.History(events=[build_event(event, field) for field, event in events])
    )


def build_candidates(items: object, field: str) -> list[features_pb2.Candidate]:
    """Return one candidate for each id or `Item`, in their order."""
    return [build_candidate(item, path) for path, item in checked_elements(items, field)]


def build_candidate(item: object, field: str) -> features_pb2.Candidate:
    """Return the candidate for an id, or for an `Item` with its text."""
    if isinstance(item, str):
        return features_pb2.Candidate(item_id=checked_text(item, field))
    value = checked_type(item, Item, field, "str or Item")
    attributes = checked_elements(value.attributes, f"{field}.attributes")
    text = features_pb2.ItemText(
        title=checked_text(value.title, f"{field}.title"),
        year=optional_integer(value.year, INT32, f"{field}.year"),
        attributes=[checked_text(attribute, path) for path, attribute in attributes],
        description=checked_text(value.description, f"{field}.description"),
    )
    return features_pb2.Candidate(
        item_id=checked_text(value.item_id, f"{field}.item_id"), text=text
    )


def check_size(request: _Request, field: str) -> None:
    """Raise InvalidRequestError if the request is larger than a message may be."""
    num_bytes = request.ByteSize()
    if num_bytes > MAX_MESSAGE_BYTES:
        too_large = f"the request has {num_bytes} bytes; at most {MAX_MESSAGE_BYTES} can be sent"
        raise InvalidRequestError.of_field(field, too_large)


def build_event(event: object, field: str) -> features_pb2.Event:
    """Return the event, or raise InvalidRequestError naming the field."""
    value = checked_type(event, Event, field, "Event")
    return features_pb2.Event(
        item_id=checked_text(value.item_id, f"{field}.item_id"),
        liked=checked_type(value.liked, bool, f"{field}.liked", "bool"),
        time=None if value.time is None else build_time(value.time, f"{field}.time"),
    )


def build_time(value: object, field: str) -> Timestamp:
    """Return the time, or raise InvalidRequestError naming the field."""
    time = checked_type(value, datetime, field, "datetime")
    if time.utcoffset() is None:
        raise InvalidRequestError.of_field(field, "has no time zone; add one, such as datetime.UTC")
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp

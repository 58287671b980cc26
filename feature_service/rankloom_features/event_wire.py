"""Events to record, and users to forget: from wire messages, checked field by field."""

from __future__ import annotations

import math

from rankloom_features.event_store.store import UserEvent
from rankloom_features.events import Event
from rankloom_features.wire import (
    MAX_EVENTS,
    MAX_ID_CHARS,
    InvalidFieldError,
    check_chars,
    check_count,
    parse_time,
)
from rankloom_proto.v1 import features_pb2

_NO_RATINGS = "the served model was not trained on ratings; give liked"


def parse_events(
    message: features_pb2.RecordEventsRequest, like_above: float | None, arrived: float
) -> tuple[UserEvent, ...]:
    """Parses the events of a request. Raises InvalidFieldError.

    ``like_above``: a rating above it is a like, None where no rating says so. ``arrived``: the
    time of events without one, in seconds since 1970.
    """
    check_count("events", len(message.events), 1, MAX_EVENTS)
    return tuple(
        _parse_event(event, like_above, arrived, f"events[{index}]")
        for index, event in enumerate(message.events)
    )


def parse_forgotten(message: features_pb2.ForgetUserRequest) -> str:
    """Parses the id of the user to forget. Raises InvalidFieldError."""
    check_chars("user_id", message.user_id, 1, MAX_ID_CHARS)
    return message.user_id


def _parse_event(
    event: features_pb2.UserEvent, like_above: float | None, arrived: float, path: str
) -> UserEvent:
    check_chars(f"{path}.event_id", event.event_id, 1, MAX_ID_CHARS)
    check_chars(f"{path}.user_id", event.user_id, 1, MAX_ID_CHARS)
    check_chars(f"{path}.item_id", event.item_id, 1, MAX_ID_CHARS)
    liked = _parse_label(event, like_above, path)
    time = parse_time(event.time, f"{path}.time") if event.HasField("time") else arrived
    return UserEvent(event.event_id, event.user_id, Event(event.item_id, liked, time))


def _parse_label(event: features_pb2.UserEvent, like_above: float | None, path: str) -> bool:
    label = event.WhichOneof("label")
    if label is None:
        raise InvalidFieldError(f"{path}.label", "missing; give liked or rating")
    if label == "liked":
        return event.liked
    if like_above is None:
        raise InvalidFieldError(f"{path}.rating", _NO_RATINGS)
    if not math.isfinite(event.rating):
        raise InvalidFieldError(f"{path}.rating", "must be a finite number")
    return event.rating > like_above

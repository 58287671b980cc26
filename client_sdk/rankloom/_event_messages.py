"""Builds the requests about events and the model, and reads their answers; for both clients."""

from __future__ import annotations

from collections.abc import Sequence

from rankloom._checks import checked_elements, checked_text, checked_type, optional_number
from rankloom._events import ModelInfo, UserEvent
from rankloom._request_parts import build_time, check_size
from rankloom.errors import InvalidRequestError, ServerError
from rankloom_proto.v1 import features_pb2


def build_record_request(events: Sequence[UserEvent]) -> features_pb2.RecordEventsRequest:
    """Return the request, or raise InvalidRequestError naming the field."""
    messages = [build_user_event(event, path) for path, event in checked_elements(events, "events")]
    request = features_pb2.RecordEventsRequest(events=messages)
    check_size(request, "events")
    return request


def build_user_event(event: object, path: str) -> features_pb2.UserEvent:
    """Return the event, or raise InvalidRequestError naming the field."""
    value = checked_type(event, UserEvent, path, "UserEvent")
    message = features_pb2.UserEvent(
        event_id=checked_text(value.event_id, f"{path}.event_id"),
        user_id=checked_text(value.user, f"{path}.user"),
        item_id=checked_text(value.item_id, f"{path}.item_id"),
        time=None if value.time is None else build_time(value.time, f"{path}.time"),
    )
    _set_label(message, value, path)
    return message


def _set_label(message: features_pb2.UserEvent, event: UserEvent, path: str) -> None:
    if (event.liked is None) == (event.rating is None):
        raise InvalidRequestError.of_field(f"{path}.liked", "give exactly one of liked and rating")
    if event.liked is not None:
        message.liked = checked_type(event.liked, bool, f"{path}.liked", "bool")
    elif (rating := optional_number(event.rating, f"{path}.rating")) is not None:
        message.rating = rating


def parse_positions(
    request: features_pb2.RecordEventsRequest, response: features_pb2.RecordEventsResponse
) -> tuple[int, ...]:
    """Return the position of each event; raise ServerError if they do not fit the request."""
    sent, stored = len(request.events), len(response.positions)
    if sent != stored:
        raise ServerError(f"the server answered for {stored} events; {sent} were sent")
    return tuple(response.positions)


def build_forget_request(user: str) -> features_pb2.ForgetUserRequest:
    """Return the request, or raise InvalidRequestError naming the field."""
    return features_pb2.ForgetUserRequest(user_id=checked_text(user, "user"))


def parse_model_info(response: features_pb2.GetModelInfoResponse) -> ModelInfo:
    """Return what the server says of its model."""
    return ModelInfo(
        kind=response.kind,
        dim=response.dim,
        feature_version=response.feature_version,
        num_items=response.num_items,
        columns=tuple(response.columns),
        schema_digest=response.schema_digest,
        like_above=response.like_above if response.HasField("like_above") else None,
    )

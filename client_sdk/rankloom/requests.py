"""Arguments of a call to its wire message, shared by both clients.

Only what the wire cannot express is refused here, before anything is sent. Limits, such as how
many candidates a request may have, are the server's word: it knows its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias
from uuid import uuid4

from google.protobuf.timestamp_pb2 import Timestamp

from rankloom.checks import (
    INT32,
    UINT32,
    UINT64,
    checked_elements,
    checked_text,
    checked_type,
    optional_integer,
    optional_number,
)
from rankloom.errors import InvalidRequestError
from rankloom.policy import MAX_MESSAGE_BYTES
from rankloom.results import Event, ExplainOptions, Fusion, Item, RankOptions
from rankloom_proto.v1 import features_pb2, ranking_pb2

_Request: TypeAlias = ranking_pb2.RankRequest | ranking_pb2.ExplainRequest


def build_request(
    items: Sequence[str | Item],
    *,
    user: str | None,
    history: Sequence[Event] | None,
    options: RankOptions,
    request_id: str | None,
) -> ranking_pb2.RankRequest:
    """Return the wire request, or raise InvalidRequestError naming the field."""
    _check_subject(user, history)
    request = ranking_pb2.RankRequest(
        request_id=_request_id(request_id),
        candidates=[_candidate(item, field) for field, item in checked_elements(items, "items")],
        options=_options(options),
    )
    _set_subject(request, user, history)
    _check_size(request, "items")
    return request


def build_explain_request(
    item: str | Item,
    *,
    user: str | None,
    history: Sequence[Event] | None,
    options: ExplainOptions,
    request_id: str | None,
) -> ranking_pb2.ExplainRequest:
    """Return the wire request, or raise InvalidRequestError naming the field."""
    _check_subject(user, history)
    request = ranking_pb2.ExplainRequest(
        request_id=_request_id(request_id),
        candidate=_candidate(item, "item"),
        options=_explain_options(options),
    )
    _set_subject(request, user, history)
    _check_size(request, "item")
    return request


def _check_subject(user: object, history: object) -> None:
    if (user is None) == (history is None):
        raise InvalidRequestError.of_field("user", "give exactly one of user and history")


def _set_subject(request: _Request, user: object, history: object) -> None:
    if user is not None:
        request.user_id = checked_text(user, "user")
    else:
        request.history.CopyFrom(_history(history))


def _check_size(request: _Request, field: str) -> None:
    num_bytes = request.ByteSize()
    if num_bytes > MAX_MESSAGE_BYTES:
        limit = f"the request has {num_bytes} bytes; at most {MAX_MESSAGE_BYTES} can be sent"
        raise InvalidRequestError.of_field(field, limit)


def _request_id(value: object) -> str:
    return uuid4().hex if value is None else checked_text(value, "request_id")


def _candidate(item: object, field: str) -> features_pb2.Candidate:
    if isinstance(item, str):
        return features_pb2.Candidate(item_id=checked_text(item, field))
    value = checked_type(item, Item, field, "str or Item")
    return features_pb2.Candidate(
        item_id=checked_text(value.item_id, f"{field}.item_id"), text=_item_text(value, field)
    )


def _item_text(item: Item, field: str) -> features_pb2.ItemText:
    attributes = checked_elements(item.attributes, f"{field}.attributes")
    return features_pb2.ItemText(
        title=checked_text(item.title, f"{field}.title"),
        year=optional_integer(item.year, INT32, f"{field}.year"),
        attributes=[checked_text(attribute, path) for path, attribute in attributes],
        description=checked_text(item.description, f"{field}.description"),
    )


def _history(history: object) -> features_pb2.History:
    events = (_event(event, field) for field, event in checked_elements(history, "history"))
    return features_pb2.History(events=events)


def _event(event: object, field: str) -> features_pb2.Event:
    value = checked_type(event, Event, field, "Event")
    return features_pb2.Event(
        item_id=checked_text(value.item_id, f"{field}.item_id"),
        liked=checked_type(value.liked, bool, f"{field}.liked", "bool"),
        time=None if value.time is None else _timestamp(value.time, f"{field}.time"),
    )


def _timestamp(value: object, field: str) -> Timestamp:
    time = checked_type(value, datetime, field, "datetime")
    if time.utcoffset() is None:
        raise InvalidRequestError.of_field(field, "needs a time zone, as datetime.UTC")
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def _options(options: object) -> ranking_pb2.RankOptions:
    value = checked_type(options, RankOptions, "options", "RankOptions")
    return ranking_pb2.RankOptions(
        top_k=optional_integer(value.top_k, UINT32, "options.top_k"),
        allow_fallback=checked_type(value.allow_fallback, bool, "options.allow_fallback", "bool"),
        allow_partial=checked_type(value.allow_partial, bool, "options.allow_partial", "bool"),
        fusion=_fusion(value.fusion),
        revision=optional_integer(value.revision, UINT64, "options.revision"),
    )


def _explain_options(options: object) -> ranking_pb2.ExplainOptions:
    value = checked_type(options, ExplainOptions, "options", "ExplainOptions")
    return ranking_pb2.ExplainOptions(
        max_tokens=optional_integer(value.max_tokens, UINT32, "options.max_tokens"),
        temperature=optional_number(value.temperature, "options.temperature"),
        seed=optional_integer(value.seed, UINT64, "options.seed"),
        fusion=_fusion(value.fusion),
        revision=optional_integer(value.revision, UINT64, "options.revision"),
    )


def _fusion(value: object) -> ranking_pb2.Fusion.ValueType:
    if value is None:
        return ranking_pb2.FUSION_UNSPECIFIED
    fusion = checked_type(value, Fusion, "options.fusion", "Fusion")
    return ranking_pb2.Fusion.Value(f"FUSION_{fusion.name}")

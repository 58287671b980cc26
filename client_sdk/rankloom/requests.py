"""Arguments of a call to its wire message, shared by both clients.

Only what the wire cannot express is refused here, before anything is sent. Limits, such as how
many candidates a request may have, are the server's word: it knows its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, TypeAlias, TypeVar
from uuid import uuid4

from google.protobuf.timestamp_pb2 import Timestamp

from rankloom.errors import InvalidRequestError
from rankloom.policy import MAX_MESSAGE_BYTES
from rankloom.results import Event, ExplainOptions, Item, RankOptions, Semantics
from rankloom_proto.v1 import features_pb2, ranking_pb2

_Value = TypeVar("_Value")
_Request: TypeAlias = ranking_pb2.RankRequest | ranking_pb2.ExplainRequest

_INT32: Final = range(-(2**31), 2**31)
_UINT32: Final = range(2**32)
_UINT64: Final = range(2**64)


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
        candidates=[_candidate(item, field) for field, item in _elements(items, "items")],
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
        request.user_id = _text(user, "user")
    else:
        request.history.CopyFrom(_history(history))


def _check_size(request: _Request, field: str) -> None:
    num_bytes = request.ByteSize()
    if num_bytes > MAX_MESSAGE_BYTES:
        limit = f"the request has {num_bytes} bytes; at most {MAX_MESSAGE_BYTES} can be sent"
        raise InvalidRequestError.of_field(field, limit)


def _request_id(value: object) -> str:
    return uuid4().hex if value is None else _text(value, "request_id")


def _candidate(item: object, field: str) -> features_pb2.Candidate:
    if isinstance(item, str):
        return features_pb2.Candidate(item_id=_text(item, field))
    value = _typed(item, Item, field, "str or Item")
    return features_pb2.Candidate(
        item_id=_text(value.item_id, f"{field}.item_id"), text=_item_text(value, field)
    )


def _item_text(item: Item, field: str) -> features_pb2.ItemText:
    attributes = _elements(item.attributes, f"{field}.attributes")
    return features_pb2.ItemText(
        title=_text(item.title, f"{field}.title"),
        year=_optional_integer(item.year, _INT32, f"{field}.year"),
        attributes=[_text(attribute, path) for path, attribute in attributes],
        description=_text(item.description, f"{field}.description"),
    )


def _history(history: object) -> features_pb2.History:
    events = (_event(event, field) for field, event in _elements(history, "history"))
    return features_pb2.History(events=events)


def _event(event: object, field: str) -> features_pb2.Event:
    value = _typed(event, Event, field, "Event")
    return features_pb2.Event(
        item_id=_text(value.item_id, f"{field}.item_id"),
        liked=_typed(value.liked, bool, f"{field}.liked", "bool"),
        time=None if value.time is None else _timestamp(value.time, f"{field}.time"),
    )


def _timestamp(value: object, field: str) -> Timestamp:
    time = _typed(value, datetime, field, "datetime")
    if time.utcoffset() is None:
        raise InvalidRequestError.of_field(field, "needs a time zone, as datetime.UTC")
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def _options(options: object) -> ranking_pb2.RankOptions:
    value = _typed(options, RankOptions, "options", "RankOptions")
    return ranking_pb2.RankOptions(
        top_k=_optional_integer(value.top_k, _UINT32, "options.top_k"),
        allow_degraded=_typed(value.allow_degraded, bool, "options.allow_degraded", "bool"),
        allow_partial=_typed(value.allow_partial, bool, "options.allow_partial", "bool"),
        semantics=_semantics(value.semantics),
        generation=_optional_integer(value.generation, _UINT64, "options.generation"),
    )


def _explain_options(options: object) -> ranking_pb2.ExplainOptions:
    value = _typed(options, ExplainOptions, "options", "ExplainOptions")
    return ranking_pb2.ExplainOptions(
        max_tokens=_optional_integer(value.max_tokens, _UINT32, "options.max_tokens"),
        temperature=_optional_number(value.temperature, "options.temperature"),
        seed=_optional_integer(value.seed, _UINT64, "options.seed"),
        semantics=_semantics(value.semantics),
        generation=_optional_integer(value.generation, _UINT64, "options.generation"),
    )


def _semantics(value: object) -> ranking_pb2.Semantics.ValueType:
    if value is None:
        return ranking_pb2.SEMANTICS_UNSPECIFIED
    semantics = _typed(value, Semantics, "options.semantics", "Semantics")
    return ranking_pb2.Semantics.Value(f"SEMANTICS_{semantics.name}")


def _elements(values: object, field: str) -> list[tuple[str, object]]:
    """Return each element with its path; a bare string is no list of strings."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise _wrong_type(values, field, "a list or tuple")
    return [(f"{field}[{index}]", value) for index, value in enumerate(values)]


def _text(value: object, field: str) -> str:
    text = _typed(value, str, field, "str")
    try:
        text.encode()
    except UnicodeEncodeError:
        # The cause holds the text itself, and that may be a user's.
        raise InvalidRequestError.of_field(field, "has characters UTF-8 cannot encode") from None
    return text


def _optional_integer(value: object, allowed: range, field: str) -> int | None:
    if value is None:
        return None
    number = _typed(value, int, field, "int")
    if isinstance(value, bool):
        raise _wrong_type(value, field, "int")
    if number not in allowed:
        bounds = f"must be from {allowed.start} to {allowed.stop - 1}"
        raise InvalidRequestError.of_field(field, bounds)
    return number


def _optional_number(value: object, field: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(value, field, "a number")
    try:
        return float(value)
    except OverflowError:
        raise InvalidRequestError.of_field(field, "is too large for a float") from None


def _typed(value: object, kind: type[_Value], field: str, expected: str) -> _Value:
    if not isinstance(value, kind):
        raise _wrong_type(value, field, expected)
    return value


def _wrong_type(value: object, field: str, expected: str) -> InvalidRequestError:
    """Name the type only: the value may be a user's."""
    description = f"must be {expected}, not {type(value).__name__}"
    return InvalidRequestError.of_field(field, description)

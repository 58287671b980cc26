"""Converts features between wire messages and values.

Requests are checked field by field. An error names the field's path but never its value, which
is the user's data. Responses of a feature service are only decoded here; the caller checks
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from rankloom_features.catalogue import MAX_YEAR, Item
from rankloom_features.events import MAX_TIME_S, MIN_TIME_S, Event, without_each
from rankloom_features.provider import HistoryVersion, UserFeatures, UserQuery
from rankloom_proto.v1 import features_pb2

MAX_USERS = 256
MAX_CANDIDATES = 500
MAX_EVENTS = 1_000
MAX_ID_CHARS = 256
MAX_TITLE_CHARS = 1_000
MAX_DESCRIPTION_CHARS = 10_000
MAX_ATTRIBUTES = 32
MAX_ATTRIBUTE_CHARS = 100
NANOS_PER_S = 1_000_000_000

_FLOAT = np.dtype("<f4")


class InvalidFieldError(ValueError):
    """A field of a request is invalid. ``field``: its path; ``description``: the cause."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


class Subject(Protocol):
    """A message about a user; its oneof is called ``subject``."""

    @property
    def user_id(self) -> str: ...

    @property
    def history(self) -> features_pb2.History: ...


class Query(Subject, Protocol):
    """A message about a user and several candidates."""

    @property
    def candidates(self) -> Sequence[features_pb2.Candidate]: ...


def parse_users(message: features_pb2.GetUserFeaturesRequest) -> tuple[UserQuery, ...]:
    """Parses the queries of a request. Raises InvalidFieldError."""
    check_count("users", len(message.users), 1, MAX_USERS)
    if sum(1 + user.ablate_newest for user in message.users) > MAX_USERS:
        bounds = f"must be at most {MAX_USERS} over all users, themselves counted"
        raise InvalidFieldError("users[0].ablate_newest", bounds)
    return tuple(
        _parse_whole_query(user, f"users[{index}].") for index, user in enumerate(message.users)
    )


def _parse_whole_query(message: features_pb2.UserQuery, prefix: str) -> UserQuery:
    query = parse_query(message, message.WhichOneof("subject"), prefix)
    ablated, predicts = message.ablate_newest, message.predict_ratings
    if not ablated and not predicts:
        return query
    return replace(query, ablate_newest=ablated, predict_ratings=predicts)


def parse_version(message: features_pb2.GetUserFeaturesRequest) -> str | None:
    """Parses the feature version that must answer; None: any. Raises InvalidFieldError."""
    if not message.HasField("feature_version"):
        return None
    check_chars("feature_version", message.feature_version, 1, MAX_ID_CHARS)
    return message.feature_version


def parse_query(message: Query, subject: str | None, prefix: str = "") -> UserQuery:
    """Parses one query; ``prefix``: its path in the request. Raises InvalidFieldError."""
    candidates = _parse_candidates(message.candidates, f"{prefix}candidates")
    return parse_user(message, subject, candidates, prefix)


def parse_user(
    message: Subject, subject: str | None, candidates: tuple[Item, ...], prefix: str = ""
) -> UserQuery:
    """Parses the user of a query about these candidates. Raises InvalidFieldError."""
    if subject == "user_id":
        check_chars(f"{prefix}user_id", message.user_id, 1, MAX_ID_CHARS)
        return UserQuery(message.user_id, None, candidates)
    if subject == "history":
        events = _parse_events(message.history, f"{prefix}history.events")
        return UserQuery(None, events, candidates)
    raise InvalidFieldError(f"{prefix}subject", "missing; give user_id or history")


def _parse_candidates(candidates: Sequence[features_pb2.Candidate], path: str) -> tuple[Item, ...]:
    check_count(path, len(candidates), 0, MAX_CANDIDATES)
    items = tuple(
        parse_candidate(candidate, f"{path}[{index}]") for index, candidate in enumerate(candidates)
    )
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item.item_id in seen:
            raise InvalidFieldError(f"{path}[{index}].item_id", "given twice")
        seen.add(item.item_id)
    return items


def parse_candidate(candidate: features_pb2.Candidate, path: str) -> Item:
    """Parses one candidate; ``path``: its path in the request. Raises InvalidFieldError."""
    check_chars(f"{path}.item_id", candidate.item_id, 1, MAX_ID_CHARS)
    if not candidate.HasField("text"):
        return Item(candidate.item_id)
    text = candidate.text
    check_chars(f"{path}.text.title", text.title, 0, MAX_TITLE_CHARS)
    check_chars(f"{path}.text.description", text.description, 0, MAX_DESCRIPTION_CHARS)
    check_count(f"{path}.text.attributes", len(text.attributes), 0, MAX_ATTRIBUTES)
    for index, attribute in enumerate(text.attributes):
        check_chars(f"{path}.text.attributes[{index}]", attribute, 1, MAX_ATTRIBUTE_CHARS)
    year = text.year if text.HasField("year") else None
    if year is not None and not 0 <= year <= MAX_YEAR:
        raise InvalidFieldError(f"{path}.text.year", f"must be from 0 to {MAX_YEAR}")
    attributes = tuple(text.attributes)
    return Item(candidate.item_id, text.title, year, attributes, text.description)


def _parse_events(history: features_pb2.History, path: str) -> tuple[Event, ...]:
    check_count(path, len(history.events), 0, MAX_EVENTS)
    return tuple(
        _parse_event(event, f"{path}[{index}]") for index, event in enumerate(history.events)
    )


def _parse_event(event: features_pb2.Event, path: str) -> Event:
    check_chars(f"{path}.item_id", event.item_id, 1, MAX_ID_CHARS)
    if not event.HasField("time"):
        return Event(event.item_id, event.liked)
    return Event(event.item_id, event.liked, parse_time(event.time, f"{path}.time"))


def parse_time(time: Timestamp, field: str) -> float:
    """Seconds since 1970. Raises InvalidFieldError."""
    if not (MIN_TIME_S <= time.seconds <= MAX_TIME_S and 0 <= time.nanos < NANOS_PER_S):
        raise InvalidFieldError(field, "must be in the years 1 to 9999")
    return time.seconds + time.nanos / NANOS_PER_S


def check_chars(field: str, text: str, at_least: int, at_most: int) -> None:
    """Raises InvalidFieldError for a text that is too short or too long."""
    if not at_least <= len(text) <= at_most:
        bounds = f"must have {at_least} to {at_most} characters, has {len(text)}"
        raise InvalidFieldError(field, bounds)


def check_count(field: str, count: int, at_least: int, at_most: int) -> None:
    """Raises InvalidFieldError for a list that is too short or too long."""
    if not at_least <= count <= at_most:
        bounds = f"must have {at_least} to {at_most} elements, has {count}"
        raise InvalidFieldError(field, bounds)


def query_to_wire(query: UserQuery) -> features_pb2.UserQuery:
    """Encodes a query, without titles and descriptions, which no feature uses."""
    message = features_pb2.UserQuery(
        candidates=[
            features_pb2.Candidate(
                item_id=item.item_id,
                text=features_pb2.ItemText(year=item.year, attributes=item.attributes),
            )
            for item in query.candidates
        ],
        ablate_newest=query.ablate_newest,
        predict_ratings=query.predict_ratings,
    )
    if query.history is not None:
        message.history.SetInParent()  # also where it has no events
        _write_events(query.history, message.history)
    else:
        message.user_id = query.user_id or ""
    return message


def features_to_wire(features: UserFeatures) -> features_pb2.UserFeatures:
    """A message of its own, as `write_features` makes it."""
    message = features_pb2.UserFeatures()
    write_features(features, message)
    return message


def write_features(features: UserFeatures, message: features_pb2.UserFeatures) -> None:
    """Encodes features; tabular ones only if the query has candidates. The age is the service's.

    ``message``: an empty one, such as one within its response, which copies none then.
    """
    message.vector = features.vector.astype(_FLOAT).tobytes()
    message.feature_version = features.feature_version
    message.cold_start = features.cold_start
    message.user_id = features.user_id or ""
    if features.stored_version is not None:
        message.history_version = features.stored_version
    _write_events(features.events, message)
    for each in features.ablated:
        write_features(replace(each, events=()), message.ablated.add())
    if features.predicted_ratings is not None:
        message.predicted_ratings = features.predicted_ratings.astype(_FLOAT).tobytes()
    rows, columns = features.tabular.shape
    if rows:
        values = features.tabular.astype(_FLOAT).tobytes()
        message.tabular.CopyFrom(
            features_pb2.TabularMatrix(
                rows=rows, columns=columns, values=values, schema_digest=features.schema_digest
            )
        )


def features_from_wire(message: features_pb2.UserFeatures) -> UserFeatures:
    """Decodes features; bytes of the wrong length give an empty array."""
    events = tuple(map(_event_from_wire, message.events))
    left = zip(message.ablated, without_each(events, len(message.ablated)), strict=False)
    ablated = tuple(_features_of(each, rest) for each, rest in left)
    return replace(_features_of(message, events), ablated=ablated)


def _features_of(message: features_pb2.UserFeatures, events: tuple[Event, ...]) -> UserFeatures:
    return UserFeatures(
        history_version=HistoryVersion(),
        vector=_floats(message.vector),
        feature_version=message.feature_version,
        cold_start=message.cold_start,
        events=events,
        stored_version=message.history_version if message.HasField("history_version") else None,
        tabular=_matrix(message.tabular),
        schema_digest=message.tabular.schema_digest,
        user_id=message.user_id or None,
        predicted_ratings=_floats(message.predicted_ratings) if message.predicted_ratings else None,
    )


def _matrix(message: features_pb2.TabularMatrix) -> NDArray[np.float32]:
    values = _floats(message.values)
    if len(values) != message.rows * message.columns:
        return np.empty((0, 0), dtype=np.float32)
    return values.reshape(message.rows, message.columns)


def _floats(data: bytes) -> NDArray[np.float32]:
    if len(data) % _FLOAT.itemsize:
        return np.empty(0, dtype=np.float32)
    return np.frombuffer(data, dtype=_FLOAT).astype(np.float32)


def _event_from_wire(message: features_pb2.Event) -> Event:
    time = message.time.seconds + message.time.nanos / NANOS_PER_S
    return Event(message.item_id, message.liked, time if message.HasField("time") else None)


def _write_events(
    events: Sequence[Event], target: features_pb2.History | features_pb2.UserFeatures
) -> None:
    """Appends events. They are written where they stay: copies took longer than all else here.

    Field by field, which takes two thirds of the time of arguments by name.
    """
    add = target.events.add  # each time that it is asked for, a list is wrapped anew
    for event in events:
        message = add()
        message.item_id, message.liked = event.item_id, event.liked
        if event.time is not None:
            time, seconds = message.time, math.floor(event.time)
            time.seconds = seconds
            if fraction := event.time - seconds:
                time.nanos = min(round(fraction * NANOS_PER_S), NANOS_PER_S - 1)

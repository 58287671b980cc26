"""Builds the requests of FeatureService and reads its answers; shared by both clients."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from rankloom._checks import (
    UINT32,
    checked_elements,
    checked_text,
    checked_type,
    optional_integer,
)
from rankloom._features import FeatureQuery, TabularFeatures, UserFeatures
from rankloom._request_parts import build_candidates, check_size, check_subject, set_subject
from rankloom._results import Event
from rankloom.errors import ServerError
from rankloom_proto.v1 import features_pb2

_FLOAT_BYTES: Final = 4


def build_features_request(
    query: FeatureQuery, feature_version: str | None = None
) -> features_pb2.GetUserFeaturesRequest:
    """Return the request for one user, or raise InvalidRequestError naming the field."""
    return _request([_user(query, "")], feature_version, "items")


def build_batch_request(
    queries: Sequence[FeatureQuery], feature_version: str | None = None
) -> features_pb2.GetUserFeaturesRequest:
    """Return the request for many users, or raise InvalidRequestError naming the field."""
    users = [
        _user(checked_type(query, FeatureQuery, field, "FeatureQuery"), f"{field}.")
        for field, query in checked_elements(queries, "queries")
    ]
    return _request(users, feature_version, "queries")


def parse_features(
    request: features_pb2.GetUserFeaturesRequest, response: features_pb2.GetUserFeaturesResponse
) -> tuple[UserFeatures, ...]:
    """Return the features of each user of the request; raise ServerError if they do not fit it."""
    asked, answered = len(request.users), len(response.features)
    if asked != answered:
        raise ServerError(f"the server answered for {answered} users; {asked} were asked for")
    return tuple(map(_features, response.features))


def parse_event(event: features_pb2.Event) -> Event:
    """Return the event; its time, if it has one, is in UTC."""
    time = parse_time(event.time) if event.HasField("time") else None
    return Event(event.item_id, event.liked, time)


def parse_time(time: Timestamp) -> datetime:
    """Return the time in UTC."""
    return time.ToDatetime(UTC)


def _request(
    users: Sequence[features_pb2.UserQuery], feature_version: str | None, large: str
) -> features_pb2.GetUserFeaturesRequest:
    """`large`: the field that is to blame for a request of too many bytes."""
    version = None if feature_version is None else checked_text(feature_version, "feature_version")
    request = features_pb2.GetUserFeaturesRequest(users=users, feature_version=version)
    check_size(request, large)
    return request


def _user(query: FeatureQuery, prefix: str) -> features_pb2.UserQuery:
    check_subject(query.user, query.history, prefix)
    field = f"{prefix}predict_ratings"
    message = features_pb2.UserQuery(
        candidates=build_candidates(query.items, f"{prefix}items"),
        predict_ratings=checked_type(query.predict_ratings, bool, field, "bool"),
        max_events=optional_integer(query.max_events, UINT32, f"{prefix}max_events"),
    )
    set_subject(message, query.user, query.history, prefix)
    return message


def _features(features: features_pb2.UserFeatures) -> UserFeatures:
    return UserFeatures(
        vector=_floats(features.vector, len(features.vector) // _FLOAT_BYTES),
        feature_version=features.feature_version,
        cold_start=features.cold_start,
        events=tuple(map(parse_event, features.events)),
        history_version=features.history_version if features.HasField("history_version") else None,
        history_age_s=_age_s(features),
        tabular=_tabular(features.tabular) if features.HasField("tabular") else None,
        predicted_ratings=_ratings(features),
    )


def _ratings(features: features_pb2.UserFeatures) -> tuple[float, ...] | None:
    if not features.predicted_ratings:
        return None
    return _floats(features.predicted_ratings, features.tabular.rows)


def _age_s(features: features_pb2.UserFeatures) -> float | None:
    if not features.HasField("history_age"):
        return None
    return features.history_age.seconds + features.history_age.nanos / 1e9


def _tabular(matrix: features_pb2.TabularMatrix) -> TabularFeatures:
    num_rows, num_columns = matrix.rows, matrix.columns
    values = _floats(matrix.values, num_rows * num_columns)
    rows = (values[row * num_columns : (row + 1) * num_columns] for row in range(num_rows))
    return TabularFeatures(tuple(rows), matrix.schema_digest)


def _floats(data: bytes, expected: int) -> tuple[float, ...]:
    """Return little-endian float32 values as Python floats."""
    if len(data) != expected * _FLOAT_BYTES:
        raise ServerError(
            f"the server's features have {len(data)} bytes where {expected} float32 values "
            "belong; update the server or the SDK"
        )
    values = array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    return tuple(values)

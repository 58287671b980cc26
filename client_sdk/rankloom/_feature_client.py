"""The blocking client of FeatureService."""

from __future__ import annotations

from collections.abc import Sequence

from rankloom._connection import Connection
from rankloom._event_messages import (
    build_forget_request,
    build_record_request,
    parse_model_info,
    parse_positions,
)
from rankloom._events import ModelInfo, UserEvent
from rankloom._feature_messages import (
    build_batch_request,
    build_features_request,
    parse_features,
)
from rankloom._features import FeatureQuery, UserFeatures
from rankloom._results import Event, Item
from rankloom_proto.v1 import features_pb2, features_pb2_grpc


class FeatureClient(Connection):
    """Features of users, and their events, on a rankloom server; all threads may share one client.

        with FeatureClient("localhost:50051") as client:
            features = client.user_features(user="42", items=["318", "50"])
            print(features.vector, features.tabular.rows)

    `target` and the options of the connection are as for `Client`.
    """

    @property
    def _stub(self) -> features_pb2_grpc.FeatureServiceStub:
        return self._stub_of(features_pb2_grpc.FeatureServiceStub)

    def user_features(
        self,
        *,
        user: str | None = None,
        history: Sequence[Event] | None = None,
        items: Sequence[str | Item] = (),
        predict_ratings: bool = False,
        max_events: int | None = None,
        feature_version: str | None = None,
        timeout_s: float | None = None,
    ) -> UserFeatures:
        """Return the features of one user, and of the user with each of `items`.

        Give the user's id as `user`, or the user's events as `history`, oldest first; an empty
        history is a new user. `max_events`: answer at most so many of the newest events; the
        features are of all. With `feature_version`, features of another version are an error.
        """
        query = FeatureQuery(
            user=user,
            history=history,
            items=items,
            predict_ratings=predict_ratings,
            max_events=max_events,
        )
        (features,) = self._get(build_features_request(query, feature_version), timeout_s)
        return features

    def user_features_batch(
        self,
        queries: Sequence[FeatureQuery],
        *,
        feature_version: str | None = None,
        timeout_s: float | None = None,
    ) -> tuple[UserFeatures, ...]:
        """Return the features of many users, in the order of the queries, with one call."""
        return self._get(build_batch_request(queries, feature_version), timeout_s)

    def record_events(
        self, events: Sequence[UserEvent], *, timeout_s: float | None = None
    ) -> tuple[int, ...]:
        """Record events: all of them, or none if the call fails. Return their positions.

        They are on the server's disk then, and rankings that begin later see them. At most 1,000
        in a call. A call that failed can be made again with the same events: each counts once.
        """
        request = build_record_request(events)
        limit_s = self._limit_s(timeout_s)
        with self._translating():
            response = self._stub.RecordEvents(request, timeout=limit_s)
        return parse_positions(request, response)

    def forget_user(self, user: str, *, timeout_s: float | None = None) -> int:
        """Remove all events of a user, and what was computed from them; return their number.

        A call that was sent again, because no answer came, may return 0.
        """
        request = build_forget_request(user)
        limit_s = self._limit_s(timeout_s)
        with self._translating():
            response = self._stub.ForgetUser(request, timeout=limit_s)
        return response.num_events

    def model_info(self, *, timeout_s: float | None = None) -> ModelInfo:
        """Return which feature model serves now, and what its features are."""
        limit_s = self._limit_s(timeout_s)
        with self._translating():
            response = self._stub.GetModelInfo(features_pb2.GetModelInfoRequest(), timeout=limit_s)
        return parse_model_info(response)

    def _get(
        self, request: features_pb2.GetUserFeaturesRequest, timeout_s: float | None
    ) -> tuple[UserFeatures, ...]:
        limit_s = self._limit_s(timeout_s)
        with self._translating():
            response = self._stub.GetUserFeatures(request, timeout=limit_s)
        return parse_features(request, response)

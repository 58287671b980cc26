"""The blocking client of FeatureService."""

from __future__ import annotations

from collections.abc import Sequence

from rankloom._connection import Connection
from rankloom._feature_messages import (
    build_batch_request,
    build_features_request,
    parse_features,
)
from rankloom._features import FeatureQuery, UserFeatures
from rankloom._results import Event, Item
from rankloom_proto.v1 import features_pb2, features_pb2_grpc


class FeatureClient(Connection):
    """Gets the features of users from a rankloom server; all threads may share one client.

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
        timeout_s: float | None = None,
    ) -> UserFeatures:
        """Return the features of one user, and of the user with each of `items`.

        Give the user's id as `user`, or the user's events as `history`, oldest first; an empty
        history is a new user.
        """
        query = FeatureQuery(user=user, history=history, items=items)
        (features,) = self._get(build_features_request(query), timeout_s)
        return features

    def user_features_batch(
        self, queries: Sequence[FeatureQuery], *, timeout_s: float | None = None
    ) -> tuple[UserFeatures, ...]:
        """Return the features of many users, in the order of the queries, with one call."""
        return self._get(build_batch_request(queries), timeout_s)

    def _get(
        self, request: features_pb2.GetUserFeaturesRequest, timeout_s: float | None
    ) -> tuple[UserFeatures, ...]:
        limit_s = self._limit_s(timeout_s)
        with self._translating():
            response = self._stub.GetUserFeatures(request, timeout=limit_s)
        return parse_features(request, response)

"""The fake server itself."""

from __future__ import annotations

import threading
from typing import TypeVar

import grpc

from rankloom._events import UserEvent
from rankloom.testing._calls import (
    Call,
    ExplainCall,
    FeatureCall,
    ForgetCall,
    RankCall,
    RecommendCall,
    RecordCall,
    RetrieveCall,
    RolloutCall,
)
from rankloom.testing._features import (
    FakeFeatures,
    FeatureAnswer,
    ForgetAnswer,
    InfoAnswer,
    RecordAnswer,
)
from rankloom.testing._in_process import InProcessServer
from rankloom.testing._ranking import (
    ExplainAnswer,
    FakeRanking,
    RankAnswer,
    RecommendAnswer,
    RetrieveAnswer,
)
from rankloom.testing._rollouts import FakeRollouts, RolloutAnswer
from rankloom_proto.v1 import features_pb2_grpc, ranking_pb2_grpc, rollout_pb2_grpc

_Call = TypeVar("_Call")


class FakeServer(InProcessServer):
    """A server in this process that answers as the test says, and records what it is asked.

    It is a context manager, for tests with and without asyncio. All services are at `target`.
    Each `on_…` method takes any number of answers: call n gets answer n, every later call gets
    the last one. Without answers, the server goes back to its defaults. Any answer may be:

    - a value, as the method says;
    - an error class, or an error with details as `fail` makes it; the client raises the same;
    - `after(delay_s, answer)`;
    - a function of the call that returns a value or raises an error.
    """

    def __init__(self, *, port: int = 0) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._ranking = FakeRanking(self._record)
        self._features = FakeFeatures(self._record)
        self._rollouts = FakeRollouts(self._record)
        super().__init__(self._add_services, port=port)

    def on_rank(self, *answers: RankAnswer) -> None:
        """Script `Client.rank`: with scores by item id, or with a `Ranking`.

        Scores rank the items of the call; an item without one comes last and is unscored. By
        default, each item has a fixed score that depends on its id alone.
        """
        self._ranking.rankings.set(*answers)

    def on_explain(self, *answers: ExplainAnswer) -> None:
        """Script `Client.explain`: with a text, its pieces, or an `Explanation`.

        One of the pieces may be an error or `after(delay_s, piece)`. By default, the text says
        whether the user will like the item, by the item's fixed score.
        """
        self._ranking.explanations.set(*answers)

    def on_retrieve(self, *answers: RetrieveAnswer) -> None:
        """Script `Client.retrieve`: with scores by item id, or with a `Retrieval`.

        Of scores, the call gets its k best. By default, the items are "1", "2" and so on.
        """
        self._ranking.retrievals.set(*answers)

    def on_recommend(self, *answers: RecommendAnswer) -> None:
        """Script `Client.recommend`: with scores by item id, or with a `Recommendation`.

        Of scores, the call gets its k best. By default, the items are "1", "2" and so on.
        """
        self._ranking.recommendations.set(*answers)

    def on_features(self, *answers: FeatureAnswer) -> None:
        """Script a `FeatureClient`: with `UserFeatures`, for every user of the call.

        A function gets a `FeatureQuery`, once for each user. By default, the features are fixed
        numbers that depend on the user and the items.
        """
        self._features.features.set(*answers)

    def on_record(self, *answers: RecordAnswer) -> None:
        """Script `FeatureClient.record_events`: with errors, or None for the default.

        By default, the server keeps the events, each id of a user once. A function gets the call
        before its events are kept.
        """
        self._features.recordings.set(*answers)

    def on_forget(self, *answers: ForgetAnswer) -> None:
        """Script `FeatureClient.forget_user`: with errors, or None for the default.

        By default, the server drops the user's events.
        """
        self._features.forgettings.set(*answers)

    def on_model_info(self, *answers: InfoAnswer) -> None:
        """Script `FeatureClient.model_info`: with a `ModelInfo`."""
        self._features.infos.set(*answers)

    def on_rollout(self, *answers: RolloutAnswer) -> None:
        """Script the changes of a `RolloutClient`: with a `Rollout`, or None for the default.

        By default, the server keeps its revisions as a real one does, beginning with revision 1
        active; but it looks at no bundle and has no gates.
        """
        self._rollouts.changes.set(*answers)

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls so far, in the order of their arrival; a call sent again counts again."""
        with self._lock:
            return tuple(self._calls)

    @property
    def rank_calls(self) -> tuple[RankCall, ...]:
        """The calls of `Client.rank`."""
        return self._calls_of(RankCall)

    @property
    def explain_calls(self) -> tuple[ExplainCall, ...]:
        """The calls of `Client.explain`."""
        return self._calls_of(ExplainCall)

    @property
    def retrieve_calls(self) -> tuple[RetrieveCall, ...]:
        """The calls of `Client.retrieve`."""
        return self._calls_of(RetrieveCall)

    @property
    def recommend_calls(self) -> tuple[RecommendCall, ...]:
        """The calls of `Client.recommend`."""
        return self._calls_of(RecommendCall)

    @property
    def feature_calls(self) -> tuple[FeatureCall, ...]:
        """The calls of a `FeatureClient`."""
        return self._calls_of(FeatureCall)

    @property
    def record_calls(self) -> tuple[RecordCall, ...]:
        """The calls that record events."""
        return self._calls_of(RecordCall)

    @property
    def forget_calls(self) -> tuple[ForgetCall, ...]:
        """The calls of `FeatureClient.forget_user`."""
        return self._calls_of(ForgetCall)

    @property
    def events(self) -> tuple[UserEvent, ...]:
        """The recorded events, each once, without those of forgotten users."""
        return self._features.events.all

    @property
    def rollout_calls(self) -> tuple[RolloutCall, ...]:
        """The calls of a `RolloutClient`."""
        return self._calls_of(RolloutCall)

    def _calls_of(self, kind: type[_Call]) -> tuple[_Call, ...]:
        return tuple(call for call in self.calls if isinstance(call, kind))

    def _record(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def _add_services(self, server: grpc.Server) -> None:
        ranking_pb2_grpc.add_RankingServiceServicer_to_server(self._ranking, server)
        features_pb2_grpc.add_FeatureServiceServicer_to_server(self._features, server)
        rollout_pb2_grpc.add_RolloutServiceServicer_to_server(self._rollouts, server)

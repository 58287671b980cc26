"""`FeatureService` of the fake server: features as scripted, and events that it keeps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

from rankloom._events import ModelInfo, UserEvent
from rankloom._features import FeatureQuery, UserFeatures
from rankloom.errors import RankloomError
from rankloom.testing._answers import (
    MODEL_INFO,
    Delayed,
    Script,
    fault,
    make_features,
    play,
)
from rankloom.testing._calls import Call, ForgetCall, RecordCall
from rankloom.testing._parsing import parse_features_request, parse_forget, parse_record
from rankloom.testing._wire import features_to_wire, model_info_to_wire
from rankloom_proto.v1 import features_pb2, features_pb2_grpc

Failure: TypeAlias = RankloomError | type[RankloomError]
FeatureAnswer: TypeAlias = (
    UserFeatures | Failure | Delayed[Any] | Callable[[FeatureQuery], UserFeatures]
)
RecordAnswer: TypeAlias = Failure | Delayed[Any] | Callable[[RecordCall], None] | None
ForgetAnswer: TypeAlias = Failure | Delayed[Any] | Callable[[ForgetCall], None] | None
InfoAnswer: TypeAlias = ModelInfo | Failure | Delayed[Any]


class KeptEvents:
    """The events that the fake server was given, each once. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[int, UserEvent]] = {}
        self._position = 0

    @property
    def all(self) -> tuple[UserEvent, ...]:
        """In the order in which they came."""
        with self._lock:
            return tuple(event for _, event in self._kept.values())

    def record(self, event: UserEvent) -> int:
        """Keep an event, unless its user has one with this id. Return its position."""
        with self._lock:
            key = (event.user, event.event_id)
            if key not in self._kept:
                self._position += 1
                self._kept[key] = (self._position, event)
            return self._kept[key][0]

    def forget(self, user: str) -> int:
        """Drop the user's events; return their number."""
        with self._lock:
            of_user = [key for key in self._kept if key[0] == user]
            for key in of_user:
                del self._kept[key]
            return len(of_user)


class FakeFeatures(features_pb2_grpc.FeatureServiceServicer):
    """Answers as scripted; records and forgets events as a real server does."""

    def __init__(self, record: Callable[[Call], None]) -> None:
        self._record = record
        self.events = KeptEvents()
        self.features = Script[FeatureAnswer](make_features)
        self.recordings = Script[RecordAnswer](None)
        self.forgettings = Script[ForgetAnswer](None)
        self.infos = Script[InfoAnswer](MODEL_INFO)

    def GetUserFeatures(
        self, request: features_pb2.GetUserFeaturesRequest, context: grpc.ServicerContext
    ) -> features_pb2.GetUserFeaturesResponse:
        """Answer with the next features of the script, for each user of the call."""
        call = parse_features_request(request, context)
        self._record(call)
        scripted = self.features.take()
        found = [play(scripted, query, context) for query in call.queries]
        if not all(isinstance(each, UserFeatures) for each in found):
            fault("features were scripted as something else than UserFeatures", context)
        return features_pb2.GetUserFeaturesResponse(features=map(features_to_wire, found))  # type: ignore[arg-type]

    def RecordEvents(
        self, request: features_pb2.RecordEventsRequest, context: grpc.ServicerContext
    ) -> features_pb2.RecordEventsResponse:
        """Keep the events, unless the script has an error."""
        call = parse_record(request, context)
        self._record(call)
        play(self.recordings.take(), call, context)
        return features_pb2.RecordEventsResponse(positions=map(self.events.record, call.events))

    def ForgetUser(
        self, request: features_pb2.ForgetUserRequest, context: grpc.ServicerContext
    ) -> features_pb2.ForgetUserResponse:
        """Drop the user's events, unless the script has an error."""
        call = parse_forget(request, context)
        self._record(call)
        play(self.forgettings.take(), call, context)
        return features_pb2.ForgetUserResponse(num_events=self.events.forget(call.user))

    def GetModelInfo(
        self, request: features_pb2.GetModelInfoRequest, context: grpc.ServicerContext
    ) -> features_pb2.GetModelInfoResponse:
        """Answer with the next model of the script."""
        info = play(self.infos.take(), request, context)
        if not isinstance(info, ModelInfo):
            fault(f"a model was scripted as {type(info).__name__}", context)
        return model_info_to_wire(info)

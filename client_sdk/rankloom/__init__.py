"""Client SDK of rankloom: rank a user's candidate items on a rankloom server.

    from rankloom import Client

    with Client("localhost:50051") as client:
        ranking = client.rank(["318", "50", "2571"], user="42")
        print(ranking.scores())
        print(client.recommend(20, user="42").items)

`FeatureClient` gets the features of users and records their events; `EventRecorder` records many
in the background. `RolloutClient` is for operators: it rolls out new
bundles and experts on a running server. Each has an asyncio twin. `rankloom.errors` has the
errors, and `rankloom.testing` a fake server for your own tests. Everything else is private.
"""

from rankloom._client import Client, ExplanationStream
from rankloom._event_recorder import EventRecorder
from rankloom._events import ModelInfo, UserEvent
from rankloom._feature_client import FeatureClient
from rankloom._features import FeatureQuery, TabularFeatures, UserFeatures
from rankloom._naming import show_as as _show_as
from rankloom._results import (
    Event,
    Evidence,
    ExpertWeight,
    ExplainOptions,
    Explanation,
    ExplanationSource,
    FallbackLevel,
    FallbackReason,
    Fusion,
    Item,
    ItemExplanation,
    RankedItem,
    Ranking,
    RankOptions,
    Revision,
    Route,
    Routing,
    StopReason,
    StoredRationale,
    Timing,
    Verdict,
)
from rankloom._retrievals import (
    ItemSelection,
    Recommendation,
    RecommendOptions,
    Retrieval,
    RetrievalOrder,
    RetrievedItem,
    RetrieveOptions,
)
from rankloom._rollout_client import RolloutClient
from rankloom._rollouts import (
    Gate,
    GateOutcome,
    GateSpec,
    Judgement,
    RevisionList,
    Rollout,
    RolloutState,
)
from rankloom._version import __version__
from rankloom.aio import (
    AsyncClient,
    AsyncEventRecorder,
    AsyncExplanationStream,
    AsyncFeatureClient,
    AsyncRolloutClient,
)
from rankloom.errors import (
    AuthenticationError,
    BufferFullError,
    CallCancelledError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    ErrorDetails,
    ErrorReason,
    EventsNotRecordedError,
    FieldViolation,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PreconditionError,
    RankloomError,
    ServerError,
    UnavailableError,
)

__all__ = [
    "AsyncClient",
    "AsyncEventRecorder",
    "AsyncExplanationStream",
    "AsyncFeatureClient",
    "AsyncRolloutClient",
    "AuthenticationError",
    "BufferFullError",
    "CallCancelledError",
    "Client",
    "ClientClosedError",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "ErrorDetails",
    "ErrorReason",
    "Event",
    "EventRecorder",
    "EventsNotRecordedError",
    "Evidence",
    "ExpertWeight",
    "ExplainOptions",
    "Explanation",
    "ExplanationSource",
    "ExplanationStream",
    "FallbackLevel",
    "FallbackReason",
    "FeatureClient",
    "FeatureQuery",
    "FieldViolation",
    "Fusion",
    "Gate",
    "GateOutcome",
    "GateSpec",
    "InvalidRequestError",
    "Item",
    "ItemExplanation",
    "ItemSelection",
    "Judgement",
    "ModelInfo",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "PreconditionError",
    "RankOptions",
    "RankedItem",
    "Ranking",
    "RankloomError",
    "RecommendOptions",
    "Recommendation",
    "Retrieval",
    "RetrievalOrder",
    "RetrieveOptions",
    "RetrievedItem",
    "Revision",
    "RevisionList",
    "Rollout",
    "RolloutClient",
    "RolloutState",
    "Route",
    "Routing",
    "ServerError",
    "StopReason",
    "StoredRationale",
    "TabularFeatures",
    "Timing",
    "UnavailableError",
    "UserEvent",
    "UserFeatures",
    "Verdict",
    "__version__",
]

_show_as(__name__, globals(), __all__[:-1])

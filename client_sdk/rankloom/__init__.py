"""Client SDK of rankloom: rank a user's candidate items on a rankloom server.

from rankloom import Client

with Client("localhost:50051") as client:
    ranking = client.rank(["318", "50", "2571"], user="42")
    print(ranking.scores())

`RolloutClient` is for operators: it brings new bundles and experts to a server that goes on.
"""

from rankloom._version import __version__
from rankloom.aio import AsyncClient, AsyncExplanationStream
from rankloom.client import Client, ExplanationStream
from rankloom.errors import (
    AuthenticationError,
    CallCancelledError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    ErrorReason,
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
from rankloom.results import (
    Event,
    ExpertWeight,
    ExplainOptions,
    Explanation,
    FallbackLevel,
    FallbackReason,
    Fusion,
    Item,
    RankedItem,
    Ranking,
    RankOptions,
    Revision,
    Route,
    Routing,
    StopReason,
    Timing,
    Verdict,
)
from rankloom.rollout_client import RolloutClient
from rankloom.rollouts import (
    Gate,
    GateOutcome,
    GateSpec,
    Judgement,
    RevisionList,
    Rollout,
    RolloutState,
)

__all__ = [
    "AsyncClient",
    "AsyncExplanationStream",
    "AuthenticationError",
    "CallCancelledError",
    "Client",
    "ClientClosedError",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "ErrorReason",
    "Event",
    "ExpertWeight",
    "ExplainOptions",
    "Explanation",
    "ExplanationStream",
    "FallbackLevel",
    "FallbackReason",
    "FieldViolation",
    "Fusion",
    "Gate",
    "GateOutcome",
    "GateSpec",
    "InvalidRequestError",
    "Item",
    "Judgement",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "PreconditionError",
    "RankOptions",
    "RankedItem",
    "Ranking",
    "RankloomError",
    "Revision",
    "RevisionList",
    "Rollout",
    "RolloutClient",
    "RolloutState",
    "Route",
    "Routing",
    "ServerError",
    "StopReason",
    "Timing",
    "UnavailableError",
    "Verdict",
    "__version__",
]

"""Client SDK of rankloom: rank a user's candidate items on a rankloom server.

from rankloom import Client

with Client("localhost:50051") as client:
    ranking = client.rank(["318", "50", "2571"], user="42")
    print(ranking.scores())
"""

from rankloom._version import __version__
from rankloom.aio import AsyncClient
from rankloom.client import Client
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
    Generation,
    Item,
    RankedItem,
    Ranking,
    RankOptions,
    Route,
    Rung,
    RungReason,
    Semantics,
    Timing,
    Weave,
)

__all__ = [
    "AsyncClient",
    "AuthenticationError",
    "CallCancelledError",
    "Client",
    "ClientClosedError",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "ErrorReason",
    "Event",
    "ExpertWeight",
    "FieldViolation",
    "Generation",
    "InvalidRequestError",
    "Item",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "PreconditionError",
    "RankOptions",
    "RankedItem",
    "Ranking",
    "RankloomError",
    "Route",
    "Rung",
    "RungReason",
    "Semantics",
    "ServerError",
    "Timing",
    "UnavailableError",
    "Weave",
    "__version__",
]

"""The asyncio clients. Each may be made anywhere, and used in any event loop."""

from rankloom._naming import show_as as _show_as
from rankloom.aio._client import AsyncClient, AsyncExplanationStream
from rankloom.aio._event_recorder import AsyncEventRecorder
from rankloom.aio._feature_client import AsyncFeatureClient
from rankloom.aio._rollout_client import AsyncRolloutClient

__all__ = [
    "AsyncClient",
    "AsyncEventRecorder",
    "AsyncExplanationStream",
    "AsyncFeatureClient",
    "AsyncRolloutClient",
]

_show_as(__name__, globals(), __all__)

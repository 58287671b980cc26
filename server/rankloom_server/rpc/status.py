"""The one place where an error becomes a gRPC status with its google.rpc details."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from rankloom_adapters.bundle import BundleError
from rankloom_adapters.expert import ExpertError
from rankloom_adapters.revision import RevisionRetiredError, UnknownRevisionError
from rankloom_adapters.rollout.current_trial import GatesNotPassedError
from rankloom_adapters.rollout.loaded import NoRoomError
from rankloom_adapters.rollout.registry import RegistryError
from rankloom_adapters.rollout.states import (
    KeyReusedError,
    RolloutError,
    StaleError,
    UnknownRolloutError,
)
from rankloom_adapters.signing import SignatureError
from rankloom_adapters.sources import SourceError
from rankloom_adapters.store import StoreError
from rankloom_engine.errors import EngineClosedError, EngineOverloadedError, WorkExpiredError
from rankloom_features.bundled_tables import UnreadableTablesError
from rankloom_features.event_store.store import EventStoreError, EventStoreFullError
from rankloom_features.model_info import FeatureVersionError
from rankloom_features.selection import UnknownAttributeError
from rankloom_features.wire import InvalidFieldError
from rankloom_proto.v1 import ranking_pb2
from rankloom_ranker.errors import FallbackRefusedError
from rankloom_server import logs
from rankloom_server.errors import (
    ForbiddenError,
    MalformedError,
    NoStoredExplanationError,
    NotServingError,
    OverloadedError,
    UnauthenticatedError,
)

DOMAIN = "rankloom"
OVERLOADED_RETRY_S = 0.5
MAX_OVERLOADED_RETRY_S = 10.0  # a longer estimate is not worth much
NOT_SERVING_RETRY_S = 1.0
DISK_RETRY_S = 5.0

_DETAILS_KEY: Final = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a caller gets instead of an answer."""

    code: grpc.StatusCode
    message: str
    details: tuple[Message, ...] = ()

    async def send(self, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        """Ends the call with this status."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = PackedAny()
            packed.Pack(detail)
            status.details.append(packed)
        metadata = ((_DETAILS_KEY, status.SerializeToString()),) if self.details else ()
        await context.abort(self.code, self.message, metadata)


def refusal_of(error: Exception) -> Refusal:
    """The refusal of the error's nearest class in the table; other errors are logged and masked."""
    for kind in type(error).__mro__:
        if kind in _REFUSALS:
            return _REFUSALS[kind](error)
    error_id = logs.fault("internal_error", error)
    return Refusal(
        grpc.StatusCode.INTERNAL,
        f"internal error {error_id}; the server's log has more under this id",
        (_error_info(ranking_pb2.ERROR_REASON_INTERNAL, error_id=error_id),),
    )


def _malformed(_: Exception) -> Refusal:
    description = "the bytes are not a message of this method's request type"
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, description, (_bad_request("", description),))


def _invalid_field(error: InvalidFieldError) -> Refusal:
    details = (_bad_request(error.field, error.description),)
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error), details)


def _unknown_attribute(error: UnknownAttributeError) -> Refusal:
    field = f"options.selection.{error.field}[{error.index}]"
    return _invalid_field(InvalidFieldError(field, str(error)))


def _revision_unknown(error: UnknownRevisionError) -> Refusal:
    return Refusal(
        grpc.StatusCode.NOT_FOUND,
        str(error),
        (_error_info(ranking_pb2.ERROR_REASON_REVISION_UNKNOWN),),
    )


def _fallback_refused(error: FallbackRefusedError) -> Refusal:
    details = (
        _error_info(ranking_pb2.ERROR_REASON_FALLBACK_REFUSED, fallback_reason=error.reason),
    )
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, str(error), details)


def _overloaded(error: OverloadedError | EngineOverloadedError) -> Refusal:
    excess_s = error.excess_s if isinstance(error, EngineOverloadedError) else 0.0
    retry_s = min(max(OVERLOADED_RETRY_S, excess_s), MAX_OVERLOADED_RETRY_S)
    details = (_error_info(ranking_pb2.ERROR_REASON_OVERLOADED), _retry_info(retry_s))
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), details)


def _not_serving(error: Exception) -> Refusal:
    details = (_error_info(ranking_pb2.ERROR_REASON_NOT_SERVING), _retry_info(NOT_SERVING_RETRY_S))
    return Refusal(grpc.StatusCode.UNAVAILABLE, str(error), details)


def _reasoned(
    code: grpc.StatusCode, reason: ranking_pb2.ErrorReason.ValueType, retry_s: float = 0.0
) -> Callable[[Exception], Refusal]:
    """A refusal in the error's own words; with a delay where a retry may help."""

    def refuse(error: Exception) -> Refusal:
        retry = (_retry_info(retry_s),) if retry_s else ()
        return Refusal(code, str(error), (_error_info(reason), *retry))

    return refuse


def _stale(error: StaleError) -> Refusal:
    info = _error_info(ranking_pb2.ERROR_REASON_REVISION_STALE, current=str(error.current))
    return Refusal(grpc.StatusCode.ABORTED, str(error), (info,))


def _source_failed(error: SourceError) -> Refusal:
    if not error.can_pass:
        return _bundle_invalid(error)
    return _reasoned(
        grpc.StatusCode.UNAVAILABLE, ranking_pb2.ERROR_REASON_SOURCE_UNAVAILABLE, DISK_RETRY_S
    )(error)


def _store_failed(error: StoreError) -> Refusal:
    if error.full:
        code, reason = grpc.StatusCode.RESOURCE_EXHAUSTED, ranking_pb2.ERROR_REASON_NO_ROOM
    else:
        code, reason = grpc.StatusCode.UNAVAILABLE, ranking_pb2.ERROR_REASON_STORE_UNAVAILABLE
    return Refusal(code, str(error), (_error_info(reason), _retry_info(DISK_RETRY_S)))


_bundle_invalid = _reasoned(
    grpc.StatusCode.INVALID_ARGUMENT, ranking_pb2.ERROR_REASON_BUNDLE_INVALID
)


def _too_late(_: Exception) -> Refusal:
    return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "the answer cannot come before the deadline")


_REFUSALS: Final[dict[type, Callable[[Any], Refusal]]] = {
    MalformedError: _malformed,
    InvalidFieldError: _invalid_field,
    UnknownAttributeError: _unknown_attribute,
    UnknownRevisionError: _revision_unknown,
    FallbackRefusedError: _fallback_refused,
    NoStoredExplanationError: _reasoned(
        grpc.StatusCode.NOT_FOUND, ranking_pb2.ERROR_REASON_NO_STORED_EXPLANATION
    ),
    UnreadableTablesError: _reasoned(
        grpc.StatusCode.UNAVAILABLE, ranking_pb2.ERROR_REASON_STORE_UNAVAILABLE, DISK_RETRY_S
    ),
    OverloadedError: _overloaded,
    EngineOverloadedError: _overloaded,
    NotServingError: _not_serving,
    UnauthenticatedError: _reasoned(
        grpc.StatusCode.UNAUTHENTICATED, ranking_pb2.ERROR_REASON_UNAUTHENTICATED
    ),
    ForbiddenError: _reasoned(
        grpc.StatusCode.PERMISSION_DENIED, ranking_pb2.ERROR_REASON_PERMISSION_DENIED
    ),
    UnknownRolloutError: _reasoned(
        grpc.StatusCode.NOT_FOUND, ranking_pb2.ERROR_REASON_REVISION_UNKNOWN
    ),
    StaleError: _stale,
    KeyReusedError: _reasoned(
        grpc.StatusCode.FAILED_PRECONDITION, ranking_pb2.ERROR_REASON_KEY_REUSED
    ),
    GatesNotPassedError: _reasoned(
        grpc.StatusCode.FAILED_PRECONDITION, ranking_pb2.ERROR_REASON_GATES_NOT_PASSED
    ),
    RolloutError: _reasoned(
        grpc.StatusCode.FAILED_PRECONDITION, ranking_pb2.ERROR_REASON_WRONG_STATE
    ),
    RegistryError: _reasoned(
        grpc.StatusCode.UNAVAILABLE, ranking_pb2.ERROR_REASON_REGISTRY_UNAVAILABLE, DISK_RETRY_S
    ),
    NoRoomError: _reasoned(
        grpc.StatusCode.RESOURCE_EXHAUSTED, ranking_pb2.ERROR_REASON_NO_ROOM, DISK_RETRY_S
    ),
    SourceError: _source_failed,
    StoreError: _store_failed,
    EventStoreFullError: _reasoned(
        grpc.StatusCode.RESOURCE_EXHAUSTED, ranking_pb2.ERROR_REASON_NO_ROOM, DISK_RETRY_S
    ),
    EventStoreError: _reasoned(
        grpc.StatusCode.UNAVAILABLE, ranking_pb2.ERROR_REASON_EVENT_STORE_UNAVAILABLE, DISK_RETRY_S
    ),
    FeatureVersionError: _reasoned(
        grpc.StatusCode.FAILED_PRECONDITION, ranking_pb2.ERROR_REASON_FEATURE_VERSION_MISMATCH
    ),
    SignatureError: _reasoned(
        grpc.StatusCode.FAILED_PRECONDITION, ranking_pb2.ERROR_REASON_SIGNATURE_INVALID
    ),
    BundleError: _bundle_invalid,
    ExpertError: _bundle_invalid,
    RevisionRetiredError: _reasoned(
        grpc.StatusCode.NOT_FOUND, ranking_pb2.ERROR_REASON_REVISION_UNKNOWN
    ),
    EngineClosedError: _not_serving,
    WorkExpiredError: _too_late,
    TimeoutError: _too_late,
}


def _bad_request(field: str, description: str) -> Message:
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
    message: Message = error_details_pb2.BadRequest(field_violations=[violation])
    return message


def _error_info(reason: ranking_pb2.ErrorReason.ValueType, **metadata: str) -> Message:
    name = ranking_pb2.ErrorReason.Name(reason).removeprefix("ERROR_REASON_")
    message: Message = error_details_pb2.ErrorInfo(reason=name, domain=DOMAIN, metadata=metadata)
    return message


def _retry_info(delay_s: float) -> Message:
    delay = Duration()
    delay.FromNanoseconds(round(delay_s * 1e9))
    message: Message = error_details_pb2.RetryInfo(retry_delay=delay)
    return message

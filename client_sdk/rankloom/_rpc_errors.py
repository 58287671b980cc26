"""The one place where a gRPC status becomes an error of the SDK.

What the server says beside its message comes as google.rpc details in the trailing metadata.
Details that cannot be read are left out: they never hide the error itself.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from rankloom._address import proxy_in_force
from rankloom.errors import (
    AuthenticationError,
    CallCancelledError,
    ClientClosedError,
    ConnectionFailedError,
    DeadlineExceededError,
    ErrorDetails,
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

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.any_pb2 import Any

DETAILS_KEY: Final = "grpc-status-details-bin"
DOMAIN: Final = "rankloom"
_MAX_DIGITS: Final = 20  # of a uint64

_ERRORS: Final[dict[grpc.StatusCode, type[RankloomError]]] = {
    grpc.StatusCode.CANCELLED: CallCancelledError,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: PreconditionError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionError,
    grpc.StatusCode.ABORTED: PreconditionError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.UNIMPLEMENTED: ServerError,
    grpc.StatusCode.INTERNAL: ServerError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DATA_LOSS: ServerError,
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
}


def error_from_rpc(error: grpc.RpcError, request_id: str, target: str) -> RankloomError:
    """Return the SDK's error for a failed call of either transport to a server's address."""
    code = error.code()
    payload = _details_payload(error)
    details = ErrorDetails(status=code.name, request_id=request_id)
    kind = _ERRORS.get(code, ServerError)
    # A rankloom server always sends details with UNAVAILABLE; gRPC itself never does.
    if kind is UnavailableError and payload is None:
        message = f"{error.details() or code.name}{_proxy_advice(target)}"
        return ConnectionFailedError(message, details)
    return kind(error.details() or code.name, _with_payload(details, payload or b""))


def client_closed() -> ClientClosedError:
    """Return the error of a call on a closed client."""
    return ClientClosedError("the client is closed; make a new one")


def call_closed(request_id: str = "") -> CallCancelledError:
    """Return the error of a call that this side ended."""
    details = ErrorDetails(status=grpc.StatusCode.CANCELLED.name, request_id=request_id)
    return CallCancelledError("the call was closed before its end", details)


def unreadable_answer(request_id: str = "") -> ServerError:
    """Return the error of an answer that is no message of rankloom."""
    details = ErrorDetails(status=grpc.StatusCode.INTERNAL.name, request_id=request_id)
    return ServerError("the answer cannot be read; see which server listens there", details)


def not_connected(target: str, limit_s: float) -> ConnectionFailedError:
    """Return the error of waiting in vain for a server."""
    return ConnectionFailedError(
        f"no server answered at {target} within {limit_s:g} s; check its address, and that it runs"
        + _proxy_advice(target)
    )


def _proxy_advice(target: str) -> str:
    """Which proxy the calls went through, if any: its fault looks like the server's."""
    if (proxy := proxy_in_force(target)) is None:
        return ""
    return f"; calls go through {proxy}: set no_proxy if the server can be reached without it"


def _details_payload(error: grpc.RpcError) -> bytes | None:
    # Both transports give pairs, but their types share nothing else.
    metadata = cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ())
    return next((value for key, value in metadata if key == DETAILS_KEY), None)


def _with_payload(details: ErrorDetails, payload: bytes) -> ErrorDetails:
    """Add what can be read of a serialised google.rpc.Status; leave out the rest."""
    try:
        packed_details = status_pb2.Status.FromString(payload).details
    except DecodeError:
        return details
    for packed in packed_details:
        with suppress(DecodeError):
            details = _with_detail(details, packed)
    return details


def _with_detail(details: ErrorDetails, packed: Any) -> ErrorDetails:
    bad_request = error_details_pb2.BadRequest()
    error_info = error_details_pb2.ErrorInfo()
    retry_info = error_details_pb2.RetryInfo()
    if packed.Unpack(bad_request):
        wrong = bad_request.field_violations
        violations = tuple(FieldViolation(each.field, each.description) for each in wrong)
        return replace(details, violations=violations)
    if packed.Unpack(retry_info):
        delay = retry_info.retry_delay
        return replace(details, retry_after_s=max(0.0, delay.seconds + delay.nanos / 1e9))
    if packed.Unpack(error_info) and error_info.domain == DOMAIN:
        metadata = error_info.metadata
        return replace(
            details,
            reason=_reason(error_info.reason),
            error_id=metadata.get("error_id", ""),
            current=_revision(metadata.get("current", "")),
        )
    return details


def _reason(name: str) -> ErrorReason | None:
    short = name.removeprefix("ERROR_REASON_")
    if not short:
        return None
    return ErrorReason.__members__.get(short, ErrorReason.UNKNOWN)


def _revision(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if is_number else None

"""Errors of the SDK as the statuses that they come from."""

from __future__ import annotations

from typing import Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from rankloom._rpc_errors import DETAILS_KEY, DOMAIN
from rankloom.errors import (
    AuthenticationError,
    CallCancelledError,
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

_CODES: Final[dict[type[RankloomError], grpc.StatusCode]] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    AuthenticationError: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    ConnectionFailedError: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    CallCancelledError: grpc.StatusCode.CANCELLED,
    ServerError: grpc.StatusCode.INTERNAL,
}


def fail(
    kind: type[RankloomError],
    message: str = "scripted by the test",
    *,
    reason: ErrorReason | None = None,
    retry_after_s: float | None = None,
    violations: tuple[FieldViolation, ...] = (),
    current: int | None = None,
    error_id: str = "",
) -> RankloomError:
    """Return an error for a fake server to answer with.

        server.on_rank(fail(OverloadedError, reason=ErrorReason.OVERLOADED, retry_after_s=0.5))

    The arguments are what the caller reads from the error that it catches. The client retries
    UnavailableError and ConnectionFailedError: it takes three answers to make a call fail.
    """
    if kind not in _CODES:
        raise ValueError(f"{kind.__name__} never comes from a server; use one that does")
    details = ErrorDetails(
        reason=reason,
        retry_after_s=retry_after_s,
        violations=violations,
        current=current,
        error_id=error_id,
    )
    return kind(message, details)


def send(error: RankloomError, context: grpc.ServicerContext) -> NoReturn:
    """End the call with the status from which the client makes this error."""
    code = grpc.StatusCode[error.status] if error.status else _CODES[type(error)]
    status = status_pb2.Status(code=code.value[0], message=error.message)
    for detail in _details(error.details):
        packed = PackedAny()
        packed.Pack(detail)
        status.details.append(packed)
    if not isinstance(error, ConnectionFailedError):  # a broken connection brings no details
        context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
    context.abort(code, error.message)
    raise AssertionError("abort always raises")


def _details(details: ErrorDetails) -> list[Message]:
    metadata = {"error_id": details.error_id} if details.error_id else {}
    if details.current is not None:
        metadata["current"] = str(details.current)
    found: list[Message] = []
    if details.reason is not None or metadata:
        reason = details.reason.name if details.reason else ""
        found.append(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    if details.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(details.retry_after_s * 1e9))
        found.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if details.violations:
        wrong = [
            error_details_pb2.BadRequest.FieldViolation(
                field=each.field, description=each.description
            )
            for each in details.violations
        ]
        found.append(error_details_pb2.BadRequest(field_violations=wrong))
    return found

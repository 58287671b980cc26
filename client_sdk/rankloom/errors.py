"""The one tree of errors that the SDK raises, and the one place where a gRPC status becomes one.

Errors are named for what failed:

    RankloomError                  everything below: message, status, reason, request_id
    ├── InvalidRequestError        an argument is wrong; violations name the fields
    ├── NotFoundError              there is no such revision, or it serves no more
    ├── PreconditionError          well formed, but cannot be met as things stand; current
    ├── AuthenticationError        the server does not know who is calling
    ├── PermissionDeniedError      the caller may not do this
    ├── OverloadedError            the server has no room for more now; retry_after_s
    ├── UnavailableError           the server, or what it needs, is not there now; retry_after_s
    │   └── ConnectionFailedError  no server was reached, or the connection broke
    ├── DeadlineExceededError      no answer within the call's time
    ├── CallCancelledError         the call was ended before its answer
    ├── ClientClosedError          the client was used after it was closed
    └── ServerError                a fault of the server; error_id finds it in the server's log

What the server tells beside its message comes as google.rpc details in the trailing metadata.
They are a bonus: details that cannot be read never hide the error itself.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, Self, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.any_pb2 import Any

_DETAILS_KEY: Final = "grpc-status-details-bin"
_DOMAIN: Final = "rankloom"
_MAX_DIGITS: Final = 20  # of a uint64


class FieldViolation(NamedTuple):
    """One wrong field: its path in the request, and what is wrong with it."""

    field: str
    description: str


class ErrorReason(StrEnum):
    """Why a well-formed request was refused, as the server names it."""

    REVISION_UNKNOWN = "revision_unknown"
    FALLBACK_REFUSED = "fallback_refused"
    OVERLOADED = "overloaded"
    NOT_SERVING = "not_serving"
    INTERNAL = "internal"
    REVISION_STALE = "revision_stale"
    WRONG_STATE = "wrong_state"
    KEY_REUSED = "key_reused"
    GATES_NOT_PASSED = "gates_not_passed"
    BUNDLE_INVALID = "bundle_invalid"
    SIGNATURE_INVALID = "signature_invalid"
    NO_ROOM = "no_room"
    STORE_UNAVAILABLE = "store_unavailable"
    SOURCE_UNAVAILABLE = "source_unavailable"
    REGISTRY_UNAVAILABLE = "registry_unavailable"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    UNKNOWN = "unknown"  # a reason that only a newer server knows


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What is known of a failure beside its message; each error shows its own part of it."""

    status: str = ""
    request_id: str = ""
    reason: ErrorReason | None = None
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None
    error_id: str = ""
    current: int | None = None


class RankloomError(Exception):
    """Anything that the SDK raises."""

    def __init__(self, message: str, details: ErrorDetails | None = None) -> None:
        super().__init__(message)
        self._details = details or ErrorDetails()

    @property
    def message(self) -> str:
        """What went wrong, in words."""
        return str(self)

    @property
    def status(self) -> str:
        """The gRPC status, as "NOT_FOUND"; empty where the SDK itself raised the error."""
        return self._details.status

    @property
    def reason(self) -> ErrorReason | None:
        """Why, in a form for programs; None where the server did not say."""
        return self._details.reason

    @property
    def request_id(self) -> str:
        """The id of the failed call, the same as in the server's log; empty where it has none."""
        return self._details.request_id


class _RetryableError(RankloomError):
    @property
    def retry_after_s(self) -> float | None:
        """How long the server asks to wait, in seconds; None where it did not say."""
        return self._details.retry_after_s


class InvalidRequestError(RankloomError):
    """An argument is wrong; the same call will fail again."""

    @classmethod
    def of_field(cls, field: str, description: str) -> Self:
        """Return the error of one field that the SDK itself refuses."""
        violation = FieldViolation(field, description)
        return cls(f"{field}: {description}", ErrorDetails(violations=(violation,)))

    @property
    def violations(self) -> tuple[FieldViolation, ...]:
        """The wrong fields; empty where the server named none."""
        return self._details.violations


class NotFoundError(RankloomError):
    """There is no revision of that number, or it serves no more."""


class PreconditionError(RankloomError):
    """The request is well formed, but cannot be met as things stand."""

    @property
    def current(self) -> int | None:
        """For REVISION_STALE: the revision that is active, 0 for none; otherwise None."""
        return self._details.current


class AuthenticationError(RankloomError):
    """The server does not know who is calling."""


class PermissionDeniedError(RankloomError):
    """The caller is known, and may not do this."""


class OverloadedError(_RetryableError):
    """The server has no room for more now; the SDK does not retry it."""


class UnavailableError(_RetryableError):
    """The server, or what it needs, is not there now; the SDK has retried already."""


class ConnectionFailedError(UnavailableError):
    """No server was reached, or the connection broke before the answer."""


class DeadlineExceededError(RankloomError):
    """No answer came within the call's time."""


class CallCancelledError(RankloomError):
    """The call was ended before its answer, as by closing the client."""


class ClientClosedError(RankloomError):
    """The client was used after it was closed."""


class ServerError(RankloomError):
    """A fault of the server."""

    @property
    def error_id(self) -> str:
        """Finds the fault in the server's log; empty where the server told none."""
        return self._details.error_id


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


def error_from_rpc(error: grpc.RpcError, request_id: str) -> RankloomError:
    """Return the error of the tree that a failed call, sync or asyncio, stands for."""
    code = error.code()
    payload = _details_payload(error)
    details = ErrorDetails(status=code.name, request_id=request_id)
    kind = _ERRORS.get(code, ServerError)
    # A rankloom server always sends details with UNAVAILABLE; the transport never does.
    if kind is UnavailableError and payload is None:
        kind = ConnectionFailedError
    return kind(error.details() or code.name, _with_payload(details, payload or b""))


def _details_payload(error: grpc.RpcError) -> bytes | None:
    # Pairs in both transports, but of two types that share nothing else.
    metadata = cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ())
    return next((value for key, value in metadata if key == _DETAILS_KEY), None)


def _with_payload(details: ErrorDetails, payload: bytes) -> ErrorDetails:
    """Add what can be read of a serialised google.rpc.Status; the rest is left out."""
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
    if packed.Unpack(error_info) and error_info.domain == _DOMAIN:
        told = error_info.metadata
        return replace(
            details,
            reason=_reason(error_info.reason),
            error_id=told.get("error_id", ""),
            current=_revision(told.get("current", "")),
        )
    return details


def _reason(name: str) -> ErrorReason:
    short = name.removeprefix("ERROR_REASON_")
    return ErrorReason.__members__.get(short, ErrorReason.UNKNOWN)


def _revision(text: str) -> int | None:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if is_number else None

"""Every error that the SDK raises. Errors are named for what failed:

RankloomError                  the base: message, status, reason, request_id
├── InvalidRequestError        an argument is wrong; violations name the fields
├── NotFoundError              there is no such revision, or no stored explanation
├── PreconditionError          valid, but impossible in the server's present state; current
├── AuthenticationError        the server does not know the caller
├── PermissionDeniedError      the caller may not do this
├── OverloadedError            the server has no room for another request; retry_after_s
├── UnavailableError           the server, or something it needs, is down; retry_after_s
│   └── ConnectionFailedError  no server was reached, or the connection broke
├── DeadlineExceededError      no answer within the call's time
├── CallCancelledError         the call was ended before its answer
├── ClientClosedError          the client was used after it was closed
├── BufferFullError            an EventRecorder has no room for another event
├── EventsNotRecordedError     what an EventRecorder could not record; events
└── ServerError                a fault of the server; error_id finds it in the server's log
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from rankloom._events import UserEvent as _UserEvent

__all__ = [
    "AuthenticationError",
    "BufferFullError",
    "CallCancelledError",
    "ClientClosedError",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "ErrorDetails",
    "ErrorReason",
    "EventsNotRecordedError",
    "FieldViolation",
    "InvalidRequestError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "PreconditionError",
    "RankloomError",
    "ServerError",
    "UnavailableError",
]


class FieldViolation(NamedTuple):
    """One wrong field: its path in the request, and what is wrong with it."""

    field: str
    description: str


class ErrorReason(StrEnum):
    """Why the server refused a valid request."""

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
    EVENT_STORE_UNAVAILABLE = "event_store_unavailable"
    FEATURE_VERSION_MISMATCH = "feature_version_mismatch"
    NO_STORED_EXPLANATION = "no_stored_explanation"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    UNKNOWN = "unknown"  # a reason that only a newer server knows


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What is known of a failure beside its message; each error class shows its own part.

    `status`: the gRPC status, such as "NOT_FOUND"; empty if the SDK itself raised the error.
    `request_id`: the id of the failed call; empty if the call has none.
    `reason`: the cause, for programs; None if the server gave none.
    `violations`: the wrong fields of a request.
    `retry_after_s`: seconds to wait before another try; None if the server did not say.
    `error_id`: the id of a fault in the server's log.
    `current`: the active revision, if the reason is REVISION_STALE; 0 if there is none.
    """

    status: str = ""
    request_id: str = ""
    reason: ErrorReason | None = None
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None
    error_id: str = ""
    current: int | None = None


class RankloomError(Exception):
    """The base of all errors that the SDK raises."""

    def __init__(self, message: str, details: ErrorDetails | None = None) -> None:
        super().__init__(message)
        self._details = details or ErrorDetails()

    @property
    def message(self) -> str:
        """What went wrong, in words."""
        return str(self)

    @property
    def details(self) -> ErrorDetails:
        """Everything that is known beside the message."""
        return self._details

    @property
    def status(self) -> str:
        """The gRPC status, such as "NOT_FOUND"; empty if the SDK itself raised the error."""
        return self._details.status

    @property
    def reason(self) -> ErrorReason | None:
        """The cause, for programs; None if the server gave none."""
        return self._details.reason

    @property
    def request_id(self) -> str:
        """The id of the failed call, as in the server's log; empty if the call has none."""
        return self._details.request_id


class _RetryableError(RankloomError):
    @property
    def retry_after_s(self) -> float | None:
        """Seconds that the server asks to wait; None if it did not say."""
        return self._details.retry_after_s


class InvalidRequestError(RankloomError):
    """An argument is wrong; the same call will fail again."""

    @classmethod
    def of_field(cls, field: str, description: str) -> Self:
        """Return the error for one field that the SDK itself refuses."""
        violation = FieldViolation(field, description)
        return cls(f"{field}: {description}", ErrorDetails(violations=(violation,)))

    @property
    def violations(self) -> tuple[FieldViolation, ...]:
        """The wrong fields; empty if the server named none."""
        return self._details.violations


class NotFoundError(RankloomError):
    """There is no revision of that number, it no longer serves, or nothing is stored."""


class PreconditionError(RankloomError):
    """The request is valid, but impossible in the server's present state."""

    @property
    def current(self) -> int | None:
        """For REVISION_STALE: the active revision, 0 if there is none; otherwise None."""
        return self._details.current


class AuthenticationError(RankloomError):
    """The server does not know the caller."""


class PermissionDeniedError(RankloomError):
    """The server knows the caller, who may not do this."""


class OverloadedError(_RetryableError):
    """The server has no room for another request. The SDK does not retry it."""


class UnavailableError(_RetryableError):
    """The server, or something it needs, is down. The SDK has already retried."""


class ConnectionFailedError(UnavailableError):
    """No server was reached, or the connection broke before the answer."""


class DeadlineExceededError(RankloomError):
    """No answer came within the call's time."""


class CallCancelledError(RankloomError):
    """The call was ended before its answer, for example by closing the client."""


class ClientClosedError(RankloomError):
    """The client was used after it was closed."""


class BufferFullError(RankloomError):
    """An `EventRecorder` has no room for another event; this one was not taken."""


class EventsNotRecordedError(RankloomError):
    """An `EventRecorder` could not record these events; its cause says why.

    Record them again if they are not wrong: an event that the server has already counts once.
    """

    def __init__(self, message: str, events: tuple[_UserEvent, ...] = ()) -> None:
        super().__init__(message)
        self.events = events


class ServerError(RankloomError):
    """A fault of the server."""

    @property
    def error_id(self) -> str:
        """Finds the fault in the server's log; empty if the server gave none."""
        return self._details.error_id

"""Every status becomes its own error, with the server's details, in both clients."""

from __future__ import annotations

import pickle

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    Help,
    RetryInfo,
)
from google.rpc.status_pb2 import Status

from client_sdk.clients import AnyClient
from client_sdk.recording_server import Behaviour, RecordingServer, fail, fail_with_bytes
from rankloom import (
    AuthenticationError,
    CallCancelledError,
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

Code = grpc.StatusCode

ERRORS = {
    Code.CANCELLED: CallCancelledError,
    Code.UNKNOWN: ServerError,
    Code.INVALID_ARGUMENT: InvalidRequestError,
    Code.DEADLINE_EXCEEDED: DeadlineExceededError,
    Code.NOT_FOUND: NotFoundError,
    Code.ALREADY_EXISTS: PreconditionError,
    Code.PERMISSION_DENIED: PermissionDeniedError,
    Code.RESOURCE_EXHAUSTED: OverloadedError,
    Code.FAILED_PRECONDITION: PreconditionError,
    Code.ABORTED: PreconditionError,
    Code.OUT_OF_RANGE: InvalidRequestError,
    Code.UNIMPLEMENTED: ServerError,
    Code.INTERNAL: ServerError,
    Code.UNAVAILABLE: ConnectionFailedError,
    Code.DATA_LOSS: ServerError,
    Code.UNAUTHENTICATED: AuthenticationError,
}


async def failure(kind: AnyClient, server: RecordingServer, behaviour: Behaviour) -> RankloomError:
    server.will(behaviour)
    async with kind(server.target) as client:
        with pytest.raises(RankloomError) as caught:
            await client.rank(["a"], user="u", request_id="r-9")
    return caught.value


def bad_request(*violations: tuple[str, str]) -> Message:
    detail: Message = BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field=field, description=description)
            for field, description in violations
        ]
    )
    return detail


def error_info(reason: str, domain: str = "rankloom", **metadata: str) -> Message:
    detail: Message = ErrorInfo(reason=reason, domain=domain, metadata=metadata)
    return detail


def retry_info(seconds: int, nanos: int = 0) -> Message:
    detail: Message = RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos))
    return detail


def test_every_status_is_in_the_table() -> None:
    assert set(ERRORS) == set(Code) - {Code.OK}


@pytest.mark.parametrize("code", list(ERRORS), ids=lambda code: code.name)
async def test_status_without_details(
    client_class: AnyClient, server: RecordingServer, code: Code
) -> None:
    error = await failure(client_class, server, fail(code, "what happened"))
    assert type(error) is ERRORS[code]
    assert (error.message, error.status, error.request_id) == ("what happened", code.name, "r-9")


async def test_invalid_request_names_the_fields(
    client_class: AnyClient, server: RecordingServer
) -> None:
    wrong = [("candidates", "at most 500"), ("options.top_k", "at least 1")]
    behaviour = fail(Code.INVALID_ARGUMENT, "two fields", bad_request(*wrong))
    error = await failure(client_class, server, behaviour)
    assert isinstance(error, InvalidRequestError)
    assert error.violations == tuple(FieldViolation(*each) for each in wrong)
    assert error.violations[0].field == "candidates"


@pytest.mark.parametrize("prefix", ["", "ERROR_REASON_"])
async def test_reason(client_class: AnyClient, server: RecordingServer, prefix: str) -> None:
    detail = error_info(prefix + "REVISION_UNKNOWN")
    error = await failure(client_class, server, fail(Code.NOT_FOUND, "gone", detail))
    assert isinstance(error, NotFoundError)
    assert error.reason is ErrorReason.REVISION_UNKNOWN


@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        (error_info("FALLBACK_REFUSED"), ErrorReason.FALLBACK_REFUSED),
        (error_info("OF_A_NEWER_SERVER"), ErrorReason.UNKNOWN),
        (error_info("FALLBACK_REFUSED", domain="a-proxy.example"), None),
        (Help(), None),
    ],
    ids=["known", "newer", "foreign-domain", "other-detail"],
)
async def test_precondition_reasons(
    client_class: AnyClient, server: RecordingServer, detail: Message, reason: ErrorReason | None
) -> None:
    error = await failure(client_class, server, fail(Code.FAILED_PRECONDITION, "no", detail))
    assert isinstance(error, PreconditionError)
    assert error.reason is reason


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected_s"), [(1, 500_000_000, 1.5), (0, 0, 0.0), (-3, 0, 0.0)]
)
async def test_an_overload_says_when_to_retry(
    client_class: AnyClient, server: RecordingServer, seconds: int, nanos: int, expected_s: float
) -> None:
    behaviour = fail(
        Code.RESOURCE_EXHAUSTED, "full", error_info("OVERLOADED"), retry_info(seconds, nanos)
    )
    error = await failure(client_class, server, behaviour)
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == expected_s


async def test_a_server_that_says_it_is_unavailable_was_reached(
    client_class: AnyClient, server: RecordingServer
) -> None:
    error = await failure(client_class, server, fail(Code.UNAVAILABLE, "draining", retry_info(2)))
    assert type(error) is UnavailableError
    assert error.retry_after_s == 2.0


async def test_server_fault_has_its_id(client_class: AnyClient, server: RecordingServer) -> None:
    detail = error_info("INTERNAL", error_id="e-77")
    error = await failure(client_class, server, fail(Code.INTERNAL, "internal error", detail))
    assert isinstance(error, ServerError)
    assert error.error_id == "e-77"


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff\xff\xff", b"\x1a\x05\x0a\x09x", bytes(range(256)), b"\x1a\x02\x0a\x00"],
    ids=["empty", "noise", "truncated", "all-bytes", "untyped-detail"],
)
async def test_malformed_details_do_not_hide_the_error(
    client_class: AnyClient, server: RecordingServer, payload: bytes
) -> None:
    behaviour = fail_with_bytes(Code.INVALID_ARGUMENT, "wrong", payload)
    error = await failure(client_class, server, behaviour)
    assert isinstance(error, InvalidRequestError)
    assert (error.message, error.violations) == ("wrong", ())


async def test_one_malformed_detail_leaves_the_others(
    client_class: AnyClient, server: RecordingServer
) -> None:
    broken = PackedAny(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff\xff")
    good = PackedAny()
    good.Pack(retry_info(3))
    payload = Status(details=[broken, good]).SerializeToString()
    behaviour = fail_with_bytes(Code.RESOURCE_EXHAUSTED, "full", payload)
    error = await failure(client_class, server, behaviour)
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == 3.0


async def test_the_rpc_error_is_the_cause(client_class: AnyClient, server: RecordingServer) -> None:
    error = await failure(client_class, server, fail(Code.INTERNAL))
    assert isinstance(error.__cause__, grpc.RpcError)


async def test_errors_survive_pickling(client_class: AnyClient, server: RecordingServer) -> None:
    behaviour = fail(Code.INVALID_ARGUMENT, "wrong", bad_request(("user", "unknown")))
    error = await failure(client_class, server, behaviour)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is InvalidRequestError
    assert copy.violations == (FieldViolation("user", "unknown"),)
    assert (copy.message, copy.status, copy.request_id) == ("wrong", "INVALID_ARGUMENT", "r-9")

"""Builds the requests of RolloutService; shared by the blocking and the asyncio client.

Every change carries `expected`, the revision that its caller believes to be active, and an
idempotency key. An `expected` of None is left 0 here: the client asks the server, and fills it in.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final, Protocol, TypeAlias
from uuid import uuid4

from rankloom._checks import (
    UINT32,
    UINT64,
    checked_integer,
    checked_text,
    checked_type,
    optional_integer,
    optional_number,
)
from rankloom._rollouts import GateSpec
from rankloom.errors import InvalidRequestError
from rankloom_proto.v1 import rollout_pb2

ChangeRequest: TypeAlias = (
    rollout_pb2.StageRequest
    | rollout_pb2.StageUploadHeader
    | rollout_pb2.StartShadowRequest
    | rollout_pb2.StartCanaryRequest
    | rollout_pb2.PromoteRequest
    | rollout_pb2.RollbackRequest
    | rollout_pb2.RetireRequest
)

_GATE_FIELDS: Final = rollout_pb2.GateSpec.DESCRIPTOR.fields
_COUNTS: Final = frozenset(each.name for each in _GATE_FIELDS if each.type == each.TYPE_UINT32)


class RolloutAnswer(Protocol):
    """The answer to every change, and to `Get`."""

    @property
    def rollout(self) -> rollout_pb2.Rollout: ...


def call_metadata(token: object) -> tuple[tuple[str, str], ...]:
    """Return the headers that carry the server's token; none if the token is None."""
    if token is None:
        return ()
    text = checked_type(token, str, "token", "str")
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise InvalidRequestError.of_field("token", "must be printable ASCII, and not empty")
    return (("authorization", f"Bearer {text}"),)


def build_stage(url: object, expected: object, key: object) -> rollout_pb2.StageRequest:
    """Return the request to stage the bundle at `url`."""
    return rollout_pb2.StageRequest(bundle_url=checked_text(url, "url"), **_guard(expected, key))


def build_stage_expert(
    name: object, url: object, expected: object, key: object
) -> rollout_pb2.StageRequest:
    """Return the request to stage the active bundle with the expert at `url`."""
    expert = rollout_pb2.ExpertSource(name=checked_text(name, "name"), url=checked_text(url, "url"))
    return rollout_pb2.StageRequest(expert=expert, **_guard(expected, key))


def build_upload_header(
    expert: object, expected: object, key: object
) -> rollout_pb2.StageUploadHeader:
    """Return the first message of an upload; `expert` None is a whole bundle."""
    name = "" if expert is None else checked_text(expert, "expert")
    return rollout_pb2.StageUploadHeader(expert=name, **_guard(expected, key))


def build_start_shadow(
    revision: object, percent: object, gates: object, expected: object, key: object
) -> rollout_pb2.StartShadowRequest:
    """Return the request to make a revision a shadow."""
    return rollout_pb2.StartShadowRequest(
        revision=_revision(revision),
        percent=checked_integer(percent, UINT32, "percent"),
        gates=_gates(gates),
        **_guard(expected, key),
    )


def build_start_canary(
    revision: object, percent: object, gates: object, expected: object, key: object
) -> rollout_pb2.StartCanaryRequest:
    """Return the request to make a revision a canary."""
    return rollout_pb2.StartCanaryRequest(
        revision=_revision(revision),
        percent=checked_integer(percent, UINT32, "percent"),
        gates=_gates(gates),
        **_guard(expected, key),
    )


def build_promote(
    revision: object, without_gates: object, reason: object, expected: object, key: object
) -> rollout_pb2.PromoteRequest:
    """Return the request to make a revision the active one."""
    return rollout_pb2.PromoteRequest(
        revision=_revision(revision),
        without_gates=checked_type(without_gates, bool, "without_gates", "bool"),
        reason=checked_text(reason, "reason"),
        **_guard(expected, key),
    )


def build_rollback(
    revision: object, reason: object, expected: object, key: object
) -> rollout_pb2.RollbackRequest:
    """Return the request to roll a revision back."""
    return rollout_pb2.RollbackRequest(
        revision=_revision(revision),
        reason=checked_text(reason, "reason"),
        **_guard(expected, key),
    )


def build_retire(
    revision: object, reason: object, expected: object, key: object
) -> rollout_pb2.RetireRequest:
    """Return the request to retire a revision."""
    return rollout_pb2.RetireRequest(
        revision=_revision(revision),
        reason=checked_text(reason, "reason"),
        **_guard(expected, key),
    )


def build_get(revision: object) -> rollout_pb2.GetRequest:
    """Return the request for one revision."""
    return rollout_pb2.GetRequest(revision=_revision(revision))


def _revision(revision: object) -> int:
    return checked_integer(revision, UINT64, "revision")


def _guard(expected: object, key: object) -> dict[str, Any]:
    return {
        "expected_revision": optional_integer(expected, UINT64, "expected") or 0,
        "idempotency_key": uuid4().hex if key is None else checked_text(key, "key"),
    }


def _gates(gates: object) -> rollout_pb2.GateSpec | None:
    if gates is None:
        return None
    spec = checked_type(gates, GateSpec, "gates", "GateSpec")
    bounds: dict[str, Any] = {
        field.name: _bound(field.name, getattr(spec, field.name)) for field in fields(spec)
    }
    return rollout_pb2.GateSpec(**bounds)


def _bound(name: str, value: object) -> float | None:
    field = f"gates.{name}"
    if name in _COUNTS:
        return optional_integer(value, UINT32, field)
    return optional_number(value, field)

"""Builds the requests of RankingService; shared by the blocking and the asyncio client.

Only what the wire cannot express is refused here, before anything is sent. Limits, such as the
number of candidates, are left to the server, which knows its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias
from uuid import uuid4

from rankloom._checks import (
    UINT32,
    UINT64,
    checked_text,
    checked_type,
    optional_integer,
    optional_number,
)
from rankloom._request_parts import (
    build_candidate,
    build_candidates,
    check_size,
    check_subject,
    set_subject,
)
from rankloom._results import (
    Event,
    ExplainOptions,
    ExplanationSource,
    Fusion,
    Item,
    RankOptions,
    Revision,
)
from rankloom.errors import InvalidRequestError
from rankloom_proto.v1 import ranking_pb2

AnySource: TypeAlias = ExplanationSource | Literal["live", "stored"]


def build_request(
    items: Sequence[str | Item],
    *,
    user: str | None,
    history: Sequence[Event] | None,
    options: RankOptions,
    request_id: str | None,
) -> ranking_pb2.RankRequest:
    """Return the wire request, or raise InvalidRequestError naming the field."""
    check_subject(user, history)
    request = ranking_pb2.RankRequest(
        request_id=build_request_id(request_id),
        candidates=build_candidates(items, "items"),
        options=build_options(options),
    )
    set_subject(request, user, history)
    check_size(request, "items")
    return request


def build_explain_request(
    item: str | Item,
    *,
    user: str | None,
    history: Sequence[Event] | None,
    options: ExplainOptions,
    source: AnySource,
    request_id: str | None,
) -> ranking_pb2.ExplainRequest:
    """Return the wire request, or raise InvalidRequestError naming the field."""
    check_subject(user, history)
    request = ranking_pb2.ExplainRequest(
        request_id=build_request_id(request_id),
        candidate=build_candidate(item, "item"),
        options=_explain_options(options),
        source=_source(source),
    )
    set_subject(request, user, history)
    check_size(request, "item")
    return request


def _source(value: object) -> ranking_pb2.ExplanationSource.ValueType:
    if value == ExplanationSource.LIVE:
        return ranking_pb2.EXPLANATION_SOURCE_LIVE
    if value == ExplanationSource.STORED:
        return ranking_pb2.EXPLANATION_SOURCE_STORED
    raise InvalidRequestError.of_field("source", 'must be "live" or "stored"')


def build_request_id(value: object) -> str:
    """Return the given id, or a new one."""
    return uuid4().hex if value is None else checked_text(value, "request_id")


def build_options(options: object, path: str = "options") -> ranking_pb2.RankOptions:
    """Return the options of a ranking; `path`: where they stand among the call's arguments."""
    value = checked_type(options, RankOptions, path, "RankOptions")
    number, digest = build_pin(value.revision, path)
    explain = value.explain
    return ranking_pb2.RankOptions(
        top_k=optional_integer(value.top_k, UINT32, f"{path}.top_k"),
        allow_fallback=checked_type(value.allow_fallback, bool, f"{path}.allow_fallback", "bool"),
        allow_partial=checked_type(value.allow_partial, bool, f"{path}.allow_partial", "bool"),
        fusion=_fusion(value.fusion, path),
        revision=number,
        bundle_digest=digest,
        explain_top_k=optional_integer(value.explain_top_k, UINT32, f"{path}.explain_top_k"),
        explain=None if explain is None else _explain_options(explain, f"{path}.explain"),
        prefilter=optional_integer(value.prefilter, UINT32, f"{path}.prefilter"),
    )


def _explain_options(options: object, path: str = "options") -> ranking_pb2.ExplainOptions:
    value = checked_type(options, ExplainOptions, path, "ExplainOptions")
    number, digest = build_pin(value.revision, path)
    return ranking_pb2.ExplainOptions(
        max_tokens=optional_integer(value.max_tokens, UINT32, f"{path}.max_tokens"),
        temperature=optional_number(value.temperature, f"{path}.temperature"),
        seed=optional_integer(value.seed, UINT64, f"{path}.seed"),
        fusion=_fusion(value.fusion, path),
        revision=number,
        bundle_digest=digest,
        max_evidence=optional_integer(value.max_evidence, UINT32, f"{path}.max_evidence"),
        grounded=_optional_bool(value.grounded, f"{path}.grounded"),
    )


def _optional_bool(value: object, field: str) -> bool | None:
    return None if value is None else checked_type(value, bool, field, "bool")


def build_pin(revision: object, path: str = "options") -> tuple[int | None, str]:
    """Return the pinned number, and the digest of its bundle where it is known."""
    if not isinstance(revision, Revision):
        return optional_integer(revision, UINT64, f"{path}.revision"), ""
    number = optional_integer(revision.number, UINT64, f"{path}.revision.number")
    return number, checked_text(revision.bundle_digest, f"{path}.revision.bundle_digest")


def _fusion(value: object, path: str = "options") -> ranking_pb2.Fusion.ValueType:
    if value is None:
        return ranking_pb2.FUSION_UNSPECIFIED
    fusion = checked_type(value, Fusion, f"{path}.fusion", "Fusion")
    return ranking_pb2.Fusion.Value(f"FUSION_{fusion.name}")

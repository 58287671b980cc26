"""Retrievals and recommendations to and from wire messages, for both transports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rankloom._checks import (
    UINT32,
    checked_elements,
    checked_integer,
    checked_text,
    checked_type,
    optional_integer,
    optional_number,
)
from rankloom._request_parts import check_size, check_subject, set_subject
from rankloom._requests import build_options, build_pin, build_request_id
from rankloom._responses import (
    parse_fallback_reason,
    parse_response,
    parse_revision,
    parse_timing,
    wire_names,
)
from rankloom._results import Event
from rankloom._retrievals import (
    ItemSelection,
    Recommendation,
    RecommendOptions,
    Retrieval,
    RetrievalOrder,
    RetrievedItem,
    RetrieveOptions,
)
from rankloom_proto.v1 import ranking_pb2

_ORDERS: Final = wire_names(ranking_pb2.RetrievalOrder.items(), RetrievalOrder, "RETRIEVAL_ORDER_")


def build_retrieve_request(
    k: int,
    *,
    user: str | None,
    history: Sequence[Event] | None,
    options: RetrieveOptions,
    request_id: str | None,
) -> ranking_pb2.RetrieveRequest:
    """Return the wire request, or raise InvalidRequestError naming the field."""
    check_subject(user, history)
    value = checked_type(options, RetrieveOptions, "options", "RetrieveOptions")
    number, digest = build_pin(value.revision)
    request = ranking_pb2.RetrieveRequest(
        request_id=build_request_id(request_id),
        k=checked_integer(k, UINT32, "k"),
        options=ranking_pb2.RetrieveOptions(
            selection=_selection(value.selection),
            allow_fallback=checked_type(
                value.allow_fallback, bool, "options.allow_fallback", "bool"
            ),
            revision=number,
            bundle_digest=digest,
        ),
    )
    set_subject(request, user, history)
    check_size(request, "history")
    return request


def build_recommend_request(
    k: int,
    *,
    user: str | None,
    history: Sequence[Event] | None,
    options: RecommendOptions,
    request_id: str | None,
) -> ranking_pb2.RecommendRequest:
    """Return the wire request, or raise InvalidRequestError naming the field."""
    check_subject(user, history)
    value = checked_type(options, RecommendOptions, "options", "RecommendOptions")
    request = ranking_pb2.RecommendRequest(
        request_id=build_request_id(request_id),
        k=checked_integer(k, UINT32, "k"),
        options=ranking_pb2.RecommendOptions(
            retrieve_k=optional_integer(value.retrieve_k, UINT32, "options.retrieve_k"),
            selection=_selection(value.selection),
            diversity=optional_number(value.diversity, "options.diversity"),
            ranking=build_options(value.ranking, "options.ranking"),
        ),
    )
    set_subject(request, user, history)
    check_size(request, "history")
    return request


def parse_retrieval(response: ranking_pb2.RetrieveResponse) -> Retrieval:
    """Return the answer as values; what only a newer server knows becomes UNKNOWN."""
    return Retrieval(
        request_id=response.request_id,
        revision=parse_revision(response.revision),
        items=tuple(RetrievedItem(item.item_id, item.rank, item.score) for item in response.items),
        order=_ORDERS.get(response.order, RetrievalOrder.UNKNOWN),
        fallback_reason=parse_fallback_reason(response.fallback_reason),
        cold_start=response.cold_start,
        history_version=_history_version(response),
        timing=parse_timing(response.timing),
    )


def parse_recommendation(response: ranking_pb2.RecommendResponse) -> Recommendation:
    """Return the answer as values; what only a newer server knows becomes UNKNOWN."""
    return Recommendation(
        ranking=parse_response(response.ranking),
        num_retrieved=response.num_retrieved,
        order=_ORDERS.get(response.order, RetrievalOrder.UNKNOWN),
        history_version=_history_version(response),
    )


def _history_version(
    response: ranking_pb2.RetrieveResponse | ranking_pb2.RecommendResponse,
) -> int | None:
    return response.history_version if response.HasField("history_version") else None


def _selection(selection: object) -> ranking_pb2.ItemSelection:
    path = "options.selection"
    value = checked_type(selection, ItemSelection, path, "ItemSelection")
    return ranking_pb2.ItemSelection(
        exclude_seen=checked_type(value.exclude_seen, bool, f"{path}.exclude_seen", "bool"),
        exclude_item_ids=_texts(value.exclude_item_ids, f"{path}.exclude_item_ids"),
        with_attributes=_texts(value.with_attributes, f"{path}.with_attributes"),
        without_attributes=_texts(value.without_attributes, f"{path}.without_attributes"),
    )


def _texts(values: object, path: str) -> list[str]:
    return [checked_text(value, field) for field, value in checked_elements(values, path)]

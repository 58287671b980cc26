"""Requests to retrieve and recommend become valid queries, or are refused with the wrong field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rankloom_features.selection import ItemSelection
from rankloom_features.wire import (
    MAX_ATTRIBUTE_CHARS,
    MAX_ATTRIBUTES,
    MAX_CANDIDATES,
    MAX_ID_CHARS,
    InvalidFieldError,
    check_chars,
    check_count,
    parse_user,
)
from rankloom_proto.v1 import ranking_pb2
from rankloom_ranker.query import RankQuery, RecommendQuery, RetrieveQuery
from rankloom_server.parse import MAX_REQUEST_ID_CHARS, parse_digest, parse_options

MAX_RETRIEVED: Final = 1_000
MAX_RECOMMENDED: Final = MAX_CANDIDATES
MAX_EXCLUDED: Final = 1_000
DEFAULT_RETRIEVE_K: Final = 100


def parse_retrieve(message: ranking_pb2.RetrieveRequest) -> RetrieveQuery:
    """The query of a request. Raises InvalidFieldError."""
    check_chars("request_id", message.request_id, 0, MAX_REQUEST_ID_CHARS)
    options = message.options
    return RetrieveQuery(
        request_id=message.request_id,
        user=parse_user(message, message.WhichOneof("subject"), ()),
        k=_checked("k", message.k, 1, MAX_RETRIEVED),
        selection=_parse_selection(options.selection, "options.selection"),
        allow_fallback=options.allow_fallback if options.HasField("allow_fallback") else True,
        revision=options.revision if options.HasField("revision") else None,
        bundle_digest=parse_digest(options),
    )


def parse_recommend(message: ranking_pb2.RecommendRequest, caller: str = "") -> RecommendQuery:
    """The query of a request. Raises InvalidFieldError."""
    check_chars("request_id", message.request_id, 0, MAX_REQUEST_ID_CHARS)
    user = parse_user(message, message.WhichOneof("subject"), ())
    k, options = _checked("k", message.k, 1, MAX_RECOMMENDED), message.options
    retrieve_k = options.retrieve_k or max(DEFAULT_RETRIEVE_K, k)
    if not 0.0 <= options.diversity <= 1.0:  # NaN is refused too
        raise InvalidFieldError("options.diversity", "must be from 0 to 1")
    ranking = RankQuery(message.request_id, user, caller=caller)
    return RecommendQuery(
        ranking=_parse_ranking(ranking, options.ranking),
        k=k,
        retrieve_k=_checked("options.retrieve_k", retrieve_k, k, MAX_CANDIDATES),
        selection=_parse_selection(options.selection, "options.selection"),
        diversity=options.diversity,
    )


def _parse_ranking(query: RankQuery, options: ranking_pb2.RankOptions) -> RankQuery:
    if options.HasField("top_k"):
        raise InvalidFieldError("options.ranking.top_k", "must be left out: it is the request's k")
    try:
        return parse_options(query, options)
    except InvalidFieldError as error:
        inner = error.field.removeprefix("options.")
        raise InvalidFieldError(f"options.ranking.{inner}", error.description) from None


def _parse_selection(message: ranking_pb2.ItemSelection, path: str) -> ItemSelection:
    check_count(f"{path}.exclude_item_ids", len(message.exclude_item_ids), 0, MAX_EXCLUDED)
    _check_texts(f"{path}.exclude_item_ids", message.exclude_item_ids, MAX_ID_CHARS)
    for name in ("with_attributes", "without_attributes"):
        attributes = getattr(message, name)
        check_count(f"{path}.{name}", len(attributes), 0, MAX_ATTRIBUTES)
        _check_texts(f"{path}.{name}", attributes, MAX_ATTRIBUTE_CHARS)
    return ItemSelection(
        exclude_seen=message.exclude_seen if message.HasField("exclude_seen") else True,
        exclude_item_ids=tuple(message.exclude_item_ids),
        with_attributes=tuple(message.with_attributes),
        without_attributes=tuple(message.without_attributes),
    )


def _check_texts(path: str, texts: Sequence[str], max_chars: int) -> None:
    for index, text in enumerate(texts):
        check_chars(f"{path}[{index}]", text, 1, max_chars)


def _checked(field: str, number: int, at_least: int, at_most: int) -> int:
    if not at_least <= number <= at_most:
        raise InvalidFieldError(field, f"must be from {at_least} to {at_most}, is {number}")
    return number

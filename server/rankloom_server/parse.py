"""A request from the wire becomes a valid query, or is refused with the wrong field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from rankloom_adapters.router import Fusion
from rankloom_engine.explain import (
    DEFAULT_EXPLAIN_TOKENS,
    MAX_EXPLAIN_TOKENS,
    SamplingParams,
)
from rankloom_features.catalogue import Catalogue, Item
from rankloom_features.wire import (
    MAX_CANDIDATES,
    InvalidFieldError,
    check_chars,
    check_count,
    parse_candidate,
    parse_query,
    parse_user,
)
from rankloom_proto.v1 import ranking_pb2
from rankloom_ranker.query import ExplainParams, ExplainQuery, RankQuery, StoredQuery

MAX_REQUEST_ID_CHARS = 128
MAX_DIGEST_CHARS = 128
MAX_TOP_K = MAX_CANDIDATES
MAX_EXPLAINED = 10  # items of one ranking
MAX_TEMPERATURE = 2.0


_Pinning = ranking_pb2.RankOptions | ranking_pb2.ExplainOptions | ranking_pb2.RetrieveOptions
_PIN: Final = frozenset({"revision", "bundle_digest"})
_FUSION: Final = {
    ranking_pb2.FUSION_UNSPECIFIED: Fusion.EXACT_SUM,
    ranking_pb2.FUSION_EXACT_SUM: Fusion.EXACT_SUM,
    ranking_pb2.FUSION_PEFT_LINEAR: Fusion.PEFT_LINEAR,
    ranking_pb2.FUSION_TOP1: Fusion.TOP1,
}


def parse_rank(message: ranking_pb2.RankRequest, caller: str = "") -> RankQuery:
    """The query of a request. Raises InvalidFieldError."""
    check_chars("request_id", message.request_id, 0, MAX_REQUEST_ID_CHARS)
    check_count("candidates", len(message.candidates), 1, MAX_CANDIDATES)
    user = parse_query(message, message.WhichOneof("subject"))
    return parse_options(RankQuery(message.request_id, user, caller=caller), message.options)


def parse_options(query: RankQuery, options: ranking_pb2.RankOptions) -> RankQuery:
    """The query with the options of a ranking. Raises InvalidFieldError."""
    if options.top_k > MAX_TOP_K:
        raise InvalidFieldError("options.top_k", f"must be at most {MAX_TOP_K}")
    if options.prefilter > MAX_CANDIDATES:
        raise InvalidFieldError("options.prefilter", f"must be at most {MAX_CANDIDATES}")
    return replace(
        query,
        top_k=options.top_k or None,
        allow_fallback=options.allow_fallback if options.HasField("allow_fallback") else True,
        allow_partial=options.allow_partial,
        fusion=_parse_fusion(options.fusion),
        revision=options.revision if options.HasField("revision") else None,
        bundle_digest=parse_digest(options),
        explain_top_k=_parse_explain_top_k(options),
        explaining=_parse_params(options.explain, "options.explain"),
        prefilter=options.prefilter or None,
    )


def _parse_explain_top_k(options: ranking_pb2.RankOptions) -> int:
    if options.explain_top_k > MAX_EXPLAINED:
        raise InvalidFieldError("options.explain_top_k", f"must be at most {MAX_EXPLAINED}")
    given = {field.name for field, _ in options.explain.ListFields()}
    for name in ("fusion", "revision", "bundle_digest"):
        if name in given:
            bounds = "must be left out: the ranking's own is used"
            raise InvalidFieldError(f"options.explain.{name}", bounds)
    return options.explain_top_k


def parse_explain(message: ranking_pb2.ExplainRequest, caller: str = "") -> ExplainQuery:
    """The query of a request. Raises InvalidFieldError."""
    check_chars("request_id", message.request_id, 0, MAX_REQUEST_ID_CHARS)
    item = parse_candidate(message.candidate, "candidate")
    options = message.options
    ranking = RankQuery(
        request_id=message.request_id,
        user=parse_user(message, message.WhichOneof("subject"), (item,)),
        allow_fallback=False,
        fusion=_parse_fusion(options.fusion),
        revision=options.revision if options.HasField("revision") else None,
        bundle_digest=parse_digest(options),
        caller=caller,
    )
    return ExplainQuery(ranking, _parse_params(options, "options"))


def asks_for_stored(message: ranking_pb2.ExplainRequest) -> bool:
    """Whether a stored explanation is asked for. Raises InvalidFieldError."""
    if message.source not in ranking_pb2.ExplanationSource.values():
        raise InvalidFieldError("source", "unknown value")
    return message.source == ranking_pb2.EXPLANATION_SOURCE_STORED


def parse_stored(message: ranking_pb2.ExplainRequest) -> StoredQuery:
    """The query of a request for a stored explanation. Raises InvalidFieldError."""
    check_chars("request_id", message.request_id, 0, MAX_REQUEST_ID_CHARS)
    item = parse_candidate(message.candidate, "candidate")
    user = parse_user(message, message.WhichOneof("subject"), (item,))
    if user.user_id is None:
        raise InvalidFieldError("user_id", "needed: stored explanations are of known users")
    options = message.options
    for field, _ in options.ListFields():
        if field.name not in _PIN:
            bounds = "must be left out: a stored explanation is written already"
            raise InvalidFieldError(f"options.{field.name}", bounds)
    return StoredQuery(
        message.request_id,
        user.user_id,
        item.item_id,
        revision=options.revision if options.HasField("revision") else None,
        bundle_digest=parse_digest(options),
    )


def parse_digest(options: _Pinning) -> str:
    """The digest that must be that of the pinned revision's bundle. Raises InvalidFieldError."""
    check_chars("options.bundle_digest", options.bundle_digest, 0, MAX_DIGEST_CHARS)
    if options.bundle_digest and not options.HasField("revision"):
        raise InvalidFieldError("options.bundle_digest", "needs options.revision beside it")
    return options.bundle_digest


def _parse_params(options: ranking_pb2.ExplainOptions, path: str) -> ExplainParams:
    if options.max_tokens > MAX_EXPLAIN_TOKENS:
        raise InvalidFieldError(f"{path}.max_tokens", f"must be at most {MAX_EXPLAIN_TOKENS}")
    if not 0.0 <= options.temperature <= MAX_TEMPERATURE:  # NaN is refused too
        bounds = f"must be from 0 to {MAX_TEMPERATURE:g}"
        raise InvalidFieldError(f"{path}.temperature", bounds)
    max_tokens = options.max_tokens or DEFAULT_EXPLAIN_TOKENS
    return ExplainParams(
        SamplingParams(max_tokens, temperature=options.temperature, seed=options.seed),
        max_evidence=options.max_evidence if options.HasField("max_evidence") else None,
        grounded=options.grounded if options.HasField("grounded") else True,
    )


def check_texts(query: RankQuery, catalogue: Catalogue) -> None:
    """Raises InvalidFieldError for a candidate without any text."""
    for place, item in enumerate(query.user.candidates):
        check_text(item, catalogue, f"candidates[{place}]")


def check_text(item: Item, catalogue: Catalogue, path: str) -> None:
    """Raises InvalidFieldError if the candidate at ``path`` has no text."""
    if not item.title.strip() and catalogue.index(item.item_id) < 0:
        raise InvalidFieldError(f"{path}.text.title", "needed: the catalogue lacks this item")


def check_fusion(query: RankQuery, ranks: Sequence[int]) -> None:
    """Raises InvalidFieldError if experts of these ranks cannot be fused as requested."""
    if query.fusion is Fusion.PEFT_LINEAR and len(set(ranks)) > 1:
        raise InvalidFieldError(
            "options.fusion", "PEFT_LINEAR needs experts of one rank, these differ"
        )


def _parse_fusion(value: ranking_pb2.Fusion.ValueType) -> Fusion:
    if value in _FUSION:
        return _FUSION[value]
    raise InvalidFieldError("options.fusion", "unknown value")

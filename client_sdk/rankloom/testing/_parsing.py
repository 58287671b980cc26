"""Reads requests off the wire: the reverse of the SDK's request builders."""

from __future__ import annotations

from dataclasses import fields

import grpc

from rankloom._events import UserEvent
from rankloom._feature_messages import parse_event, parse_time
from rankloom._features import FeatureQuery
from rankloom._responses import wire_names
from rankloom._results import (
    Event,
    ExplainOptions,
    ExplanationSource,
    Fusion,
    Item,
    RankOptions,
    Revision,
)
from rankloom._retrievals import ItemSelection, RecommendOptions, RetrieveOptions
from rankloom._rollouts import GateSpec
from rankloom.testing._calls import (
    ExplainCall,
    FeatureCall,
    ForgetCall,
    RankCall,
    RecommendCall,
    RecordCall,
    RetrieveCall,
)
from rankloom_proto.v1 import features_pb2, ranking_pb2, rollout_pb2

_FUSIONS = wire_names(ranking_pb2.Fusion.items(), Fusion, "FUSION_")


def parse_rank(request: ranking_pb2.RankRequest, context: grpc.ServicerContext) -> RankCall:
    """Return what `Client.rank` was called with."""
    user, history = _subject(request)
    return RankCall(
        items=tuple(map(_item, request.candidates)),
        user=user,
        history=history,
        options=_rank_options(request.options),
        request_id=request.request_id,
        timeout_s=_timeout_s(context),
    )


def parse_retrieve(
    request: ranking_pb2.RetrieveRequest, context: grpc.ServicerContext
) -> RetrieveCall:
    """Return what `Client.retrieve` was called with."""
    options = request.options
    user, history = _subject(request)
    return RetrieveCall(
        k=request.k,
        user=user,
        history=history,
        options=RetrieveOptions(
            selection=_selection(options.selection),
            allow_fallback=options.allow_fallback or not options.HasField("allow_fallback"),
            revision=_pin(options),
        ),
        request_id=request.request_id,
        timeout_s=_timeout_s(context),
    )


def parse_recommend(
    request: ranking_pb2.RecommendRequest, context: grpc.ServicerContext
) -> RecommendCall:
    """Return what `Client.recommend` was called with."""
    options = request.options
    user, history = _subject(request)
    return RecommendCall(
        k=request.k,
        user=user,
        history=history,
        options=RecommendOptions(
            retrieve_k=options.retrieve_k if options.HasField("retrieve_k") else None,
            selection=_selection(options.selection),
            diversity=options.diversity if options.HasField("diversity") else None,
            ranking=_rank_options(options.ranking),
        ),
        request_id=request.request_id,
        timeout_s=_timeout_s(context),
    )


def _rank_options(options: ranking_pb2.RankOptions) -> RankOptions:
    return RankOptions(
        top_k=options.top_k if options.HasField("top_k") else None,
        allow_fallback=options.allow_fallback or not options.HasField("allow_fallback"),
        allow_partial=options.allow_partial,
        fusion=_FUSIONS.get(options.fusion),
        revision=_pin(options),
        explain_top_k=options.explain_top_k if options.HasField("explain_top_k") else None,
        explain=_explain_options(options.explain) if options.HasField("explain") else None,
        prefilter=options.prefilter if options.HasField("prefilter") else None,
    )


def _selection(selection: ranking_pb2.ItemSelection) -> ItemSelection:
    return ItemSelection(
        exclude_seen=selection.exclude_seen or not selection.HasField("exclude_seen"),
        exclude_item_ids=tuple(selection.exclude_item_ids),
        with_attributes=tuple(selection.with_attributes),
        without_attributes=tuple(selection.without_attributes),
    )


def parse_explain(
    request: ranking_pb2.ExplainRequest, context: grpc.ServicerContext
) -> ExplainCall:
    """Return what `Client.explain` was called with."""
    user, history = _subject(request)
    return ExplainCall(
        item=_item(request.candidate),
        user=user,
        history=history,
        options=_explain_options(request.options),
        source=_source(request.source),
        request_id=request.request_id,
        timeout_s=_timeout_s(context),
    )


def _source(number: ranking_pb2.ExplanationSource.ValueType) -> ExplanationSource:
    is_stored = number == ranking_pb2.EXPLANATION_SOURCE_STORED
    return ExplanationSource.STORED if is_stored else ExplanationSource.LIVE


def _explain_options(options: ranking_pb2.ExplainOptions) -> ExplainOptions:
    return ExplainOptions(
        max_tokens=options.max_tokens if options.HasField("max_tokens") else None,
        temperature=options.temperature if options.HasField("temperature") else None,
        seed=options.seed if options.HasField("seed") else None,
        fusion=_FUSIONS.get(options.fusion),
        revision=_pin(options),
        max_evidence=options.max_evidence if options.HasField("max_evidence") else None,
        grounded=options.grounded if options.HasField("grounded") else None,
    )


def parse_features_request(
    request: features_pb2.GetUserFeaturesRequest, context: grpc.ServicerContext
) -> FeatureCall:
    """Return what a `FeatureClient` was called with."""
    queries = tuple(map(_query, request.users))
    return FeatureCall(queries=queries, timeout_s=_timeout_s(context))


def parse_record(
    request: features_pb2.RecordEventsRequest, context: grpc.ServicerContext
) -> RecordCall:
    """Return the events that were sent."""
    events = tuple(map(_user_event, request.events))
    return RecordCall(events=events, timeout_s=_timeout_s(context))


def parse_forget(
    request: features_pb2.ForgetUserRequest, context: grpc.ServicerContext
) -> ForgetCall:
    """Return what `FeatureClient.forget_user` was called with."""
    return ForgetCall(user=request.user_id, timeout_s=_timeout_s(context))


def parse_gates(gates: rollout_pb2.GateSpec) -> GateSpec:
    """Return the bounds that are set."""
    names = [field.name for field in fields(GateSpec)]
    return GateSpec(**{name: getattr(gates, name) for name in names if gates.HasField(name)})  # type: ignore[arg-type]


def _user_event(event: features_pb2.UserEvent) -> UserEvent:
    return UserEvent(
        user=event.user_id,
        item_id=event.item_id,
        liked=event.liked if event.HasField("liked") else None,
        rating=event.rating if event.HasField("rating") else None,
        time=parse_time(event.time) if event.HasField("time") else None,
        event_id=event.event_id,
    )


def _query(message: features_pb2.UserQuery) -> FeatureQuery:
    user, history = _subject(message)
    return FeatureQuery(
        user=user,
        history=history,
        items=tuple(map(_item, message.candidates)),
        predict_ratings=message.predict_ratings,
        max_events=message.max_events if message.HasField("max_events") else None,
    )


def _subject(
    message: ranking_pb2.RankRequest
    | ranking_pb2.ExplainRequest
    | ranking_pb2.RetrieveRequest
    | ranking_pb2.RecommendRequest
    | features_pb2.UserQuery,
) -> tuple[str | None, tuple[Event, ...] | None]:
    if message.WhichOneof("subject") == "history":
        return None, tuple(map(parse_event, message.history.events))
    return message.user_id, None


def _item(candidate: features_pb2.Candidate) -> Item:
    text = candidate.text
    return Item(
        candidate.item_id,
        title=text.title,
        year=text.year if text.HasField("year") else None,
        attributes=tuple(text.attributes),
        description=text.description,
    )


def _timeout_s(context: grpc.ServicerContext) -> float:
    left_s: float | None = context.time_remaining()
    return float("inf") if left_s is None else left_s


def _pin(
    options: ranking_pb2.RankOptions | ranking_pb2.ExplainOptions | ranking_pb2.RetrieveOptions,
) -> Revision | int | None:
    if not options.HasField("revision"):
        return None
    if not options.bundle_digest:
        return options.revision
    return Revision(options.revision, options.bundle_digest)

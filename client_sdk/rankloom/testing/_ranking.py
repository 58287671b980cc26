"""`RankingService` of the fake server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import grpc

from rankloom._results import Explanation, ExplanationSource, ItemExplanation, Ranking
from rankloom._retrievals import Recommendation, Retrieval
from rankloom.errors import RankloomError
from rankloom.testing._answers import (
    Delayed,
    Script,
    default_score,
    fault,
    make_explanation,
    make_item_explanation,
    make_ranking,
    make_recommendation,
    make_retrieval,
    make_stored_explanation,
    play,
)
from rankloom.testing._calls import Call, ExplainCall, RankCall, RecommendCall, RetrieveCall
from rankloom.testing._parsing import (
    parse_explain,
    parse_rank,
    parse_recommend,
    parse_retrieve,
)
from rankloom.testing._wire import (
    explanation_to_wire,
    ranking_to_wire,
    recommendation_to_wire,
    retrieval_to_wire,
)
from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc

Failure: TypeAlias = RankloomError | type[RankloomError]
Scores: TypeAlias = Mapping[str, float | None]
RankAnswer: TypeAlias = (
    Scores | Ranking | Failure | Delayed[Any] | Callable[[RankCall], Scores | Ranking]
)
ExplainAnswer: TypeAlias = (
    str
    | Explanation
    | Sequence[str | Failure | Delayed[Any]]
    | Failure
    | Delayed[Any]
    | Callable[[ExplainCall], str | Explanation]
)
RetrieveAnswer: TypeAlias = (
    Mapping[str, float]
    | Retrieval
    | Failure
    | Delayed[Any]
    | Callable[[RetrieveCall], Scores | Retrieval]
)
RecommendAnswer: TypeAlias = (
    Scores
    | Recommendation
    | Failure
    | Delayed[Any]
    | Callable[[RecommendCall], Scores | Recommendation]
)
Record: TypeAlias = Callable[[Call], None]


class FakeRanking(ranking_pb2_grpc.RankingServiceServicer):
    """Ranks, explains, retrieves and recommends as scripted."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.rankings = Script[RankAnswer](_default_scores)
        self.explanations = Script[ExplainAnswer](_default_text)
        self.retrievals = Script[RetrieveAnswer](_default_items)
        self.recommendations = Script[RecommendAnswer](_default_items)

    def Rank(
        self, request: ranking_pb2.RankRequest, context: grpc.ServicerContext
    ) -> ranking_pb2.RankResponse:
        """Answer with the next ranking of the script."""
        call = parse_rank(request, context)
        self._record(call)
        answer = play(self.rankings.take(), call, context)
        if isinstance(answer, Mapping):
            answer = _of_scores(answer, call)
        if not isinstance(answer, Ranking):
            fault(f"a ranking was scripted as {type(answer).__name__}", context)
        if not answer.explanations:
            answer = replace(answer, explanations=_default_explanations(answer, call))
        echo = answer.request_id or call.request_id
        return ranking_to_wire(replace(answer, request_id=echo))

    def Retrieve(
        self, request: ranking_pb2.RetrieveRequest, context: grpc.ServicerContext
    ) -> ranking_pb2.RetrieveResponse:
        """Answer with the next retrieval of the script."""
        call = parse_retrieve(request, context)
        self._record(call)
        answer = play(self.retrievals.take(), call, context)
        if isinstance(answer, Mapping):
            answer = make_retrieval(answer)
            answer = replace(answer, items=answer.items[: call.k])
        if not isinstance(answer, Retrieval):
            fault(f"a retrieval was scripted as {type(answer).__name__}", context)
        return retrieval_to_wire(replace(answer, request_id=answer.request_id or call.request_id))

    def Recommend(
        self, request: ranking_pb2.RecommendRequest, context: grpc.ServicerContext
    ) -> ranking_pb2.RecommendResponse:
        """Answer with the next recommendation of the script."""
        call = parse_recommend(request, context)
        self._record(call)
        answer = play(self.recommendations.take(), call, context)
        if isinstance(answer, Mapping):
            answer = _best_of(make_recommendation(answer), call.k)
        if not isinstance(answer, Recommendation):
            fault(f"a recommendation was scripted as {type(answer).__name__}", context)
        echo = answer.ranking.request_id or call.request_id
        ranking = replace(answer.ranking, request_id=echo)
        return recommendation_to_wire(replace(answer, ranking=ranking))

    def Explain(
        self, request: ranking_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> Iterator[ranking_pb2.ExplainResponse]:
        """Answer with the next explanation of the script, in pieces."""
        call = parse_explain(request, context)
        self._record(call)
        answer = play(self.explanations.take(), call, context)
        if not isinstance(answer, str | Explanation | Sequence):
            fault(f"an explanation was scripted as {type(answer).__name__}", context)
        whole = answer if isinstance(answer, Explanation) else None
        text = answer.text if isinstance(answer, Explanation) else answer
        pieces = _pieces(text, call) if isinstance(text, str) else text
        written = []
        for piece in pieces:
            written.append(str(play(piece, call, context)))
            chunk = ranking_pb2.ExplanationChunk(text=written[-1])
            yield ranking_pb2.ExplainResponse(chunk=chunk)
        final = whole or _whole("".join(written), call)
        yield explanation_to_wire(replace(final, request_id=final.request_id or call.request_id))


def _of_scores(scores: Scores, call: RankCall) -> Ranking:
    """Rank the items of the call; those without a score come last."""
    ranking = make_ranking({item_id: scores.get(item_id) for item_id in call.item_ids})
    top_k = call.options.top_k or len(ranking.items)
    return replace(ranking, items=ranking.items[:top_k])


def _default_scores(call: RankCall) -> Scores:
    return {item_id: default_score(item_id) for item_id in call.item_ids}


def _default_items(call: RetrieveCall | RecommendCall) -> Scores:
    """Score the items of an endless catalogue: "1", "2" and so on, but for those left out."""
    left_out = set(call.options.selection.exclude_item_ids)
    ids = (str(number) for number in range(1, call.k + len(left_out) + 1))
    return {item_id: -float(item_id) for item_id in ids if item_id not in left_out}


def _best_of(answer: Recommendation, k: int) -> Recommendation:
    ranking = replace(answer.ranking, items=answer.ranking.items[:k])
    return replace(answer, ranking=ranking)


def _default_explanations(ranking: Ranking, call: RankCall) -> tuple[ItemExplanation, ...]:
    """Explain the best items that have a score."""
    scored = [item for item in ranking.items[: call.options.explain_top_k or 0] if item.scored]
    names = {item.item_id: item.title or item.item_id for item in call.items}
    return tuple(
        make_item_explanation(
            item.item_id, _text_about(names.get(item.item_id, ""), item.score), score=item.score
        )
        for item in scored
    )


def _pieces(text: str, call: ExplainCall) -> list[str]:
    """Words, as a model writes them; a stored text comes whole."""
    return [text] if _is_stored(call) else re.findall(r"\s*\S+|\s+", text)


def _whole(text: str, call: ExplainCall) -> Explanation:
    if _is_stored(call):
        return make_stored_explanation(text)
    return make_explanation(text, score=default_score(call.item.item_id))


def _is_stored(call: ExplainCall) -> bool:
    return call.source is ExplanationSource.STORED


def _default_text(call: ExplainCall) -> str:
    return _text_about(call.item.title or call.item.item_id, default_score(call.item.item_id))


def _text_about(name: str, score: float) -> str:
    return f"The user will {'like' if score >= 0 else 'dislike'} {name}."

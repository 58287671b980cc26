"""RankingService: between the wire and the pipeline."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from rankloom_proto.v1 import ranking_pb2, ranking_pb2_grpc
from rankloom_server import logs
from rankloom_server.answers import RankAnswer, RankedItem, Timing, Weave
from rankloom_server.parse import parse_rank
from rankloom_server.pipeline import RankPipeline

SERVICE_NAME = ranking_pb2.DESCRIPTOR.services_by_name["RankingService"].full_name


class RankingService(ranking_pb2_grpc.RankingServiceServicer):
    """Answers from one pipeline; errors leave as exceptions."""

    def __init__(self, pipeline: RankPipeline, *, default_deadline_s: float) -> None:
        self._pipeline = pipeline
        self._default_deadline_s = default_deadline_s

    async def Rank(
        self, request: ranking_pb2.RankRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ranking_pb2.RankResponse:
        """One user, 1 to 500 candidates."""
        query = parse_rank(request, _host_of(context.peer()))
        logs.note(request_id=query.request_id, num_candidates=len(query.user.candidates))
        left_s: float | None = context.time_remaining()  # None where the call brings no deadline
        budget_s = self._default_deadline_s if left_s is None else left_s
        async with asyncio.timeout(budget_s):
            answer = await self._pipeline.rank(query, time.monotonic() + budget_s)
        _note(answer)
        return answer_to_wire(query.request_id, answer)


def _host_of(peer: str) -> str:
    """A peer's address without its port, which is new with every connection."""
    return peer.rpartition(":")[0]


def answer_to_wire(request_id: str, answer: RankAnswer) -> ranking_pb2.RankResponse:
    """The answer's message."""
    ranking, reason = answer.ranking, answer.ranking.step.reason
    reason_name = reason.name if reason else "UNSPECIFIED"
    return ranking_pb2.RankResponse(
        request_id=request_id,
        generation=ranking_pb2.Generation(
            number=answer.generation, bundle_digest=answer.bundle_digest
        ),
        weave=_weave_to_wire(ranking.weave),
        rung=ranking_pb2.Rung.Value(f"RUNG_{ranking.step.rung.name}"),
        rung_reason=ranking_pb2.RungReason.Value(f"RUNG_REASON_{reason_name}"),
        items=[_item_to_wire(rank, item) for rank, item in enumerate(ranking.items, 1)],
        timing=_timing_to_wire(ranking.timing),
    )


def _weave_to_wire(weave: Weave) -> ranking_pb2.Weave:
    route_name = weave.route.name if weave.route else "UNSPECIFIED"
    return ranking_pb2.Weave(
        route=ranking_pb2.Route.Value(f"ROUTE_{route_name}"),
        weights=[
            ranking_pb2.ExpertWeight(expert=each.expert, digest=each.digest, weight=each.weight)
            for each in weave.weights
        ],
        entropy=weave.entropy,
        cold=weave.cold,
        history_events=weave.num_events,
    )


def _item_to_wire(rank: int, item: RankedItem) -> ranking_pb2.RankedItem:
    return ranking_pb2.RankedItem(
        item_id=item.item_id,
        rank=rank,
        score=item.score,
        probability=item.probability,
        scored=item.scored,
    )


def _timing_to_wire(timing: Timing) -> ranking_pb2.Timing:
    return ranking_pb2.Timing(
        queue=_duration(timing.queue_s),
        features=_duration(timing.features_s),
        prompt=_duration(timing.prompt_s),
        model=_duration(timing.model_s),
        total=_duration(timing.total_s),
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _note(answer: RankAnswer) -> None:
    """Facts of the answer for the call's log line."""
    ranking, timing = answer.ranking, answer.ranking.timing
    logs.note(
        generation=answer.generation,
        rung=ranking.step.rung.name,
        rung_reason=ranking.step.reason.name if ranking.step.reason else None,
        route=ranking.weave.route.name if ranking.weave.route else None,
        cold=ranking.weave.cold,
        num_events=ranking.weave.num_events,
        features_ms=_ms(timing.features_s),
        prompt_ms=_ms(timing.prompt_s),
        queue_ms=_ms(timing.queue_s),
        model_ms=_ms(timing.model_s),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)

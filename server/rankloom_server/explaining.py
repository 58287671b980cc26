"""From features to words: the verdict first, as a ranking gives it, then the text after it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from rankloom_engine.calls import Terms
from rankloom_engine.errors import EngineFailedError
from rankloom_engine.explain import StopReason
from rankloom_features.provider import UserFeatures
from rankloom_server import logs
from rankloom_server.answers import Explanation, Verdict
from rankloom_server.errors import DegradedRefusedError, FeaturesUnavailableError
from rankloom_server.ladder import RungReason, step_after
from rankloom_server.parse import ExplainQuery
from rankloom_server.scoring import Served, prepare, score_prepared

EXPLAIN_RESERVE_S = 0.05  # of the deadline, for the last words' and the verdict's own way


@contextmanager
def top_rung_only() -> Iterator[None]:
    """What brings a ranking down a rung leaves nothing to explain: DegradedRefusedError."""
    try:
        yield
    except FeaturesUnavailableError as error:
        logs.note(features_failure=error.cause)
        raise DegradedRefusedError(RungReason.FEATURES_UNAVAILABLE.name) from error
    except EngineFailedError as error:
        logs.fault("engine_failed", error)
        raise DegradedRefusedError(RungReason.ENGINE_FAILED.name) from error


async def explain_with_features(
    served: Served,
    query: ExplainQuery,
    features: UserFeatures,
    fault: RungReason | None,
    deadline: float,
) -> AsyncGenerator[str | Explanation, None]:
    """Yields the text in pieces, and last what it told of.

    Raises DegradedRefusedError, WorkExpiredError, EngineFailedError or EngineClosedError.
    """
    step_after(fault, allow_degraded=query.ranking.allow_degraded)
    prepared = await prepare(served, query.ranking, features, fault)
    _, scores = await score_prepared(served, query.ranking, prepared, deadline)
    verdict = Verdict(float(scores.score[0]), float(scores.probability[0]))
    speech, num_tokens, stop = served.weaver.speech(), 0, StopReason.DEADLINE
    words = served.runner.explain(
        prepared.prompt,
        prepared.weights,
        liked=verdict.liked,
        wording=query.wording,
        terms=Terms(deadline - EXPLAIN_RESERVE_S, query.ranking.caller),
    )
    async with aclosing(words):
        async for piece in words:
            num_tokens += len(piece.token_ids)
            stop = piece.stop or stop
            if text := speech.add(piece.token_ids):
                yield text
    if text := speech.end():
        yield text
    yield Explanation(
        prepared.weave(),
        verdict,
        prepared.prompt.num_tokens,
        num_tokens,
        stop,
    )

"""From features to words: the verdict first, as a ranking gives it, then the text after it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from rankloom_engine.errors import EngineFailedError
from rankloom_engine.explain import StopReason
from rankloom_engine.sequence import RequestOptions
from rankloom_features.provider import UserFeatures
from rankloom_server import logs
from rankloom_server.answers import Explanation, Verdict
from rankloom_server.errors import FallbackRefusedError, FeaturesUnavailableError
from rankloom_server.fallback import FallbackReason, fallback_after
from rankloom_server.parse import ExplainQuery
from rankloom_server.scoring import Served, prepare, score_prepared

EXPLAIN_RESERVE_S = 0.05  # of the deadline, for the last words' and the verdict's own way


@contextmanager
def top_level_only() -> Iterator[None]:
    """Turns a failure that a ranking would fall back from into FallbackRefusedError."""
    try:
        yield
    except FeaturesUnavailableError as error:
        logs.note(features_failure=error.cause)
        raise FallbackRefusedError(FallbackReason.FEATURES_UNAVAILABLE.name) from error
    except EngineFailedError as error:
        logs.fault("engine_failed", error)
        raise FallbackRefusedError(FallbackReason.ENGINE_FAILED.name) from error


async def explain_with_features(
    served: Served,
    query: ExplainQuery,
    features: UserFeatures,
    fault: FallbackReason | None,
    deadline: float,
) -> AsyncGenerator[str | Explanation, None]:
    """Yields the text in pieces, and last what it told of.

    Raises FallbackRefusedError, WorkExpiredError, EngineFailedError or EngineClosedError.
    """
    fallback_after(fault, allow_fallback=query.ranking.allow_fallback)
    prepared = await prepare(served, query.ranking, features, fault)
    _, scores = await score_prepared(served, query.ranking, prepared, deadline)
    verdict = Verdict(float(scores.score[0]), float(scores.probability[0]))
    detokenizer, num_tokens, stop = served.weaver.detokenizer(), 0, StopReason.DEADLINE
    words = served.runner.explain(
        prepared.prompt,
        prepared.weights,
        liked=verdict.liked,
        sampling=query.sampling,
        options=RequestOptions(deadline - EXPLAIN_RESERVE_S, query.ranking.caller),
    )
    async with aclosing(words):
        async for piece in words:
            num_tokens += len(piece.token_ids)
            stop = piece.stop or stop
            if text := detokenizer.add(piece.token_ids):
                yield text
    if text := detokenizer.end():
        yield text
    yield Explanation(
        prepared.routing(),
        verdict,
        prepared.prompt.num_tokens,
        num_tokens,
        stop,
    )

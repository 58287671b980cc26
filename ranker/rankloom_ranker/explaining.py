"""From features to words: the verdict first, as a ranking gives it, then the text after it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from rankloom_engine.explain import Detokenizer, StopReason
from rankloom_engine.pool import EngineHandle
from rankloom_engine.sequence import RequestOptions
from rankloom_features.provider import UserFeatures
from rankloom_ranker.answers import Explanation, Verdict
from rankloom_ranker.fallback import FallbackReason, fallback_after
from rankloom_ranker.query import ExplainQuery
from rankloom_ranker.ranker import Ranker
from rankloom_ranker.ranking import prepare, score

EXPLAIN_RESERVE_S = 0.05  # of the deadline, for the last words and the verdict to arrive


class ExplanationWriter:
    """One explanation that is written while it is read.

    Iterate over ``texts()`` to its end, then ``final`` is set.
    """

    def __init__(
        self,
        ranker: Ranker,
        engine: EngineHandle,
        query: ExplainQuery,
        features: UserFeatures,
        fault: FallbackReason | None,
        deadline: float,
    ) -> None:
        """``fault``: why the user's vector cannot be used. Raises FallbackRefusedError."""
        fallback_after(fault, allow_fallback=query.ranking.allow_fallback)
        self._ranker, self._engine, self._query = ranker, engine, query
        self._features, self._fault, self._deadline = features, fault, deadline
        self._final: Explanation | None = None

    @property
    def final(self) -> Explanation:
        """The verdict, and how the text was made. Raises RuntimeError before the end."""
        if self._final is None:
            raise RuntimeError("the explanation has not been read to its end")
        return self._final

    async def texts(self) -> AsyncGenerator[str, None]:
        """Pieces of the text, each of whole characters.

        Raises WorkExpiredError, EngineFailedError or EngineClosedError.
        """
        query = self._query.ranking
        job = await prepare(self._ranker, query, self._features, self._fault)
        scores = (await score(self._ranker, self._engine, query, job, self._deadline)).scores
        verdict = Verdict(float(scores.score[0]), float(scores.probability[0]))
        detokenizer = Detokenizer(self._ranker.loaded.prompts.tokenizer)
        num_tokens, stop = 0, StopReason.DEADLINE
        chunks = self._engine.explain(
            job.prompt,
            job.weights,
            liked=verdict.liked,
            sampling=self._query.sampling,
            options=RequestOptions(self._deadline - EXPLAIN_RESERVE_S, query.caller),
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                num_tokens += len(chunk.token_ids)
                stop = chunk.stop or stop
                if text := detokenizer.add(chunk.token_ids):
                    yield text
        if text := detokenizer.end():
            yield text
        prompt_tokens = job.prompt.num_tokens
        self._final = Explanation(job.routing(), verdict, prompt_tokens, num_tokens, stop)

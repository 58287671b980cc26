"""From features to words: the verdict first, as a ranking gives it, then evidence and text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from rankloom_engine.explain import Detokenizer, StopReason
from rankloom_engine.pool import EngineHandle
from rankloom_engine.sequence import RequestOptions
from rankloom_features.provider import UserFeatures
from rankloom_ranker.answers import EventEvidence, Explanation, ItemExplanation, Ranking, Scores
from rankloom_ranker.citing import cited_ids, guide_of, to_cite
from rankloom_ranker.evidence import Ablations, ScoredQuery, evidence_of
from rankloom_ranker.fallback import FallbackReason, fallback_after
from rankloom_ranker.query import ExplainParams, ExplainQuery, RankQuery
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
        ablations: Ablations,
        deadline: float,
    ) -> None:
        """``fault``: why the user's vector cannot be used. Raises FallbackRefusedError."""
        fallback_after(fault, allow_fallback=query.ranking.allow_fallback)
        self._ranker, self._engine, self._query = ranker, engine, query
        self._features, self._fault, self._ablations = features, fault, ablations
        self._deadline = deadline
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
        query, params = self._query.ranking, self._query.params
        job = await prepare(self._ranker, query, self._features, self._fault)
        found = await score(self._ranker, self._engine, query, job, self._deadline)
        scored = ScoredQuery(query, self._features, job, found.scores)
        until = self._deadline - EXPLAIN_RESERVE_S
        [evidence] = await evidence_of(
            self._ranker, self._engine, scored, self._ablations, params.max_evidence, until
        )
        writer = TextWriter(self._ranker, self._engine, scored, 0, evidence, params, until)
        async with aclosing(writer.texts()) as texts:
            async for text in texts:
                yield text
        self._final = Explanation(
            job.routing(),
            scored.scores.verdict(0),
            job.prompt.num_tokens,
            writer.num_tokens,
            writer.stop,
            evidence,
        )


class TextWriter:
    """The text behind the verdict on one candidate. It is whole once ``texts()`` has ended.

    ``num_tokens``: of the text so far. ``stop``: why it ended.
    """

    def __init__(
        self,
        ranker: Ranker,
        engine: EngineHandle,
        scored: ScoredQuery,
        index: int,
        evidence: tuple[EventEvidence, ...],
        params: ExplainParams,
        deadline: float,
    ) -> None:
        self._engine, self._scored, self._index = engine, scored, index
        self._params, self._deadline = params, deadline
        loaded, self._liked = ranker.loaded, scored.scores.verdict(index).liked
        cited = to_cite(evidence, liked=self._liked)
        self._evidence = cited_ids(loaded, cited)
        items = scored.prompt_items(loaded.catalogue, index)
        self._guide = guide_of(loaded, cited, items, self._liked) if params.grounded else None
        self._text = self._guide or Detokenizer(loaded.prompts.tokenizer)
        self.num_tokens, self.stop = 0, StopReason.DEADLINE

    async def texts(self) -> AsyncGenerator[str, None]:
        """Pieces of the text, each of whole characters.

        Raises EngineFailedError or EngineClosedError.
        """
        job, scored = self._scored.job, self._scored
        chunks = self._engine.explain(
            job.prompt.of_candidate(self._index),
            job.weights,
            liked=self._liked,
            sampling=self._params.sampling,
            options=RequestOptions(self._deadline, scored.query.caller, began=scored.query.began),
            guide=self._guide,
            evidence=self._evidence,
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                self.num_tokens += len(chunk.token_ids)
                self.stop = chunk.stop or self.stop
                if text := self._text.add(chunk.token_ids):
                    yield text
        if text := self._text.end():
            yield text


async def explain_best(
    ranker: Ranker,
    engine: EngineHandle,
    query: RankQuery,
    features: UserFeatures,
    ranking: Ranking,
    ablations: Ablations,
    deadline: float,
) -> tuple[ItemExplanation, ...]:
    """Explains the best items of a ranking by the exact mixture, all at once, best first.

    Raises EngineFailedError or EngineClosedError.
    """
    best = [item.item_id for item in ranking.items[: query.explain_top_k] if item.scored]
    if ranking.record is None or not best:
        return ()
    ids = [item.item_id for item in query.user.candidates]
    scored = _part(ranker, query, features, ranking.record.scores, [ids.index(i) for i in best])
    params, until = query.explaining, deadline - EXPLAIN_RESERVE_S
    evidence = await evidence_of(ranker, engine, scored, ablations, params.max_evidence, until)
    writers = [
        TextWriter(ranker, engine, scored, index, events, params, until)
        for index, events in enumerate(evidence)
    ]
    texts = await asyncio.gather(*map(_whole, writers))
    return tuple(
        ItemExplanation(item_id, scored.scores.verdict(n), text, each.num_tokens, each.stop, events)
        for n, (item_id, text, each, events) in enumerate(
            zip(best, texts, writers, evidence, strict=True)
        )
    )


def _part(
    ranker: Ranker,
    query: RankQuery,
    features: UserFeatures,
    scores: Scores,
    indices: list[int],
) -> ScoredQuery:
    """The query about some of its candidates alone."""
    candidates = tuple(query.user.candidates[index] for index in indices)
    user = replace(query.user, candidates=candidates)
    part = replace(query, user=user, allow_partial=False, prefilter=None)
    own = replace(features, tabular=features.tabular[indices])
    found = Scores(scores.score[indices], scores.probability[indices])
    return ScoredQuery(part, own, ranker.prepare(part, own), found)


async def _whole(writer: TextWriter) -> str:
    async with aclosing(writer.texts()) as texts:
        return "".join([text async for text in texts])

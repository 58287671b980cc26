"""One ranking on its way through the model, from submission to its margins."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import NDArray

from rankloom_engine.attention import PrefixKV
from rankloom_engine.errors import EngineFailedError, WorkExpiredError
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import ForwardInput, ForwardOutput
from rankloom_engine.prompt import Prompt
from rankloom_engine.scheduler import Chunk, Kind, Sequence


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """How a request is served. ``deadline``: on time.monotonic's clock.

    ``partial``: at the deadline, the candidates that have been scored by then are the answer.
    ``kind``: what the scores are for; it decides who goes first. ``began``: when the call did, on
    that clock: where a user was forgotten since, its prefix is not kept.
    """

    deadline: float = inf
    caller: str = ""
    partial: bool = False
    kind: Kind = Kind.RANKING
    began: float = field(default_factory=time.monotonic, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """(candidates,) float32 margins, NaN where time ran out, and where the seconds went.

    ``reused``: the prefix was kept from an earlier request.
    """

    margins: NDArray[np.float32]
    queue_s: float
    model_s: float
    reused: bool


class ScoreRequest(Sequence):
    """A prompt's candidates to score with a user's mixture.

    ``margins``: (candidates,) float32, NaN where the model has not been yet. ``cached``: the
    prefix's keys and values once a pass has computed them. ``prefix_key``: the prefix's key
    in the prefix cache; None where it is not kept.
    """

    def __init__(
        self,
        prompt: Prompt,
        weights: MixtureWeights,
        options: RequestOptions | None = None,
        cached: PrefixKV | None = None,
        prefix_key: bytes | None = None,
    ) -> None:
        options = options or RequestOptions()
        super().__init__(
            prefix_tokens=len(prompt.prefix) if cached is None else 0,
            candidate_tokens=tuple(map(len, prompt.candidates)),
            deadline=options.deadline,
            caller=options.caller,
            kind=options.kind,
            partial=options.partial,
        )
        self.prompt, self.weights, self.cached = prompt, weights, cached
        self.prefix_key, self.began = prefix_key, options.began
        self.margins = np.full(len(prompt.candidates), np.nan, dtype=np.float32)
        self._reused = cached is not None
        self._submitted_at = time.monotonic()
        self._started_at: float | None = None
        self._model_s = 0.0
        self._failure: Exception | None = None
        self._started, self._ended = asyncio.Event(), asyncio.Event()

    async def started(self) -> bool:
        """Waits until the model begins; False if the request ended before that.

        While the model runs on its thread, the caller can compute what it needs afterwards.
        """
        await self._started.wait()
        return self._started_at is not None

    async def result(self) -> Scored:
        """Waits for the end. Raises WorkExpiredError or EngineFailedError."""
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure
        started_at = self._submitted_at if self._started_at is None else self._started_at
        return Scored(
            # A pass that is still running may write to a partial answer's margins.
            self.margins.copy(),
            queue_s=started_at - self._submitted_at,
            model_s=self._model_s,
            reused=self._reused,
        )

    def start(self, now: float) -> None:
        """A pass with a chunk of the request begins."""
        if self._started_at is None:
            self._started_at = now
            self._started.set()

    def forward_input(self, chunk: Chunk[ScoreRequest]) -> ForwardInput:
        """The row of a chunk; a prefix is kept for further chunks and for the cache."""
        part, visible = slice(chunk.start, chunk.stop), self.prompt.visible
        return ForwardInput(
            self.prompt.prefix if self.cached is None else self.cached,
            self.prompt.candidates[part],
            self.weights,
            keep_prefix=self.prefix_key is not None or not chunk.is_last,
            visible=None if visible is None else visible[part],
        )

    def take(self, chunk: Chunk[ScoreRequest], output: ForwardOutput, model_s: float = 0.0) -> None:
        """Stores the margins of a chunk, whose pass took ``model_s``."""
        self.margins[chunk.start : chunk.stop] = output.margins
        self.cached = self.cached or output.prefix
        self._model_s += model_s
        if chunk.is_last:
            self._end()

    def expire(self) -> None:
        """At the deadline: the end, with the margins so far if the caller takes a part."""
        self._end(None if self.partial else WorkExpiredError("the deadline comes first"))

    def fail(self, failure: EngineFailedError) -> None:
        """The end, without margins."""
        self._end(failure)

    def _end(self, failure: Exception | None = None) -> None:
        if not self._ended.is_set():
            self._failure = failure
            self._started.set()
            self._ended.set()

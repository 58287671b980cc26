"""The one model thread: work from many requests goes through it in micro-batches."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rankloom_engine.calls import Call, Scored, Speaker, Terms
from rankloom_engine.errors import (
    EngineClosedError,
    EngineFailedError,
    NonFiniteError,
)
from rankloom_engine.explain import Explanation, Wording, Words
from rankloom_engine.isolation import isolated
from rankloom_engine.mixture import Weights
from rankloom_engine.model import Answer, Decoder
from rankloom_engine.prefix_cache import PrefixCache, prefix_key
from rankloom_engine.prompt import Prompt
from rankloom_engine.scheduler import Kind, MicroBatch, Piece, Scheduler
from rankloom_engine.work import Work

if TYPE_CHECKING:
    from rankloom_adapters.expert import Expert
    from rankloom_engine.mixture import Mixture

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What a micro-batch and the kept prefixes may take.

    ``max_piece_tokens``: candidate tokens of one request in one micro-batch.
    """

    max_batch_tokens: int = 2048
    max_piece_tokens: int = 1024
    prefix_cache_bytes: int = 256 << 20


def model_thread() -> ThreadPoolExecutor:
    """The thread on which models run: two at a time would only take turns on the cores."""
    return ThreadPoolExecutor(1, thread_name_prefix="rankloom-model")


class EngineRunner:
    """Scores prompts on a model thread; use it from one event loop."""

    def __init__(
        self,
        decoder: Decoder,
        limits: EngineLimits | None = None,
        stops: Set[int] = frozenset(),
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        """``stops``: tokens that end an explanation. ``thread``: one that others use too."""
        limits = limits or EngineLimits()
        self._decoder, self._stops = decoder, stops
        self._max_tokens = limits.max_batch_tokens
        self._scheduler = Scheduler(limits.max_batch_tokens, limits.max_piece_tokens)
        self.prefixes = PrefixCache(limits.prefix_cache_bytes)
        self._steps = {Kind.RANKING: self._rank, Kind.EXPLANATION: self._speak}
        self._speakers: dict[int, Speaker] = {}
        self._calls: dict[int, Call] = {}
        self._keys = itertools.count()
        self._arrived = asyncio.Event()
        self._thread = thread or model_thread()
        self._owns_thread = thread is None
        self._loop: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of the experts, in the order of the weights."""
        return tuple(self._decoder.mixture.ranks) if self._decoder.mixture else ()

    @property
    def expert_bytes(self) -> int:
        """Memory of the experts."""
        return self._decoder.mixture.num_bytes if self._decoder.mixture else 0

    async def start(self) -> None:
        """Begins to take work."""
        self._loop = asyncio.create_task(self._run())

    async def warm_up(self) -> None:
        """Runs what requests may run, on the model thread, before there are any.

        A pass at a time: other decoders' requests, which share the thread, go in between.
        """
        loop = asyncio.get_running_loop()
        for step in self._decoder.warm_up_steps(self._max_tokens):
            await loop.run_in_executor(self._thread, step)

    async def load(self, slot: int, expert: Expert) -> None:
        """Puts an expert into a slot that no request uses, between two micro-batches.

        Raises ExpertError where it does not fit.
        """
        mixture = cast("Mixture", self._decoder.mixture)
        await asyncio.get_running_loop().run_in_executor(self._thread, mixture.load, slot, expert)

    async def close(self) -> None:
        """Finishes what was submitted, then stops the thread."""
        self._closing = True
        self._arrived.set()
        if self._loop is not None:
            await self._loop
        if self._owns_thread:
            self._thread.shutdown()

    async def score(
        self,
        prompt: Prompt,
        weights: Weights,
        terms: Terms | None = None,
        beside: Callable[[], object] | None = None,
    ) -> Scored:
        """Margins of one request with its weights over the experts.

        Candidates are scored in their order. ``beside`` is called on the event loop when the
        model has begun, which leaves that thread nothing else to do. Raises WorkExpiredError,
        EngineFailedError or EngineClosedError. A cancelled call leaves before the next
        micro-batch.
        """
        if self._closing or self._loop is None:
            raise EngineClosedError("the engine takes no work")
        key, call = self._submit(prompt, weights, terms or Terms(), beside)
        try:
            await call.finished()
        finally:
            self._forget(key)
        return call.scored()

    async def explain(
        self,
        prompt: Prompt,
        weights: Weights,
        *,
        liked: bool,
        wording: Wording,
        terms: Terms | None = None,
    ) -> AsyncGenerator[Words, None]:
        """Words after the verdict on a prompt's one candidate, as they are decoded.

        At the deadline the words end. Raises EngineFailedError or EngineClosedError.
        Rankings go first: a step is taken when none waits. Closing it stops the work.
        """
        if self._closing or self._loop is None:
            raise EngineClosedError("the engine takes no work")
        terms = terms or Terms()
        key, speaker = self._begin_to_speak(prompt, weights, wording, terms, liked=liked)
        try:
            stop = None
            while stop is None:
                words = await speaker.words()
                yield words
                stop = words.stop
        finally:
            self._scheduler.remove(key)
            self._speakers.pop(key, None)

    def _begin_to_speak(
        self, prompt: Prompt, weights: Weights, wording: Wording, terms: Terms, *, liked: bool
    ) -> tuple[int, Speaker]:
        name = self._prefix_key(prompt, weights)
        held = None if name is None else self.prefixes.get(name)
        verdict = self._decoder.yes if liked else self._decoder.no
        text = Explanation(prompt, weights, verdict, self._stops, wording, held)
        key, speaker = next(self._keys), Speaker(text, terms, asyncio.Queue())
        self._speakers[key] = speaker
        self._let_speak(key, speaker)
        return key, speaker

    def _let_speak(self, key: int, speaker: Speaker) -> None:
        """Queues the next step of an explanation."""
        self._scheduler.add(speaker.job(key))
        self._arrived.set()

    def _submit(
        self, prompt: Prompt, weights: Weights, terms: Terms, beside: Callable[[], object] | None
    ) -> tuple[int, Call]:
        name = self._prefix_key(prompt, weights)
        held = None if name is None else self.prefixes.get(name)
        key, call = next(self._keys), Call(Work(prompt, weights, held), name, terms, beside)
        self._calls[key] = call
        self._scheduler.add(call.job(key))
        self._arrived.set()
        return key, call

    def _prefix_key(self, prompt: Prompt, weights: Weights) -> bytes | None:
        if not self.prefixes.max_bytes or self._decoder.mixture is None:
            return None
        experts = self._decoder.mixture.keys
        return prefix_key(self._decoder.digest, experts, weights, prompt.prefix)

    def _forget(self, key: int) -> None:
        self._scheduler.remove(key)
        self._calls.pop(key, None)

    async def _run(self) -> None:
        while not (self._closing and not self.num_waiting):
            await self._arrived.wait()
            self._arrived.clear()
            while self.num_waiting:
                batch = self._scheduler.take(time.monotonic())
                await self._steps[batch.kind](batch)

    @property
    def num_waiting(self) -> int:
        """Rankings and explanations with work left that the model has not begun."""
        return len(self._scheduler)

    async def _speak(self, batch: MicroBatch) -> None:
        """One more token of some explanations; the expired ones know it themselves."""
        speakers = [(piece.key, self._speakers[piece.key]) for piece in batch.pieces]
        if not speakers:
            return
        texts = [speaker.text.more() for _, speaker in speakers]
        found = await self._on_thread(self._decoder.read, texts, lambda n: _is_finite(n.logits))
        for (key, speaker), token in zip(speakers, found, strict=True):
            if isinstance(token, EngineFailedError):
                speaker.queue.put_nowait(token)
            elif speaker.take(token) and key in self._speakers:
                self._let_speak(key, speaker)

    async def _rank(self, batch: MicroBatch) -> None:
        """One pass of some rankings' pieces."""
        for key in batch.expired:
            self._calls[key].expire()
        pieces = [(self._calls[piece.key], piece) for piece in batch.pieces]
        if not pieces:
            return
        started = time.monotonic()
        asks = [call.work.ask(piece, keep_prefix=call.key is not None) for call, piece in pieces]
        for call, _ in pieces:
            call.first_started = call.first_started or started
        answering = self._on_thread(
            self._decoder.answer, asks, lambda answer: _is_finite(answer.margins)
        )
        for call, _ in pieces:
            call.work_beside()
        answers = await answering
        for (call, piece), answer in zip(pieces, answers, strict=True):
            call.model_s += time.monotonic() - started
            self._deliver(call, piece, answer)

    def _on_thread(
        self,
        run: Callable[[Sequence[In]], Sequence[Out]],
        work: Sequence[In],
        is_sound: Callable[[Out], bool],
    ) -> asyncio.Future[list[Out | EngineFailedError]]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, isolated, run, work, is_sound)

    def _deliver(self, call: Call, piece: Piece, answer: Answer | EngineFailedError) -> None:
        if isinstance(answer, EngineFailedError):
            self._give_up(call, piece, answer)
        elif not _is_finite(answer.margins):
            self._give_up(call, piece, NonFiniteError("the model gave a non-finite score"))
        else:
            call.work.take(piece, answer)
            if call.key is not None and call.work.held is not None:
                self.prefixes.put(call.key, call.work.held)
            if piece.last:
                call.finish()

    def _give_up(self, call: Call, piece: Piece, failure: EngineFailedError) -> None:
        self._scheduler.remove(piece.key)
        call.fail(failure)


def _is_finite(values: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(values).all())

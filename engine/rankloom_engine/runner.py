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

from rankloom_engine.calls import Call, DecodeRequest, RequestOptions, Scored
from rankloom_engine.errors import (
    EngineClosedError,
    EngineFailedError,
    NonFiniteError,
)
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.explain import Explanation, SamplingParams, TokenChunk
from rankloom_engine.isolation import isolated
from rankloom_engine.model import Answer, Decoder
from rankloom_engine.prefix_cache import PrefixCache, prefix_key
from rankloom_engine.prompt import Prompt
from rankloom_engine.scheduler import Kind, MicroBatch, Piece, Scheduler
from rankloom_engine.work import Work

if TYPE_CHECKING:
    from rankloom_adapters.expert import Expert
    from rankloom_engine.expert_bank import ExpertBank

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
        self._speakers: dict[int, DecodeRequest] = {}
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
        return tuple(self._decoder.bank.ranks) if self._decoder.bank else ()

    @property
    def expert_bytes(self) -> int:
        """Memory of the experts."""
        return self._decoder.bank.num_bytes if self._decoder.bank else 0

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
        bank = cast("ExpertBank", self._decoder.bank)
        await asyncio.get_running_loop().run_in_executor(self._thread, bank.load, slot, expert)

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
        weights: MixtureWeights,
        options: RequestOptions | None = None,
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
        key, call = self._submit(prompt, weights, options or RequestOptions(), beside)
        try:
            await call.finished()
        finally:
            self._forget(key)
        return call.scored()

    async def explain(
        self,
        prompt: Prompt,
        weights: MixtureWeights,
        *,
        liked: bool,
        sampling: SamplingParams,
        options: RequestOptions | None = None,
    ) -> AsyncGenerator[TokenChunk, None]:
        """Words after the verdict on a prompt's one candidate, as they are decoded.

        At the deadline the words end. Raises EngineFailedError or EngineClosedError.
        Rankings go first: a step is taken when none waits. Closing it stops the work.
        """
        if self._closing or self._loop is None:
            raise EngineClosedError("the engine takes no work")
        options = options or RequestOptions()
        key, request = self._begin_to_speak(prompt, weights, sampling, options, liked=liked)
        try:
            stop = None
            while stop is None:
                words = await request.words()
                yield words
                stop = words.stop
        finally:
            self._scheduler.remove(key)
            self._speakers.pop(key, None)

    def _begin_to_speak(
        self,
        prompt: Prompt,
        weights: MixtureWeights,
        sampling: SamplingParams,
        options: RequestOptions,
        *,
        liked: bool,
    ) -> tuple[int, DecodeRequest]:
        name = self._prefix_key(prompt, weights)
        cached = None if name is None else self.prefixes.get(name)
        verdict = self._decoder.yes if liked else self._decoder.no
        text = Explanation(prompt, weights, verdict, self._stops, sampling, cached)
        key, request = next(self._keys), DecodeRequest(text, options, asyncio.Queue())
        self._speakers[key] = request
        self._let_speak(key, request)
        return key, request

    def _let_speak(self, key: int, request: DecodeRequest) -> None:
        """Queues the next step of an explanation."""
        self._scheduler.add(request.job(key))
        self._arrived.set()

    def _submit(
        self,
        prompt: Prompt,
        weights: MixtureWeights,
        options: RequestOptions,
        beside: Callable[[], object] | None,
    ) -> tuple[int, Call]:
        name = self._prefix_key(prompt, weights)
        cached = None if name is None else self.prefixes.get(name)
        key, call = next(self._keys), Call(Work(prompt, weights, cached), name, options, beside)
        self._calls[key] = call
        self._scheduler.add(call.job(key))
        self._arrived.set()
        return key, call

    def _prefix_key(self, prompt: Prompt, weights: MixtureWeights) -> bytes | None:
        if not self.prefixes.max_bytes or self._decoder.bank is None:
            return None
        experts = self._decoder.bank.keys
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
        requests = [(piece.key, self._speakers[piece.key]) for piece in batch.pieces]
        if not requests:
            return
        texts = [request.text.more() for _, request in requests]
        found = await self._on_thread(self._decoder.read, texts, lambda n: _is_finite(n.logits))
        for (key, request), token in zip(requests, found, strict=True):
            if isinstance(token, EngineFailedError):
                request.queue.put_nowait(token)
            elif request.take(token) and key in self._speakers:
                self._let_speak(key, request)

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
            if call.key is not None and call.work.cached is not None:
                self.prefixes.put(call.key, call.work.cached)
            if piece.last:
                call.finish()

    def _give_up(self, call: Call, piece: Piece, failure: EngineFailedError) -> None:
        self._scheduler.remove(piece.key)
        call.fail(failure)


def _is_finite(values: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(values).all())

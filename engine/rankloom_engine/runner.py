"""Chunks of many requests go through the model in micro-batches, on the model thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, cast

from rankloom_engine.attention import PrefixKV
from rankloom_engine.errors import (
    EngineClosedError,
    EngineFailedError,
    EngineOverloadedError,
)
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.explain import DecodeRequest, SamplingParams, TokenChunk, TokenGuide
from rankloom_engine.isolation import isolated
from rankloom_engine.model import Decoder
from rankloom_engine.model_thread import ModelThread
from rankloom_engine.prefix_cache import PrefixCache, prefix_key
from rankloom_engine.prompt import Prompt
from rankloom_engine.scheduler import Kind, MicroBatch, Scheduler
from rankloom_engine.sequence import RequestOptions, Scored, ScoreRequest
from rankloom_engine.throughput import Throughput

if TYPE_CHECKING:
    from rankloom_adapters.expert import Expert
    from rankloom_engine.expert_bank import ExpertBank

CLOSE_S = 1.0  # for the pass that runs; whoever waited for it has gone
_SIZE_WEIGHT = 0.1  # of a new request in the mean size of requests


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Sizes of a micro-batch and of the prefix cache.

    ``max_chunk_tokens``: candidate tokens of one request in one micro-batch.
    """

    max_batch_tokens: int = 2048
    max_chunk_tokens: int = 1024
    prefix_cache_bytes: int = 256 << 20


class EngineRunner:
    """Scores prompts and decodes explanations on a model thread. Use it from one event loop."""

    def __init__(
        self,
        decoder: Decoder,
        limits: EngineLimits | None = None,
        stops: Set[int] = frozenset(),
        thread: ModelThread | None = None,
    ) -> None:
        """``stops``: tokens that end an explanation. ``thread``: one that others use too."""
        limits = limits or EngineLimits()
        self._decoder, self._stops = decoder, stops
        self._max_tokens = limits.max_batch_tokens
        self._scheduler: Scheduler[Any] = Scheduler(
            limits.max_batch_tokens, limits.max_chunk_tokens
        )
        self.prefixes = PrefixCache(limits.prefix_cache_bytes)
        self._arrived = asyncio.Event()
        self._thread = thread or ModelThread()
        self._owns_thread = thread is None
        self._loop: asyncio.Task[None] | None = None
        self._closing = False
        self._throughput = Throughput()
        self._request_tokens = 0.0  # of a usual request
        self._running: MicroBatch[Any] | None = None
        self._running_until = 0.0  # as expected

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of the experts, in the order of the weights."""
        return tuple(self._decoder.bank.ranks) if self._decoder.bank else ()

    @property
    def expert_bytes(self) -> int:
        """Memory of all slots."""
        return self._decoder.bank.num_bytes if self._decoder.bank else 0

    @property
    def num_waiting(self) -> int:
        """Rankings and explanations with work that the model has not begun."""
        return len(self._scheduler)

    @property
    def is_alive(self) -> bool:
        """Whether work that was submitted goes on."""
        return self._thread.is_alive and self._loop is not None and not self._loop.done()

    async def start(self) -> None:
        """Begins to take work."""
        self._loop = asyncio.create_task(self._run())

    async def warm_up(self) -> None:
        """Runs what requests may run, on the model thread, before there are any.

        One pass at a time: requests of other decoders on the thread go in between.
        """
        for step in self._decoder.warm_up_steps(self._max_tokens):
            await self._thread.run(step)

    async def load(self, slot: int, expert: Expert) -> None:
        """Puts an expert into a slot that no request uses, between two micro-batches.

        Raises ExpertError if it does not fit.
        """
        bank = cast("ExpertBank", self._decoder.bank)
        await self._thread.run(bank.load, slot, expert)

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Finishes what was submitted, then stops the thread.

        What has not ended by the timeout fails, and a thread that is still busy is left alone.
        """
        self._closing = True
        self._arrived.set()
        if self._loop is not None:
            ended, _ = await asyncio.wait({self._loop}, timeout=timeout_s)
            if not ended:
                self._loop.cancel()
                failure = EngineFailedError("the engine was closed while the model was busy")
                self._fail_running(failure)
                for request in self._scheduler.clear():
                    request.fail(failure)
        if self._owns_thread:
            await self._thread.close(timeout_s)

    def check_room(self, options: RequestOptions, num_tokens: float | None = None) -> None:
        """Raises EngineOverloadedError where a request of this size would end too late.

        ``num_tokens``: by default those of a usual request. Never refuses for an idle model, so
        that a wrong estimate is corrected, nor a caller who takes a part of the answer.
        """
        is_idle = self._running is None and not self.num_waiting
        if is_idle or options.partial or options.deadline == inf:
            return
        size = round(self._request_tokens if num_tokens is None else num_tokens)
        ahead = self._scheduler.num_tokens_until(options.caller, options.deadline, size)
        free_at = max(time.monotonic(), self._running_until)
        excess_s = free_at + self._throughput.seconds(ahead) - options.deadline
        if excess_s > 0.0:
            raise EngineOverloadedError(excess_s)

    async def score(
        self, prompt: Prompt, weights: MixtureWeights, options: RequestOptions | None = None
    ) -> Scored:
        """Submits a request and waits for its result; see ``submit``."""
        with self.submit(prompt, weights, options) as request:
            return await request.result()

    @contextmanager
    def submit(
        self, prompt: Prompt, weights: MixtureWeights, options: RequestOptions | None = None
    ) -> Iterator[ScoreRequest]:
        """Queues a prompt's candidates, to be scored in their order with the experts' weights.

        ``started`` of the request waits for the model, ``result`` for the margins. Leaving the
        block removes the request before the next micro-batch if it has not ended. Raises
        EngineClosedError or EngineOverloadedError.
        """
        self._check_open()
        key, cached = self._lookup(prompt, weights)
        request = ScoreRequest(prompt, weights, options, cached, key)
        if request.kind is Kind.EVIDENCE:
            request.prefix_key = None  # a history without one event is not asked for again
        else:
            self._request_tokens += _SIZE_WEIGHT * (request.tokens_left - self._request_tokens)
        self.check_room(options or RequestOptions(), request.tokens_left)
        self._enqueue(request)
        late = None
        if request.deadline < inf:
            left_s = max(request.deadline - time.monotonic(), 0.0)
            late = asyncio.get_running_loop().call_later(left_s, request.expire)
        try:
            yield request
        finally:
            if late is not None:
                late.cancel()
            self._scheduler.remove(request)

    async def explain(
        self,
        prompt: Prompt,
        weights: MixtureWeights,
        *,
        liked: bool,
        sampling: SamplingParams,
        options: RequestOptions | None = None,
        guide: TokenGuide | None = None,
        evidence: Sequence[int] = (),
    ) -> AsyncGenerator[TokenChunk, None]:
        """Tokens after the verdict on a prompt's one candidate, as they are decoded.

        They end at the deadline. Rankings go first: a step runs when no ranking waits. Closing
        the generator stops the work. ``guide``: see DecodeRequest; it is used on the event loop.
        ``evidence``: tokens that stand between the verdict and the words. Raises
        EngineFailedError or EngineClosedError.
        """
        self._check_open()
        verdict = self._decoder.yes if liked else self._decoder.no
        _, cached = self._lookup(prompt, weights)
        behind = (verdict, *evidence)
        request = DecodeRequest(
            prompt, weights, behind, self._stops, sampling, options, cached, guide
        )
        self._enqueue(request)
        try:
            stop = None
            while stop is None:
                chunk = await request.next_tokens()
                yield chunk
                stop = chunk.stop
        finally:
            request.close()
            self._scheduler.remove(request)

    def _check_open(self) -> None:
        if self._closing or self._loop is None:
            raise EngineClosedError("the engine takes no work: it is not started, or is closing")

    def _lookup(
        self, prompt: Prompt, weights: MixtureWeights
    ) -> tuple[bytes | None, PrefixKV | None]:
        """The prefix's key and the cached prefix; no key where prefixes are not kept."""
        if not self.prefixes.max_bytes or self._decoder.bank is None:
            return None, None
        key = prefix_key(self._decoder.digest, self._decoder.bank.keys, weights, prompt.prefix)
        return key, self.prefixes.get(key)

    def _enqueue(self, request: ScoreRequest | DecodeRequest) -> None:
        self._scheduler.add(request)
        self._arrived.set()

    async def _run(self) -> None:
        while not (self._closing and not self.num_waiting):
            await self._arrived.wait()
            self._arrived.clear()
            began = time.monotonic()
            while self.num_waiting:
                began = await self._step(began)

    async def _step(self, began: float) -> float:
        """One micro-batch, and when it ended; ``began``: when the model was free for it."""
        try:
            self._running = batch = self._scheduler.schedule(time.monotonic(), self._throughput)
            pass_s = self._throughput.seconds(batch.num_tokens)
            self._running_until = time.monotonic() + pass_s
            await (self._decode if batch.kind is Kind.EXPLANATION else self._score)(batch)
        except Exception as error:  # outside the model, whose errors fail one request
            failure = EngineFailedError("the engine failed outside the model")
            failure.__cause__ = error
            self._fail_running(failure)
            return time.monotonic()
        finally:
            self._running, self._running_until = None, 0.0
        ended = time.monotonic()
        if batch.chunks and batch.kind is not Kind.EXPLANATION:
            self._throughput.learn(batch.num_tokens, ended - began, is_full=batch.is_full)
        return ended

    def _fail_running(self, failure: EngineFailedError) -> None:
        """Ends the requests of the micro-batch; without one, all that wait."""
        if self._running is None:
            requests = self._scheduler.clear()
        else:
            requests = tuple(chunk.sequence for chunk in self._running.chunks)
        for request in requests:
            self._scheduler.remove(request)
            request.fail(failure)

    async def _score(self, batch: MicroBatch[ScoreRequest]) -> None:
        """One pass over chunks of rankings or evidence."""
        for request in batch.expired:
            request.expire()
        if not batch.chunks:
            return
        started_at = time.monotonic()
        inputs = [chunk.sequence.forward_input(chunk) for chunk in batch.chunks]
        running = self._thread.run(isolated, self._decoder.forward, inputs)
        for chunk in batch.chunks:
            chunk.sequence.start(started_at)
        outputs = await running
        pass_s = time.monotonic() - started_at
        for chunk, output in zip(batch.chunks, outputs, strict=True):
            request = chunk.sequence
            if isinstance(output, EngineFailedError):
                self._scheduler.remove(request)
                request.fail(output)
                continue
            request.take(chunk, output, pass_s)
            if request.prefix_key is not None and request.cached is not None:
                self.prefixes.put(request.prefix_key, request.cached, request.began)

    async def _decode(self, batch: MicroBatch[DecodeRequest]) -> None:
        """One more token of some explanations; expired ones end by themselves."""
        requests = [chunk.sequence for chunk in batch.chunks]
        if not requests:
            return
        inputs = [request.decode_input() for request in requests]
        outputs = await self._thread.run(isolated, self._decoder.decode, inputs)
        for request, output in zip(requests, outputs, strict=True):
            if isinstance(output, EngineFailedError):
                request.fail(output)
                continue
            request.take(output)
            if request.is_open:
                self._enqueue(request)

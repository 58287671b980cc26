"""The model thread: chunks of many requests go through the model in micro-batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, cast

from rankloom_engine.attention import PrefixKV
from rankloom_engine.errors import EngineClosedError, EngineFailedError
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.explain import DecodeRequest, SamplingParams, TokenChunk
from rankloom_engine.isolation import isolated
from rankloom_engine.model import Decoder
from rankloom_engine.prefix_cache import PrefixCache, prefix_key
from rankloom_engine.prompt import Prompt
from rankloom_engine.scheduler import Kind, MicroBatch, Scheduler
from rankloom_engine.sequence import RequestOptions, Scored, ScoreRequest

if TYPE_CHECKING:
    from rankloom_adapters.expert import Expert
    from rankloom_engine.expert_bank import ExpertBank


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Sizes of a micro-batch and of the prefix cache.

    ``max_chunk_tokens``: candidate tokens of one request in one micro-batch.
    """

    max_batch_tokens: int = 2048
    max_chunk_tokens: int = 1024
    prefix_cache_bytes: int = 256 << 20


def model_thread() -> ThreadPoolExecutor:
    """The thread on which models run: two at a time would only take turns on the cores."""
    return ThreadPoolExecutor(1, thread_name_prefix="rankloom-model")


class EngineRunner:
    """Scores prompts and decodes explanations on a model thread. Use it from one event loop."""

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
        self._scheduler: Scheduler[Any] = Scheduler(
            limits.max_batch_tokens, limits.max_chunk_tokens
        )
        self.prefixes = PrefixCache(limits.prefix_cache_bytes)
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
        """Memory of all slots."""
        return self._decoder.bank.num_bytes if self._decoder.bank else 0

    @property
    def num_waiting(self) -> int:
        """Rankings and explanations with work that the model has not begun."""
        return len(self._scheduler)

    async def start(self) -> None:
        """Begins to take work."""
        self._loop = asyncio.create_task(self._run())

    async def warm_up(self) -> None:
        """Runs what requests may run, on the model thread, before there are any.

        One pass at a time: requests of other decoders on the thread go in between.
        """
        loop = asyncio.get_running_loop()
        for step in self._decoder.warm_up_steps(self._max_tokens):
            await loop.run_in_executor(self._thread, step)

    async def load(self, slot: int, expert: Expert) -> None:
        """Puts an expert into a slot that no request uses, between two micro-batches.

        Raises ExpertError if it does not fit.
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
        EngineClosedError.
        """
        self._check_open()
        key, cached = self._lookup(prompt, weights)
        request = ScoreRequest(prompt, weights, options, cached, key)
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
    ) -> AsyncGenerator[TokenChunk, None]:
        """Tokens after the verdict on a prompt's one candidate, as they are decoded.

        They end at the deadline. Rankings go first: a step runs when no ranking waits. Closing
        the generator stops the work. Raises EngineFailedError or EngineClosedError.
        """
        self._check_open()
        verdict = self._decoder.yes if liked else self._decoder.no
        _, cached = self._lookup(prompt, weights)
        request = DecodeRequest(prompt, weights, verdict, self._stops, sampling, options, cached)
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
            while self.num_waiting:
                batch = self._scheduler.schedule(time.monotonic())
                step = self._rank if batch.kind is Kind.RANKING else self._decode
                await step(batch)

    async def _rank(self, batch: MicroBatch[ScoreRequest]) -> None:
        """One pass over chunks of rankings."""
        for request in batch.expired:
            request.expire()
        if not batch.chunks:
            return
        started_at = time.monotonic()
        inputs = [chunk.sequence.forward_input(chunk) for chunk in batch.chunks]
        running = asyncio.get_running_loop().run_in_executor(
            self._thread, isolated, self._decoder.forward, inputs
        )
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
                self.prefixes.put(request.prefix_key, request.cached)

    async def _decode(self, batch: MicroBatch[DecodeRequest]) -> None:
        """One more token of some explanations; expired ones end by themselves."""
        requests = [chunk.sequence for chunk in batch.chunks]
        if not requests:
            return
        inputs = [request.decode_input() for request in requests]
        outputs = await asyncio.get_running_loop().run_in_executor(
            self._thread, isolated, self._decoder.decode, inputs
        )
        for request, output in zip(requests, outputs, strict=True):
            if isinstance(output, EngineFailedError):
                request.fail(output)
                continue
            request.take(output)
            if request.is_open:
                self._enqueue(request)

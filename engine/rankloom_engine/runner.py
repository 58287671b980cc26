"""The one model thread: work from many requests goes through it in micro-batches."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rankloom_engine.errors import (
    EngineClosedError,
    EngineFailedError,
    NonFiniteError,
    WorkExpiredError,
)
from rankloom_engine.explain import Explanation, StopReason, Wording, Words
from rankloom_engine.isolation import isolated
from rankloom_engine.mixture import Weights
from rankloom_engine.model import Answer, Decoder, Next
from rankloom_engine.prefix_cache import PrefixCache, prefix_key
from rankloom_engine.prompt import Prompt
from rankloom_engine.scheduler import Job, Piece, Scheduler
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


@dataclass(frozen=True, slots=True)
class Terms:
    """How a caller wants to be served. ``deadline``: on time.monotonic's clock.

    ``partial``: at the deadline, what has been scored by then is an answer.
    """

    deadline: float = inf
    caller: str = ""
    partial: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """(candidates,) float32 margins, NaN where time ran out, and where the seconds went.

    ``reused``: the prefix was kept from an earlier call.
    """

    margins: NDArray[np.float32]
    queue_s: float
    model_s: float
    reused: bool


class _Call:
    """One call that waits: its work, and when the model was busy with it."""

    def __init__(self, work: Work, key: bytes | None, terms: Terms) -> None:
        self.work, self.key, self.terms = work, key, terms
        self.reused = work.held is not None
        self.submitted = time.monotonic()
        self.first_started: float | None = None
        self.model_s = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def scored(self) -> Scored:
        """What is known now."""
        began = self.submitted if self.first_started is None else self.first_started
        return Scored(
            self.work.margins.copy(), began - self.submitted, self.model_s, reused=self.reused
        )

    def expire(self) -> None:
        """The deadline has passed: who takes a part gets what is there, be it nothing."""
        if self.terms.partial:
            self.finish()
        else:
            self.fail(WorkExpiredError())

    def fail(self, error: Exception) -> None:
        """The call gets no answer."""
        if not self.done.done():
            self.done.set_exception(error)

    def finish(self) -> None:
        """The call gets what is there."""
        if not self.done.done():
            self.done.set_result(None)


@dataclass(frozen=True, slots=True, eq=False)
class _Speaker:
    """One explanation that is being decoded, and its words that wait to be taken."""

    text: Explanation
    terms: Terms
    queue: asyncio.Queue[Words | EngineFailedError]

    async def words(self, deadline: float) -> Words:
        """The next words, or the end at the deadline. Raises EngineFailedError."""
        timeout = None if deadline == inf else max(deadline - time.monotonic(), 0.0)
        try:
            found = await asyncio.wait_for(self.queue.get(), timeout)
        except TimeoutError:
            return Words((), StopReason.DEADLINE)
        if isinstance(found, EngineFailedError):
            raise found
        return found

    def take(self, found: Next) -> bool:
        """Passes the words of a step on; whether there are more to come."""
        if not np.isfinite(found.logits).all():
            self.queue.put_nowait(NonFiniteError("the model gave a non-finite score"))
            return False
        words = self.text.take(found)
        self.queue.put_nowait(words)
        return words.stop is None


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
        self._explaining = Scheduler(limits.max_batch_tokens, limits.max_batch_tokens)
        self.prefixes = PrefixCache(limits.prefix_cache_bytes)
        self._speakers: dict[int, _Speaker] = {}
        self._calls: dict[int, _Call] = {}
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

    async def score(self, prompt: Prompt, weights: Weights, terms: Terms | None = None) -> Scored:
        """Margins of one request with its weights over the experts.

        Candidates are scored in their order. Raises WorkExpiredError, EngineFailedError
        or EngineClosedError. A cancelled call leaves before the next micro-batch.
        """
        if self._closing or self._loop is None:
            raise EngineClosedError("the engine takes no work")
        key, call = self._submit(prompt, weights, terms or Terms())
        try:
            await self._finished(call)
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
                words = await speaker.words(terms.deadline)
                yield words
                stop = words.stop
        finally:
            self._explaining.remove(key)
            self._speakers.pop(key, None)

    def _begin_to_speak(
        self, prompt: Prompt, weights: Weights, wording: Wording, terms: Terms, *, liked: bool
    ) -> tuple[int, _Speaker]:
        name = self._prefix_key(prompt, weights)
        held = None if name is None else self.prefixes.get(name)
        verdict = self._decoder.yes if liked else self._decoder.no
        text = Explanation(prompt, weights, verdict, self._stops, wording, held)
        key, speaker = next(self._keys), _Speaker(text, terms, asyncio.Queue())
        self._speakers[key] = speaker
        self._let_speak(key, speaker)
        return key, speaker

    def _let_speak(self, key: int, speaker: _Speaker) -> None:
        """Queues the next step of an explanation."""
        tokens, terms = (len(speaker.text.next),), speaker.terms
        self._explaining.add(Job(key, 0, tokens, terms.deadline, terms.caller))
        self._arrived.set()

    async def _finished(self, call: _Call) -> None:
        if call.terms.deadline == inf:
            await call.done
            return
        left_s = max(call.terms.deadline - time.monotonic(), 0.0)
        late = asyncio.get_running_loop().call_later(left_s, call.expire)
        try:
            await call.done
        finally:
            late.cancel()

    def _submit(self, prompt: Prompt, weights: Weights, terms: Terms) -> tuple[int, _Call]:
        name = self._prefix_key(prompt, weights)
        held = None if name is None else self.prefixes.get(name)
        key, call = next(self._keys), _Call(Work(prompt, weights, held), name, terms)
        self._calls[key] = call
        self._scheduler.add(call.work.job(key, terms.deadline, terms.caller))
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
                if len(self._scheduler):
                    await self._run_batch()
                else:
                    await self._speak()

    @property
    def num_waiting(self) -> int:
        """Rankings and explanations with work left that the model has not begun."""
        return len(self._scheduler) + len(self._explaining)

    async def _speak(self) -> None:
        """One more token of as many explanations as a micro-batch holds."""
        batch = self._explaining.take(time.monotonic())  # the expired ones know it themselves
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

    async def _run_batch(self) -> None:
        batch = self._scheduler.take(time.monotonic())
        for key in batch.expired:
            self._calls[key].expire()
        pieces = [(self._calls[piece.key], piece) for piece in batch.pieces]
        if not pieces:
            return
        started = time.monotonic()
        asks = [call.work.ask(piece, keep_prefix=call.key is not None) for call, piece in pieces]
        for call, _ in pieces:
            call.first_started = call.first_started or started
        answers = await self._on_thread(
            self._decoder.answer, asks, lambda answer: _is_finite(answer.margins)
        )
        for (call, piece), answer in zip(pieces, answers, strict=True):
            call.model_s += time.monotonic() - started
            self._deliver(call, piece, answer)

    async def _on_thread(
        self,
        run: Callable[[Sequence[In]], Sequence[Out]],
        work: Sequence[In],
        is_sound: Callable[[Out], bool],
    ) -> list[Out | EngineFailedError]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, isolated, run, work, is_sound)

    def _deliver(self, call: _Call, piece: Piece, answer: Answer | EngineFailedError) -> None:
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

    def _give_up(self, call: _Call, piece: Piece, failure: EngineFailedError) -> None:
        self._scheduler.remove(piece.key)
        call.fail(failure)


def _is_finite(values: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(values).all())

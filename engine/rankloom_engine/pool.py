"""The engines of all revisions: a decoder for each base, shared, on one model thread.

Two bundles that differ in experts alone share a decoder, and an expert that both have is
in one slot, so that replacing one expert writes one slot. Rows of several revisions
run in one micro-batch, and each row goes through its own revision's experts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.bundle import Bundle
from rankloom_adapters.expert import Expert, ExpertError
from rankloom_adapters.expert_cache import ExpertCache
from rankloom_adapters.norms import check_norms
from rankloom_engine.errors import ModelError
from rankloom_engine.expert_bank import ExpertBank, MixtureWeights
from rankloom_engine.explain import SamplingParams, TokenChunk
from rankloom_engine.loading import (
    Engine,
    Hardware,
    builder_key,
    decoder_key,
    expert_keys,
    load_engine,
    load_expert,
    load_weaver,
)
from rankloom_engine.prompt import Prompt, PromptBuilder
from rankloom_engine.runner import EngineLimits, EngineRunner, model_thread
from rankloom_engine.sequence import RequestOptions, Scored, ScoreRequest
from rankloom_engine.slots import Slots
from rankloom_engine.weaver import Weaver


@dataclass(slots=True, eq=False)
class _Shared:
    """A decoder with its runner, and who holds which of its slots."""

    key: str
    runner: EngineRunner
    bank: ExpertBank
    slots: Slots
    num_handles: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class EngineHandle:
    """One revision's experts on a decoder that others may share.

    Weights are over the revision's own experts, in the order of its router.
    """

    weaver: Weaver
    runner: EngineRunner
    slots: NDArray[np.int64]
    num_slots: int

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of the revision's experts."""
        return tuple(self.runner.ranks[slot] for slot in self.slots)

    @property
    def num_waiting(self) -> int:
        """Waiting rankings and explanations of all revisions on the decoder."""
        return self.runner.num_waiting

    def submit(
        self, prompt: Prompt, weights: MixtureWeights, options: RequestOptions | None = None
    ) -> AbstractContextManager[ScoreRequest]:
        """Queues a prompt's candidates; see EngineRunner.submit."""
        return self.runner.submit(prompt, self._over_slots(weights), options)

    async def score(
        self, prompt: Prompt, weights: MixtureWeights, options: RequestOptions | None = None
    ) -> Scored:
        """Submits a request and waits for its result."""
        return await self.runner.score(prompt, self._over_slots(weights), options)

    def explain(
        self,
        prompt: Prompt,
        weights: MixtureWeights,
        *,
        liked: bool,
        sampling: SamplingParams,
        options: RequestOptions | None = None,
    ) -> AsyncGenerator[TokenChunk, None]:
        """Tokens after a verdict; see EngineRunner.explain."""
        over = self._over_slots(weights)
        return self.runner.explain(prompt, over, liked=liked, sampling=sampling, options=options)

    def _over_slots(self, weights: MixtureWeights) -> MixtureWeights:
        values = np.zeros(self.num_slots, dtype=np.float32)
        values[self.slots] = weights.values
        return MixtureWeights(values, weights.fusion)


class EnginePool:
    """Gives revisions their engine handles and takes them back. Use it from one event loop."""

    def __init__(
        self,
        hardware: Hardware,
        limits: EngineLimits,
        expert_bytes: int,
        loader: Executor | None = None,
        experts: ExpertCache | None = None,
    ) -> None:
        """``expert_bytes``: for each decoder's slots. ``loader``: where files are read.

        ``experts``: where what was read is kept for the next revision.
        """
        self._hardware, self._limits, self._expert_bytes = hardware, limits, expert_bytes
        self._loader, self._experts = loader, experts
        self._thread = model_thread()
        self._shared: list[_Shared] = []
        # Not for the milliseconds alone: a tokenizer's cache outlives it, on every thread.
        self._builders: WeakValueDictionary[str, PromptBuilder] = WeakValueDictionary()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def runners(self) -> tuple[EngineRunner, ...]:
        """Of all decoders in memory."""
        return tuple(shared.runner for shared in self._shared)

    async def admit(self, bundle: Bundle) -> EngineHandle:
        """Loads what of a bundle is not in memory yet. Requests meanwhile go on as before.

        Raises the ValueErrors of load_engine, or NoRoomError.
        """
        loop, key = asyncio.get_running_loop(), decoder_key(bundle)
        known = self._builders.get(builder_key(bundle))
        weaver = await loop.run_in_executor(self._loader, load_weaver, bundle, known)
        for shared in self._shared:
            if shared.key == key:
                with contextlib.suppress(_MisfitError):
                    return await self._handle_on(shared, bundle, weaver)
        engine = await loop.run_in_executor(
            self._loader, load_engine, bundle, self._hardware, self._expert_bytes, self._experts
        )
        return await self.adopt(engine, bundle)

    async def adopt(self, engine: Engine, bundle: Bundle) -> EngineHandle:
        """Takes a loaded engine in, whose experts are in its first slots, and warms it up.

        Raises ModelError where it does not run.
        """
        runner = EngineRunner(engine.decoder, self._limits, engine.weaver.stops, self._thread)
        bank = engine.decoder.bank or ExpertBank(0, 1, 1)
        slots = Slots(bank.num_slots)
        shared = _Shared(decoder_key(bundle), runner, bank, slots, num_handles=1)
        await runner.start()
        try:
            await runner.warm_up()
        except Exception as error:  # the model's own classes are many
            await runner.close()
            raise ModelError(f"the bundle's parts do not work together: {error}") from error
        self._shared.append(shared)
        taken = shared.slots.take(expert_keys(bundle, engine.weaver.router.experts))
        return self._handle(shared, bundle, engine.weaver, taken.slots)

    def release(self, handle: EngineHandle) -> None:
        """Gives a revision's slots back; a decoder that nobody needs is let go."""
        shared = next(each for each in self._shared if each.runner is handle.runner)
        shared.slots.give_back(handle.slots.tolist())
        self._leave(shared)

    def _leave(self, shared: _Shared) -> None:
        shared.num_handles -= 1
        if not shared.num_handles:
            self._shared.remove(shared)
            gc.unfreeze()  # layers and their mixture name each other: only a collection ends that
            task = asyncio.get_running_loop().create_task(shared.runner.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Finishes what was submitted, then stops the thread."""
        for shared in self._shared:
            await shared.runner.close()
        await asyncio.gather(*self._closing)
        self._thread.shutdown()

    def check_integrity(self) -> None:
        """Raises ArithmeticError where somebody gave back what was not theirs."""
        for shared in self._shared:
            shared.slots.check_integrity()

    async def _handle_on(self, shared: _Shared, bundle: Bundle, weaver: Weaver) -> EngineHandle:
        """A handle on a loaded decoder. Raises _MisfitError where its slots do not fit."""
        names = weaver.router.experts
        taken = shared.slots.take(expert_keys(bundle, names))
        shared.num_handles += 1  # from now on: the last other one may leave while files are read
        new = [(slot, n) for slot, n in zip(taken.slots, names, strict=True) if slot in taken.new]
        try:
            experts = await self._read(bundle, [name for _, name in new])
            _check(shared.bank, experts)
            for (slot, _), expert in zip(new, experts, strict=True):
                await shared.runner.load(slot, expert)
        except BaseException:
            shared.slots.give_back(taken.slots, unwritten=taken.new)
            self._leave(shared)
            raise
        return self._handle(shared, bundle, weaver, taken.slots)

    def _handle(
        self, shared: _Shared, bundle: Bundle, weaver: Weaver, slots: Sequence[int]
    ) -> EngineHandle:
        self._builders[builder_key(bundle)] = weaver.builder
        places = np.array(slots, dtype=np.int64)
        return EngineHandle(weaver, shared.runner, places, shared.bank.num_slots)

    async def _read(self, bundle: Bundle, names: Sequence[str]) -> list[Expert]:
        loop = asyncio.get_running_loop()
        return [
            await loop.run_in_executor(self._loader, _load_usual, bundle, name, self._experts)
            for name in names
        ]


class _MisfitError(Exception):
    """The decoder was loaded for experts of other modules, or of lower ranks."""


def _load_usual(bundle: Bundle, name: str, cache: ExpertCache | None) -> Expert:
    """An expert whose numbers cannot overflow: another row's weight for it is 0, and 0 × ∞ is NaN.

    Raises BundleError or ExpertError.
    """
    expert = load_expert(bundle, name, cache)
    check_norms(expert, ())  # its siblings may be as young as it is
    return expert


def _check(bank: ExpertBank, experts: Sequence[Expert]) -> None:
    try:
        for expert in experts:
            bank.check(expert)
    except ExpertError as error:
        raise _MisfitError from error

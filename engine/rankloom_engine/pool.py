"""The engines of all revisions: one decoder for each base, shared, on one model thread.

Two bundles that differ in experts alone share a decoder, and an expert that both have is
in one slot, so that replacing one expert writes one slot. So is an expert that several
groups of a bundle have. Rows of several revisions run in one micro-batch, and each row
goes through its own revision's experts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankloom_adapters.bundled_expert import BundledExpert
from rankloom_adapters.expert import Expert, ExpertError
from rankloom_adapters.expert_cache import ExpertCache
from rankloom_adapters.router import Fusion
from rankloom_engine.errors import ModelError
from rankloom_engine.expert_bank import ExpertBank, MixtureWeights
from rankloom_engine.explain import SamplingParams, TokenChunk, TokenGuide
from rankloom_engine.loading import Hardware, load_decoder
from rankloom_engine.model import Decoder
from rankloom_engine.model_thread import ModelThread
from rankloom_engine.parts import EngineParts
from rankloom_engine.prompt import Prompt
from rankloom_engine.runner import CLOSE_S, EngineLimits, EngineRunner
from rankloom_engine.sequence import RequestOptions, ScoreRequest
from rankloom_engine.slots import Slots


class DecoderLoader(Protocol):
    """Loads a decoder; raises the ValueErrors of load_decoder."""

    def __call__(
        self,
        parts: EngineParts,
        hardware: Hardware,
        expert_bytes: int,
        cache: ExpertCache | None,
        /,
    ) -> Decoder: ...


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

    Weights are over the revision's own experts, in the order of its router. ``slots``: of each;
    experts of equal files have the same, and ``has_equal`` says that there are some.
    """

    runner: EngineRunner
    slots: NDArray[np.int64]
    num_slots: int
    has_equal: bool

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of the revision's experts."""
        return tuple(self.runner.ranks[slot] for slot in self.slots)

    @property
    def num_waiting(self) -> int:
        """Requests of all revisions that wait for the decoder."""
        return self.runner.num_waiting

    def forget_prefixes(self) -> None:
        """Drops the cached prefixes of all revisions on this decoder; on the event loop."""
        self.runner.prefixes.clear()

    def check_room(self, options: RequestOptions) -> None:
        """Raises EngineOverloadedError where a usual request would end too late."""
        self.runner.check_room(options)

    def submit(
        self, prompt: Prompt, weights: MixtureWeights, options: RequestOptions | None = None
    ) -> AbstractContextManager[ScoreRequest]:
        """Queues a prompt's candidates; see EngineRunner.submit."""
        return self.runner.submit(prompt, self.over_slots(weights), options)

    def explain(
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
        """Tokens after a verdict; see EngineRunner.explain."""
        over = self.over_slots(weights)
        return self.runner.explain(
            prompt,
            over,
            liked=liked,
            sampling=sampling,
            options=options,
            guide=guide,
            evidence=evidence,
        )

    def over_slots(self, weights: MixtureWeights) -> MixtureWeights:
        """The decoder's mixture: equal experts count as one, with all of their weight.

        Rounded to six decimals where some are equal, so that mixtures are equal that say the same.
        """
        values = np.zeros(self.num_slots)
        linear = weights.fusion is Fusion.PEFT_LINEAR  # which sums the roots of the weights
        own = np.sqrt(weights.values, dtype=np.float64) if linear else weights.values
        np.add.at(values, self.slots, own)
        values = np.square(values) if linear else values
        rounded = values.round(6) if self.has_equal else values
        return MixtureWeights(rounded.astype(np.float32), weights.fusion)


class EnginePool:
    """Gives revisions their engine handles and takes them back. Use it from one event loop."""

    def __init__(
        self,
        hardware: Hardware,
        limits: EngineLimits,
        expert_bytes: int,
        loader: Executor | None = None,
        experts: ExpertCache | None = None,
        load: DecoderLoader = load_decoder,
    ) -> None:
        """``expert_bytes``: for each decoder's slots. ``loader``: where files are read.

        ``experts``: keeps what was read for the next revision. ``load``: makes decoders.
        """
        self.hardware, self._limits, self._expert_bytes = hardware, limits, expert_bytes
        self._loader, self._experts, self._load = loader, experts, load
        self._thread = ModelThread()
        self._shared: list[_Shared] = []
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def runners(self) -> tuple[EngineRunner, ...]:
        """Of all decoders in memory."""
        return tuple(shared.runner for shared in self._shared)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for any of the decoders."""
        return sum(shared.runner.num_waiting for shared in self._shared)

    @property
    def busy_s(self) -> float:
        """Seconds that the model thread has spent on what it runs now.

        0 before the first decoder serves: nobody waits for its kernels yet.
        """
        return self._thread.busy_s if self._shared else 0.0

    @property
    def is_alive(self) -> bool:
        """Whether all decoders still take work."""
        return self._thread.is_alive and all(runner.is_alive for runner in self.runners)

    @property
    def expert_bytes(self) -> int:
        """Memory of all decoders' expert slots."""
        return sum(shared.runner.expert_bytes for shared in self._shared)

    async def admit(self, parts: EngineParts) -> EngineHandle:
        """Loads what is not in memory yet. Requests meanwhile go on as before.

        Raises the ValueErrors of load_decoder, or NoFreeSlotError.
        """
        for shared in self._shared:
            if shared.key == parts.decoder_key:
                with contextlib.suppress(_MisfitError):
                    return await self._handle_on(shared, parts)
        decoder = await asyncio.get_running_loop().run_in_executor(
            self._loader, self._load, parts, self.hardware, self._expert_bytes, self._experts
        )
        return await self._adopt(decoder, parts)

    def release(self, handle: EngineHandle) -> None:
        """Gives a revision's slots back; a decoder that nobody needs is let go."""
        shared = next(each for each in self._shared if each.runner is handle.runner)
        shared.slots.give_back(handle.slots.tolist())
        self._leave(shared)

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Finishes what was submitted, then stops the thread; within the timeout."""
        end = time.monotonic() + timeout_s
        runners = [shared.runner.close(timeout_s) for shared in self._shared]
        await asyncio.gather(*runners, *self._closing)
        await self._thread.close(max(0.0, end - time.monotonic()))

    def check_integrity(self) -> None:
        """Raises ArithmeticError where a slot was given back that was not taken."""
        for shared in self._shared:
            shared.slots.check_integrity()

    async def _adopt(self, decoder: Decoder, parts: EngineParts) -> EngineHandle:
        """Takes a loaded decoder in and warms it up. Raises ModelError where it does not run."""
        runner = EngineRunner(decoder, self._limits, parts.stops, self._thread)
        bank = decoder.bank or ExpertBank(0, 1, 1)
        digests = [expert.digest for expert in parts.experts]
        slots = Slots(bank.num_slots, digests)
        shared = _Shared(parts.decoder_key, runner, bank, slots, num_handles=1)
        await runner.start()
        try:
            await runner.warm_up()
        except Exception as error:  # the model's own classes are many
            await runner.close()
            raise ModelError(f"the bundle's parts do not work together: {error}") from error
        self._shared.append(shared)
        return _handle(shared, slots.take(digests).slots)

    async def _handle_on(self, shared: _Shared, parts: EngineParts) -> EngineHandle:
        """A handle on a loaded decoder. Raises _MisfitError where its slots do not fit."""
        taken = shared.slots.take([expert.digest for expert in parts.experts])
        shared.num_handles += 1  # from now on: the last other one may leave while files are read
        pairs = zip(taken.slots, parts.experts, strict=True)
        new = {slot: expert for slot, expert in pairs if slot in taken.new}
        try:
            experts = await self._read(new.values())
            _check(shared.bank, experts)
            for slot, expert in zip(new, experts, strict=True):
                await shared.runner.load(slot, expert)
        except BaseException:
            shared.slots.give_back(taken.slots, unwritten=taken.new)
            self._leave(shared)
            raise
        return _handle(shared, taken.slots)

    def _leave(self, shared: _Shared) -> None:
        shared.num_handles -= 1
        if not shared.num_handles:
            self._shared.remove(shared)
            gc.unfreeze()  # layers and their bank name each other: only a collection ends that
            task = asyncio.get_running_loop().create_task(shared.runner.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _read(self, experts: Iterable[BundledExpert]) -> list[Expert]:
        loop = asyncio.get_running_loop()
        return [
            await loop.run_in_executor(self._loader, expert.load, self._experts)
            for expert in experts
        ]


class _MisfitError(Exception):
    """The decoder was loaded for experts of other modules, or of lower ranks."""


def _handle(shared: _Shared, slots: Sequence[int]) -> EngineHandle:
    has_equal = len(set(slots)) < len(slots)
    own = np.array(slots, dtype=np.int64)
    return EngineHandle(shared.runner, own, shared.bank.num_slots, has_equal)


def _check(bank: ExpertBank, experts: Sequence[Expert]) -> None:
    try:
        for expert in experts:
            bank.check(expert)
    except ExpertError as error:
        raise _MisfitError from error

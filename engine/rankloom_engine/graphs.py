"""Passes that are recorded once per size, and then replayed.

A GPU runs the kernels of a small pass faster than Python launches them. A CUDA graph launches
all of them at once, but always on the same memory: a pass first copies its inputs there.
There are few sizes: powers of two of tokens, verdicts, and cached tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor

from rankloom_engine.expert_bank import Gathered
from rankloom_engine.whole import Layout

MIN_TOKENS, MIN_READS, MIN_CACHED = 64, 16, 256
MAX_TOKENS, MAX_CACHED = 2048, 4096  # beyond these, the kernels take longer than launching them
MAX_RECORDINGS = 256

T = TypeVar("T")
Recorder = Callable[[Callable[[], T]], Callable[[], T]]


def coarse(size: int, least: int) -> int:
    """The smallest power of two, from ``least`` up, that has room for ``size``."""
    return max(least, 1 << (size - 1).bit_length())


@dataclass(frozen=True, slots=True, eq=False)
class PassInputs:
    """All inputs of a pass. ``embeddings``: (1, tokens, hidden). ``plan``: None without experts."""

    embeddings: Tensor
    layout: Layout
    plan: Gathered | None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> PassInputs:
        """A copy with ``change`` applied to each tensor, always in the same order."""
        plan = self.plan.mapped(change) if self.plan else None
        return PassInputs(change(self.embeddings), self.layout.mapped(change), plan)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of ``mapped``."""
        tensors: list[Tensor] = []

        def collect(tensor: Tensor) -> Tensor:
            tensors.append(tensor)
            return tensor

        self.mapped(collect)
        return tensors

    @property
    def sizes(self) -> tuple[torch.Size, ...]:
        """Shapes of all tensors: the key of a recording."""
        return tuple(tensor.shape for tensor in self.tensors)


class Recordings(Generic[T]):
    """A function of PassInputs, recorded per size; the least recently used recordings go first.

    The next run of the same size overwrites the result. One thread runs it.
    """

    def __init__(self, function: Callable[[PassInputs], T], record: Recorder[T]) -> None:
        self._function, self._record = function, record
        self._known: OrderedDict[tuple[torch.Size, ...], tuple[PassInputs, Callable[[], T]]]
        self._known = OrderedDict()
        self._refused: set[tuple[torch.Size, ...]] = set()

    def __len__(self) -> int:
        return len(self._known)

    def run(self, inputs: PassInputs) -> T:
        """The function's result. A new size is recorded first."""
        sizes = inputs.sizes
        if sizes not in self._known and not self._record_size(sizes, inputs):
            return self._function(inputs)
        self._known.move_to_end(sizes)
        own, again = self._known[sizes]
        for mine, given in zip(own.tensors, inputs.tensors, strict=True):
            mine.copy_(given)
        return again()

    def _record_size(self, sizes: tuple[torch.Size, ...], inputs: PassInputs) -> bool:
        """Whether the size could be recorded; not if memory is short or a kernel synchronises."""
        if sizes in self._refused:
            return False
        try:
            self._known[sizes] = self._recorded(inputs)
        except RuntimeError:
            self._refused.add(sizes)
        return sizes in self._known

    def _recorded(self, inputs: PassInputs) -> tuple[PassInputs, Callable[[], T]]:
        while len(self._known) >= MAX_RECORDINGS:
            self._known.popitem(last=False)
        own = inputs.mapped(torch.clone)
        return own, self._record(lambda: self._function(own))


class CudaGraphs:
    """Records functions on one GPU as CUDA graphs, which share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):  # a new thread starts on the first GPU
            self._pool: Any = cast("Any", torch.cuda).graph_pool_handle()
            self._side = torch.cuda.Stream()

    def __call__(self, work: Callable[[], T]) -> Callable[[], T]:
        """A function that replays the work on the tensors that it used, and returns its result.

        The work runs twice before: libraries choose kernels and allocate memory when they
        first see a size, which a graph cannot record. Raises RuntimeError if the work waits
        for the device.
        """
        with torch.cuda.device(self._device):
            return self._recorded(work)

    def _recorded(self, work: Callable[[], T]) -> Callable[[], T]:
        current = torch.cuda.current_stream()
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            for _ in range(2):
                work()
        current.wait_stream(self._side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile: experts are loaded while requests run.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            made = work()

        def again() -> T:
            with torch.cuda.device(self._device):
                graph.replay()
            return made

        return again

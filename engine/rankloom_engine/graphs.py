"""Passes that are recorded once for their size, and run again from the recording.

A GPU runs a small pass faster than Python asks for its parts. A CUDA graph asks for all of
them at once, and for ever on the same memory: a pass copies what it is about into that
memory first. Sizes are few: powers of two of tokens, verdicts, and cached tokens.
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

MIN_TOKENS, MIN_VERDICTS, MIN_CACHED = 64, 16, 256
MAX_TOKENS, MAX_CACHED = 2048, 4096  # beyond these, the work takes longer than asking for it
MAX_RECORDINGS = 256

T = TypeVar("T")
Recorder = Callable[[Callable[[], T]], Callable[[], T]]


def coarse(size: int, least: int) -> int:
    """The size to record that holds so many: a power of two, from ``least`` up."""
    return max(least, 1 << (size - 1).bit_length())


@dataclass(frozen=True, slots=True, eq=False)
class PassInputs:
    """All that a pass is about.

    ``embeddings``: (1, tokens, hidden). ``plan``: None where there are no experts.
    """

    embeddings: Tensor
    layout: Layout
    plan: Gathered | None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> PassInputs:
        """Each tensor through a function, always in the same order."""
        plan = self.plan.mapped(change) if self.plan else None
        return PassInputs(change(self.embeddings), self.layout.mapped(change), plan)

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        found: list[Tensor] = []

        def noted(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.mapped(noted)
        return found

    @property
    def sizes(self) -> tuple[torch.Size, ...]:
        """By which a recording is found again."""
        return tuple(tensor.shape for tensor in self.tensors)


class Recordings(Generic[T]):
    """A function of PassInputs, recorded for each size; the least used sizes are forgotten.

    What it gives is written over by the next run of the same size. One thread runs it.
    """

    def __init__(self, function: Callable[[PassInputs], T], record: Recorder[T]) -> None:
        self._function, self._record = function, record
        self._known: OrderedDict[tuple[torch.Size, ...], tuple[PassInputs, Callable[[], T]]]
        self._known = OrderedDict()
        self._refused: set[tuple[torch.Size, ...]] = set()

    def __len__(self) -> int:
        return len(self._known)

    def run(self, inputs: PassInputs) -> T:
        """What the function gives; the first time that a size comes, it is recorded."""
        sizes = inputs.sizes
        if sizes not in self._known and not self._record_size(sizes, inputs):
            return self._function(inputs)
        self._known.move_to_end(sizes)
        own, again = self._known[sizes]
        for mine, given in zip(own.tensors, inputs.tensors, strict=True):
            mine.copy_(given)
        return again()

    def _record_size(self, sizes: tuple[torch.Size, ...], inputs: PassInputs) -> bool:
        """Whether that was possible: where memory is short, or work waits, it is run as it is."""
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
    """Records work on one GPU as CUDA graphs, which share one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):  # a thread's own is the first GPU, until it is told
            self._pool: Any = cast("Any", torch.cuda).graph_pool_handle()
            self._side = torch.cuda.Stream()

    def __call__(self, work: Callable[[], T]) -> Callable[[], T]:
        """What runs the work again, on the tensors that it used, and gives what it made.

        The work is run twice before: libraries choose kernels and take memory when they
        first see a size, which a graph cannot hold. Raises RuntimeError for work that
        waits for the device.
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
        # Other threads may use the GPU meanwhile: experts are loaded beside requests.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            made = work()

        def again() -> T:
            with torch.cuda.device(self._device):
                graph.replay()
            return made

        return again

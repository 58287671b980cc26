"""What each stage of a training costs, and how much it computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.common.matmuls import RUN_FLOPS, matmuls
from benchmarks.common.timing import timed
from benchmarks.stages.report import StageCost
from rankloom_training.progress import Progress, StageProgress
from rankloom_training.side_by_side import SideBySide

ROUNDS = 3  # of plain matrix products, before the training and after it

_aten: Any = torch.ops.aten
# On a CPU, attention is an operation that torch's own table lacks: query, key and value come first.
_ATTENTION: Mapping[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_: (
        sdpa_flop_count(query.shape, key.shape, value.shape)
    ),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, query, key, value, *_: sdpa_backward_flop_count(
            grad.shape, query.shape, key.shape, value.shape
        )
    ),
}


class ComputeCount(TorchDispatchMode):
    """Counts what this thread computes inside the block.

    ``flops``: of matrix products and attention, a multiply-add as two. ``embedded``: rows that
    were looked up in embedding tables; in a language model these are tokens, padding included.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.embedded = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        named = kwargs or {}
        if types:  # a model is being exported: there are no numbers, and sizes are symbols
            return func(*args, **named)
        with self:  # without gradients, an operation arrives here before it is taken apart
            out = func.decompose(*args, **named)
        if out is NotImplemented:
            out = func(*args, **named)
            self._count(func.overloadpacket, args, named, out)
        return out

    def _count(
        self, operation: object, args: tuple[Any, ...], named: Mapping[str, Any], out: object
    ) -> None:
        if operation in _ATTENTION:
            self.flops += _ATTENTION[operation](*args)
        elif operation in flop_registry:
            self.flops += flop_registry[operation](*args, **named, out_val=out)
        elif operation is _aten.embedding:
            self.embedded += args[1].numel()


@contextmanager
def counted() -> Iterator[ComputeCount]:
    """Counts the block, and the jobs that run side by side in it, each on a thread of its own.

    Models that are exported in it are left out: their tracing bears no observer.
    """
    export, own, do = torch.onnx.export, threading.get_ident(), SideBySide.do
    of_threads = list[ComputeCount]()

    def uncounted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with _disable_current_modes():
            return export(*args, **kwargs)

    def counting(*args: Any) -> Any:  # noqa: ANN401
        if threading.get_ident() == own:
            return do(*args)
        with ComputeCount() as count:
            of_threads.append(count)
            return do(*args)

    with (
        patch.object(torch.onnx, "export", uncounted),
        patch.object(SideBySide, "do", counting),
        ComputeCount() as count,
    ):
        yield count
    count.flops += sum(each.flops for each in of_threads)
    count.embedded += sum(each.embedded for each in of_threads)


class ClockedProgress(Progress):
    """Remembers what each stage cost."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: dict[str, StageCost] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[StageProgress]:
        """Shows a stage while its body runs, and clocks it."""
        wall, cpu = time.monotonic(), time.process_time()
        with super().stage(name) as shown, counted() as count:
            yield shown
        wall_s, cpu_s = time.monotonic() - wall, time.process_time() - cpu
        note = shown.last_note
        self.costs[name] = StageCost(wall_s, cpu_s, count.flops, count.embedded, note)


def flops_per_cpu_s() -> list[float]:
    """Of plain float32 matrix products, a value per round after one that does not count."""
    work = matmuls(torch.float32)
    work()
    return [RUN_FLOPS / timed(work).cpu_s for _ in range(ROUNDS)]

"""Plain matrix products: how fast this machine multiplies, as the measure for everything else."""

from __future__ import annotations

from collections.abc import Callable

import torch

MATMUL = (1024, 1024, 2048)
MATMULS_PER_RUN = 50
RUN_FLOPS = 2 * MATMUL[0] * MATMUL[1] * MATMUL[2] * MATMULS_PER_RUN


def matmuls(dtype: torch.dtype) -> Callable[[], None]:
    """Matrix products of RUN_FLOPS in total."""
    rows, inner, columns = MATMUL
    left = torch.randn(rows, inner).to(dtype)
    right = torch.randn(inner, columns).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype)

    def work() -> None:
        for _ in range(MATMULS_PER_RUN):
            torch.mm(left, right, out=out)

    return work

"""The least time that a workload can take: its fewest FLOPs at the rate of a plain matmul."""

from __future__ import annotations

from collections.abc import Callable

import torch
from workload import Shape, Sizes

MATMUL = (1024, 1024, 2048)
MATMULS_PER_RUN = 50
RUN_FLOPS = 2 * MATMUL[0] * MATMUL[1] * MATMUL[2] * MATMULS_PER_RUN


def fewest_flops(shape: Shape, sizes: Sizes) -> int:
    """Of one user without experts; a multiply-add counts as two.

    The prefix is computed once, all layers but the last on every token, and the last one
    only where something reads it: keys and values everywhere, the rest at the verdicts.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    k_and_v = 2 * 2 * shape.hidden * keys  # of one token, as are the next two
    q_and_o = 2 * 2 * shape.hidden * queries
    mlp = 3 * 2 * shape.hidden * shape.intermediate
    look = 2 * 2 * queries  # one token at another: its score, and its value's share

    tokens = sizes.prefix + sizes.candidates * sizes.tokens
    looks = _causal(sizes.prefix) + sizes.candidates * (
        sizes.tokens * sizes.prefix + _causal(sizes.tokens)
    )
    layer = tokens * (k_and_v + q_and_o + mlp) + looks * look
    last = tokens * k_and_v + sizes.candidates * (
        q_and_o + mlp + (sizes.prefix + sizes.tokens) * look
    )
    head = sizes.candidates * 2 * 2 * shape.hidden
    return (shape.layers - 1) * layer + last + head


def matmuls(dtype: torch.dtype) -> Callable[[], None]:
    """Work of RUN_FLOPS in all."""
    rows, inner, columns = MATMUL
    left = torch.randn(rows, inner).to(dtype)
    right = torch.randn(inner, columns).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype)

    def work() -> None:
        for _ in range(MATMULS_PER_RUN):
            torch.mm(left, right, out=out)

    return work


def _causal(tokens: int) -> int:
    """Looks of a run of tokens at itself."""
    return tokens * (tokens + 1) // 2

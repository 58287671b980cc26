"""The least time that a workload can take: its fewest FLOPs at the speed of a plain matmul."""

from __future__ import annotations

from benchmarks.common.workload import ModelShape, PromptSizes


def fewest_flops(shape: ModelShape, sizes: PromptSizes) -> int:
    """FLOPs for one user without experts; a multiply-add counts as two.

    The prefix is computed once. All layers but the last run on every token. The last layer
    computes keys and values for every token, and everything else at the verdicts only.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    k_and_v = 2 * 2 * shape.hidden * keys  # per token, like the next two
    q_and_o = 2 * 2 * shape.hidden * queries
    mlp = 3 * 2 * shape.hidden * shape.intermediate
    attend = 2 * 2 * queries  # one token to one other: the score and the weighted value

    tokens = sizes.prefix + sizes.candidates * sizes.tokens
    pairs = _causal(sizes.prefix) + sizes.candidates * (
        sizes.tokens * sizes.prefix + _causal(sizes.tokens)
    )
    layer = tokens * (k_and_v + q_and_o + mlp) + pairs * attend
    last = tokens * k_and_v + sizes.candidates * (
        q_and_o + mlp + (sizes.prefix + sizes.tokens) * attend
    )
    head = sizes.candidates * 2 * 2 * shape.hidden
    return (shape.layers - 1) * layer + last + head


def _causal(tokens: int) -> int:
    """Pairs of a token with itself or an earlier one."""
    return tokens * (tokens + 1) // 2

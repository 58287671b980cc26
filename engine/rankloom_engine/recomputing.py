"""Gradients in less memory: layers run once more in the backward pass.

Only what enters a layer is kept for it (gradient checkpointing; Chen et al., 2016, "Training Deep
Nets with Sublinear Memory Cost").
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rankloom_engine.attention import running_pass
from rankloom_engine.layers import decoder_layers


def recompute_layers(model: nn.Module) -> None:
    """Has a wired decoder's layers do so, in place, but the last one, which computes few states."""
    for layer in list(decoder_layers(model))[:-1]:
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=_contexts, **kwargs)


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The backward pass runs when the pass has ended, and on threads of its own."""
    running = running_pass()
    return nullcontext(), running.repeating() if running else nullcontext()

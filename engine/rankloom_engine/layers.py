"""Where a decoder of transformers has its layers, and passes that end after the first one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from torch import nn


def body_of(model: nn.Module) -> nn.Module:
    """A causal LM without its head."""
    body = cast("Any", model).base_model
    return cast("nn.Module", getattr(model, "model", model) if body is model else body)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """A decoder's layers, first to last. Raises ValueError if they cannot be found."""
    num = cast("Any", model).config.num_hidden_layers
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == num]
    if not lists:
        raise ValueError(f"the model has no list of {num} layers; use a decoder that has one")
    return lists[0]


class _LayerDone(Exception):
    """Ends a pass after the first layer."""


@contextmanager
def first_layer_alone(model: nn.Module) -> Iterator[None]:
    """Ends passes of the model before the second layer, if there is one."""

    def stop(*_: object) -> None:
        raise _LayerDone

    hooks = [layer.register_forward_pre_hook(stop) for layer in decoder_layers(model)[1:2]]
    try:
        with suppress(_LayerDone):
            yield
    finally:
        for hook in hooks:
            hook.remove()

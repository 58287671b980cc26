"""Gradients of training: the same however passes run, and in less memory if layers run twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.tiny import random_segment, tiny_decoder, weights_of
from rankloom_engine.model import Decoder, ForwardInput
from rankloom_engine.packing import PackedBatch, collate
from rankloom_engine.passes import AllAtOnce, Passes, RowByRow, passes_on
from rankloom_engine.recomputing import recompute_layers

LAYERS = 6
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=ON_GPU)]
WAYS = [RowByRow, AllAtOnce]


def decoder_on(device: str) -> Decoder:
    decoder, _ = tiny_decoder(num_layers=LAYERS)
    decoder.model.to(device)
    decoder.projector.to(device)
    decoder.bank = None
    return decoder


def rows() -> PackedBatch:
    random = np.random.default_rng(1)
    inputs = [
        ForwardInput(
            random_segment(random, 20 + 7 * n),
            [random_segment(random, 5) for _ in range(3)],
            weights_of(random, 3),
        )
        for n in range(3)
    ]
    return collate([each.row() for each in inputs])


def gradients(decoder: Decoder, batch: PackedBatch) -> tuple[list[Tensor], int]:
    """Of all parameters of model and projector, and the bytes that were kept for them."""
    kept = dict[int, int]()

    def keep(value: Tensor) -> Tensor:
        kept[value.data_ptr()] = value.numel() * value.element_size()
        return value

    parameters = [p for m in (decoder.model, decoder.projector) for p in m.parameters()]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = decoder.margins(batch).square().sum()
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    own = {parameter.data_ptr() for parameter in parameters}
    return [each.cpu() for each in found if each is not None], sum(
        size for pointer, size in kept.items() if pointer not in own
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
def test_layers_that_run_twice_give_the_same_gradients_in_less_memory(
    way: Callable[[], Passes], device: str
) -> None:
    decoder, batch = decoder_on(device), rows()
    decoder.passes = way()
    expected, kept = gradients(decoder, batch)
    recompute_layers(decoder.model)
    found, kept_now = gradients(decoder, batch)
    assert len(found) == len(expected) > LAYERS
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
    assert kept_now < kept / 2


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_do_not_depend_on_how_a_pass_runs(device: str) -> None:
    batch = rows()
    reference, _ = gradients(decoder_on("cpu"), batch)
    on_device: Callable[[], Passes] = partial(passes_on, torch.device(device))
    for way in (*WAYS, on_device):
        decoder = decoder_on(device)
        decoder.passes = way()
        found, _ = gradients(decoder, batch)
        for one, other in zip(found, reference, strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_without_gradients_nothing_runs_twice() -> None:
    decoder, batch = decoder_on("cpu"), rows()
    recompute_layers(decoder.model)
    ran: list[int] = []
    for index, layer in enumerate(decoder.model.get_submodule("model.layers").children()):
        layer.get_submodule("mlp").register_forward_pre_hook(lambda *_, at=index: ran.append(at))
    with torch.inference_mode():
        decoder.margins(batch)
    assert ran == list(range(LAYERS))
    decoder.margins(batch).sum().backward()
    assert ran == [*range(LAYERS), *range(LAYERS), *reversed(range(LAYERS - 1))]

from __future__ import annotations

import copy
import warnings
from typing import Any, cast

import peft
import pytest
import torch
from torch import Tensor, nn

from rankloom_training.lora import train_in_low_rank


class Layers(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = nn.Linear(12, 20, bias=True, dtype=dtype)
        self.second = nn.Linear(20, 5, bias=False, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(torch.tanh(self.first(x)))
        return found


def adapted(dtype: torch.dtype = torch.float32) -> peft.PeftModel:
    torch.manual_seed(0)
    config = peft.LoraConfig(r=3, lora_alpha=12, target_modules=["first", "second"], bias="none")
    made = cast("peft.PeftModel", peft.get_peft_model(cast("Any", Layers(dtype)), config))
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    return made


def outputs(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The output; the gradients of the input and of the adapter."""
    x = x.clone().requires_grad_()
    y = model(x)
    (y * torch.linspace(-1.0, 1.0, y.numel()).reshape(y.shape)).sum().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return y.detach(), x.grad, grads


@pytest.mark.parametrize("shape", [(7, 12), (2, 7, 12), (1, 1, 12)])
def test_output_and_gradients_are_those_of_peft(shape: tuple[int, ...]) -> None:
    theirs = adapted()
    ours = copy.deepcopy(theirs)
    train_in_low_rank(ours)
    x = torch.randn(shape)
    (y, dx, grads), (own_y, own_dx, own_grads) = outputs(theirs, x), outputs(ours, x)
    torch.testing.assert_close(own_y, y)
    torch.testing.assert_close(own_dx, dx)
    assert own_grads.keys() == grads.keys()
    assert {name.split(".")[-3] for name in grads} == {"lora_A", "lora_B"}
    for name, grad in grads.items():
        torch.testing.assert_close(own_grads[name], grad, rtol=1e-5, atol=1e-5)


def test_a_frozen_layer_passes_gradients_on() -> None:
    model = adapted()
    train_in_low_rank(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name and "first" in name)
    _, _, grads = outputs(model, torch.randn(4, 12))
    assert grads
    assert all("first" in name and bool(grad.any()) for name, grad in grads.items())


def test_layers_of_a_narrow_format_stay_as_peft_made_them() -> None:
    narrow, wide = adapted(torch.bfloat16), adapted()
    for model in (narrow, wide):
        train_in_low_rank(model)

    def changed(model: nn.Module) -> bool:
        return "forward" in vars(model.get_submodule("base_model.model.first"))

    assert (changed(narrow), changed(wide)) == (False, True)


def test_the_adapter_that_is_saved_is_what_was_trained() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = adapted()
        before = {n: t.clone() for n, t in peft.get_peft_model_state_dict(model).items()}
        train_in_low_rank(model)
        after = peft.get_peft_model_state_dict(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())

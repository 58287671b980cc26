"""torch.compile for the parts of a decoder that are neither attention nor experts.

Feed-forward units and norms are compiled, each for any number of tokens. Attention
depends on the rows of the running pass, and experts on its weights: both change with
every pass, so they are left alone. Each region runs on random numbers as it is compiled,
so that nothing is compiled while a request waits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rankloom_engine.errors import ModelError
from rankloom_engine.expert_bank import MixtureLinear
from rankloom_engine.layers import decoder_layers

_TRIALS = (24, 40)  # tokens; a second size shows the compiler that the size varies
_ERRORS = {torch.float32: 1e-4, torch.bfloat16: 2**-6}  # of the largest value


def compile_regions(model: nn.Module) -> list[nn.Module]:
    """Compiles regions in place and returns them. Call it after the experts are wired.

    Raises ModelError if torch.compile does not work on this machine.
    """
    regions = [region for layer in decoder_layers(model) for region in layer.children()]
    return [region for region in regions if _can_be_region(region) and _compiled(region)]


def _can_be_region(module: nn.Module) -> bool:
    """False for modules with experts or attention inside, and for single linear layers."""
    inside = list(module.modules())
    if isinstance(module, nn.Linear) or any(isinstance(each, MixtureLinear) for each in inside):
        return False
    return not any(hasattr(each, "layer_idx") for each in inside) and _width(module) > 0


def _width(module: nn.Module) -> int:
    """Size of a token's vector at the module's input; 0 if the module has no weights."""
    weight = next(module.parameters(), None)
    return 0 if weight is None else weight.shape[-1]


@torch.inference_mode()
def _compiled(region: nn.Module) -> bool:
    """Compiles a region if the result agrees with it; returns whether it did."""
    plain = region.forward
    compiled = torch.compile(plain, dynamic=True)
    weight = next(region.parameters())
    random = torch.Generator().manual_seed(0)
    for tokens in _TRIALS:
        hidden = torch.randn(1, tokens, weight.shape[-1], generator=random).to(weight)
        try:
            expected = plain(hidden)
        except (RuntimeError, TypeError):  # the region takes other arguments
            return False
        try:
            found = compiled(hidden)
        except Exception as error:  # the compiler raises many classes of its own
            raise ModelError(
                "compile: torch.compile does not work on this machine; it needs a C++ compiler "
                "(g++), or a GPU that it knows"
            ) from error
        if not _agree(found, expected):
            return False
    region.forward = compiled
    return True


def _agree(found: object, expected: object) -> bool:
    if not (isinstance(found, Tensor) and isinstance(expected, Tensor)):
        return False
    bound = _ERRORS[expected.dtype] * float(expected.abs().max())
    return float((found - expected).abs().max()) <= bound

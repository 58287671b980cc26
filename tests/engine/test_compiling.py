"""Compiled regions compute the same as before, at every size, and nothing compiles later."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from engine.families import FAMILIES, tiny_family
from engine.test_expert_bank import inputs_of, margins_of, random_mixtures
from engine.test_packing import random_inputs
from engine.tiny import COLUMNS, LATENT, random_segment, tiny_decoder
from rankloom_engine.compiling import compile_regions
from rankloom_engine.errors import ModelError
from rankloom_engine.expert_bank import MixtureWeights
from rankloom_engine.model import Decoder, ForwardInput, ForwardOutput
from rankloom_engine.projector import Projector

TOLERANCE = 1e-5

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    """Forgets what other tests compiled."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def kinds(regions: list[torch.nn.Module]) -> set[str]:
    return {type(region).__name__ for region in regions}


def test_scores_stay_the_same() -> None:
    decoder, _ = tiny_decoder()
    inputs = inputs_of(random_mixtures(8, 3))
    before = margins_of(decoder, inputs)
    regions = compile_regions(decoder.model)
    assert kinds(regions) == {"LlamaMLP", "LlamaRMSNorm"}
    assert len(regions) == 3 * 3
    assert np.abs(margins_of(decoder, inputs) - before).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["gemma2", "gpt_neox", "opt"])
def test_other_families_are_compiled_too(name: str) -> None:
    model = tiny_family(name, **FAMILIES[name])
    decoder = Decoder(model, Projector(LATENT, COLUMNS, 32).eval(), yes=3, no=4)
    inputs = inputs_of(random_mixtures(8, 1))
    before = margins_of(decoder, inputs)
    assert compile_regions(model)
    assert np.abs(margins_of(decoder, inputs) - before).max() <= TOLERANCE


def test_no_request_waits_for_the_compiler() -> None:
    """Passes of other sizes, on another thread, run the code that was compiled at first."""
    decoder, _ = tiny_decoder()
    compile_regions(decoder.model)
    random = np.random.default_rng(0)

    def run() -> list[ForwardOutput]:
        with torch.compiler.set_stance("fail_on_recompile"):
            return [
                output
                for num in range(1, 6)
                for output in decoder.forward([*random_inputs(random, num), long_input(random)])
            ]

    with ThreadPoolExecutor(1) as thread:
        assert len(thread.submit(run).result()) == 1 + 2 + 3 + 4 + 5 + 5


def long_input(random: np.random.Generator) -> ForwardInput:
    candidates = [random_segment(random, 5) for _ in range(70)]
    return ForwardInput(
        random_segment(random, 300), candidates, MixtureWeights(np.ones(3, np.float32))
    )


def test_units_that_hold_experts_are_left_alone() -> None:
    decoder, _ = tiny_decoder(modules=("gate_proj", "q_proj"))
    assert kinds(compile_regions(decoder.model)) == {"LlamaRMSNorm"}


def test_without_a_compiler_the_error_says_what_is_needed(no_compiler: None) -> None:
    with pytest.raises(ModelError, match=r"compile: .* needs a C\+\+ compiler"):
        compile_regions(tiny_decoder()[0].model)

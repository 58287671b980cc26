"""The engine's benchmark is only worth something if its floor and its peers are right."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rankloom_adapters.expert import Expert

FOLDER = Path(__file__).parents[2] / "benchmarks"
TOLERANCE = 2e-6

# PEFT calls it when a model is wrapped.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def load(name: str) -> ModuleType:
    """A module that scripts import from their own folder, which is not on the path here."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


workload, floor, peers = load("workload"), load("floor"), load("peers")

SHAPE = workload.Shape("tiny", 32, 2, 4, 2, 64, 96, tied=True)
# More candidates than a batch holds, and a last user without another to share batches with.
SIZES, NUM_USERS = workload.Sizes(prefix=7, candidates=23, tokens=4), 3

MODEL = workload.random_model(SHAPE, torch.float32)
EXPERTS = workload.random_experts(MODEL, 8)
USERS = workload.random_users(NUM_USERS, SHAPE, SIZES)

User = Any  # workload.User, which type checkers cannot find
Delta = Callable[[User, str], Tensor]


def exact_sum(user: User, module: str) -> Tensor:
    """Σ w s B A."""
    factors, a, b = stacked(user, module)
    return torch.einsum("k,kor,kri->oi", factors, b, a)


def product_of_sums(user: User, module: str) -> Tensor:
    """(Σ √(w s) B) (Σ √(w s) A): what PEFT calls linear."""
    factors, a, b = stacked(user, module)
    root = factors.sqrt()
    return torch.einsum("k,kor->or", root, b) @ torch.einsum("k,kri->ri", root, a)


def no_delta(user: User, module: str) -> Tensor:
    return torch.zeros(())


def stacked(user: User, module: str) -> tuple[Tensor, Tensor, Tensor]:
    """w s, A and B of all experts."""
    scales = torch.tensor([expert.scale for expert in EXPERTS])
    pairs = [expert.modules[module] for expert in EXPERTS]
    a, b = (torch.stack([torch.from_numpy(getattr(p, side)) for p in pairs]) for side in "ab")
    return torch.from_numpy(user.weights) * scales, a, b


@torch.inference_mode()
def expected_margins(delta: Delta) -> Tensor:
    """Plain forwards of a copy with changed weights, through the whole head."""
    return torch.stack([margins_of(user, delta) for user in USERS])


def margins_of(user: User, delta: Delta) -> Tensor:
    changed = copy.deepcopy(MODEL)
    for module in EXPERTS[0].modules:
        changed.get_submodule(module).weight += delta(user, module)
    logits = changed(input_ids=user.prompts()).logits[:, -1]
    margins: Tensor = logits[:, workload.YES] - logits[:, workload.NO]
    return margins


PEERS: Mapping[str, tuple[Callable[[nn.Module, Sequence[Expert]], Any], Delta]] = {
    "full": (lambda model, _: peers.FullPrompts(model), no_delta),
    "merged": (lambda model, experts: peers.MergedPerUser(model, experts), exact_sum),
    "peft_cat": (
        lambda model, experts: peers.PeftWeighted(peers.with_adapters(model, experts), "cat"),
        exact_sum,
    ),
    "peft_linear": (
        lambda model, experts: peers.PeftWeighted(peers.with_adapters(model, experts), "linear"),
        product_of_sums,
    ),
    "peft_mixed": (
        lambda model, experts: peers.PeftMixedBatch(peers.with_adapters(model, experts)),
        exact_sum,
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_computes_what_it_is_said_to_compute(name: str) -> None:
    peer, delta = PEERS[name]
    with torch.inference_mode():
        found = peer(MODEL, EXPERTS).margins(USERS)
    assert found.shape == (NUM_USERS, SIZES.candidates)
    assert float((found - expected_margins(delta)).abs().max()) <= TOLERANCE


def test_the_deltas_differ_by_far_more_than_the_tolerance() -> None:
    """Otherwise the test above could not tell one method from another."""
    exact, linear, base = map(expected_margins, (exact_sum, product_of_sums, no_delta))
    for one, other in ((exact, base), (exact, linear), (exact, exact.roll(1, dims=0))):
        assert float((one - other).abs().max()) > 500 * TOLERANCE


@pytest.mark.parametrize("name", ["merged", "peft_cat", "peft_mixed"])
def test_a_peer_leaves_the_shared_weights_as_they_were(name: str) -> None:
    model = workload.random_model(SHAPE, torch.bfloat16)
    before = copy.deepcopy(model.state_dict())
    with torch.inference_mode():
        PEERS[name][0](model, EXPERTS).margins(USERS)
    for key, weight in model.state_dict().items():
        assert torch.equal(weight, before[key]), key


def test_peft_works_in_the_models_precision_and_deletes_what_it_made() -> None:
    model = workload.random_model(SHAPE, torch.bfloat16)
    adapted = peers.with_adapters(model, EXPERTS)
    with torch.inference_mode(), peers.weighted_adapters(adapted, USERS, "cat") as names:
        dtypes = {p.dtype for key, p in adapted.named_parameters() if f".{names[0]}." in key}
    assert dtypes == {torch.bfloat16}
    assert list(adapted.peft_config) == [expert.name for expert in EXPERTS]
    assert not any("mixture" in key for key, _ in adapted.named_parameters())


def test_fewest_flops_of_a_case_counted_by_hand() -> None:
    shape = workload.Shape("hand", 4, 2, 2, 1, 8, 16, tied=False)  # heads of 2
    sizes = workload.Sizes(prefix=3, candidates=2, tokens=2)
    keys_and_values = 2 * (2 * 4 * 2)  # 32, two matrices of 4 × 2
    queries_and_output = 2 * (2 * 4 * 4)  # 64, two of 4 × 4
    mlp = 3 * (2 * 4 * 8)  # 192, three of 4 × 8
    look = 2 * (2 * 4)  # 16, a score and a weighted sum over 2 heads of 2
    # 7 tokens; the prefix looks 1 + 2 + 3 times, a candidate 4 + 5 times.
    first = 7 * (32 + 64 + 192) + (6 + 2 * 9) * 16
    # Keys and values of 7 tokens; 2 verdicts that look at 5 tokens each.
    last = 7 * 32 + 2 * (64 + 192) + 2 * 5 * 16
    head = 2 * (2 * 4 * 2)  # 2 verdicts through a matrix of 4 × 2
    assert (keys_and_values, queries_and_output, mlp, look) == (32, 64, 192, 16)
    assert floor.fewest_flops(shape, sizes) == first + last + head == 3328


def test_fewest_flops_of_the_workload() -> None:
    """Per candidate, as worked out before for both models: 0.414 and 15.42 GFLOP."""
    sizes = workload.Sizes()
    for name, gflops in (("S", 0.414), ("L", 15.42)):
        found = floor.fewest_flops(workload.SHAPES[name], sizes) / sizes.candidates
        assert found / 1e9 == pytest.approx(gflops, rel=2e-3)

"""The comparison of the engine is only worth something if roofline and baselines are right."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from benchmarks.common import workload
from benchmarks.common.workload import SyntheticUser
from benchmarks.engine import baselines
from benchmarks.engine.rankloom_engine import RankloomEngine, disable_padding
from benchmarks.engine.roofline import fewest_flops
from benchmarks.engine.study import ScoringMethod
from torch import Tensor
from transformers import Qwen2ForCausalLM

from rankloom_adapters.expert import Expert
from rankloom_engine import passes

TOLERANCE = 2e-6

# PEFT calls it when a model is wrapped.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SHAPE = workload.ModelShape("tiny", 32, 2, 4, 2, 64, 96, tied=True)
# More candidates than a batch holds, and a last user with no other to share batches with.
SIZES, NUM_USERS = workload.PromptSizes(prefix=7, candidates=23, tokens=4), 3

MODEL = workload.random_model(SHAPE, torch.float32)
EXPERTS = workload.random_experts(MODEL, 8)
USERS = workload.random_users(NUM_USERS, SHAPE, SIZES)

Delta = Callable[[SyntheticUser, str], Tensor]


def exact_sum(user: SyntheticUser, module: str) -> Tensor:
    """Σ w s B A."""
    factors, a, b = stacked(user, module)
    return torch.einsum("k,kor,kri->oi", factors, b, a)


def product_of_sums(user: SyntheticUser, module: str) -> Tensor:
    """(Σ √(w s) B) (Σ √(w s) A): what PEFT calls linear."""
    factors, a, b = stacked(user, module)
    root = factors.sqrt()
    return torch.einsum("k,kor->or", root, b) @ torch.einsum("k,kri->ri", root, a)


def no_delta(user: SyntheticUser, module: str) -> Tensor:
    return torch.zeros(())


def stacked(user: SyntheticUser, module: str) -> tuple[Tensor, Tensor, Tensor]:
    """w s, A and B of all experts."""
    scales = torch.tensor([expert.scale for expert in EXPERTS])
    pairs = [expert.modules[module] for expert in EXPERTS]
    a, b = (torch.stack([torch.from_numpy(getattr(p, side)) for p in pairs]) for side in "ab")
    return torch.from_numpy(user.weights) * scales, a, b


@torch.inference_mode()
def expected_margins(delta: Delta) -> Tensor:
    """Plain forwards of a copy with changed weights, through the whole head."""
    return torch.stack([margins_of(user, delta) for user in USERS])


def margins_of(user: SyntheticUser, delta: Delta) -> Tensor:
    changed = copy.deepcopy(MODEL)
    for module in EXPERTS[0].modules:
        changed.get_submodule(module).weight += delta(user, module)
    logits: Tensor = changed(input_ids=user.prompts()).logits[:, -1]
    return logits[:, workload.YES] - logits[:, workload.NO]


Method = Callable[[Qwen2ForCausalLM, Sequence[Expert]], ScoringMethod]

BASELINES: Mapping[str, tuple[Method, Delta]] = {
    "full": (lambda model, _: baselines.FullPrompts(model), no_delta),
    "merged": (lambda model, experts: baselines.MergedPerUser(model, experts), exact_sum),
    "peft_cat": (
        lambda *given: baselines.PeftWeighted(baselines.with_adapters(*given), "cat"),
        exact_sum,
    ),
    "peft_linear": (
        lambda *given: baselines.PeftWeighted(baselines.with_adapters(*given), "linear"),
        product_of_sums,
    ),
    "peft_mixed": (
        lambda model, experts: baselines.PeftMixedBatch(baselines.with_adapters(model, experts)),
        exact_sum,
    ),
}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_computes_what_its_name_says(name: str) -> None:
    method, delta = BASELINES[name]
    with torch.inference_mode():
        found = method(MODEL, EXPERTS).margins(USERS)
    assert found.shape == (NUM_USERS, SIZES.candidates)
    assert float((found - expected_margins(delta)).abs().max()) <= TOLERANCE


def test_the_deltas_differ_by_far_more_than_the_tolerance() -> None:
    """Otherwise the test above could not tell one method from another."""
    exact, linear, base = map(expected_margins, (exact_sum, product_of_sums, no_delta))
    for one, other in ((exact, base), (exact, linear), (exact, exact.roll(1, dims=0))):
        assert float((one - other).abs().max()) > 500 * TOLERANCE


@pytest.mark.parametrize("name", ["merged", "peft_cat", "peft_mixed"])
def test_a_baseline_leaves_the_shared_weights_as_they_were(name: str) -> None:
    model = workload.random_model(SHAPE, torch.bfloat16)
    before = copy.deepcopy(model.state_dict())
    with torch.inference_mode():
        BASELINES[name][0](model, EXPERTS).margins(USERS)
    for key, weight in model.state_dict().items():
        assert torch.equal(weight, before[key]), key


def test_peft_uses_the_models_number_format_and_deletes_its_adapters() -> None:
    model = workload.random_model(SHAPE, torch.bfloat16)
    adapted = baselines.with_adapters(model, EXPERTS)
    with torch.inference_mode(), baselines.weighted_adapters(adapted, USERS, "cat") as names:
        dtypes = {p.dtype for key, p in adapted.named_parameters() if f".{names[0]}." in key}
    assert dtypes == {torch.bfloat16}
    assert list(adapted.peft_config) == [expert.name for expert in EXPERTS]
    assert not any("mixture" in key for key, _ in adapted.named_parameters())


def test_fewest_flops_of_a_case_counted_by_hand() -> None:
    shape = workload.ModelShape("hand", 4, 2, 2, 1, 8, 16, tied=False)  # heads of 2
    sizes = workload.PromptSizes(prefix=3, candidates=2, tokens=2)
    keys_and_values = 2 * (2 * 4 * 2)  # 32, two matrices of 4 × 2
    queries_and_output = 2 * (2 * 4 * 4)  # 64, two of 4 × 4
    mlp = 3 * (2 * 4 * 8)  # 192, three of 4 × 8
    attend = 2 * (2 * 4)  # 16, a score and a weighted sum over 2 heads of 2
    # 7 tokens; the prefix attends 1 + 2 + 3 times, a candidate 4 + 5 times.
    first = 7 * (32 + 64 + 192) + (6 + 2 * 9) * 16
    # Keys and values of 7 tokens; 2 verdicts that attend to 5 tokens each.
    last = 7 * 32 + 2 * (64 + 192) + 2 * 5 * 16
    head = 2 * (2 * 4 * 2)  # 2 verdicts through a matrix of 4 × 2
    assert (keys_and_values, queries_and_output, mlp, attend) == (32, 64, 192, 16)
    assert fewest_flops(shape, sizes) == first + last + head == 3328


def test_fewest_flops_of_the_workload() -> None:
    """GFLOP per candidate, worked out by hand for both models."""
    sizes = workload.PromptSizes()
    for name, gflops in (("S", 0.414), ("L", 15.42)):
        found = fewest_flops(workload.SHAPES[name], sizes) / sizes.candidates
        assert found / 1e9 == pytest.approx(gflops, rel=2e-3)


def test_padding_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The margins stay the same, since nothing attends to the tokens that padding adds."""
    engine = RankloomEngine(MODEL, EXPERTS)
    requests = [engine.request(user, user.candidates) for user in USERS]
    sizes: list[int] = []

    def bucket(size: int) -> int:
        sizes.append(size)
        return 4 * size

    monkeypatch.setattr(passes, "bucket", bucket)  # restores it after the test
    padded = engine.forward(requests)[0]
    assert sizes, "padding does not ask this function for a size"
    disable_padding()
    assert vars(passes)["bucket"](17) == 17
    assert float((engine.forward(requests)[0] - padded).abs().max()) <= TOLERANCE

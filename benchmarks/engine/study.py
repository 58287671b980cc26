"""The comparison for one model: first what every method computes, then what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from benchmarks.common.matmuls import RUN_FLOPS, matmuls
from benchmarks.common.timing import interleaved, progress
from benchmarks.common.workload import (
    NUM_EXPERTS,
    ModelShape,
    PromptSizes,
    SyntheticUser,
    random_experts,
    random_model,
    random_users,
)
from benchmarks.engine.baselines import (
    FullPrompts,
    MergedPerUser,
    PeftMixedBatch,
    PeftWeighted,
    with_adapters,
)
from benchmarks.engine.findings import (
    OTHER_METHODS,
    ROUNDING,
    EngineStudy,
    RoundingCheck,
    VariantCosts,
)
from benchmarks.engine.rankloom_engine import RankloomEngine, TwoCalls
from benchmarks.engine.roofline import fewest_flops
from rankloom_adapters.expert import Expert

WORKLOAD = PromptSizes()
FEW_CANDIDATES = 5
MANY_EXPERTS, MANY_USED = 256, 4

CHECKED_USERS, CHECKED = 2, PromptSizes(candidates=FEW_CANDIDATES)
TOLERANCE = 1e-5
ORDERED = 0.99  # of the pairs that differ by more than ROUNDING


class ScoringMethod(Protocol):
    """A way to score users."""

    def margins(self, users: Sequence[SyntheticUser]) -> Tensor:
        """(users, candidates) float32."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """How much is run. ``baseline_users``: for methods that read whole prompts, which are slow."""

    users: int
    baseline_users: int
    rounds: int
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class TimedVariant:
    """What is timed; ``candidates``: how many one run scores."""

    work: Callable[[], object]
    users: int
    candidates: float


class WrongMarginsError(Exception):
    """A method does not compute the mixture, so its time means nothing."""


def run_engine_study(shape: ModelShape, plan: EnginePlan) -> EngineStudy:
    """Checks and times one model. Raises WrongMarginsError."""
    progress(f"{shape.name}: checking the margins in float32")
    differences = check(shape)
    progress(f"{shape.name}: checking the margins in {plan.dtype}")
    rounding = check_rounding(shape, plan.dtype)
    variants = _variants(shape, plan)
    works = {name: variant.work for name, variant in variants.items()}
    costs = interleaved(works, plan.rounds, shape.name)
    found = {name: VariantCosts(v.users, v.candidates, costs[name]) for name, v in variants.items()}
    return EngineStudy(differences, rounding, found)


def check(shape: ModelShape) -> dict[str, float]:
    """Largest differences of float32 margins. Raises WrongMarginsError."""
    model = random_model(shape, torch.float32)
    experts = random_experts(model, MANY_EXPERTS)
    few, users = experts[:NUM_EXPERTS], random_users(CHECKED_USERS, shape, CHECKED)
    many = _users_of_many(CHECKED_USERS, shape, CHECKED)
    baselines, engine = _baselines(model, few), RankloomEngine(model, few)
    calls = TwoCalls(engine, users, FEW_CANDIDATES)
    later = [replace(user, candidates=user.later) for user in users]
    merged = baselines["merged"].margins(users)
    found = {name: _largest(each.margins(users), merged) for name, each in baselines.items()}
    found["engine"] = _largest(engine.margins(users), merged)
    bare, full = RankloomEngine(model), baselines["full"]
    found["engine_bare"] = _largest(bare.margins(users), full.margins(users))
    merged_many = MergedPerUser(model, experts).margins(many)
    found["engine_256"] = _largest(RankloomEngine(model, experts).margins(many), merged_many)
    found["first_5"] = _largest(calls.first(), merged)
    found["second_5"] = _largest(calls.second(), baselines["merged"].margins(later))
    _refuse_wrong(shape, found)
    return found


def check_rounding(shape: ModelShape, dtype: torch.dtype) -> RoundingCheck:
    """Margins in the timed number format beside float32's. Raises WrongMarginsError."""
    model = random_model(shape, dtype)
    experts = random_experts(model, NUM_EXPERTS)
    users = random_users(CHECKED_USERS, shape, WORKLOAD)
    exact = MergedPerUser(random_model(shape, dtype).float(), experts).margins(users)
    merged = MergedPerUser(model, experts).margins(users)
    found = RankloomEngine(model, experts).margins(users)
    rounding = RoundingCheck(_error(found, exact), _error(merged, exact), _ordered(found, exact))
    if not (rounding.error <= ROUNDING and rounding.ordered >= ORDERED):
        raise WrongMarginsError(
            f"{shape.name}: margins in {dtype} are too far from float32's ({rounding}): "
            "nothing was timed"
        )
    return rounding


def _variants(shape: ModelShape, plan: EnginePlan) -> dict[str, TimedVariant]:
    model = random_model(shape, plan.dtype)
    experts = random_experts(model, MANY_EXPERTS)
    few, users = experts[:NUM_EXPERTS], random_users(plan.users, shape, WORKLOAD)
    some, many = users[: plan.baseline_users], _users_of_many(plan.users, shape, WORKLOAD)
    engine = RankloomEngine(model, few)
    return {
        **{name: _scoring(each, some) for name, each in _baselines(model, few).items()},
        "roofline": _roofline(shape, plan.dtype),
        "engine": _scoring(engine, users),
        "engine_bare": _scoring(RankloomEngine(model), users),
        "engine_256": _scoring(RankloomEngine(model, experts), many),
        **_two_calls(engine, users, WORKLOAD.candidates),
        **_two_calls(engine, users, FEW_CANDIDATES),
    }


def _baselines(model: Qwen2ForCausalLM, experts: Sequence[Expert]) -> dict[str, ScoringMethod]:
    adapted = with_adapters(model, experts)
    return {
        "full": FullPrompts(model),
        "merged": MergedPerUser(model, experts),
        "peft_linear": PeftWeighted(adapted, "linear"),
        "peft_cat": PeftWeighted(adapted, "cat"),
        "peft_mixed": PeftMixedBatch(adapted),
    }


def _users_of_many(num: int, shape: ModelShape, sizes: PromptSizes) -> list[SyntheticUser]:
    return random_users(num, shape, sizes, num_experts=MANY_EXPERTS, num_used=MANY_USED)


def _scoring(method: ScoringMethod, users: Sequence[SyntheticUser]) -> TimedVariant:
    num = len(users)
    return TimedVariant(partial(method.margins, users), num, num * WORKLOAD.candidates)


def _two_calls(
    engine: RankloomEngine, users: Sequence[SyntheticUser], num: int
) -> dict[str, TimedVariant]:
    calls, total = TwoCalls(engine, users, num), len(users) * num
    return {
        f"first_{num}": TimedVariant(calls.first, len(users), total),
        f"second_{num}": TimedVariant(calls.second, len(users), total),
    }


def _roofline(shape: ModelShape, dtype: torch.dtype) -> TimedVariant:
    """Plain matmuls, and the number of candidates that their FLOPs would be enough for."""
    per_candidate = fewest_flops(shape, WORKLOAD) / WORKLOAD.candidates
    return TimedVariant(matmuls(dtype), 0, RUN_FLOPS / per_candidate)


def _largest(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max())


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).square().mean().sqrt() / exact.std())


def _ordered(found: Tensor, exact: Tensor) -> float:
    gaps, kept = (each.flatten()[:, None] - each.flatten() for each in (exact, found))
    apart = gaps > ROUNDING * exact.std()
    return float((kept[apart] > 0).float().mean())


def _refuse_wrong(shape: ModelShape, differences: dict[str, float]) -> None:
    for name, difference in differences.items():
        if name not in OTHER_METHODS and not difference <= TOLERANCE:
            raise WrongMarginsError(
                f"{shape.name}: margins of {name} differ from merged weights by "
                f"{difference:.3g}, more than {TOLERANCE:g}: nothing was timed"
            )

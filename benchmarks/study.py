"""One model's comparison: first what every method computes, then what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from floor import RUN_FLOPS, fewest_flops, matmuls
from measure import Cost, interleaved, progress
from peers import FullPrompts, MergedPerUser, PeftMixedBatch, PeftWeighted, with_adapters
from subject import Engine, TwoCalls
from torch import Tensor
from transformers import Qwen2ForCausalLM
from workload import (
    NUM_EXPERTS,
    Shape,
    Sizes,
    User,
    random_experts,
    random_model,
    random_users,
)

from rankloom_adapters.expert import Expert

WORKLOAD = Sizes()
FEW_CANDIDATES = 5
MANY_EXPERTS, MANY_USED = 256, 4
TIMED_DTYPE = torch.bfloat16

CHECKED_USERS, CHECKED = 2, Sizes(candidates=FEW_CANDIDATES)
TOLERANCE = 1e-5
ROUNDING, ORDERED = 0.06, 0.99  # of a standard deviation; of the pairs further apart than that
OTHER_METHODS = ("full", "peft_linear")  # no mixture of deltas: their difference is only shown


class Method(Protocol):
    """A way to score users."""

    def margins(self, users: Sequence[User]) -> Tensor:
        """(users, candidates) float32."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is run. ``peer_users``: users of the methods that read whole prompts."""

    users: int
    peer_users: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Variant:
    """What is timed; ``candidates``: how many one run of it scores."""

    work: Callable[[], object]
    users: int
    candidates: float


@dataclass(frozen=True, slots=True)
class Row:
    """What one variant cost, round by round."""

    users: int
    candidates: float
    costs: Sequence[Cost]

    def rates(self, *, wall: bool = False) -> list[float]:
        """Candidates per CPU-second, or per second on the wall, of each round."""
        return [self.candidates / (cost.wall_s if wall else cost.cpu_s) for cost in self.costs]


@dataclass(frozen=True, slots=True)
class Rounding:
    """What bf16 does to the engine's margins, beside float32's of the same weights.

    ``error``: root mean square, in standard deviations of the margins; ``error_merged``: that
    of merged weights with whole prompts in bf16. ``ordered``: the share of the pairs further
    apart than ROUNDING standard deviations that keep their order.
    """

    error: float
    error_merged: float
    ordered: float


@dataclass(frozen=True, slots=True)
class Study:
    """What was found for one model, by variant.

    ``differences``: of margins in float32, the largest, from merged weights.
    """

    differences: dict[str, float]
    rounding: Rounding
    rows: dict[str, Row]


class WrongScoresError(Exception):
    """A method does not compute the mixture, so that its time means nothing."""


def study(shape: Shape, settings: Settings) -> Study:
    """Checks and times one model. Raises WrongScoresError."""
    progress(f"{shape.name}: checking the margins in float32")
    differences = check(shape)
    progress(f"{shape.name}: checking the margins in bf16")
    rounding = check_rounding(shape)
    variants = _variants(shape, settings)
    works = {name: variant.work for name, variant in variants.items()}
    costs = interleaved(works, settings.rounds, shape.name)
    rows = {name: Row(v.users, v.candidates, costs[name]) for name, v in variants.items()}
    return Study(differences, rounding, rows)


def check(shape: Shape) -> dict[str, float]:
    """Largest differences of float32 margins. Raises WrongScoresError."""
    model = random_model(shape, torch.float32)
    experts = random_experts(model, MANY_EXPERTS)
    few, users = experts[:NUM_EXPERTS], random_users(CHECKED_USERS, shape, CHECKED)
    many = _users_of_many(CHECKED_USERS, shape, CHECKED)
    peers, engine = _peers(model, few), Engine(model, few)
    calls, later = TwoCalls(engine, users, FEW_CANDIDATES), [_later(user) for user in users]
    merged = peers["merged"].margins(users)
    found = {name: _difference(peer.margins(users), merged) for name, peer in peers.items()}
    found["engine"] = _difference(engine.margins(users), merged)
    bare, full = Engine(model), peers["full"]
    found["engine_bare"] = _difference(bare.margins(users), full.margins(users))
    merged_many = MergedPerUser(model, experts).margins(many)
    found["engine_256"] = _difference(Engine(model, experts).margins(many), merged_many)
    found["first_5"] = _difference(calls.first(), merged)
    found["second_5"] = _difference(calls.second(), peers["merged"].margins(later))
    _hold(shape, found)
    return found


def check_rounding(shape: Shape) -> Rounding:
    """The margins that are timed, as they are rounded. Raises WrongScoresError."""
    model = random_model(shape, TIMED_DTYPE)
    experts = random_experts(model, NUM_EXPERTS)
    users = random_users(CHECKED_USERS, shape, WORKLOAD)
    exact = MergedPerUser(random_model(shape, TIMED_DTYPE).float(), experts).margins(users)
    merged = MergedPerUser(model, experts).margins(users)
    found = Engine(model, experts).margins(users)
    rounding = Rounding(_error(found, exact), _error(merged, exact), _ordered(found, exact))
    if not (rounding.error <= ROUNDING and rounding.ordered >= ORDERED):
        raise WrongScoresError(f"{shape.name}: {rounding}: nothing was timed")
    return rounding


def _variants(shape: Shape, settings: Settings) -> dict[str, Variant]:
    model = random_model(shape, TIMED_DTYPE)
    experts = random_experts(model, MANY_EXPERTS)
    few, users = experts[:NUM_EXPERTS], random_users(settings.users, shape, WORKLOAD)
    some, many = users[: settings.peer_users], _users_of_many(settings.users, shape, WORKLOAD)
    engine = Engine(model, few)
    return {
        **{name: _scoring(peer, some) for name, peer in _peers(model, few).items()},
        "floor": _floor(shape),
        "engine": _scoring(engine, users),
        "engine_bare": _scoring(Engine(model), users),
        "engine_256": _scoring(Engine(model, experts), many),
        **_two_calls(engine, users, WORKLOAD.candidates),
        **_two_calls(engine, users, FEW_CANDIDATES),
    }


def _peers(model: Qwen2ForCausalLM, experts: Sequence[Expert]) -> dict[str, Method]:
    adapted = with_adapters(model, experts)
    return {
        "full": FullPrompts(model),
        "merged": MergedPerUser(model, experts),
        "peft_linear": PeftWeighted(adapted, "linear"),
        "peft_cat": PeftWeighted(adapted, "cat"),
        "peft_mixed": PeftMixedBatch(adapted),
    }


def _users_of_many(num: int, shape: Shape, sizes: Sizes) -> list[User]:
    return random_users(num, shape, sizes, num_experts=MANY_EXPERTS, num_used=MANY_USED)


def _scoring(method: Method, users: Sequence[User]) -> Variant:
    num = len(users)
    return Variant(partial(method.margins, users), num, num * WORKLOAD.candidates)


def _two_calls(engine: Engine, users: Sequence[User], num: int) -> dict[str, Variant]:
    calls, total = TwoCalls(engine, users, num), len(users) * num
    return {
        f"first_{num}": Variant(calls.first, len(users), total),
        f"second_{num}": Variant(calls.second, len(users), total),
    }


def _floor(shape: Shape) -> Variant:
    """Plain matmuls, and the candidates that their FLOPs would be enough for."""
    of_candidate = fewest_flops(shape, WORKLOAD) / WORKLOAD.candidates
    return Variant(matmuls(TIMED_DTYPE), 0, RUN_FLOPS / of_candidate)


def _later(user: User) -> User:
    return replace(user, candidates=user.later)


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max())


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).square().mean().sqrt() / exact.std())


def _ordered(found: Tensor, exact: Tensor) -> float:
    gaps, kept = (each.flatten()[:, None] - each.flatten() for each in (exact, found))
    apart = gaps > ROUNDING * exact.std()
    return float((kept[apart] > 0).float().mean())


def _hold(shape: Shape, differences: dict[str, float]) -> None:
    for name, difference in differences.items():
        if name not in OTHER_METHODS and not difference <= TOLERANCE:
            raise WrongScoresError(
                f"{shape.name}: margins of {name} differ from merged weights by "
                f"{difference:.3g}, over {TOLERANCE:g}: nothing was timed"
            )

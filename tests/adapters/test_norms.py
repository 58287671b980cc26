"""An expert with far larger norms is refused, and a good one never is."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from rankloom_adapters.expert import Expert, ExpertError, Factors
from rankloom_adapters.norms import MAX_GAIN, MIN_OTHERS, check_norms, module_norms

SHAPES = {"q_proj": (48, 32), "v_proj": (8, 32), "down_proj": (32, 96)}
RANK, FACTOR = 4, 3.0
USUAL = {"q_proj": 1.0, "v_proj": 0.01, "down_proj": 20.0}


def drawn(random: np.random.Generator, rank: int = RANK) -> Expert:
    """An expert with usual norms, within a factor of three for each module."""
    modules = {}
    for module, (d_out, d_in) in SHAPES.items():
        a = random.normal(size=(rank, d_in))
        b = random.normal(size=(d_out, rank))
        norm = USUAL[module] * FACTOR ** random.uniform(-1, 1)
        b *= norm / (2.0 * np.linalg.norm(b @ a))
        modules[module] = Factors(a.astype(np.float32), b.astype(np.float32))
    return Expert("e", "0" * 64, rank, 2.0, modules)


def enlarged(expert: Expert, module: str, times: float) -> Expert:
    pair = expert.modules[module]
    larger = Factors(pair.a, (pair.b * times).astype(np.float32))
    return dataclasses.replace(expert, modules={**expert.modules, module: larger})


@pytest.mark.parametrize("scale", [0.25, 2.0, -3.0, 0.0])
@pytest.mark.parametrize("rank", [1, 4, 64])
def test_norms_are_those_of_the_product(rank: int, scale: float) -> None:
    expert = dataclasses.replace(drawn(np.random.default_rng(rank), rank), scale=scale)
    for module, norm in module_norms(expert).items():
        pair = expert.modules[module]
        product = scale * (pair.b.astype(np.float64) @ pair.a.astype(np.float64))
        assert norm == pytest.approx(float(np.linalg.norm(product)), rel=1e-12, abs=0.0)


def test_a_product_that_vanishes_has_no_norm() -> None:
    """Rows of A cancel, so that the product is smaller than the rounding of its factors."""
    random = np.random.default_rng(0)
    row, column = random.normal(size=(1, 32)), random.normal(size=(48, 1))
    a = np.concatenate([row, -row]).astype(np.float32)
    b = np.concatenate([column, column], axis=1).astype(np.float32)
    expert = Expert("e", "0" * 64, 2, 1.0, {"q_proj": Factors(a, b)})
    assert module_norms(expert)["q_proj"] <= 1e-7 * np.linalg.norm(a) * np.linalg.norm(b)


def test_the_largest_numbers_have_a_norm() -> None:
    top = float(np.finfo(np.float32).max)
    a, b = np.full((64, 4096), top, np.float32), np.full((4096, 64), top, np.float32)
    expert = Expert("e", "0" * 64, 64, top, {"q_proj": Factors(a, b)})
    assert math.isfinite(module_norms(expert)["q_proj"])
    with pytest.raises(ExpertError, match=r"q_proj: norm .* is allowed"):
        check_norms(expert, [])


@pytest.mark.parametrize("module", SHAPES)
@pytest.mark.parametrize("num_others", [MIN_OTHERS, 4, 12])
def test_a_hundred_times_too_large_is_refused(module: str, num_others: int) -> None:
    for seed in range(50):
        random = np.random.default_rng(seed)
        others = [drawn(random) for _ in range(num_others)]
        synthetic = enlarged(drawn(random), module, 100.0)
        with pytest.raises(ExpertError, match=f"expert e: {module}: norm"):
            check_norms(synthetic, others)


@pytest.mark.parametrize("num_others", [0, 1, MIN_OTHERS, 4, 12])
def test_healthy_experts_are_never_refused(num_others: int) -> None:
    for seed in range(200):
        random = np.random.default_rng(seed)
        check_norms(drawn(random), [drawn(random) for _ in range(num_others)])


def test_the_limits_hold_at_the_edge_of_what_is_healthy() -> None:
    """3 times the usual norm among thirds of it, and 100/3 times it among 3 times it."""
    usual = drawn(np.random.default_rng(0))
    small = [enlarged(usual, "q_proj", 1 / FACTOR)] * MIN_OTHERS
    large = [enlarged(usual, "q_proj", FACTOR)] * MIN_OTHERS
    check_norms(large[0], small)
    with pytest.raises(ExpertError, match="an outlier"):
        check_norms(enlarged(small[0], "q_proj", 100.0), large)


def test_one_outlier_among_the_others_hides_none() -> None:
    random = np.random.default_rng(0)
    others = [drawn(random) for _ in range(5)]
    others[0] = enlarged(others[0], "q_proj", 1000.0)
    check_norms(drawn(random), others)
    with pytest.raises(ExpertError, match="q_proj"):
        check_norms(enlarged(drawn(random), "q_proj", 100.0), others)


def test_few_others_leave_the_bound_on_the_gain() -> None:
    random = np.random.default_rng(0)
    others = [drawn(random) for _ in range(MIN_OTHERS - 1)]
    expert = drawn(random)
    bound = MAX_GAIN * math.sqrt(SHAPES["q_proj"][0])
    times = bound / module_norms(expert)["q_proj"]
    check_norms(enlarged(expert, "q_proj", 0.999 * times), others)
    with pytest.raises(ExpertError, match=r"q_proj: norm .* is allowed"):
        check_norms(enlarged(expert, "q_proj", 1.001 * times), others)


def test_others_that_leave_a_module_alone_do_not_count() -> None:
    random = np.random.default_rng(0)
    untouched = [enlarged(drawn(random), "q_proj", 0.0) for _ in range(5)]
    check_norms(drawn(random), untouched)
    check_norms(untouched[0], [drawn(random) for _ in range(5)])
    without = [
        dataclasses.replace(one, modules={"q_proj": one.modules["q_proj"]})
        for one in (drawn(random) for _ in range(5))
    ]
    check_norms(enlarged(drawn(random), "v_proj", 100.0), without)

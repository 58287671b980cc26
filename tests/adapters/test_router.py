from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankloom_adapters.router import (
    GLOBAL,
    Mixture,
    Route,
    Router,
    RouterError,
    RouteThresholds,
    cosines,
    group_of,
)

Vector = NDArray[np.float64]
TEMPERATURE = 0.05
SIZES = range(1, 9)
sizes = st.integers(1, 8)
seeds = st.integers(0, 2**32 - 1)


def axis_router(num: int) -> Router:
    """Centroids along the first ``num`` axes, with one more axis for the user."""
    names = tuple(f"group-{index}" for index in range(num))
    return Router(names, np.zeros(num + 1), np.eye(num, num + 1), TEMPERATURE)


def user_with(weights: Vector) -> Vector:
    """The unit vector that an ``axis_router`` turns into exactly these weights."""
    cosine = TEMPERATURE * (np.log(weights) - np.log(weights).mean())
    return np.append(cosine, math.sqrt(1.0 - float(cosine @ cosine)))


def one_above(num: int, largest: float) -> Vector:
    rest = (1.0 - largest) / max(num - 1, 1)
    return np.array([largest] + [rest] * (num - 1))


def entropy_of(weights: Vector) -> float:
    return float(-(weights * np.log(weights)).sum())


def with_entropy(num: int, entropy: float) -> Vector:
    """Weights of the given entropy, one above the others, which are equal; by bisection."""
    low, high = 1.0 / num, 1.0 - 1e-9
    for _ in range(100):
        middle = (low + high) / 2
        if entropy_of(one_above(num, middle)) > entropy:
            low = middle
        else:
            high = middle
    return one_above(num, low)


def random_router(num: int, seed: int, dim: int = 5) -> tuple[Router, Vector]:
    random = np.random.default_rng(seed)
    names = tuple(f"group-{index}" for index in range(num))
    temperature = float(random.choice([0.05, 0.1, 0.3, 1.0, 5.0]))
    router = Router(names, random.normal(size=dim), random.normal(size=(num, dim)), temperature)
    return router, random.normal(size=dim)


def slow_weights(router: Router, vector: Vector) -> list[float]:
    """ThinkRec's equations, written with plain loops."""
    user = [u - c for u, c in zip(vector, router.centre, strict=True)]
    scaled = []
    for centroid in router.centroids:
        other = [x - c for x, c in zip(centroid, router.centre, strict=True)]
        dot = sum(a * b for a, b in zip(user, other, strict=True))
        scaled.append(dot / math.hypot(*user) / math.hypot(*other) / router.temperature)
    total = sum(math.exp(s) for s in scaled)
    return [math.exp(s) / total for s in scaled]


@settings(deadline=None)
@given(sizes, seeds)
def test_route_and_weights_follow_the_papers_rules(num: int, seed: int) -> None:
    router, vector = random_router(num, seed)
    expected = slow_weights(router, vector)
    largest, entropy = max(expected), -sum(w * math.log(w) for w in expected)
    threshold, averaged = 0.5 + 0.6 / num, 0.95 * math.log(num)
    assume((abs(largest - threshold) > 1e-9 and abs(entropy - averaged) > 1e-9) or num == 1)
    mixture = router.route(vector)
    assert mixture.weights.sum() == pytest.approx(1.0, abs=1e-6)
    assert mixture.entropy == pytest.approx(entropy, abs=1e-9)
    assert not mixture.cold_start
    if largest > threshold:
        assert mixture.route is Route.SINGLE
        assert mixture.weights.tolist() == [float(w == largest) for w in expected] + [0.0]
    elif entropy >= averaged or num == 1:
        assert mixture.route is Route.GLOBAL
        assert mixture.weights.tolist() == [0.0] * num + [1.0]
    else:
        assert mixture.route is Route.FUSED
        assert mixture.weights == pytest.approx([*expected, 0.0], abs=1e-6)


@pytest.mark.parametrize("num", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("index", [0, -1])
def test_single_only_above_the_concentration_threshold(num: int, index: int) -> None:
    threshold = 0.5 + 0.6 / num
    below, above = (
        np.roll(one_above(num, threshold + step), index % num) for step in (-1e-7, 1e-7)
    )
    assert axis_router(num).route(user_with(above)).route is Route.SINGLE
    assert axis_router(num).route(user_with(above)).weights.argmax() == index % num
    assert axis_router(num).route(user_with(below)).route is Route.FUSED


@pytest.mark.parametrize("num", [2, 3, 4, 5, 6, 7, 8])
def test_global_only_from_the_entropy_threshold(num: int) -> None:
    threshold = 0.95 * math.log(num)
    router = axis_router(num)
    assert router.route(user_with(with_entropy(num, threshold + 1e-7))).route is Route.GLOBAL
    assert router.route(user_with(with_entropy(num, threshold - 1e-7))).route is Route.FUSED


@pytest.mark.parametrize("num", [2, 3, 8])
@pytest.mark.parametrize("single_above", [0.6, 0.9])
def test_fitted_thresholds_replace_the_papers(num: int, single_above: float) -> None:
    router = with_thresholds(axis_router(num), single_above, 0.8)
    below, above = (one_above(num, single_above + step) for step in (-1e-7, 1e-7))
    assert router.route(user_with(above)).route is Route.SINGLE
    assert router.route(user_with(below)).route is not Route.SINGLE
    averaged = 0.8 * math.log(num)
    mixed, flat = (user_with(with_entropy(num, averaged + step)) for step in (-1e-7, 1e-7))
    router = with_thresholds(axis_router(num), 1.0, 0.8)
    assert (router.route(mixed).route, router.route(flat).route) == (Route.FUSED, Route.GLOBAL)


@settings(deadline=None)
@given(st.integers(2, 8), seeds)
def test_thresholds_at_their_ends_take_one_route(num: int, seed: int) -> None:
    router, vector = random_router(num, seed)
    routes = {(1.0, 1.0): Route.FUSED, (0.0, 1.0): Route.SINGLE, (1.0, 0.0): Route.GLOBAL}
    for ends, expected in routes.items():
        assert with_thresholds(router, *ends).route(vector).route is expected
    assert with_thresholds(router, 1.0, 1.0).route(np.zeros(router.dim)).cold_start


def with_thresholds(router: Router, single_above: float, global_from: float) -> Router:
    thresholds = RouteThresholds(single_above, global_from)
    return dataclasses.replace(router, fitted_thresholds=thresholds)


def test_fitted_thresholds_are_kept() -> None:
    router = with_thresholds(axis_router(3), 0.75, 0.9)
    assert Router.from_bytes(router.to_bytes()).thresholds == RouteThresholds(0.75, 0.9)
    paper = Router.from_bytes(axis_router(3).to_bytes()).thresholds
    assert paper.single_above == pytest.approx(0.7)
    assert paper.global_from == 0.95


@pytest.mark.parametrize("num", SIZES)
def test_equal_weights_take_the_global_expert_and_are_not_cold(num: int) -> None:
    mixture = axis_router(num).route(user_with(np.full(num, 1.0 / num)))
    assert (mixture.route, mixture.cold_start) == (Route.GLOBAL, False)
    assert mixture.entropy == pytest.approx(math.log(num))


def test_a_lone_group_never_outvotes_the_global_expert() -> None:
    assert axis_router(1).route(np.array([1.0, 0.0])).route is Route.GLOBAL


SILENT = [
    np.zeros(4),
    np.full(4, 1e-9),
    np.array([1.0, np.nan, 0.0, 0.0]),
    np.array([1.0, np.inf, 0.0, 0.0]),
    np.array([1.0, -np.inf, 0.0, 0.0]),
    np.ones(3),
    np.ones(5),
    np.ones((1, 4)),
    np.zeros(0),
    np.float64(1.0),
]


@pytest.mark.parametrize("vector", SILENT, ids=lambda v: f"{v.shape}-{v.ravel()[:2]}")
def test_a_vector_that_says_nothing_is_cold_and_global(vector: Vector) -> None:
    router = axis_router(3)
    mixture = router.route(vector)
    assert (mixture.route, mixture.cold_start) == (Route.GLOBAL, True)
    assert mixture.weights.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert mixture.weights.dtype == np.float32
    assert router.weights(vector) is None


def test_the_mean_user_is_global_but_not_cold() -> None:
    router = Router(("a", "b"), np.array([2.0, 1.0]), np.array([[3.0, 1.0], [1.0, 1.0]]))
    mixture = router.route(np.array([2.0, 1.0]))
    assert (mixture.route, mixture.cold_start) == (Route.GLOBAL, False)


@settings(deadline=None)
@given(sizes, seeds, st.floats(0.01, 100))
def test_the_length_of_the_centred_vector_does_not_matter(
    num: int, seed: int, factor: float
) -> None:
    router, vector = random_router(num, seed)
    longer = router.weights(router.centre + factor * (vector - router.centre))
    assert longer == pytest.approx(router.weights(vector), abs=1e-6)


@settings(deadline=None)
@given(sizes, seeds)
def test_top1_keeps_the_largest_expert_only(num: int, seed: int) -> None:
    router, vector = random_router(num, seed)
    mixture = router.route(vector)
    top = router.top1(mixture)
    index = int(mixture.weights.argmax())
    assert np.flatnonzero(top.weights).tolist() == [index]
    assert top.weights[index] == 1.0
    assert top.route is (Route.GLOBAL if index == num else Route.SINGLE)
    assert (top.entropy, top.cold_start) == (mixture.entropy, mixture.cold_start)


def test_top1_of_a_cold_mix_stays_cold() -> None:
    router = axis_router(2)
    assert router.top1(router.route(np.zeros(3))).cold_start


@settings(deadline=None)
@given(sizes, seeds)
def test_bytes_round_trip_exactly(num: int, seed: int) -> None:
    router, vector = random_router(num, seed)
    other = Router.from_bytes(router.to_bytes())
    assert (other.groups, other.temperature) == (router.groups, router.temperature)
    assert other.experts == (*router.groups, GLOBAL)
    assert (other.dim, other.centroids.tolist()) == (router.dim, router.centroids.tolist())
    first, second = router.route(vector), other.route(vector)
    assert first.weights.tobytes() == second.weights.tobytes()


@settings(deadline=None)
@given(sizes, seeds, st.integers(-8, 6))
def test_the_scale_of_the_latent_space_does_not_matter(num: int, seed: int, power: int) -> None:
    router, vector = random_router(num, seed)
    scale = 10.0**power
    other = Router(
        router.groups, router.centre * scale, router.centroids * scale, router.temperature
    )
    assume(np.linalg.norm(vector * scale) > 1e-5)
    assert other.weights(vector * scale) == pytest.approx(router.weights(vector), abs=1e-9)


def test_group_of_is_the_largest_weight() -> None:
    router, _ = random_router(4, 1)
    vectors = np.random.default_rng(2).normal(size=(20, router.dim))
    expected = [int(np.argmax(slow_weights(router, vector))) for vector in vectors]
    assert group_of(vectors, router.centre, router.centroids).tolist() == expected


def test_cosine_with_a_zero_vector_is_zero() -> None:
    assert cosines(np.zeros(2), np.array([[1.0, 0.0], [0.0, 0.0]])).tolist() == [0.0, 0.0]


GOOD: dict[str, Any] = {
    "groups": ["a", "b"],
    "temperature": 0.1,
    "centre": [0.0, 0.0],
    "centroids": [[1.0, 0.0], [0.0, 1.0]],
}
MISSHAPEN: list[dict[str, Any]] = [
    {"groups": []},
    {"groups": ["a"]},
    {"groups": ["a", "b", "c"]},
    {"groups": 2},
    {"groups": "ab"},
    {"groups": ["a", 2]},
    {"groups": ["a", "a"]},
    {"groups": ["a", GLOBAL]},
    {"temperature": 0.0},
    {"temperature": -1.0},
    {"temperature": math.nan},
    {"temperature": math.inf},
    {"temperature": "warm"},
    {"temperature": None},
    {"temperature": 10**400},
    {"centre": []},
    {"centre": [0.0]},
    {"centre": 0.0},
    {"centre": [math.nan, 0.0]},
    {"centre": ["x", "y"]},
    {"centroids": []},
    {"centroids": [[1.0, 0.0]]},
    {"centroids": [[1.0, 0.0], [0.0]]},
    {"centroids": [[1.0, 0.0], [0.0, math.inf]]},
    {"centroids": [1.0, 0.0]},
    {"centre": [[0.0, 0.0]], "groups": ["a"], "centroids": [[1.0]]},
    {"centre": [0.0, 10**400]},
    {"max_experts": 0},
    {"max_experts": -1},
    {"max_experts": "two"},
    {"max_experts": 1.5},
    {"max_experts": True},
    {"thresholds": 0.7},
    {"thresholds": {}},
    {"thresholds": {"single_above": 0.7}},
    {"thresholds": {"single_above": 1.1, "global_from": 0.9}},
    {"thresholds": {"single_above": 0.7, "global_from": -0.1}},
    {"thresholds": {"single_above": math.nan, "global_from": 0.9}},
    {"thresholds": {"single_above": "high", "global_from": 0.9}},
]


@pytest.mark.parametrize("change", MISSHAPEN, ids=lambda change: str(change)[:60])
def test_misshapen_gates_are_refused(change: dict[str, Any]) -> None:
    Router.from_bytes(json.dumps(GOOD).encode())
    with pytest.raises(RouterError, match="router"):
        Router.from_bytes(json.dumps(GOOD | change).encode())


@pytest.mark.parametrize("field", GOOD)
def test_a_missing_field_is_refused(field: str) -> None:
    fields = {name: value for name, value in GOOD.items() if name != field}
    with pytest.raises(RouterError):
        Router.from_bytes(json.dumps(fields).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"7", b"\xff\xfe", b"{", b"[" * 100_000])
def test_bytes_that_are_no_gate_are_refused(data: bytes) -> None:
    with pytest.raises(RouterError):
        Router.from_bytes(data)


def test_a_gate_and_its_mixes_are_immutable() -> None:
    router = axis_router(2)
    for value, field in ((router, "temperature"), (router.global_mixture(), "route")):
        assert isinstance(value, Router | Mixture)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)


@given(num=st.integers(2, 12), seed=st.integers(0, 500), most=st.integers(1, 12))
def test_a_fused_mix_keeps_the_largest_weights_only(num: int, seed: int, most: int) -> None:
    random = np.random.default_rng(seed)
    names = tuple(f"g{n}" for n in range(num))
    router = Router(names, np.zeros(5), random.normal(size=(num, 5)), 0.5)
    vector = random.normal(size=5)
    whole, cut = router.route(vector), dataclasses.replace(router, max_experts=most).route(vector)
    assert (cut.route, cut.entropy) == (whole.route, whole.entropy)
    if whole.route is not Route.FUSED:
        assert np.array_equal(cut.weights, whole.weights)
        return
    assert np.count_nonzero(cut.weights) == min(most, num)
    assert cut.weights.sum() == pytest.approx(1.0, abs=1e-6)
    kept = cut.weights > 0
    assert whole.weights[kept].min() >= whole.weights[:-1][~kept[:-1]].max(initial=0.0)
    assert cut.weights[kept] == pytest.approx(whole.weights[kept] / whole.weights[kept].sum())


def test_a_gate_of_no_experts_is_refused() -> None:
    with pytest.raises(RouterError, match="max_experts is 0"):
        Router(("a", "b"), np.zeros(2), np.eye(2), max_experts=0)


def test_a_gate_written_before_there_was_a_bound_has_none() -> None:
    assert not {"max_experts", "thresholds"} & GOOD.keys()
    assert Router.from_bytes(json.dumps(GOOD).encode()).max_experts is None

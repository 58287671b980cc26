"""The router: a user's latent vector becomes a weight per expert, and a route.

ThinkRec (arXiv 2505.15091, equations 8 to 10): w = softmax(cos(u, c_n) / τ) over the
centroids c_n of the user groups; one expert where the weights are concentrated, the
global expert where they are nearly equal, else the weighted sum. The mean user is subtracted
from vectors and centroids first, as when the groups were formed: the latent vectors of one
model share a large common part that would hide the differences.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum, StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

GLOBAL = "global"  # the name of the expert trained on all users
DEFAULT_TEMPERATURE = 0.1
CONCENTRATED_BASE, CONCENTRATED_SHARE = 0.5, 0.6
AVERAGED_SHARE = 0.95
SMALLEST_NORM = 1e-6  # a shorter user vector says nothing
_TINY = 1e-12  # replaces the norm of a zero vector, so that its cosine is zero


class RouterError(ValueError):
    """The router is invalid; the message says why."""


class Route(StrEnum):
    """The router's decision: one group's expert, the global expert, or a fused mixture."""

    SINGLE = "single"
    GLOBAL = "global"
    FUSED = "fused"


class Fusion(Enum):
    """How the weights of several experts become one model.

    EXACT_SUM: Σ w_k s_k B_k A_k. PEFT_LINEAR: (Σ √(w_k s_k) B_k)(Σ √(w_k s_k) A_k), with
    cross terms, as PEFT's "linear" combination and so ThinkRec's published code compute.
    TOP1: the expert of the largest weight alone.
    """

    EXACT_SUM = "exact_sum"
    PEFT_LINEAR = "peft_linear"
    TOP1 = "top1"


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """One user's row of weights.

    ``weights``: (N + 1,) float32 over the router's experts, the global one last; they
    sum to 1. ``entropy``: of the softmax over the N groups, in nats. ``cold_start``: the user's
    vector says nothing, so the global expert answers.
    """

    route: Route
    weights: NDArray[np.float32]
    entropy: float
    cold_start: bool


@dataclass(frozen=True, slots=True)
class RouteThresholds:
    """When the weights w of N groups are not fused.

    One expert alone if max w > ``single_above``; else the global expert if H(w) ≥
    ``global_from`` · ln N. Both are from 0 to 1: 1 and 1 fuse whenever that can make a difference.
    """

    single_above: float
    global_from: float

    def __post_init__(self) -> None:
        for name, value in (
            ("single_above", self.single_above),
            ("global_from", self.global_from),
        ):
            if not 0.0 <= value <= 1.0:
                raise RouterError(f"router: {name} is {value}; it must be from 0 to 1")

    @classmethod
    def of_paper(cls, num_groups: int) -> RouteThresholds:
        """ThinkRec's: 0.5 + 0.6 / N, which no weight exceeds for one group, and 0.95."""
        single_above = min(CONCENTRATED_BASE + CONCENTRATED_SHARE / num_groups, 1.0)
        return cls(single_above, AVERAGED_SHARE)


@dataclass(frozen=True, eq=False)
class Router:
    """``groups``: N expert names. ``centre``: (dim,), ``centroids``: (N, dim) float64.

    ``fitted_thresholds``: None: ThinkRec's for this number of groups.
    ``max_experts``: a fused mixture keeps this many of the largest weights, scaled to sum to 1;
    None: all. When the stacked ranks exceed a quarter of the model's width, experts cost more
    than the layers that they adapt.
    """

    groups: tuple[str, ...]
    centre: NDArray[np.float64]
    centroids: NDArray[np.float64]
    temperature: float = DEFAULT_TEMPERATURE
    max_experts: int | None = None
    fitted_thresholds: RouteThresholds | None = None

    def __post_init__(self) -> None:
        shape = (len(self.groups), *self.centre.shape)
        if not self.groups or len(shape) != 2 or self.centroids.shape != shape:
            raise RouterError(
                f"router: centroids of shape {self.centroids.shape}, expected {shape}"
            )
        if len(set(self.experts)) != len(self.experts):
            raise RouterError(f"router: group names must differ, also from {GLOBAL!r}")
        if not (np.isfinite(self.centroids).all() and np.isfinite(self.centre).all()):
            raise RouterError("router: centroids or centre are not finite")
        if not 0.0 < self.temperature < math.inf:
            raise RouterError(f"router: temperature {self.temperature} is not positive")
        if self.max_experts is not None and self.max_experts < 1:
            raise RouterError(f"router: max_experts is {self.max_experts}; it must be at least 1")

    @property
    def dim(self) -> int:
        """Length of a user vector."""
        return len(self.centre)

    @property
    def experts(self) -> tuple[str, ...]:
        """Expert names in the order of a mixture's weights."""
        return (*self.groups, GLOBAL)

    @cached_property
    def thresholds(self) -> RouteThresholds:
        """Those that decide the route."""
        return self.fitted_thresholds or RouteThresholds.of_paper(len(self.groups))

    def route(self, vector: NDArray[np.floating]) -> Mixture:
        """Returns a user's mixture; for a zero, non-finite or misshapen vector the global one."""
        weights = self.weights(vector)
        return (
            self.global_mixture(cold_start=True) if weights is None else self._mixture_of(weights)
        )

    def weights(self, vector: NDArray[np.floating]) -> NDArray[np.float64] | None:
        """(N,) softmax over the groups before the thresholds; None for an unusable vector."""
        similarity = self.similarity(vector)
        return None if similarity is None else softmax(similarity / self.temperature)

    def similarity(self, vector: NDArray[np.floating]) -> NDArray[np.float64] | None:
        """(N,) cosines of the centred vector and centroids; None for an unusable vector."""
        own = np.asarray(vector, dtype=np.float64)
        if own.shape != self.centre.shape:
            return None
        if not SMALLEST_NORM <= math.sqrt(float(own @ own)) < math.inf:
            return None  # the norm is not finite where a value is not
        return np.asarray(self._directions @ directions(own, self.centre))

    @cached_property
    def _directions(self) -> NDArray[np.float64]:
        return directions(self.centroids, self.centre)

    def global_mixture(self, *, cold_start: bool = False) -> Mixture:
        """All weight on the global expert."""
        return Mixture(
            Route.GLOBAL, self._one_hot(len(self.groups)), math.log(len(self.groups)), cold_start
        )

    def largest(self, vector: NDArray[np.floating]) -> str:
        """Name of the expert that has the largest weight in the user's mixture."""
        return self.experts[int(self.route(vector).weights.argmax())]

    def top1(self, mixture: Mixture) -> Mixture:
        """The mixture with all weight on its largest expert."""
        index = int(mixture.weights.argmax())
        route = Route.GLOBAL if index == len(self.groups) else Route.SINGLE
        return Mixture(route, self._one_hot(index), mixture.entropy, mixture.cold_start)

    def _mixture_of(self, weights: NDArray[np.float64]) -> Mixture:
        num, thresholds = len(self.groups), self.thresholds
        entropy = float(-(weights @ np.log(np.maximum(weights, 1e-300))))
        if weights.max() > thresholds.single_above:
            return Mixture(Route.SINGLE, self._one_hot(int(weights.argmax())), entropy, False)
        if entropy >= thresholds.global_from * math.log(num):
            return Mixture(Route.GLOBAL, self._one_hot(num), entropy, False)
        kept = self._largest(weights)
        return Mixture(Route.FUSED, np.append(kept, 0.0).astype(np.float32), entropy, False)

    def _largest(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Keeps the ``max_experts`` largest weights, the first of equal ones; sets others to 0."""
        if self.max_experts is None or self.max_experts >= len(weights):
            return weights
        kept = np.zeros_like(weights)
        largest = np.argsort(-weights, kind="stable")[: self.max_experts]
        kept[largest] = weights[largest] / weights[largest].sum()
        return kept

    def _one_hot(self, index: int) -> NDArray[np.float32]:
        row = np.zeros(len(self.groups) + 1, dtype=np.float32)
        row[index] = 1.0
        return row

    def to_bytes(self) -> bytes:
        """JSON with the numbers in full precision."""
        fields = {
            "groups": self.groups,
            "temperature": self.temperature,
            "max_experts": self.max_experts,
            "thresholds": self.fitted_thresholds and asdict(self.fitted_thresholds),
            "centre": self.centre.tolist(),
            "centroids": self.centroids.tolist(),
        }
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Router:
        """Raises RouterError."""
        try:
            fields: dict[str, Any] = json.loads(data)
            return cls(
                _names(fields["groups"]),
                np.array(fields["centre"], dtype=np.float64),
                np.array(fields["centroids"], dtype=np.float64),
                float(fields["temperature"]),
                _max_experts(fields.get("max_experts")),
                _thresholds(fields.get("thresholds")),
            )
        except RouterError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RouterError("router: unreadable") from error


def _names(groups: object) -> tuple[str, ...]:
    if not isinstance(groups, list) or not all(isinstance(name, str) for name in groups):
        raise RouterError("router: groups must be a list of names")
    return tuple(groups)


def _max_experts(value: object) -> int | None:
    """Older routers do not have the field."""
    if value is not None and type(value) is not int:
        raise RouterError("router: max_experts must be a whole number")
    return value


def _thresholds(fields: Mapping[str, float] | None) -> RouteThresholds | None:
    """Older routers do not have the field."""
    if fields is None:
        return None
    return RouteThresholds(float(fields["single_above"]), float(fields["global_from"]))


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) weights that sum to 1."""
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum())


def cosines(vector: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) cosines of a (dim,) vector with (n, dim) others; 0 for a zero vector."""
    return np.asarray(_units(others) @ _units(vector))


def directions(vectors: NDArray[np.floating], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """(…, dim) vectors without the mean user, of length 1: they are grouped and routed by these."""
    return _units(np.asarray(vectors, dtype=np.float64) - centre)


def _units(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(…, dim) vectors of length 1; zero for a zero vector."""
    norms = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    return np.asarray(vectors / np.maximum(norms, _TINY))


def group_of(
    vectors: NDArray[np.floating], centre: NDArray[np.float64], centroids: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(n,) index of the nearest centroid for (n, dim) vectors, by the router's cosine."""
    rows = np.asarray(vectors, dtype=np.float64)
    return np.array([cosines(row - centre, centroids - centre).argmax() for row in rows])

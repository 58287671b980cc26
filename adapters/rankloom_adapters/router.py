"""The router: a user's latent vector becomes a weight per expert, and a route.

ThinkRec (arXiv 2505.15091, equations 8 to 10): w = softmax(cos(u, c_n) / τ) over the
centroids c_n of the user groups; one expert where the weights are concentrated, the
global expert where they are averaged, else the weighted sum. Vectors and centroids
are centred by the mean user first, the same centring that formed the groups: the
latent vectors of one model share a large common part that would hide the rest.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

GLOBAL = "global"  # the name of the expert trained on everybody
DEFAULT_TEMPERATURE = 0.1
CONCENTRATED_BASE, CONCENTRATED_SHARE = 0.5, 0.6
AVERAGED_SHARE = 0.95
SMALLEST_NORM = 1e-6  # a user's vector below it says nothing
_TINY = 1e-12  # in place of the norm of a zero vector, so that its cosine is zero


class RouterError(ValueError):
    """The bytes are no router; the message says what is wrong with them."""


class Route(StrEnum):
    """Which way a mixture was made."""

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
    sum to 1. ``entropy``: of the softmax over the N groups, in nats. ``cold_start``: the
    vector said nothing, so the global expert answers.
    """

    route: Route
    weights: NDArray[np.float32]
    entropy: float
    cold_start: bool


@dataclass(frozen=True, eq=False)
class Router:
    """``groups``: N expert names. ``centre``: (dim,), ``centroids``: (N, dim) float64.

    ``max_experts``: how many a fused mixture may have, the largest weights, summing to 1
    again; beyond a quarter of the model's width in stacked ranks, experts cost more than
    the layers that they adapt. None: all.
    """

    groups: tuple[str, ...]
    centre: NDArray[np.float64]
    centroids: NDArray[np.float64]
    temperature: float = DEFAULT_TEMPERATURE
    max_experts: int | None = None

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
            raise RouterError(f"router: at most {self.max_experts} experts, one is the least")

    @property
    def dim(self) -> int:
        """Length of the vectors that the router reads."""
        return len(self.centre)

    @property
    def experts(self) -> tuple[str, ...]:
        """Names in the order of a mixture's weights."""
        return (*self.groups, GLOBAL)

    def route(self, vector: NDArray[np.floating]) -> Mixture:
        """The mixture of one user; zero, non-finite or misshapen vectors give the global one."""
        weights = self.weights(vector)
        return (
            self.global_mixture(cold_start=True) if weights is None else self._mixture_of(weights)
        )

    def weights(self, vector: NDArray[np.floating]) -> NDArray[np.float64] | None:
        """(N,) softmax over the groups before any threshold; None for such vectors."""
        similarity = self.similarity(vector)
        return None if similarity is None else softmax(similarity / self.temperature)

    def similarity(self, vector: NDArray[np.floating]) -> NDArray[np.float64] | None:
        """(N,) cosines of the centred vector and centroids; None where there are none."""
        own = np.asarray(vector, dtype=np.float64)
        if own.shape != self.centre.shape or not SMALLEST_NORM <= _norm(own) < math.inf:
            return None  # a number that is not finite makes the norm one
        return np.asarray(self._directions @ _units(own - self.centre))

    @cached_property
    def _directions(self) -> NDArray[np.float64]:
        """(N, dim) the centred centroids, each of length 1."""
        return _units(self.centroids - self.centre)

    def global_mixture(self, *, cold_start: bool = False) -> Mixture:
        """All weight on the global expert."""
        return Mixture(
            Route.GLOBAL, self._one_hot(len(self.groups)), math.log(len(self.groups)), cold_start
        )

    def largest(self, vector: NDArray[np.floating]) -> str:
        """Name of the expert that has the largest weight in the user's mixture."""
        return self.experts[int(self.route(vector).weights.argmax())]

    def top1(self, mixture: Mixture) -> Mixture:
        """The same mixture with all weight on its largest expert."""
        place = int(mixture.weights.argmax())
        route = Route.GLOBAL if place == len(self.groups) else Route.SINGLE
        return Mixture(route, self._one_hot(place), mixture.entropy, mixture.cold_start)

    def _mixture_of(self, weights: NDArray[np.float64]) -> Mixture:
        num = len(self.groups)
        entropy = float(-(weights @ np.log(np.maximum(weights, 1e-300))))
        if weights.max() > CONCENTRATED_BASE + CONCENTRATED_SHARE / num:
            return Mixture(Route.SINGLE, self._one_hot(int(weights.argmax())), entropy, False)
        if entropy >= AVERAGED_SHARE * math.log(num):
            return Mixture(Route.GLOBAL, self._one_hot(num), entropy, False)
        kept = self._largest(weights)
        return Mixture(Route.FUSED, np.append(kept, 0.0).astype(np.float32), entropy, False)

    def _largest(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ``max_experts`` largest weights, the first of equal ones; the others are 0."""
        if self.max_experts is None or self.max_experts >= len(weights):
            return weights
        kept = np.zeros_like(weights)
        places = np.argsort(-weights, kind="stable")[: self.max_experts]
        kept[places] = weights[places] / weights[places].sum()
        return kept

    def _one_hot(self, place: int) -> NDArray[np.float32]:
        row = np.zeros(len(self.groups) + 1, dtype=np.float32)
        row[place] = 1.0
        return row

    def to_bytes(self) -> bytes:
        """JSON with the full precision of the numbers."""
        fields = {
            "groups": self.groups,
            "temperature": self.temperature,
            "max_experts": self.max_experts,
            "centre": self.centre.tolist(),
            "centroids": self.centroids.tolist(),
        }
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Router:
        """Reads what ``to_bytes`` wrote. Raises GateError."""
        try:
            fields: dict[str, Any] = json.loads(data)
            return cls(
                _names(fields["groups"]),
                np.array(fields["centre"], dtype=np.float64),
                np.array(fields["centroids"], dtype=np.float64),
                float(fields["temperature"]),
                _most(fields.get("max_experts")),
            )
        except RouterError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RouterError("router: unreadable") from error


def _names(groups: object) -> tuple[str, ...]:
    if not isinstance(groups, list) or not all(isinstance(name, str) for name in groups):
        raise RouterError("router: groups must be a list of names")
    return tuple(groups)


def _most(value: object) -> int | None:
    """Absent in routers that were written before there was a bound."""
    if value is not None and type(value) is not int:
        raise RouterError("router: max_experts must be a whole number")
    return value


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) weights that sum to 1."""
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum())


def cosines(vector: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) cosine of a (dim,) vector with each of (n, dim) others; 0 for a zero vector."""
    return np.asarray(_units(others) @ _units(vector))


def _norm(vector: NDArray[np.float64]) -> float:
    return math.sqrt(float(vector @ vector))


def _units(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(…, dim) the same directions of length 1; zero for a zero vector."""
    norms = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    return np.asarray(vectors / np.maximum(norms, _TINY))


def group_of(
    vectors: NDArray[np.floating], centre: NDArray[np.float64], centroids: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(n,) nearest centroid of (n, dim) vectors, by the router's own measure."""
    rows = np.asarray(vectors, dtype=np.float64)
    return np.array([cosines(row - centre, centroids - centre).argmax() for row in rows])

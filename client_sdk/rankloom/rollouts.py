"""The values of rollouts: what a server's revisions are, and what a trial must keep to.

All are immutable, as those of `results` are; none of them is a wire type.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

# Gates that are breached below their bound; all others are above theirs.
_LEAST: Final = frozenset({"topk_overlap", "kendall"})


class RolloutState(StrEnum):
    """Where a revision stands."""

    STAGED = "staged"
    WARMED = "warmed"
    SHADOW = "shadow"
    CANARY = "canary"
    ACTIVE = "active"
    ROLLED_BACK = "rolled_back"
    RETIRED = "retired"
    QUARANTINED = "quarantined"
    UNKNOWN = "unknown"  # a state that only a newer server knows


ON_TRIAL: Final = frozenset({RolloutState.SHADOW, RolloutState.CANARY})


class GateOutcome(StrEnum):
    """What a gate, or all of them together, came to; NO_DATA is no pass."""

    PASSED = "passed"
    BREACHED = "breached"
    NO_DATA = "no_data"
    UNKNOWN = "unknown"  # an outcome that only a newer server knows


@dataclass(frozen=True, slots=True)
class Gate:
    """One measure of a trial.

    `group`: the users' largest expert; empty for all users.
    `samples`: how many users it goes by; with too few, `value` means nothing.
    """

    name: str
    group: str
    value: float
    bound: float
    samples: int
    outcome: GateOutcome

    @property
    def excess(self) -> float:
        """How far the value is beyond its bound, as a share of it; negative within."""
        beyond = self.bound - self.value if self.name in _LEAST else abs(self.value) - self.bound
        return beyond / (abs(self.bound) or 1.0)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a trial has come to up to now; the server rolls a breach back by itself.

    `reason`: one line for people.
    `num_trial`, `num_baseline`: rankings by the revision on trial, and by what it is
    compared with.
    """

    outcome: GateOutcome
    reason: str
    gates: tuple[Gate, ...]
    num_trial: int
    num_baseline: int

    @property
    def worst(self) -> Gate | None:
        """The gate nearest to a breach, or furthest into one; None while none has data."""
        known = [gate for gate in self.gates if gate.outcome is not GateOutcome.NO_DATA]
        return max(known, key=_badness, default=None)


def _badness(gate: Gate) -> tuple[bool, float]:
    return gate.outcome is GateOutcome.BREACHED, gate.excess


@dataclass(frozen=True, slots=True)
class Rollout:
    """One revision of a server.

    `percent`: of the users, while it is a canary; of the requests, while it is a shadow, 0 for all.
    `reason`: why it is where it is: what an operator gave, or what was found.
    `back_to`: the revision that a rollback returns to; 0 for none.
    `leases`: requests that it is answering.
    `loaded`: whether it is in memory.
    `judgement`: while it is on trial.
    """

    revision: int
    bundle_digest: str
    state: RolloutState
    percent: int
    reason: str
    back_to: int
    leases: int
    loaded: bool
    judgement: Judgement | None


@dataclass(frozen=True, slots=True)
class RevisionList:
    """All revisions of a server, by number, as they were at `time`.

    `active`: the one that answers all that no canary takes; 0 for none.
    `expert_bytes`, `resident_bytes`: memory of experts' slots, and of the process.
    """

    rollouts: tuple[Rollout, ...]
    active: int
    expert_bytes: int
    resident_bytes: int
    time: datetime

    @property
    def on_trial(self) -> int:
        """The revision that is a shadow or a canary; 0 for none."""
        return next((each.revision for each in self.rollouts if each.state in ON_TRIAL), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """What a trial must keep to; None leaves a bound to the server.

    `min_samples`: users of each side before anything is said, at least 2.
    `min_group_samples`: the same for a group of users to be judged alone.
    `min_topk_overlap`, `min_kendall`: how much a shadow's lists must agree with the active one's.
    `max_psi`, `max_ks`: how far distributions of scores may move.
    `max_tie_rate_increase`, `max_error_increase`: more of them that are allowed, as shares.
    `max_calibration_shift`, `max_agreement_shift`: of the mean probability, and of how far the
    experts follow the tree logit, up or down.
    `max_latency_ratio`: how much slower it may be.
    `top_k`: how many of a list's best are compared, in a shadow.
    `false_alarms`: the share of rollouts that change nothing and are breached all the same.
    `max_checks`: over how many checks half of them are spread; the later ones share the rest.
    """

    min_samples: int | None = None
    min_group_samples: int | None = None
    min_topk_overlap: float | None = None
    min_kendall: float | None = None
    max_psi: float | None = None
    max_ks: float | None = None
    max_tie_rate_increase: float | None = None
    max_calibration_shift: float | None = None
    max_error_increase: float | None = None
    max_latency_ratio: float | None = None
    top_k: int | None = None
    max_agreement_shift: float | None = None
    false_alarms: float | None = None
    max_checks: int | None = None

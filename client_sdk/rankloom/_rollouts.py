"""The values of rollouts: a server's revisions, and the gates of a trial.

All are immutable; none of them is a wire type.
"""

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Final


class RolloutState(StrEnum):
    """Where a revision is in its rollout."""

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
    """The result of one gate, or of all together. NO_DATA does not pass."""

    PASSED = "passed"
    BREACHED = "breached"
    NO_DATA = "no_data"
    UNKNOWN = "unknown"  # an outcome that only a newer server knows


@dataclass(frozen=True, slots=True)
class Gate:
    """One measure of a trial.

    `group`: the expert with the largest weight for these users; empty for all users.
    `samples`: how many users were measured; with NO_DATA they are too few, so ignore `value`.
    """

    name: str
    group: str
    value: float
    bound: float
    samples: int
    outcome: GateOutcome

    @property
    def excess(self) -> float:
        """How far the value is beyond its bound, as a share of the bound; negative within it."""
        is_minimum = self.name in _MINIMA
        beyond = self.bound - self.value if is_minimum else abs(self.value) - self.bound
        return beyond / (abs(self.bound) or 1.0)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of a trial so far; the server itself rolls back after a breach.

    `reason`: one line for people.
    `num_trial`: rankings by the revision on trial.
    `num_baseline`: rankings by the revision that it is compared with.
    """

    outcome: GateOutcome
    reason: str
    gates: tuple[Gate, ...]
    num_trial: int
    num_baseline: int

    @property
    def worst(self) -> Gate | None:
        """The gate nearest to a breach, or furthest into one; None if no gate has data."""
        known = [gate for gate in self.gates if gate.outcome is not GateOutcome.NO_DATA]
        return max(known, key=_badness, default=None)


def _badness(gate: Gate) -> tuple[bool, float]:
    return gate.outcome is GateOutcome.BREACHED, gate.excess


@dataclass(frozen=True, slots=True)
class Rollout:
    """One revision of a server.

    `percent`: a canary's share of the users; a shadow's share of the requests, 0 for all.
    `reason`: why it is in this state, as an operator or the server wrote it.
    `back_to`: the revision that a rollback returns to; 0 for none.
    `leases`: requests that it is answering now.
    `loaded`: whether it is in memory.
    `judgement`: the result of its trial so far; None if it is not on trial.
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
    """All revisions of a server at `time`, sorted by number.

    `active`: the revision of all users that no canary takes; 0 for none.
    `expert_bytes`: memory of the experts' slots.
    `resident_bytes`: memory of the server's process.
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
    """The bounds of a trial; None leaves a bound to the server.

    `min_samples`: users that each side needs before a gate is judged, at least 2.
    `min_group_samples`: the same for a group of users that is judged alone.
    `min_topk_overlap`, `min_kendall`: how well a shadow's rankings must agree with the active ones.
    `min_recall_overlap`: the share of retrieved items that a shadow must retrieve too.
    `max_psi`, `max_ks`: how far the distributions of scores may move.
    `max_tie_rate_increase`, `max_error_increase`: by how much these shares may grow.
    `max_calibration_shift`: how far the mean probability may move, up or down.
    `max_agreement_shift`: the same for how closely the experts follow the tree logit.
    `max_latency_ratio`: how much slower the revision may be.
    `top_k`: how many of a ranking's best items are compared, in a shadow.
    `false_alarms`: the share of harmless rollouts that a gate may breach by chance.
    `max_checks`: half of `false_alarms` is spread over this many checks; later ones share the rest.
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
    min_recall_overlap: float | None = None


# The gates whose bound is a minimum, by name; those of all others are maxima.
_MINIMA: Final = frozenset(
    field.name.removeprefix("min_") for field in fields(GateSpec) if field.name.startswith("min_")
)

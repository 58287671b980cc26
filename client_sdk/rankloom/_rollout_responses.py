"""Reads the answers of RolloutService; shared by the blocking and the asyncio client."""

from __future__ import annotations

from datetime import UTC
from typing import Final

from rankloom._responses import wire_names
from rankloom._rollouts import (
    Gate,
    GateOutcome,
    Judgement,
    RevisionList,
    Rollout,
    RolloutState,
)
from rankloom_proto.v1 import rollout_pb2

_STATES: Final = wire_names(rollout_pb2.RolloutState.items(), RolloutState, "ROLLOUT_STATE_")
_OUTCOMES: Final = wire_names(rollout_pb2.GateOutcome.items(), GateOutcome, "GATE_OUTCOME_")


def parse_rollout(rollout: rollout_pb2.Rollout) -> Rollout:
    """Return one revision; what only a newer server knows becomes UNKNOWN."""
    return Rollout(
        revision=rollout.revision,
        bundle_digest=rollout.bundle_digest,
        state=_STATES.get(rollout.state, RolloutState.UNKNOWN),
        percent=rollout.percent,
        reason=rollout.reason,
        back_to=rollout.back_to,
        leases=rollout.leases,
        loaded=rollout.loaded,
        judgement=_judgement(rollout.judgement) if rollout.HasField("judgement") else None,
    )


def parse_revisions(revisions: rollout_pb2.Revisions) -> RevisionList:
    """Return all revisions of a server."""
    return RevisionList(
        rollouts=tuple(parse_rollout(rollout) for rollout in revisions.rollouts),
        active=revisions.active,
        expert_bytes=revisions.expert_bytes,
        resident_bytes=revisions.resident_bytes,
        time=revisions.time.ToDatetime(UTC),
    )


def _judgement(judgement: rollout_pb2.Judgement) -> Judgement:
    return Judgement(
        outcome=_outcome(judgement.outcome),
        reason=judgement.reason,
        gates=tuple(_gate(gate) for gate in judgement.gates),
        num_trial=judgement.num_trial,
        num_baseline=judgement.num_baseline,
    )


def _gate(gate: rollout_pb2.Gate) -> Gate:
    return Gate(
        name=gate.name,
        group=gate.group,
        value=gate.value,
        bound=gate.bound,
        samples=gate.samples,
        outcome=_outcome(gate.outcome),
    )


def _outcome(number: int) -> GateOutcome:
    return _OUTCOMES.get(number, GateOutcome.UNKNOWN)

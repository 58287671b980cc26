"""Rollouts between the wire and the values of rankloom_adapters."""

from __future__ import annotations

import json
import math
from typing import Final, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from rankloom_adapters.rollout.gates import GateOutcome, GateResult
from rankloom_adapters.rollout.judge import TrialVerdict
from rankloom_adapters.rollout.states import MAX_REASON_CHARS, Rollout, RolloutCommand, Verb
from rankloom_adapters.rollout.trial import Trial, thresholds_of
from rankloom_adapters.split import Arm
from rankloom_features.wire import InvalidFieldError, check_chars, check_count
from rankloom_proto.v1 import rollout_pb2

MAX_KEY_CHARS = 128
MAX_URL_CHARS = 2048
_OUTCOMES: Final = {
    GateOutcome.PASSED: rollout_pb2.GATE_OUTCOME_PASSED,
    GateOutcome.BREACHED: rollout_pb2.GATE_OUTCOME_BREACHED,
    GateOutcome.NO_DATA: rollout_pb2.GATE_OUTCOME_NO_DATA,
}

_VERDICTS: Final = {
    TrialVerdict.PASS: rollout_pb2.GATE_OUTCOME_PASSED,
    TrialVerdict.BREACH: rollout_pb2.GATE_OUTCOME_BREACHED,
    TrialVerdict.NO_DATA: rollout_pb2.GATE_OUTCOME_NO_DATA,
}


class Keyed(Protocol):
    """The fields that every change has."""

    @property
    def expected_revision(self) -> int: ...

    @property
    def idempotency_key(self) -> str: ...


class Change(Keyed, Protocol):
    """A change of one revision."""

    @property
    def revision(self) -> int: ...


def key_of(message: Keyed) -> str:
    """The idempotency key. Raises InvalidFieldError."""
    key = message.idempotency_key
    check_chars("idempotency_key", key, 1, MAX_KEY_CHARS)
    if not key.isprintable():
        raise InvalidFieldError("idempotency_key", "must be printable")
    return key


def command_of(verb: Verb, message: Change) -> RolloutCommand:
    """The command of a change request. Raises InvalidFieldError."""
    if not message.revision:
        raise InvalidFieldError("revision", "is not given")
    reason = str(getattr(message, "reason", ""))
    check_chars("reason", reason, 0, MAX_REASON_CHARS)
    percent = int(getattr(message, "percent", 0))
    if verb is Verb.CANARY:
        check_count("percent", percent, 1, 99)
    elif verb is Verb.SHADOW:
        check_count("percent", percent, 0, 100)
    return RolloutCommand(
        verb,
        message.revision,
        message.expected_revision,
        key_of(message),
        percent=percent,
        reason=reason,
        gates=_gates_of(message),
        forced=bool(getattr(message, "without_gates", False)),
    )


def _gates_of(message: Change) -> str:
    """The given gate fields as JSON text; empty for none. Raises InvalidFieldError."""
    spec = getattr(message, "gates", None)
    given = {field.name: value for field, value in spec.ListFields()} if spec is not None else {}
    for name, value in given.items():
        if not math.isfinite(value):
            raise InvalidFieldError(f"gates.{name}", "must be a finite number")
    try:
        thresholds_of(json.dumps(given))
    except ValueError as error:
        raise InvalidFieldError("gates", str(error)) from error
    return json.dumps(given, sort_keys=True) if given else ""


def rollout_to_wire(
    rollout: Rollout, *, leases: int, loaded: bool, trial: Trial | None
) -> rollout_pb2.Rollout:
    """One revision's message."""
    return rollout_pb2.Rollout(
        revision=rollout.revision,
        bundle_digest=rollout.bundle_digest,
        state=rollout_pb2.RolloutState.Value(f"ROLLOUT_STATE_{rollout.state.name}"),
        percent=rollout.percent,
        reason=rollout.reason,
        back_to=rollout.back_to,
        leases=leases,
        loaded=loaded,
        judgement=None if trial is None else judgement_to_wire(trial),
    )


def judgement_to_wire(trial: Trial) -> rollout_pb2.Judgement:
    """The state of a trial's gates."""
    judgement = trial.judgement
    return rollout_pb2.Judgement(
        outcome=_VERDICTS[judgement.verdict],
        reason=judgement.reason,
        gates=[_gate_to_wire(gate) for gate in judgement.gates],
        num_trial=trial.num_seen[Arm.CANARY],
        num_baseline=trial.num_seen[Arm.BASELINE],
    )


def _gate_to_wire(gate: GateResult) -> rollout_pb2.Gate:
    return rollout_pb2.Gate(
        name=gate.name,
        group=gate.group,
        value=gate.value,
        bound=gate.bound,
        samples=gate.num_samples,
        outcome=_OUTCOMES[gate.outcome],
    )


def now() -> Timestamp:
    """Wall-clock time, for display only."""
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp

"""Revisions as tables for a terminal, or as JSON for a program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Final

from rankloom._cli.alignment import aligned, visible
from rankloom._rollouts import (
    Gate,
    GateOutcome,
    Judgement,
    RevisionList,
    Rollout,
    RolloutState,
)

_DIGEST_CHARS: Final = 12
_FRAME_LINES: Final = 4  # the head, an empty line, the memory, and the cursor's line
_OVER: Final = frozenset({RolloutState.ROLLED_BACK, RolloutState.RETIRED, RolloutState.QUARANTINED})
_HEAD: Final = (
    *("revision", "state", "share", "leases", "loaded"),
    *("bundle", "samples", "judgement", "finding"),
)
_GATES_HEAD: Final = ("gate", "group", "value", "bound", "users", "outcome")


def as_json(value: Rollout | RevisionList, indent: int | None = None) -> str:
    """Return one JSON object; its keys are the fields of the value."""
    return json.dumps(asdict(value), indent=indent, default=datetime.isoformat)


def change_as_text(rollout: Rollout) -> str:
    """Return the state of a revision in one line."""
    whose = "requests" if rollout.state is RolloutState.SHADOW else "users"
    share = f" of {rollout.percent} % of the {whose}" if rollout.percent else ""
    bundle = rollout.bundle_digest[:_DIGEST_CHARS]
    return f"revision {rollout.revision}: {rollout.state}{share}, bundle {bundle}"


def revisions_as_text(revisions: RevisionList, max_lines: int | None = None) -> str:
    """Return a table of the revisions. If `max_lines` is too few, leave out old ones."""
    rollouts = revisions.rollouts
    if max_lines is not None:
        rollouts = _fitting(rollouts, max(1, max_lines - _FRAME_LINES))
    canary = sum(each.percent for each in rollouts if each.state is RolloutState.CANARY)
    rows = [_HEAD, *(_row(each, canary) for each in rollouts)]
    return "\n".join([*aligned(rows, "><>><<<<<"), "", _memory(revisions)])


def rollout_as_text(rollout: Rollout) -> str:
    """Return everything about one revision, with every gate of its trial."""
    facts = "\n".join(aligned([(label, value) for label, value in _facts(rollout) if value], "<<"))
    if rollout.judgement is None or not rollout.judgement.gates:
        return facts
    rows = [_GATES_HEAD, *map(_gate_row, rollout.judgement.gates)]
    return "\n".join([facts, "", *aligned(rows, "<<>>><")])


def one_line(text: str) -> str:
    """Return text from outside as one line without control characters."""
    return visible(" ".join(text.split()))


def _fitting(rollouts: tuple[Rollout, ...], num: int) -> tuple[Rollout, ...]:
    """Return `num` rollouts: first those that can still serve, then the newest others."""
    by_importance = sorted(rollouts, key=lambda each: (each.state not in _OVER, each.revision))
    kept = {each.revision for each in by_importance[-num:]}
    return tuple(each for each in rollouts if each.revision in kept)


def _row(rollout: Rollout, canary_percent: int) -> tuple[str, ...]:
    judgement = rollout.judgement
    return (
        str(rollout.revision),
        rollout.state,
        _share(rollout, canary_percent),
        str(rollout.leases),
        _yes_or_no(rollout.loaded),
        rollout.bundle_digest[:_DIGEST_CHARS],
        f"{judgement.num_trial}/{judgement.num_baseline}" if judgement else "-",
        judgement.outcome if judgement else "-",
        one_line(_finding(judgement) if judgement else rollout.reason),
    )


def _share(rollout: Rollout, canary_percent: int) -> str:
    if rollout.state is RolloutState.ACTIVE:
        return f"{100 - canary_percent} %"
    return f"{rollout.percent} %" if rollout.state is RolloutState.CANARY else "-"


def _finding(judgement: Judgement) -> str:
    """Return the worst gate, or the reason why there is none yet."""
    worst = judgement.worst
    if worst is None or judgement.outcome is GateOutcome.NO_DATA:
        return judgement.reason
    return f"{_name(worst)} {worst.value:.4g}, bound {worst.bound:.4g}"


def _name(gate: Gate) -> str:
    return f"{gate.name} of {gate.group}" if gate.group else gate.name


def _memory(revisions: RevisionList) -> str:
    experts, process = _mib(revisions.expert_bytes), _mib(revisions.resident_bytes)
    return f"memory: experts {experts}, process {process}; at {revisions.time:%H:%M:%S} UTC"


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):.1f} MiB"


def _facts(rollout: Rollout) -> Iterable[tuple[str, str]]:
    share = f" of {rollout.percent} % of the users" if rollout.percent else ""
    yield "revision", str(rollout.revision)
    yield "state", f"{rollout.state}{share}"
    yield "bundle", rollout.bundle_digest
    yield "reason", one_line(rollout.reason)
    yield "back to", str(rollout.back_to or "")
    yield "leases", str(rollout.leases)
    yield "loaded", _yes_or_no(rollout.loaded)
    yield from _judged(rollout.judgement)


def _judged(judgement: Judgement | None) -> Iterator[tuple[str, str]]:
    if judgement is None:
        return
    yield "samples", f"{judgement.num_trial} on trial, {judgement.num_baseline} compared with"
    yield "judgement", f"{judgement.outcome}: {one_line(judgement.reason)}"


def _gate_row(gate: Gate) -> tuple[str, ...]:
    return (
        one_line(gate.name),
        one_line(gate.group) or "-",
        "-" if gate.outcome is GateOutcome.NO_DATA else f"{gate.value:.4g}",
        f"{gate.bound:.4g}",
        str(gate.samples),
        gate.outcome,
    )


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"

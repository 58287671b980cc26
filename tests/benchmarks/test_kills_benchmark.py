"""Nothing lost means something only if a loss would have been found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.common.results import BenchmarkResult, RunFacts
from benchmarks.common.small_bundle import with_strong_experts
from benchmarks.common.workload import ModelShape
from benchmarks.kills.report import figures, summary
from benchmarks.kills.study import AcknowledgedState, faults, run_kill_study

from rankloom_proto.v1.rollout_pb2 import Revisions, Rollout, RolloutState


def test_two_kills_end_to_end(bundle_folder: Path, tmp_path: Path) -> None:
    shape = ModelShape("tiny", 32, 2, 4, 2, 64, 4096, tied=True)
    bundle = with_strong_experts(bundle_folder, tmp_path, shape)
    found = run_kill_study(bundle, tmp_path, 2)
    assert len(found.seconds) == 2
    assert found.lost == []
    written = json.loads(json.dumps(figures(found)))
    assert written["kills"] == 2
    result = BenchmarkResult(
        room="kills", facts=RunFacts.now(), dtype="float32", settings={}, figures=written
    )
    assert "| kills | 2 | |" in summary(result)


def there(active: int, **states: str) -> Revisions:
    rollouts = [
        Rollout(revision=int(name[1:]), state=RolloutState.Value(f"ROLLOUT_STATE_{state}"))
        for name, state in states.items()
    ]
    return Revisions(active=active, rollouts=rollouts)


@pytest.mark.parametrize(
    ("answered_by", "found", "wrong"),
    [
        (2, there(2, g1="RETIRED", g2="ACTIVE"), []),
        (
            3,
            there(3, g1="RETIRED", g2="WARMED", g3="ACTIVE"),
            [],
        ),  # promoted; the answer was lost
        (2, there(2, g2="ACTIVE"), []),  # revisions retired long ago are not listed
        (4, there(4, g4="ACTIVE"), ["revision 4 is active, 2 was acknowledged"]),
        (3, there(2, g2="ACTIVE"), ["revision 3 answers, 2 is active"]),
        (2, there(2, g2="ACTIVE", g3="ACTIVE"), ["2 revisions are active"]),
        (2, there(2, g1="WARMED", g2="ACTIVE"), ["revisions [1] are no longer retired"]),
    ],
)
def test_what_was_lost_is_reported(
    answered_by: int,
    found: Revisions,
    wrong: list[str],
) -> None:
    truth = AcknowledgedState(active=2, pending=3, retired={1})
    assert faults(truth, answered_by, found) == wrong

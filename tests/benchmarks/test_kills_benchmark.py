"""Nothing lost means something only if a loss would have been found."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rankloom_proto.v1.rollout_pb2 import Revisions, Rollout, RolloutState

FOLDER = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture(scope="module")
def kills() -> Iterator[Any]:
    """The benchmark's modules; its folder is on the path as long as they are used."""
    sys.path.append(FOLDER)
    try:
        yield SimpleNamespace(
            study=importlib.import_module("kills_study"),
            bundle=importlib.import_module("swap_bundle"),
            Shape=importlib.import_module("workload").Shape,
        )
    finally:
        sys.path.remove(FOLDER)


def test_two_kills_end_to_end(
    kills: Any,  # noqa: ANN401
    bundle_folder: Path,
    tmp_path: Path,
) -> None:
    shape = kills.Shape("tiny", 32, 2, 4, 2, 64, 4096, tied=True)
    bundle = kills.bundle.swappable(bundle_folder, tmp_path, shape)
    found = kills.study.study(bundle, tmp_path, 2)
    assert len(found.seconds) == 2
    assert found.lost == []
    assert json.loads(json.dumps(kills.study.figures(found)))["kills"] == 2
    assert "| kills | 2 | |" in kills.study.table(found)


def there(active: int, **states: str) -> Revisions:
    rollouts = [
        Rollout(revision=int(name[1:]), state=RolloutState.Value(f"ROLLOUT_STATE_{state}"))
        for name, state in states.items()
    ]
    return Revisions(active=active, rollouts=rollouts)


@pytest.mark.parametrize(
    ("answered_by", "found", "told"),
    [
        (2, there(2, g1="RETIRED", g2="ACTIVE"), []),
        (3, there(3, g1="RETIRED", g2="WARMED", g3="ACTIVE"), []),  # written, its answer lost
        (2, there(2, g2="ACTIVE"), []),  # what was retired long ago is no longer listed
        (4, there(4, g4="ACTIVE"), ["4 is active, 2 was acknowledged"]),
        (3, there(2, g2="ACTIVE"), ["3 answers, 2 is active"]),
        (2, there(2, g2="ACTIVE", g3="ACTIVE"), ["2 revisions are active"]),
        (2, there(2, g1="WARMED", g2="ACTIVE"), ["[1] are not retired any more"]),
    ],
)
def test_what_was_lost_is_told(
    answered_by: int,
    found: Revisions,
    told: list[str],
    kills: Any,  # noqa: ANN401
) -> None:
    truth = kills.study.Truth(active=2, asked=3, retired={1})
    assert kills.study.faults(truth, answered_by, found) == told

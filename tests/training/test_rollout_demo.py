"""The demonstration's rollout, on a bundle of a small log."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from rankloom_training.rollout_demo import DemoTraffic, roll_back, roll_out, served

COUNTS = re.compile(r"│ (\w[^│]*?) +│ (\w+) +│ (\d+) +│ (\d+) +│ (\d+) +│ (\d+) +│")


def test_a_bundle_is_rolled_out_and_back_without_a_failed_call(
    bundle_folder: Path, served_folder: Path
) -> None:
    page = Console(file=io.StringIO(), record=True, width=120)
    with served(bundle_folder) as server:
        assert roll_out(server, served_folder, page) == 2
        assert server.operator.list().active == 2
        roll_back(server, 2, page)
    rows = COUNTS.findall(page.export_text())
    states = [row[1] for row in rows]
    assert states == ["warmed", "canary", "canary", "active", "rolled_back"]
    counts = [[int(each) for each in row[2:]] for row in rows]
    assert counts[0][1] == 0 < counts[0][0]
    assert counts[1][1] > 0, "the canary answers"
    assert counts[3][1] > counts[2][1], "the promoted revision answers"
    assert counts[4][0] > 0, "the first revision answers again"
    assert {tuple(row[2:]) for row in counts} == {(0, 0)}, "failed, stale"


def test_a_call_is_stale_only_under_a_rule_that_outlasts_it() -> None:
    traffic = DemoTraffic(num_users=1, serving=1)
    traffic.count(1, 2)
    assert traffic.num_stale == 1, "the first revision had to answer"
    traffic.serving = 0  # a canary starts while calls are on their way
    traffic.count(1, 2)
    traffic.serving = 2  # and is promoted
    traffic.count(0, 1)
    traffic.count(1, 1)
    assert traffic.num_stale == 1
    traffic.count(2, None)
    assert (traffic.num_failed, traffic.num_stale) == (1, 1)
    traffic.count(2, 1)
    assert traffic.num_stale == 2, "the promoted revision had to answer"

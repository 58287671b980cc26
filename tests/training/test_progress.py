"""Progress: bars in a terminal, a line now and then elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rankloom_training import progress
from rankloom_training.progress import Progress


def test_without_a_terminal_a_long_stage_prints_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with Progress().stage("trees") as stage:
        stage.step(1, 4)
        stage.step(3, 4)
        stage.note("AUC 0.7")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].split() == ["trees", "75", "%", "less", "than", "a", "minute", "left"]
    assert lines[1].split()[2:] == ["s", "AUC", "0.7"]


def test_the_time_left_is_that_of_the_part_which_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with Progress().stage("groups") as stage:
        for done in (1, 2, 3, 4):
            stage.step(done, 4)
        stage.step(1, 10)
        stage.step(2, 10)
    lines = capsys.readouterr().err.splitlines()
    assert "about 2 min left" in lines[0]
    assert "about 8 min left" in lines[-2]

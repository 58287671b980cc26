"""A killed training run resumes and gives the same bundle as an undisturbed run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import small_data
from rankloom_adapters.bundle import open_bundle
from rankloom_training.options import TrainOptions
from rankloom_training.progress import Progress
from rankloom_training.train import OutputError, train_bundle
from small_data import train_small


def test_a_killed_run_resumes_to_the_same_bundle(
    small_data: Path, bundle_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, work = tmp_path / "resumed", tmp_path / "resumed.work"
    process = _start(small_data, out)
    _wait_for(work / "base")
    process.kill()
    process.wait()
    assert not out.exists()
    digest = train_small(small_data, out)
    shown = capfd.readouterr().err
    assert shown.count("kept from an earlier run") >= 3
    assert digest == open_bundle(out).digest == open_bundle(bundle_folder).digest
    assert not work.exists()


def test_a_finished_bundle_checks_and_says_how_it_was_made(bundle_folder: Path) -> None:
    bundle = open_bundle(bundle_folder)
    bundle.check()
    assert bundle.metadata["protocol"] == "p1"
    assert bundle.metadata["collaborative"] == "mf"
    assert bundle.experts() == ("global", "group-0", "group-1")


def test_an_existing_output_is_refused(small_data: Path, bundle_folder: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        train_bundle(small_data, bundle_folder, TrainOptions(), Progress())


def _start(data: Path, out: Path) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-W", "ignore", small_data.__file__, str(data), str(out)]
    return subprocess.Popen(program, stderr=subprocess.DEVNULL)


def _wait_for(path: Path, limit_s: float = 120.0) -> None:
    end = time.monotonic() + limit_s
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} was not made in {limit_s} s"
        time.sleep(0.05)

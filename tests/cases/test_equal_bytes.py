"""Equal trainings write equal bytes: killed or not, and whatever order hashes give to sets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import small_data as small
from rankloom_adapters.bundle import open_bundle

LIMIT_S = 120.0


def other_hashes() -> dict[str, str]:
    """The environment of a process in which sets have another order than in this one."""
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    path = [str(Path(small.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(path)}
    hashes = [sys.executable, "-c", "print(hash('rankloom'))"]
    assert int(subprocess.check_output(hashes, env=environment)) != hash("rankloom")
    return environment


def killed_after(stage: Path, command: list[str], environment: dict[str, str]) -> None:
    """Runs a training until the stage is finished."""
    process, end = subprocess.Popen(command, env=environment), time.monotonic() + LIMIT_S
    try:
        while not stage.exists():
            assert process.poll() is None, f"it ended with status {process.returncode}"
            assert time.monotonic() < end, f"{stage.name} was not made in {LIMIT_S} s"
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()


def test_a_training_that_was_killed_in_another_process_gives_the_same_digest(
    small_data: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    """The other bundle was trained in this process, whose hashes are others."""
    out, work = tmp_path / "again", tmp_path / "again.work"
    command = [sys.executable, "-W", "ignore", small.__file__, str(small_data), str(out)]
    environment = other_hashes()
    killed_after(work / "base", command, environment)
    assert not out.exists()
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stderr.count("kept from an earlier run") >= 3
    assert open_bundle(out).digest == open_bundle(bundle_folder).digest
    assert not work.exists()
